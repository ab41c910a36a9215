//! Finds the paths that a file's code names.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The product's own files. Left out are the binary's `main`, the list of modules, and tests, which may import
/// anything.
pub(crate) fn product_files() -> Vec<PathBuf> {
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

pub(crate) fn rust_files(directory: &Path) -> Vec<PathBuf> {
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

/// The module of a file in `src`, such as `http::api::live`.
pub(crate) fn module_of(file: &Path) -> String {
    let parts: Vec<&str> = file
        .iter()
        .skip(1)
        .map(|part| part.to_str().unwrap().trim_end_matches(".rs"))
        .filter(|part| *part != "mod")
        .collect();
    parts.join("::")
}

/// The module with its own file that a path leads to.
pub(crate) fn file_of(path: &str, modules: &BTreeSet<String>) -> Option<String> {
    let mut path = path;
    while !modules.contains(path) {
        path = path.rsplit_once("::")?.0;
    }
    Some(path.to_owned())
}

pub(crate) fn top_of(module: &str) -> &str {
    module.split("::").next().unwrap_or_default()
}

pub(crate) fn is_within(module: &str, of: &str) -> bool {
    module == of
        || module
            .strip_prefix(of)
            .is_some_and(|rest| rest.starts_with("::"))
}

/// The paths that a file's code names, from the crate root.
pub(crate) fn imports_of(file: &Path) -> BTreeSet<String> {
    imports(&code_of(file), &module_of(file))
}

/// A file's code without comments and without the tests at its end.
pub(crate) fn code_of(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let code = text
        .split("\n#[cfg(test)]\nmod ")
        .next()
        .unwrap_or_default();
    uncommented(code)
}

pub(crate) fn uncommented(code: &str) -> String {
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

/// The paths that a module's code names through `crate::` and `super::`, from the crate root.
pub(crate) fn imports(code: &str, module: &str) -> BTreeSet<String> {
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

/// Adds a path below a base, or each path of a group in braces.
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

/// Each word of the code, with the text after it. In `a::super`, the `super` does not count as a word.
pub(crate) fn words(code: &str) -> impl Iterator<Item = (&str, &str)> {
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
