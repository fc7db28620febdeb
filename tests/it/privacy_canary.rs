//! Words that must not leave are planted in private rows, keys and columns; after syncs, conflicts,
//! refusals, deletes and changes of level they are looked for everywhere outside the app's own tables.

use crate::support::cli::{Device, Output};
use crate::support::fleet::Fleet;
use crate::support::http::Endpoint;
use crate::support::proxy::{Mode, Proxy};
use crate::support::server::{Schema, start};
use crate::support::wait::{PATIENCE, eventually};
use std::fs;
use std::path::{Path, PathBuf};
use tidewater::throwaway::Options;

/// Occurs in keys of LOCAL_ONLY rows, in all their columns, and in redact columns; nowhere else.
const CANARY: &str = "CanaryNeverLeaves27182818";
const NUMBER: &str = "271828182845";

const NOTES: &str = "create table notes (id text primary key, title text, body text, \
     pin integer not null default 0, level text)";

const CONFIG: &str = "[tables.notes]\nprivacy_column = \"level\"\nredact = [\"body\", \"pin\"]\n";

fn holds(bytes: &[u8]) -> bool {
    [CANARY, NUMBER]
        .iter()
        .any(|c| bytes.windows(c.len()).any(|w| w == c.as_bytes()))
}

#[track_caller]
fn silent(what: &str, bytes: &[u8]) {
    if let Some(line) = bytes.split(|b| *b == b'\n').find(|line| holds(line)) {
        let text = String::from_utf8_lossy(line);
        panic!(
            "a canary in {what}: {}",
            text.chars().take(2_000).collect::<String>()
        );
    }
}

/// Runs it, whatever comes of it, and looks at what it said.
#[track_caller]
fn quiet(device: &Device, words: &[&str]) -> Output {
    let said = device.tw(&[&["-vv"], words].concat());
    silent(&format!("the output of {words:?}"), said.stdout.as_bytes());
    silent(&format!("the log of {words:?}"), said.stderr.as_bytes());
    said
}

/// What tidewater keeps in the file, but for the set of the keys that stay.
fn own_tables(device: &Device) -> String {
    let names = device.rows(
        "select name from sqlite_schema where type = 'table' and name like 'tidewater\\_%' escape '\\' \
         and name <> 'tidewater_private'",
    );
    names
        .iter()
        .map(|n| {
            format!(
                "{} {:?}\n",
                n[0],
                device.rows(&format!("select * from {}", n[0]))
            )
        })
        .collect()
}

fn files(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, out);
        } else {
            out.push(path);
        }
    }
}

