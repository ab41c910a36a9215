//! The shape of the code: which module may know which, and how long a file may be.
//!
//! Imports go one way. The edge that is absent is part of the design, so each one that is there
//! stands in a table here with its reason; a new one is a decision and not an accident.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules from the bottom up, what each may import of the others, and why it needs no more.
const MAY_IMPORT: &[(&str, &[&str], &str)] = &[
    ("reading", &[], "everything speaks of readings"),
    (
        "metrics",
        &["reading"],
        "a metric is counted where it happens",
    ),
    ("outage", &[], "any part may fail again and again"),
    ("failpoint", &[], "any part may be ended in a test"),
    (
        "energy",
        &["reading"],
        "pure arithmetic, compared with a reference",
    ),
    (
        "wal",
        &["reading", "metrics", "outage", "failpoint"],
        "the log outlives every database and every protocol",
    ),
    (
        "ingest",
        &["reading", "metrics", "wal"],
        "a protocol hands bytes over and names nothing behind",
    ),
    (
        "postgres",
        &["reading", "outage"],
        "sessions and the schema, for every part",
    ),
    (
        "writer",
        &["reading", "metrics", "failpoint", "wal", "postgres"],
        "from the log to the database, whoever filled the log",
    ),
    (
        "store",
        &["reading", "postgres"],
        "typed rows: any protocol may ask",
    ),
    (
        "analytics",
        &["reading", "postgres", "energy"],
        "fetches what the arithmetic asks for",
    ),
    (
        "rollups",
        &["reading", "metrics", "postgres", "energy"],
        "rolls up with the arithmetic that answers are made with",
    ),
    ("http_client", &[], "posts what it is given"),
    (
        "alerts",
        &["reading", "postgres", "energy", "analytics", "http_client"],
        "finds causes and posts them; pages about alerts are http's",
    ),
    (
        "otlp",
        &["outage", "http_client"],
        "is given the text of a scrape",
    ),
    (
        "auth",
        &["reading", "metrics", "ingest"],
        "a key carries its share of the memory for readings",
    ),
    (
        "http",
        &[
            "reading",
            "metrics",
            "outage",
            "energy",
            "wal",
            "ingest",
            "postgres",
            "store",
            "analytics",
            "alerts",
            "auth",
        ],
        "sees the writers' work in the log's progress and in the database",
    ),
    (
        "config",
        &[
            "failpoint",
            "energy",
            "wal",
            "ingest",
            "postgres",
            "writer",
            "analytics",
            "alerts",
            "auth",
            "http",
            "otlp",
        ],
        "flags become the settings of each part, within its bounds",
    ),
    (
        "app",
        &[
            "reading",
            "metrics",
            "outage",
            "failpoint",
            "energy",
            "wal",
            "ingest",
            "postgres",
            "writer",
            "store",
            "analytics",
            "rollups",
            "alerts",
            "auth",
            "http",
            "otlp",
            "config",
        ],
        "the one place that wires everything",
    ),
    (
        "cli",
        &[
            "reading", "wal", "postgres", "writer", "auth", "config", "app",
        ],
        "the commands work on files and the database, not through http",
    ),
];

/// What a part of a module may not import, and why.
const MAY_NOT_IMPORT: &[(&str, &str, &str)] = &[
    ("http::server", "http::api", "a socket knows no route"),
    ("http::server", "http::routes", "a socket knows no route"),
    ("http::server", "http::dispatch", "a socket knows no route"),
    ("http::request", "http::server", "a request knows no socket"),
    ("http::request", "http::api", "a request knows no handler"),
    ("http::request", "http::routes", "routes are data"),
    ("http::request", "http::dispatch", "one way down"),
    ("http::response", "http::server", "a reply knows no socket"),
    (
        "http::response",
        "http::request",
        "a reply knows no request",
    ),
    ("http::response", "http::api", "a reply knows no resource"),
    ("http::api", "http::server", "a resource knows no socket"),
    ("http::api", "http::routes", "a resource knows no path"),
    ("http::api", "http::dispatch", "one way down"),
    ("cli", "http::api", "a command answers on its own"),
];

/// Crates that a module may not name, and why.
const MAY_NOT_NAME: &[(&str, &[&str], &str)] = &[
    ("reading", HTTP_AND_SQL, "a reading is the same everywhere"),
    ("metrics", HTTP_AND_SQL, "a metric counts, and asks nothing"),
    ("energy", HTTP_AND_SQL, "pure: compared with a reference"),
    ("energy", SERDE, "domain types never serialise"),
    ("wal", HTTP_AND_SQL, "tested without either"),
    ("ingest", HTTP_AND_SQL, "the same for every protocol"),
    ("postgres", HTTP, "below every protocol"),
    ("writer", HTTP, "below every protocol"),
    ("store", HTTP, "returns rows"),
    ("store", SERDE, "returns rows, never JSON"),
    ("analytics", HTTP, "returns exact values"),
    ("analytics", SERDE, "returns exact values, never JSON"),
    ("rollups", HTTP, "below every protocol"),
    ("rollups", SERDE, "writes columns, never JSON"),
    ("http", SQL, "asks through store and analytics"),
];
/// Files longer than this hold more than one thing.
const LINES_MAX: usize = 500;

