//! The shape of the code: which module may import which, and how long a file may be.
//!
//! Imports go one way, and an absent edge is part of the design. So each edge is in a table here with its reason,
//! and a new one is a decision, not an accident.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "imports/code.rs"]
mod code;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use code::*;

/// The modules from the bottom up, what each may import from the others, and why it needs no more.
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
        "demo",
        &["http_client"],
        "a client like any other: what it shows is what a fleet sees",
    ),
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
            "demo",
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

/// Imports that a part of a module may not have, and why.
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
/// A longer file holds more than one thing.
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
fn no_files_import_each_other_in_a_circle() {
    let files = product_files();
    let modules: BTreeSet<String> = files.iter().map(|file| module_of(file)).collect();
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in &files {
        let module = module_of(file);
        let found = imports_of(file).into_iter();
        let found = found.filter_map(|path| file_of(&path, &modules));
        // A module's file and the files below it count as one, because it holds what they share.
        let found = found.filter(|other| !is_within(other, &module) && !is_within(&module, other));
        let found = found.collect();
        imports.insert(module, found);
    }
    // Files without imports are removed until no file is left, or only a circle.
    loop {
        let left: BTreeSet<String> = imports.keys().cloned().collect();
        for found in imports.values_mut() {
            found.retain(|module| left.contains(module));
        }
        imports.retain(|_, found| !found.is_empty());
        if imports.len() == left.len() {
            break;
        }
    }
    let lines = imports.iter();
    let lines = lines.map(|(module, found)| {
        format!(
            "{module} → {}",
            Vec::from_iter(found.iter().map(String::as_str)).join(", ")
        )
    });
    assert!(
        imports.is_empty(),
        "files in a circle, and files that import them:\n{}",
        join(&lines.collect())
    );
}

#[test]
fn parts_of_a_module_stay_apart_too() {
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
fn metrics_are_in_one_file_and_lints_are_expected() {
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
        use super::super::config::Config;\nuse super::drain;\n\
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
        "writer::drain",
    ];
    assert_eq!(found, expected);
    assert_eq!(uncommented("a // crate::b\n/* crate::c */ d"), "a \n d");
}

fn join(lines: &BTreeSet<String>) -> String {
    lines.iter().cloned().collect::<Vec<_>>().join("\n")
}