#[test]
fn nothing_private_is_found_anywhere_outside_the_apps_own_tables() {
    // Parameters and statements are logged in full, so that what reached the server shows there too.
    let settings = [
        ("log_statement", "all"),
        ("log_parameter_max_length", "-1"),
        ("log_parameter_max_length_on_error", "-1"),
        ("log_error_verbosity", "verbose"),
    ];
    let server = start(Options {
        settings: settings.map(|(k, v)| (k.into(), v.into())).to_vec(),
        ..Options::default()
    });
    let fleet = Fleet::within(Schema::on(&server.url()), NOTES, CONFIG);
    let proxy = Proxy::start(server.host(), server.port());
    proxy.record();
    let url = fleet.schema.url_through(proxy.host(), proxy.port());
    let mut a = Device::with_url(&url, fleet.schema.name(), "a", CONFIG);
    a.sql(NOTES);
    a.sql(&format!(
        "insert into notes values ('f', 'seen-everywhere', 'open', 1, 'FULL'),
           ('r', 'redacted', '{CANARY}', {NUMBER}, 'REDACTED'),
           ('{CANARY}-l', '{CANARY}', '{CANARY}', {NUMBER}, 'LOCAL_ONLY'),
           ('{CANARY}-u', '{CANARY}', '{CANARY}', {NUMBER}, 'private')"
    ));
    quiet(&a, &["init"]).ok();
    let mut b = fleet.device("b");
    for d in [&mut a, &mut b] {
        d.set_env("TIDEWATER_METRICS__LISTEN", "127.0.0.1:0");
    }
    let both = || {
        for d in [&a, &b] {
            quiet(d, &["now"]);
        }
    };
    both();
    both();

    // Written and deleted between two syncs, moved to another key, replaced, edited offline.
    a.sql(&format!(
        "insert into notes values ('{CANARY}-1', '{CANARY}', '', 0, 'LOCAL_ONLY');
         delete from notes where id = '{CANARY}-1';
         update notes set id = id || '-moved' where level = 'LOCAL_ONLY';
         insert or replace into notes values ('{CANARY}-u', 'x', '{CANARY}', {NUMBER}, 'LOCAL_ONLY')"
    ));
    proxy.set(Mode::Refuse);
    quiet(&a, &["now"]).expect_code(3);
    silent("the file after the claim", own_tables(&a).as_bytes());
    quiet(&a, &["--json", "queue"]).ok();
    proxy.set(Mode::Pass);
    // An answer that is lost, and the same batch once more.
    a.sql(&format!("update notes set body = body || '!', title = title || '!'; insert into notes values ('r2', 'two', '{CANARY}', {NUMBER}, 'REDACTED')"));
    proxy.set_times(Mode::CutAfterCommitReply, 1);
    quiet(&a, &["now"]);
    both();

    // Conflicts, won and lost.
    b.sql("update notes set title = 'from b' where level = 'REDACTED'");
    a.sql("update notes set title = 'from a' where level = 'REDACTED'");
    quiet(&b, &["now"]).ok();
    both();
    a.sql("update notes set title = 'sooner' where level = 'REDACTED'");
    b.sql("update notes set title = 'later' where level = 'REDACTED'");
    quiet(&a, &["now"]).ok();
    both();
    both();
    assert!(fleet.conflicts() >= 2);

    // Levels go down and up, elsewhere and in Postgres too.
    a.sql("update notes set level = 'LOCAL_ONLY' where id = 'r2'");
    both();
    a.sql("update notes set level = 'REDACTED' where id = 'r2'");
    both();
    b.sql("update notes set level = 'FULL' where id = 'r2'");
    fleet
        .schema
        .exec("update notes set level = 'FULL' where id = 'r'");
    both();
    both();
    a.sql("update notes set title = 'edited at FULL' where id in ('r', 'r2')");
    both();

    // A row that the server refuses, and one that the app refuses here.
    fleet.schema.exec(
        "create function own_rule() returns trigger language plpgsql as $$ begin \
         if new.title = 'refuse' then raise exception 'no %', new using errcode = '23514'; end if; \
         return new; end $$; \
         create trigger own_rule before insert or update on notes for each row execute function own_rule()",
    );
    a.sql(&format!(
        "insert into notes values ('p', 'refuse', '{CANARY}', {NUMBER}, 'REDACTED'), ('{CANARY}-2', 'refuse', '', 0, 'LOCAL_ONLY');
         create trigger strict before update on notes when new.title = 'never'
           begin select raise(abort, 'the app says no'); end"
    ));
    fleet
        .schema
        .exec("update notes set title = 'never' where id = 'r'");
    both();
    both();
    // A table that was rebuilt: everything is compared.
    a.sql(&format!(
        "drop trigger strict; alter table notes rename to old_notes; {NOTES};
         insert into notes select * from old_notes; drop table old_notes;
         insert into notes values ('{CANARY}-3', '{CANARY}', '', 0, 'LOCAL_ONLY')"
    ));
    both();
    both();
    quiet(&a, &["verify"]);
    quiet(&a, &["verify", "--repair"]);
    a.sql(&format!(
        "delete from notes where id like '{CANARY}%' and level = 'LOCAL_ONLY' or id = 'r'"
    ));
    both();

    for d in [&a, &b] {
        for words in [
            &["status"][..],
            &["--json", "status"],
            &["--json", "queue"],
            &["--json", "queue", "--errors"],
            &["--json", "conflicts"],
            &["--json", "verify"],
            &["--json", "privacy"],
            &["--json", "retry"],
            &["--json", "explain", "notes", "r"],
            &["--json", "explain", "notes", "p"],
            &["--json", "doctor"],
            &["--json", "devices"],
            &["--json", "queue", "--inbox"],
        ] {
            quiet(d, words);
        }
        // What a running service shows and says.
        let service = d.spawn(&["-vv", "run"]);
        let endpoint = Endpoint::of(&service);
        eventually(PATIENCE, "readiness", || {
            endpoint.get("/readyz").status == 200
        });
        for path in ["/", "/metrics", "/readyz"] {
            silent(path, endpoint.get(path).expect(200).body.as_bytes());
        }
        service.signal(libc::SIGTERM);
        let said = service.wait(PATIENCE).ok();
        silent("the service's log", said.stderr.as_bytes());
        silent("tidewater's own tables", own_tables(d).as_bytes());
    }
    // The other device's whole folder, conflicts as JSON included, and what this one writes there.
    let mut all = Vec::new();
    files(b.folder(), &mut all);
    quiet(&a, &["detach", "--yes"]).ok();
    files(&a.folder().join(".tidewater"), &mut all);
    assert!(
        all.iter()
            .any(|f| f.extension().is_some_and(|e| e == "json"))
    );

    // The wire, the tables, the server's log, its data and its WAL.
    let wire = proxy.recorded();
    let seen = b"seen-everywhere";
    let sees = |bytes: &[u8]| bytes.windows(seen.len()).any(|w| w == seen);
    assert!(sees(&wire), "the record holds what was sent");
    silent("the wire", &wire);
    for table in fleet.server("select tablename from pg_tables where schemaname = current_schema") {
        let rows = fleet.server(&format!("select t::text from \"{}\" t", table[0]));
        silent(&table[0], format!("{rows:?}").as_bytes());
    }
    fleet.schema.exec("checkpoint");
    silent("the server's log", server.log().as_bytes());
    assert!(sees(server.log().as_bytes()), "the log shows parameters");
    files(&server.data_dir(), &mut all);
    let mut wal = false;
    for file in &all {
        let bytes = fs::read(file).unwrap_or_default();
        wal |= file.components().any(|c| c.as_os_str() == "pg_wal") && sees(&bytes);
        silent(&file.display().to_string(), &bytes);
    }
    assert!(wal, "the WAL was looked at");
}
