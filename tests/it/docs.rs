//! The documentation, held to the program: commands, links and codes exist, and examples run.
//!
//! A block of shell after the line `<!-- run -->` is run as it stands, with the example server and
//! workspace replaced by the test's own.

use crate::support::cli::{Output, Running, tidewater};
use crate::support::server::Schema;
use crate::support::wait::PATIENCE;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the examples say, and what a test puts in their place.
const SERVER: &str = "postgres://app@db.example/app";
const WORKSPACE: &str = "--schema team";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// README, CHANGELOG and everything under `docs`, with their text.
fn pages() -> Vec<(PathBuf, String)> {
    let mut paths = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                paths.push(path);
            }
        }
    }
    assert!(paths.len() > 5, "{paths:?}");
    paths.sort();
    paths.into_iter().map(|p| (p.clone(), read(&p))).collect()
}

/// A page without its fenced blocks.
fn prose(text: &str) -> String {
    text.split("\n```")
        .step_by(2)
        .collect::<Vec<_>>()
        .join("\n")
}

/// The lines from the heading `heading` to the next one.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let start = text
        .find(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("no section {heading}"));
    let rest = &text[start + heading.len() + 2..];
    &rest[..rest.find("\n#").unwrap_or(rest.len())]
}

/// What stands between backticks.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The words that follow `tidewater ` as a command would.
fn commands_named_in(text: &str) -> BTreeSet<String> {
    text.split("tidewater ")
        .skip(1)
        .map(|rest| {
            rest.chars()
                .take_while(|c| c.is_ascii_lowercase())
                .collect::<String>()
        })
        .filter(|word| !word.is_empty())
        .collect()
}

fn is_command(folder: &Path, word: &str) -> bool {
    word == "help" || tidewater(folder, &[word, "--help"]).code == 0
}

