//! The layers, kept: who may import what, how long a file may be, and no panics in the product.
//!
//! The scan is of lines, not of syntax. Comments are skipped, and unit tests where a rule says so.

use std::fs;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 500;

struct Rule {
    /// Any of these, as whole words where they begin or end with a letter.
    words: &'static [&'static str],
    /// Applies to files under these prefixes of `src/`; an empty one is all of them.
    within: &'static [&'static str],
    /// Except files under these.
    except: &'static [&'static str],
    /// Whether unit tests have to keep it too.
    in_tests: bool,
    why: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        words: &["rusqlite"],
        within: &[""],
        except: &["sqlite/", "sqlite.rs"],
        in_tests: true,
        why: "only src/sqlite knows the SQLite driver",
    },
    Rule {
        words: &["tokio_postgres", "deadpool_postgres"],
        within: &[""],
        except: &["postgres/", "postgres.rs"],
        in_tests: true,
        why: "only src/postgres knows the PostgreSQL driver",
    },
    Rule {
        words: &["backoff::", "use backoff", "extern crate backoff"],
        within: &[""],
        except: &["sync/retry.rs"],
        in_tests: true,
        why: "only src/sync/retry.rs knows how delays grow",
    },
    Rule {
        words: &["prometheus"],
        within: &[""],
        except: &["metrics/"],
        in_tests: true,
        why: "only src/metrics knows the metrics library",
    },
    Rule {
        words: &["axum"],
        within: &[""],
        except: &["http/"],
        in_tests: true,
        why: "only src/http knows the web library",
    },
    Rule {
        words: &[
            "crate::sqlite",
            "crate::postgres",
            "crate::cli",
            "crate::remote",
        ],
        within: &["http"],
        except: &[],
        in_tests: true,
        why: "the endpoint is a face: it knows sync::view and the documents it shows",
    },
    Rule {
        words: &[
            "crate::sqlite",
            "crate::postgres",
            "crate::sync",
            "crate::remote",
            "crate::http",
            "crate::cli",
        ],
        within: &["metrics"],
        except: &[],
        in_tests: true,
        why: "metrics are told and know nobody",
    },
    Rule {
        words: &["crate::http"],
        within: &["sqlite", "postgres", "model", "remote", "sync", "report"],
        except: &[],
        in_tests: true,
        why: "the engine does not know its faces",
    },
    Rule {
        words: &["crate::postgres"],
        within: &["sqlite", "model", "remote", "error", "config"],
        except: &[],
        in_tests: true,
        why: "the databases never see each other, and the model sees neither",
    },
    Rule {
        words: &["crate::postgres"],
        within: &["sync"],
        // The one place where the engine is put together.
        except: &["sync/connect.rs"],
        in_tests: true,
        why: "sync reaches PostgreSQL through the trait in src/remote.rs",
    },
    Rule {
        words: &["crate::postgres", "crate::sqlite", "crate::remote"],
        within: &["engine"],
        except: &[],
        in_tests: true,
        why: "the library is a handle on the operations of sync",
    },
    Rule {
        words: &["crate::sqlite"],
        within: &["postgres", "model", "remote", "error", "config"],
        except: &[],
        in_tests: true,
        why: "the databases never see each other, and the model sees neither",
    },
    Rule {
        words: &["crate::sync"],
        within: &["sqlite", "postgres", "model", "remote", "error", "config"],
        except: &[],
        in_tests: true,
        why: "orchestration is above the adapters",
    },
    Rule {
        words: &["crate::cli", "crate::throwaway"],
        within: &[
            "sqlite", "postgres", "model", "remote", "error", "config", "sync", "engine",
        ],
        except: &[],
        in_tests: true,
        why: "the engine knows neither the command line nor the demo's server",
    },
    Rule {
        words: &[
            "tokio",
            "tracing",
            "std::time",
            "std::fs",
            "std::net",
            "std::env",
        ],
        within: &["model"],
        except: &[],
        in_tests: true,
        why: "the model is pure: no I/O, no clock, no tasks, no logs",
    },
    Rule {
        words: &[
            ".unwrap()",
            ".expect(",
            "panic!",
            "todo!",
            "unimplemented!",
            "dbg!",
        ],
        within: &[""],
        except: &[],
        in_tests: false,
        why: "the product returns errors; it does not panic",
    },
];

