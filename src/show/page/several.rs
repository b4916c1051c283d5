//! Several runs on one page: their numbers, where their recipes differ, their curves over each other.

use std::collections::BTreeMap;

use super::curves;
use super::html::{escape, table};
use super::{Page, filters, state_chip};
use crate::run::reader::Run;
use crate::text::{duration, percent, short};

/// The page.
pub fn page(runs: &[Run]) -> String {
    let mut page = Page::new(&format!("{} runs", runs.len()));
    let names: Vec<String> = runs.iter().map(|run| escape(&run.name)).collect();
    page.header(&format!("<h1>{} runs</h1><p class=\"sub\">{}</p>", runs.len(), names.join(" · ")));
    page.section("numbers", "Numbers", &numbers(runs));
    page.section("curves", "Curves", &curves::of_several(runs));
    page.section("recipes", "Where the recipes differ", &differences(runs));
    page.section("filters", "First layer", &filters::of_several(runs));
    page.finish()
}

fn swatch(number: usize, run: &Run) -> String {
    format!("<i class=\"swatch {}\"></i>{}", curves::run_class(number), escape(&run.name))
}

fn numbers(runs: &[Run]) -> String {
    let number = |value: Option<f64>| value.filter(|v| v.is_finite()).map_or_else(|| "–".into(), short);
    let rows: Vec<Vec<String>> = runs
        .iter()
        .enumerate()
        .map(|(position, run)| {
            let eval = run.evals.last();
            let least = run.evals.iter().map(|eval| eval.top1_error).fold(f64::NAN, f64::min);
            let of = |total: Option<u64>| total.map_or_else(String::new, |total| format!(" of {total}"));
            vec![
                swatch(position, run),
                state_chip(run.state),
                eval.map_or_else(|| "–".into(), |eval| percent(eval.top1_error)),
                percent(least),
                eval.map_or_else(|| "–".into(), |eval| percent(eval.top5_error)),
                number(eval.map(|eval| eval.loss)),
                number(run.training_loss()),
                number(run.images_per_s()),
                format!("{}{}", run.epoch(), of(run.epochs())),
                format!("{}{}", run.step(), of(run.total_steps())),
                run.took_s().map_or_else(|| "–".into(), duration),
            ]
        })
        .collect();
    let heads = [
        "run",
        "state",
        "held-out error",
        "its least",
        "top-5",
        "held-out loss",
        "training loss",
        "images/s",
        "epoch",
        "step",
        "took",
    ];
    table(&heads, &rows, true)
}

/// The recipes' values that are not the same in all runs.
fn differences(runs: &[Run]) -> String {
    let recipes: Vec<BTreeMap<String, String>> = runs.iter().map(|run| flattened(&run.recipe)).collect();
    let mut keys: Vec<&String> = recipes.iter().flat_map(BTreeMap::keys).collect();
    keys.sort();
    keys.dedup();
    let differs = |key: &&&String| recipes.iter().any(|recipe| recipe.get(**key) != recipes[0].get(**key));
    let cell = |recipe: &BTreeMap<String, String>, key: &String| {
        recipe.get(key).map_or_else(|| "–".into(), |value| format!("<code>{}</code>", escape(value)))
    };
    let row = |key: &&String| {
        let cells = recipes.iter().map(|recipe| cell(recipe, key));
        [format!("<code>{}</code>", escape(key))].into_iter().chain(cells).collect()
    };
    let rows: Vec<Vec<String>> = keys.iter().filter(differs).map(row).collect();
    if rows.is_empty() {
        return "<p>Nowhere: all values are the same.</p>".into();
    }
    let heads: Vec<&str> = ["value"].into_iter().chain(runs.iter().map(|run| run.name.as_str())).collect();
    table(&heads, &rows, false)
}

/// A recipe's values by dotted key; none where it cannot be read.
fn flattened(recipe: &str) -> BTreeMap<String, String> {
    fn add(prefix: &str, table: &toml::Table, to: &mut BTreeMap<String, String>) {
        for (key, value) in table {
            let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match value {
                toml::Value::Table(table) => add(&key, table, to),
                value => drop(to.insert(key, value.to_string())),
            }
        }
    }
    let mut values = BTreeMap::new();
    if let Ok(table) = recipe.parse::<toml::Table>() {
        add("", &table, &mut values);
    }
    values
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
