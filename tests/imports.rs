//! The shape of the code: which module may know which, and how long a file may be.
//!
//! Imports go one way. The edge that is absent is part of the design, so each one that is there
//! stands in a table here with its reason; a new one is a decision and not an accident.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules from the bottom up, and what each may import of the others.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("reading", &[]),
    ("metrics", &["reading"]),
    ("failpoint", &[]),
    ("energy", &["reading"]),
    // What a sync took, and how many readings it made durable, is counted where it happens.
    ("wal", &["reading", "metrics", "failpoint"]),
    ("ingest", &["reading", "metrics", "wal"]),
    ("postgres", &["reading"]),
    (
        "writer",
        &["reading", "metrics", "failpoint", "wal", "postgres"],
    ),
    // The way from the database to the arithmetic: it fetches what a question asks for.
    ("analytics", &["reading", "postgres", "energy"]),
    // Rolls up what is stored, with the arithmetic that answers are made with.
    ("rollups", &["reading", "metrics", "postgres", "energy"]),
    ("alerts", &["reading", "postgres", "energy", "analytics"]),
    // It is handed the text of a scrape.
    ("otlp", &[]),
    // A key carries what its requests hold of the memory for readings.
    ("auth", &["reading", "metrics", "ingest"]),
    (
        "http",
        &[
            "reading",
            "metrics",
            "energy",
            "wal",
            "ingest",
            "analytics",
            // The kinds of alerts that there are.
            "alerts",
            "auth",
        ],
    ),
    // A flag's bounds are those of the part that it is for.
    (
        "config",
        &[
            "failpoint",
            "energy",
            "wal",
            "ingest",
            "postgres",
            "analytics",
            "alerts",
            "auth",
            "http",
            "otlp",
        ],
    ),
    (
        "app",
        &[
            "reading",
            "metrics",
            "failpoint",
            "energy",
            "wal",
            "ingest",
            "postgres",
            "writer",
            "analytics",
            "rollups",
            "alerts",
            "auth",
            "http",
            "otlp",
            "config",
        ],
    ),
    (
        "cli",
        &[
            "reading", "wal", "postgres", "writer", "auth", "config", "app",
        ],
    ),
];

/// Crates that a module may not name, and why.
const MAY_NOT_NAME: &[(&str, &[&str])] = &[
    ("reading", HTTP_AND_SQL),
    ("metrics", HTTP_AND_SQL),
    ("energy", HTTP_AND_SQL),
    ("wal", HTTP_AND_SQL),
    ("ingest", HTTP_AND_SQL),
    ("postgres", HTTP),
    ("writer", HTTP),
    ("analytics", HTTP),
    ("rollups", HTTP),
];
/// Files longer than this hold more than one thing.
const LINES_MAX: usize = 500;

const HTTP: &[&str] = &["hyper", "hyper_util", "http_body_util"];
const HTTP_AND_SQL: &[&str] = &[
    "hyper",
    "hyper_util",
    "http_body_util",
    "tokio_postgres",
    "postgres_types",
    "deadpool_postgres",
];