struct Source {
    /// Below `src/`.
    name: String,
    text: String,
}

#[test]
fn every_import_keeps_to_its_layer() {
    let mut faults = Vec::new();
    for source in sources() {
        let tests_from = tests_from(&source);
        for rule in RULES {
            if !applies(rule, &source.name) {
                continue;
            }
            for (index, line) in source.text.lines().enumerate() {
                if !rule.in_tests && index >= tests_from {
                    break;
                }
                if is_comment(line) {
                    continue;
                }
                for word in rule.words.iter().filter(|w| has_word(line, w)) {
                    let number = index + 1;
                    faults.push(format!(
                        "src/{}:{number}: `{word}`: {}",
                        source.name, rule.why
                    ));
                }
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn no_file_is_longer_than_a_person_reads_at_once() {
    let long: Vec<String> = sources()
        .iter()
        .map(|source| (&source.name, source.text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(name, lines)| format!("src/{name}: {lines} lines, at most {LINES_MAX}"))
        .collect();
    assert!(long.is_empty(), "\n{}", long.join("\n"));
}

#[test]
fn every_module_says_what_it_is() {
    let silent: Vec<String> = sources()
        .iter()
        .filter(|source| !is_test_file(&source.name) && source.name != "main.rs")
        .filter(|source| !source.text.lines().any(|line| line.starts_with("//!")))
        .map(|source| format!("src/{}:1: no `//!` documentation", source.name))
        .collect();
    assert!(silent.is_empty(), "\n{}", silent.join("\n"));
}

#[test]
fn a_word_is_found_whole() {
    assert!(has_word("use rusqlite::Row;", "rusqlite"));
    assert!(!has_word("use my_rusqlite_like::Row;", "rusqlite"));
    assert!(has_word("value.unwrap();", ".unwrap()"));
    assert!(!has_word("value.unwrap_or(0);", ".unwrap()"));
    assert!(has_word("tokio::spawn(x)", "tokio"));
    assert!(!has_word("use tokio_postgres::Row;", "tokio"));
    assert!(!has_word("use crate::sync_state;", "crate::sync"));
    assert!(has_word("use crate::sync::{push, pull};", "crate::sync"));
}

fn applies(rule: &Rule, name: &str) -> bool {
    rule.within.iter().any(|layer| is_in(name, layer))
        && !rule.except.iter().any(|prefix| name.starts_with(prefix))
}

/// `model` is `model.rs` and everything under `model/`.
fn is_in(name: &str, layer: &str) -> bool {
    layer.is_empty()
        || name
            .strip_prefix(layer)
            .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

/// The index of the line where the unit tests begin.
fn tests_from(source: &Source) -> usize {
    if is_test_file(&source.name) {
        return 0;
    }
    let lines: Vec<&str> = source.text.lines().map(str::trim).collect();
    lines
        .windows(2)
        .position(|pair| {
            (pair[0] == "#[cfg(test)]" || pair[0].starts_with("#[cfg(all(test,"))
                && ["mod ", "#[", "pub(super) fn ", "fn "]
                    .iter()
                    .any(|item| pair[1].starts_with(item))
        })
        .unwrap_or(lines.len())
}

/// A file that is a `#[cfg(test)] mod` of another.
fn is_test_file(name: &str) -> bool {
    name.ends_with("tests.rs") || name.contains("tests/")
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let starts_open = !word.starts_with(is_part);
    let ends_open = !word.ends_with(is_part);
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        (starts_open || !before.is_some_and(is_part)) && (ends_open || !after.is_some_and(is_part))
    })
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    assert!(!files.is_empty(), "no sources under {}", root.display());
    files
        .iter()
        .map(|file| Source {
            name: file
                .strip_prefix(&root)
                .expect("a file below src")
                .to_string_lossy()
                .into_owned(),
            text: fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display())),
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}