const HTTP: &[&str] = &["hyper", "hyper_util", "http_body_util"];
const SQL: &[&str] = &["tokio_postgres", "postgres_types", "deadpool_postgres"];
const SERDE: &[&str] = &["serde", "serde_json"];
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
    for (place, (module, imports, _)) in MAY_IMPORT.iter().enumerate() {
        for import in *imports {
            assert!(
                MAY_IMPORT[..place]
                    .iter()
                    .any(|(below, ..)| below == import),
                "the table lets {module} import {import}, which does not stand below it"
            );
        }
    }
    let mut wrong = BTreeSet::new();
    for file in product_files() {
        let module = top_of(&module_of(&file)).to_owned();
        let (_, allowed, why) = MAY_IMPORT
            .iter()
            .find(|(name, ..)| *name == module)
            .unwrap_or_else(|| panic!("the module {module} does not stand in the table"));
        for import in imports_of(&file) {
            let import = top_of(&import);
            let is_known = MAY_IMPORT.iter().any(|(name, ..)| *name == import);
            if is_known && import != module && !allowed.contains(&import) {
                wrong.insert(format!("{}: {module} → {import} ({why})", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "new edges:\n{}", join(&wrong));
}

#[test]
fn parts_of_a_module_keep_apart_too() {
    let mut wrong = BTreeSet::new();
    for file in product_files() {
        let module = module_of(&file);
        for import in imports_of(&file) {
            for (from, to, why) in MAY_NOT_IMPORT {
                if is_within(&module, from) && is_within(&import, to) {
                    wrong.insert(format!("{}: {from} → {to}: {why}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", join(&wrong));
}

#[test]
fn modules_name_only_the_crates_that_they_may() {
    let mut wrong = BTreeSet::new();
    for file in product_files() {
        let module = module_of(&file);
        let rules = MAY_NOT_NAME
            .iter()
            .filter(|(name, ..)| is_within(&module, name));
        let code = code_of(&file);
        for (_, names, why) in rules {
            for name in *names {
                if words(&code).any(|(word, rest)| word == *name && rest.starts_with("::")) {
                    wrong.insert(format!("{}: {name}: {why}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", join(&wrong));
}

#[test]
fn metrics_stand_in_one_file_and_lints_are_expected() {
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
        pub(in crate::energy) fn g() {}";
    let found: Vec<String> = imports(code, "writer::store").into_iter().collect();
    let expected = [
        "config::Config",
        "energy",
        "http",
        "http::Context",
        "ingest",
        "metrics::batch_rows",
        "reading::Stream",
        "wal::Log",
        "wal::frame",
        "writer::lane",
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

/// The module that a file of `src` is, as `http::api::live`.
fn module_of(file: &Path) -> String {
    let parts: Vec<&str> = file
        .iter()
        .skip(1)
        .map(|part| part.to_str().unwrap().trim_end_matches(".rs"))
        .filter(|part| *part != "mod")
        .collect();
    parts.join("::")
}

fn top_of(module: &str) -> &str {
    module.split("::").next().unwrap_or_default()
}

fn is_within(module: &str, of: &str) -> bool {
    module == of
        || module
            .strip_prefix(of)
            .is_some_and(|rest| rest.starts_with("::"))
}

/// The paths that a file's code names, from the crate's root.
fn imports_of(file: &Path) -> BTreeSet<String> {
    imports(&code_of(file), &module_of(file))
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

/// The paths that the code of a module names through `crate::` and `super::`, from the root.
fn imports(code: &str, module: &str) -> BTreeSet<String> {
    let code: String = code
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace(" ::", "::");
    let code = code.replace(":: ", "::");
    let mut found = BTreeSet::new();
    for (word, rest) in words(&code) {
        let mut base: Vec<&str> = module.split("::").collect();
        let Some(mut path) = rest.strip_prefix("::") else {
            continue;
        };
        match word {
            "crate" => base.clear(),
            "super" => {
                base.pop();
                while let Some(outer) = path.strip_prefix("super::") {
                    path = outer;
                    base.pop();
                }
            }
            _ => continue,
        }
        add_paths(&base.join("::"), path, &mut found);
    }
    found
}

/// Adds a path, or each path of a group in braces, below a base.
fn add_paths(base: &str, path: &str, found: &mut BTreeSet<String>) {
    let joined = |name: &str| match base {
        "" => name.to_owned(),
        _ => format!("{base}::{name}"),
    };
    let Some(group) = path.strip_prefix('{') else {
        let name = head(path);
        let rest = path[name.len()..].strip_prefix("::");
        match (name, rest) {
            ("" | "self", _) => drop(found.insert(base.to_owned())),
            (_, Some(rest)) => add_paths(&joined(name), rest, found),
            (_, None) => drop(found.insert(joined(name))),
        }
        return;
    };
    let mut nested = 0;
    let mut start = 0;
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => nested += 1,
            '}' | ',' if nested == 0 => {
                add_paths(base, group[start..at].trim(), found);
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
