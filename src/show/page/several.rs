//! Several runs on one page: their numbers, where their recipes differ, their curves over each other.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::{Section, curves, filters, state_chip, table};
use crate::config;
use crate::run::reader::Run;
use crate::text::{duration, percent, short};

/// The page about several runs.
pub fn page(runs: &[Run]) -> String {
    let title = format!("{} runs", runs.len());
    let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    let header = html! { h1 { (title) } p.sub { (names.join(" · ")) } };
    super::page(&title, &header, &sections(runs))
}

/// What the page says.
pub(super) fn sections(runs: &[Run]) -> [Section; 4] {
    [
        ("numbers", "Numbers", numbers(runs)),
        ("curves", "Curves", curves::of_several(runs)),
        ("recipes", "Where the recipes differ", differences(runs)),
        ("filters", "First layer", filters::of_several(runs)),
    ]
}

fn numbers(runs: &[Run]) -> Markup {
    let number = |value: Option<f64>| value.filter(|v| v.is_finite()).map_or_else(|| "–".into(), short);
    let of =
        |done: u64, total: Option<u64>| total.map_or_else(|| done.to_string(), |total| format!("{done} of {total}"));
    let values = |run: &Run| {
        let eval = run.evals.last();
        let least = run.evals.iter().map(|eval| eval.top1_error).fold(f64::NAN, f64::min);
        [
            ("held-out error", percent(eval.map_or(f64::NAN, |eval| eval.top1_error))),
            ("its least", percent(least)),
            ("top-5", percent(eval.map_or(f64::NAN, |eval| eval.top5_error))),
            ("held-out loss", number(eval.map(|eval| eval.loss))),
            ("training loss", number(run.training_loss())),
            ("images/s", number(run.images_per_s())),
            ("epoch", of(run.epoch(), run.epochs())),
            ("step", of(run.step(), run.total_steps())),
            ("took", run.took_s().map_or_else(|| "–".into(), duration)),
        ]
    };
    let heads = runs.first().into_iter().flat_map(|run| values(run).map(|(head, _)| head));
    let heads: Vec<&str> = ["run", "state"].into_iter().chain(heads).collect();
    let row = |(position, run): (usize, &Run)| {
        let name = html! { i class={ "swatch " (curves::run_class(position)) } {} (run.name) };
        [name, state_chip(run.state)].into_iter().chain(values(run).map(|(_, value)| html! { (value) }))
    };
    table("numbers", &heads, runs.iter().enumerate().map(row))
}

/// The recipes' values that are not the same in all runs.
fn differences(runs: &[Run]) -> Markup {
    let recipes: Vec<BTreeMap<String, String>> = runs.iter().map(|run| flattened(&run.recipe)).collect();
    let mut keys: Vec<&String> = recipes.iter().flat_map(BTreeMap::keys).collect();
    keys.sort();
    keys.dedup();
    keys.retain(|key| recipes.iter().any(|recipe| recipe.get(*key) != recipes[0].get(*key)));
    if keys.is_empty() {
        return html! { p { "Nowhere: all values are the same." } };
    }
    let code = |value: Option<&String>| html! { @if let Some(value) = value { code { (value) } } @else { "–" } };
    let row = |key| [code(Some(key))].into_iter().chain(recipes.iter().map(move |recipe| code(recipe.get(key))));
    let heads: Vec<&str> = ["value"].into_iter().chain(runs.iter().map(|run| run.name.as_str())).collect();
    table("", &heads, keys.into_iter().map(row))
}

/// A recipe's values by dotted key; none where it cannot be read.
fn flattened(recipe: &str) -> BTreeMap<String, String> {
    recipe.parse().map(|table| config::flattened(&table)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_are_flattened_to_dotted_keys() {
        let values = flattened("name = \"a\"\n[optimizer]\nlr = 0.01\n[net]\nconv = [1, 2]\n");
        let expected = [("name", "\"a\""), ("net.conv", "[1, 2]"), ("optimizer.lr", "0.01")];
        assert_eq!(values, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        assert!(flattened("[").is_empty());
    }
}
