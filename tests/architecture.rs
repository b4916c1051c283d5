//! The house: imports run one way, and files stay small. ARCHITECTURE.md says why.

use std::path::{Path, PathBuf};

/// The library's modules, from the bottom up. Each may import those before it and nothing after it.
const ORDER: [&str; 16] = [
    "error", "rng", "shapes", "text", "disk", "data", "net", "config", "backend", "exchange", "engine", "run", "train",
    "show", "cli", "commands",
];

/// Lines of a file; more is two purposes.
const FILE_LINES: usize = 400;

/// Lines of a function; more is not seen at once.
const FUNCTION_LINES: usize = 60;

/// Lines of src; what is added beyond them makes place first.
const SOURCE_LINES: usize = 21_000;

/// Every Rust file under a folder, with its text.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    fn add(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                add(&entry, found);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&entry).unwrap();
                found.push((entry, text));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    add(&root.join(folder), &mut found);
    assert!(!found.is_empty(), "{folder} has sources");
    found
}

/// The module that a file belongs to: `net` for src/net/plan.rs.
fn module(path: &Path) -> String {
    let below = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    below.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// Modules named after `crate::`, wherever they stand.
fn imports(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().flat_map(|(number, line)| {
        let code = line.split("//").next().unwrap_or_default();
        code.split("crate::").skip(1).map(move |rest| {
            (number + 1, rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default())
        })
    })
}

/// Imports that run back up, and modules that have no place in the order.
fn climbs(files: &[(PathBuf, String)]) -> Vec<String> {
    let rank = |module: &str| ORDER.iter().position(|name| *name == module);
    let mut climbs = Vec::new();
    for (path, text) in files {
        let from = module(path);
        let is_top = ["lib", "main"].contains(&from.as_str());
        for (line, to) in imports(text) {
            if let Some(to_rank) = rank(to) {
                let from_rank = if is_top { Some(ORDER.len()) } else { rank(&from) };
                if from_rank.is_none_or(|from_rank| to_rank > from_rank) {
                    climbs.push(format!("{}:{line}: {from} imports {to}", path.display()));
                }
            }
        }
        if !is_top && rank(&from).is_none() {
            climbs.push(format!("{}: {from} has no place in the order", path.display()));
        }
    }
    climbs
}

#[test]
fn imports_run_one_way() {
    let found = climbs(&sources("src"));
    assert!(found.is_empty(), "imports run back up:\n{}", found.join("\n"));
}

#[test]
fn an_import_that_runs_back_up_is_found() {
    let file = |name: &str, text: &str| (Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(name), text.to_owned());
    let wrong = [
        file("net/plan.rs", "use crate::engine::pair::Pair;"),
        file("backend/cuda/watch.rs", "fn f() { crate::show::logs::say(\"\") }"),
        file("unknown/mod.rs", ""),
        file("cli/mod.rs", "use crate::commands::run;"),
    ];
    let right = file("engine/mod.rs", "use crate::net::plan::Plan; // not crate::show");
    assert_eq!(climbs(&[&wrong[..], &[right]].concat()).len(), wrong.len());
}

/// Name and number of lines of each function. In rustfmt's layout nothing else of it stands as far left as its head,
/// but the end of the head and of the function.
fn functions(text: &str) -> Vec<(&str, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let qualifiers = ["pub", "const", "unsafe", "extern", "\"C\"", "\"system\""];
    let mut found = Vec::new();
    for (first, line) in lines.iter().enumerate() {
        let Some((before, name)) = line.split_once("fn ") else { continue };
        let is_head =
            before.split_whitespace().all(|word| qualifiers.contains(&word.split('(').next().unwrap_or_default()));
        let is_end =
            |end: &&str| indent(end) == indent(line) && !end.is_empty() && (end.ends_with('}') || end.ends_with(';'));
        if is_head && let Some(last) = lines[first..].iter().position(is_end) {
            found.push((name.split(['(', '<']).next().unwrap_or_default(), last + 1));
        }
    }
    found
}

#[test]
fn functions_are_small() {
    let text = "fn a() {}\npub(super) fn b<T>(\n    x: T,\n) -> T {\n    let f = |y| {\n        y\n    };\n    f(x)\n}\n    fn c();\n";
    assert_eq!(functions(text), [("a", 1), ("b", 8), ("c", 1)]);
    let mut count = 0;
    for (path, text) in ["src", "crates", "examples"].into_iter().flat_map(sources) {
        for (name, lines) in functions(&text) {
            assert!(lines <= FUNCTION_LINES, "{} {name} has {lines} lines, {FUNCTION_LINES} at most", path.display());
            count += 1;
        }
    }
    eprintln!("{count} functions");
    assert!(count > 1000, "{count} functions were found");
}

#[test]
fn files_are_small() {
    let mut lines_of_all = 0;
    for folder in ["src", "crates", "tests", "benches", "examples"] {
        let mut lines_of_folder = 0;
        for (path, text) in sources(folder) {
            let lines = text.lines().count();
            assert!(lines <= FILE_LINES, "{} has {lines} lines, {FILE_LINES} at most", path.display());
            lines_of_folder += lines;
        }
        assert!(
            folder != "src" || lines_of_folder <= SOURCE_LINES,
            "src has {lines_of_folder} lines, {SOURCE_LINES} at most"
        );
        eprintln!("{folder}: {lines_of_folder} lines of Rust");
        lines_of_all += lines_of_folder;
    }
    eprintln!("in all: {lines_of_all}");
}
