//! What runs say about claims of the paper, and the runs themselves.

use maud::{Markup, html};

use super::{several, table};
use crate::run::reader::Run;

/// What was found about a claim.
pub struct Finding {
    /// The claim.
    pub title: String,
    /// What was measured, with its unit.
    pub measure: String,
    /// Recipe, values over seeds, comparison with the first row, the published one, verdict.
    pub rows: Vec<[String; 5]>,
}

/// The page about claims.
pub fn page(findings: &[Finding], runs: &[Run]) -> String {
    let header = html! {
        h1 { "Claims of the paper" }
        p.sub { "A verdict compares signs alone: data, network and length are others than the paper's." }
    };
    let found = html! { @for finding in findings { (section(finding)) } };
    let mut sections = vec![("claims", "What was found", found)];
    if !runs.is_empty() {
        sections.extend(several::sections(runs));
    }
    super::page("Claims of the paper", &header, &sections)
}

fn section(finding: &Finding) -> Markup {
    let heads = ["recipe", &finding.measure, "beside the first", "published", "what can be said"];
    let rows = finding.rows.iter().map(|row| row.iter().map(|cell| html! { (cell) }));
    html! { h3 { (finding.title) } (table("", &heads, rows)) }
}