/// The heading's anchor, as Git hosts make it.
fn anchor(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn the_table_of_commands_is_what_the_program_has() {
    let folder = tempfile::tempdir().unwrap();
    let help = tidewater(folder.path(), &["--help"]).ok().stdout;
    let listed: BTreeSet<String> = section(&help.replace("Commands:", "\nCommands:"), "Commands:")
        .lines()
        .take_while(|line| line.starts_with("  ") || line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect();
    assert!(listed.contains("init") && listed.len() > 8, "{help}");
    let readme = read(&root().join("README.md"));
    let table: BTreeSet<String> = section(&readme, "## Commands")
        .lines()
        .filter(|line| line.starts_with("| `tidewater "))
        .flat_map(commands_named_in)
        .collect();
    let missing: Vec<_> = listed.difference(&table).collect();
    assert!(missing.is_empty(), "not in the README: {missing:?}");
    for name in table {
        assert!(is_command(folder.path(), &name), "no command {name}");
    }
}

#[test]
fn every_command_that_is_named_exists() {
    let folder = tempfile::tempdir().unwrap();
    let mut known = BTreeSet::new();
    for (path, text) in pages() {
        let prose = prose(&text);
        let shell: Vec<&str> = blocks(&text).into_iter().map(|b| b.text).collect();
        let named = spans(&prose)
            .filter(|s| s.starts_with("tidewater "))
            .chain(shell.iter().flat_map(|b| b.lines()))
            .filter(|line| !line.trim_start().starts_with('#'))
            .flat_map(commands_named_in);
        for word in named.collect::<BTreeSet<_>>() {
            if known.contains(&word) {
                continue;
            }
            assert!(
                is_command(folder.path(), &word),
                "{}: tidewater {word}",
                path.display()
            );
            known.insert(word);
        }
    }
    assert!(known.contains("verify"), "{known:?}");
}

#[test]
fn what_is_said_to_be_missing_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let readme = read(&root().join("README.md"));
    let bullets: Vec<&str> = section(&readme, "## Not there yet")
        .split("\n- ")
        .skip(1)
        // Keys and settings of a connection are refused elsewhere, by their own tests.
        .take_while(|b| !b.starts_with("the key") && !b.starts_with("`sslmode`"))
        .collect();
    let names: Vec<&str> = bullets.iter().flat_map(|b| spans(b)).collect();
    for name in names {
        let mut words: Vec<&str> = name.split_whitespace().collect();
        // What the grammar asks for before the command itself is looked at.
        words.extend(match name {
            "completions" => &["bash"][..],
            _ => &[],
        });
        let refused = tidewater(folder.path(), &words).expect_code(2);
        assert!(
            refused
                .stderr
                .contains(&format!("`{name}` is not supported")),
            "{name}: {refused:?}"
        );
    }
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for (path, text) in pages() {
        for link in prose(&text).split("](").skip(1) {
            let target = link.split(')').next().unwrap_or_default();
            if target.starts_with("http") {
                continue;
            }
            let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
            let file = match file {
                "" => path.clone(),
                _ => path.parent().expect("a folder").join(file),
            };
            let found = file.exists()
                && (fragment.is_empty()
                    || prose(&read(&file))
                        .lines()
                        .any(|l| l.starts_with('#') && anchor(l) == fragment));
            if !found {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn every_code_that_is_named_exists() {
    let source = read(&root().join("src/error.rs"));
    for (path, text) in pages() {
        for rest in text.split("SYNC-").skip(1) {
            let code = format!("\"SYNC-{}\"", rest.get(..3).unwrap_or_default());
            assert!(source.contains(&code), "{}: {code}", path.display());
        }
    }
}

#[test]
fn every_file_that_the_architecture_names_exists() {
    let text = read(&root().join("docs/architecture.md"));
    let text = prose(&text);
    let missing: Vec<&str> = spans(&text)
        .filter(|s| s.ends_with(".rs") && !s.contains(' '))
        .filter(|s| {
            [
                "",
                "src",
                "src/sqlite",
                "src/postgres",
                "src/sync",
                "tests/it",
            ]
            .iter()
            .all(|folder| !root().join(folder).join(s).is_file())
        })
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_quick_start_runs() {
    let schema = Schema::new();
    let folder = tempfile::tempdir().unwrap();
    let readme = read(&root().join("README.md"));
    let said = run(marked(&readme, ""), folder.path(), &schema);
    assert!(said.stdout.contains("\nrye bread\n"), "{said:?}");
    assert!(said.stdout.contains("identical: both sides"), "{said:?}");
    assert_eq!(
        schema.rows("select id, body from notes order by id"),
        [["n1", "milk"], ["n2", "rye bread"]]
    );
}

/// A device that meets another workspace, as its server was restored: `n2` is only here and not sent, `n3` is only there.
fn after_a_restore(schema: &Schema, folder: &Path) {
    let sql = |text: &str| {
        rusqlite::Connection::open(folder.join("app.db"))
            .and_then(|c| c.execute_batch(text))
            .unwrap_or_else(|e| panic!("{text}: {e}"));
    };
    sql("create table notes (id text primary key, body text)");
    sql("insert into notes values ('n1', 'one')");
    let (url, name) = (schema.url(), schema.name());
    let init = ["init", "--db", "app.db", "--remote", url, "--schema", name];
    tidewater(folder, &init).ok();
    tidewater(folder, &["now"]).ok();
    schema.exec(
        "update tidewater_workspace set instance = 'restored'; delete from tidewater_devices",
    );
    schema.exec("insert into notes (id, body) values ('n3', 'there')");
    sql("insert into notes values ('n2', 'here')");
    tidewater(folder, &["now"]).expect_code(6);
}

#[test]
fn after_a_restore_a_file_joins_again_with_all_it_has() {
    let schema = Schema::new();
    let folder = tempfile::tempdir().unwrap();
    after_a_restore(&schema, folder.path());
    let recovery = read(&root().join("docs/recovery.md"));
    run(marked(&recovery, "reconcile"), folder.path(), &schema);
    tidewater(folder.path(), &["verify"]).ok();
    assert_eq!(
        schema.rows("select id, body from notes order by id"),
        [["n1", "one"], ["n2", "here"], ["n3", "there"]]
    );
}

#[test]
fn after_a_restore_a_device_is_made_anew() {
    let schema = Schema::new();
    let folder = tempfile::tempdir().unwrap();
    after_a_restore(&schema, folder.path());
    let recovery = read(&root().join("docs/recovery.md"));
    run(marked(&recovery, "reclone"), folder.path(), &schema);
    tidewater(folder.path(), &["now"]).ok();
    tidewater(folder.path(), &["verify"]).ok();
    assert_eq!(
        schema.rows("select id, body from notes order by id"),
        [["n1", "one"], ["n3", "there"]]
    );
    assert!(folder.path().join("before/app.db").exists());
}

/// A fenced block of shell.
struct Block<'a> {
    /// The line before it.
    before: &'a str,
    text: &'a str,
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut out = Vec::new();
    let mut parts = page.split("\n```");
    let mut before = parts.next().unwrap_or_default();
    while let (Some(text), after) = (parts.next(), parts.next()) {
        if let Some(text) = text.strip_prefix("sh\n") {
            let before = before.lines().last().unwrap_or_default();
            out.push(Block { before, text });
        }
        before = after.unwrap_or_default();
    }
    out
}

/// The one block that is marked to be run under this name.
fn marked<'a>(page: &'a str, name: &str) -> &'a str {
    let mark = match name {
        "" => "<!-- run -->".to_owned(),
        name => format!("<!-- run: {name} -->"),
    };
    let found: Vec<&str> = blocks(page)
        .into_iter()
        .filter(|b| b.before == mark)
        .map(|b| b.text)
        .collect();
    assert_eq!(found.len(), 1, "blocks after {mark}");
    found[0]
}

/// Runs a block in `folder`, with the program and a `sqlite3` on the path.
fn run(block: &str, folder: &Path, schema: &Schema) -> Output {
    let script = block
        .replace(SERVER, &format!("'{}'", schema.url()))
        .replace(WORKSPACE, &format!("--schema {}", schema.name()));
    let tools = tempfile::tempdir().unwrap();
    let sqlite3 = tools.path().join("sqlite3");
    let this = std::env::current_exe().unwrap();
    // Not every machine has the shell of SQLite; this one does what the examples ask of it.
    let text = format!(
        "#!/bin/sh\nsql=${{2-$(cat)}}\nout=$(mktemp)\n\
         TIDEWATER_TEST_DB=$1 TIDEWATER_TEST_SQL=$sql TIDEWATER_TEST_OUT=$out '{}' \
         --exact docs::stands_in_for_sqlite3 --ignored >\"$out.log\" 2>&1 </dev/null \
         || {{ cat \"$out.log\" >&2; exit 1; }}\ncat \"$out\"\nrm -f \"$out\" \"$out.log\"\n",
        this.display()
    );
    fs::write(&sqlite3, text).unwrap();
    fs::set_permissions(&sqlite3, fs::Permissions::from_mode(0o755)).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_tidewater"));
    let path = std::env::join_paths(
        [tools.path(), program.parent().expect("a folder")]
            .into_iter()
            .map(Path::to_owned)
            .chain(std::env::split_paths(
                &std::env::var_os("PATH").unwrap_or_default(),
            )),
    )
    .unwrap();
    let mut shell = Command::new("sh");
    shell
        .args(["-eu", "-c", &script])
        .current_dir(folder)
        .env_clear()
        .env("HOME", folder)
        .env("PATH", path);
    Running::spawn(shell).wait(PATIENCE * 2).ok()
}

#[test]
#[ignore = "not a test: what the examples call as sqlite3"]
fn stands_in_for_sqlite3() {
    let variable = |name: &str| std::env::var(name);
    let (Ok(db), Ok(sql), Ok(out)) = (
        variable("TIDEWATER_TEST_DB"),
        variable("TIDEWATER_TEST_SQL"),
        variable("TIDEWATER_TEST_OUT"),
    ) else {
        return;
    };
    let connection = rusqlite::Connection::open(db).unwrap();
    let mut answer = String::new();
    if sql.trim_start().starts_with("select") {
        let mut statement = connection.prepare(&sql).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let cells: Vec<String> = (0..columns)
                .map(|i| row.get::<_, Option<String>>(i).unwrap().unwrap_or_default())
                .collect();
            answer.push_str(&cells.join("|"));
            answer.push('\n');
        }
    } else {
        connection.execute_batch(&sql).unwrap();
    }
    fs::write(out, answer).unwrap();
}