#[test]
fn imports_go_one_way() {
    for (place, (module, imports)) in MAY_IMPORT.iter().enumerate() {
        for import in *imports {
            assert!(
                MAY_IMPORT[..place].iter().any(|(below, _)| below == import),
                "the table lets {module} import {import}, which does not stand below it"
            );
        }
    }
    let mut wrong = BTreeSet::new();
    for file in product_files() {
        let module = module_of(&file);
        let (_, allowed) = MAY_IMPORT
            .iter()
            .find(|(name, _)| *name == module)
            .unwrap_or_else(|| panic!("the module {module} does not stand in the table"));
        let inner = file.components().count() - 2;
        let depth = inner + usize::from(!is_root_of_its_directory(&file));
        for import in imports(&code_of(&file), depth) {
            if import != module && !allowed.contains(&import.as_str()) {
                wrong.insert(format!("{}: {module} → {import}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "new edges:\n{}", join(&wrong));
}

#[test]
fn what_is_to_know_nothing_of_http_or_sql_names_no_crate_of_it() {
    let mut wrong = BTreeSet::new();
    for file in product_files() {
        let module = module_of(&file);
        let rules = MAY_NOT_NAME.iter().filter(|(name, _)| *name == module);
        let code = code_of(&file);
        for name in rules.flat_map(|(_, names)| *names) {
            if words(&code).any(|(word, rest)| word == *name && rest.starts_with("::")) {
                wrong.insert(format!("{}: {module} names {name}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", join(&wrong));
}

#[test]
fn metrics_are_made_in_one_file_and_lints_are_expected_and_never_allowed() {
    let mut wrong = BTreeSet::new();
    for file in product_files() {
        let code = code_of(&file);
        let makes = ["counter!(", "gauge!(", "histogram!("];
        if !file.ends_with("metrics.rs") && makes.iter().any(|make| code.contains(make)) {
            wrong.insert(format!("{}: a metric outside metrics.rs", file.display()));
        }
        if code.contains("#[allow(") || code.contains("#![allow(") {
            wrong.insert(format!("{}: allow in place of expect", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", join(&wrong));
}

#[test]
fn no_file_is_longer_than_500_lines() {
    let mut wrong = BTreeSet::new();
    for top in ["src", "tests", "benches", "loadtest"] {
        for file in rust_files(Path::new(top)) {
            let lines = fs::read_to_string(&file).unwrap().lines().count();
            let name = file.to_str().unwrap();
            if lines > LINES_MAX {
                wrong.insert(format!("{name}: {lines} lines"));
            }
        }
    }
    assert!(wrong.is_empty(), "split:\n{}", join(&wrong));
}

#[test]
fn every_form_of_an_import_is_seen() {
    let code = "use crate::wal::{Log, frame};\n\
        use crate::{ingest, http::{self, Context}, reading::Stream as S};\n\
        fn f() { crate :: metrics::batch_rows(1) }\n\
        use super::super::config::Config;\nuse super::lane;\n\
        pub(in crate::energy) fn g() {}\n\
        use crate::analytics::fetch;\nuse crate::analytics::plan;";
    let found: Vec<String> = imports(code, 2).into_iter().collect();
    let expected = [
        "analytics",
        "config",
        "energy",
        "http",
        "ingest",
        "metrics",
        "reading",
        "wal",
    ];
    assert_eq!(found, expected);
    assert_eq!(uncommented("a // crate::b\n/* crate::c */ d"), "a \n d");
}

/// The product's own files: neither the binary's `main`, nor the list of modules, nor tests, which
/// may stand anything beside anything.
fn product_files() -> Vec<PathBuf> {
    let is_test = |path: &Path| {
        path.components().any(|part| {
            ["tests", "tests.rs"]
                .map(Some)
                .contains(&part.as_os_str().to_str())
        })
    };
    let files = rust_files(Path::new("src")).into_iter();
    let files: Vec<PathBuf> = files
        .filter(|f| !is_test(f) && !f.ends_with("main.rs") && !f.ends_with("lib.rs"))
        .collect();
    assert!(files.len() > 50, "the test looks in the wrong place");
    files
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The module of the table that a file of `src` belongs to.
fn module_of(file: &Path) -> String {
    let parts: Vec<&str> = file
        .iter()
        .skip(1)
        .map(|part| part.to_str().unwrap())
        .collect();
    let top = parts[0].trim_end_matches(".rs");
    top.to_owned()
}

fn is_root_of_its_directory(file: &Path) -> bool {
    file.ends_with("mod.rs")
}

/// A file's code without comments and without the tests at its end.
fn code_of(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let code = text
        .split("\n#[cfg(test)]\nmod ")
        .next()
        .unwrap_or_default();
    uncommented(code)
}

fn uncommented(code: &str) -> String {
    let mut rest = code;
    let mut out = String::new();
    while let Some(start) = rest.find("//").into_iter().chain(rest.find("/*")).min() {
        out.push_str(&rest[..start]);
        let end = if rest[start..].starts_with("//") {
            "\n"
        } else {
            "*/"
        };
        let Some(length) = rest[start..].find(end) else {
            return out;
        };
        rest = &rest[start + length + if end == "\n" { 0 } else { 2 }..];
    }
    out + rest
}

/// The modules at the top that code names, through `crate::` or as many `super::` as lead there.
fn imports(code: &str, depth: usize) -> BTreeSet<String> {
    let code: String = code
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace(" ::", "::");
    let code = code.replace(":: ", "::");
    let mut found = BTreeSet::new();
    for (word, rest) in words(&code) {
        let supers = "super::".repeat(depth);
        if word == "crate" && rest.starts_with("::") {
            add_heads(&rest[2..], &mut found);
        } else if word == "super"
            && let Some(path) = format!("super{rest}").strip_prefix(&supers)
        {
            add_heads(path, &mut found);
        }
    }
    found.retain(|name| MAY_IMPORT.iter().any(|(module, _)| module == name));
    found
}

/// The first names of a path, or of each path of a group in braces.
fn add_heads(path: &str, found: &mut BTreeSet<String>) {
    let Some(group) = path.strip_prefix('{') else {
        found.insert(head(path).to_owned());
        return;
    };
    let mut nested = 0;
    let mut start = 0;
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => nested += 1,
            '}' | ',' if nested == 0 => {
                add_heads(group[start..at].trim(), found);
                start = at + 1;
                if letter == '}' {
                    return;
                }
            }
            '}' => nested -= 1,
            _ => {}
        }
    }
}

fn head(path: &str) -> &str {
    let end = path.find(|c: char| !c.is_alphanumeric() && c != '_');
    &path[..end.unwrap_or(path.len())]
}

/// Each word of the code, with what follows it; of `a::super` the second word is none.
fn words(code: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            let start = at + code[at..].find(is_word)?;
            let word = head(&code[start..]);
            at = start + word.len();
            if !code[..start].ends_with("::") {
                return Some((word, &code[at..]));
            }
        }
    })
}

fn join(lines: &BTreeSet<String>) -> String {
    lines.iter().cloned().collect::<Vec<_>>().join("\n")
}
