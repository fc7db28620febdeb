//! Seven outputs as people see them, with and without colour, against texts that were looked at.
//!
//! `TIDEWATER_UPDATE_SNAPSHOTS=1` writes the texts anew; look at them before they are committed. Ids, times
//! and ages are made equal first, in their own width, and an escape is written as `␛`.

use crate::support::cli::Device;
use crate::support::fleet::{Fleet, conflicts};
use std::fs;
use std::path::Path;

const DDL: &str = "create table chats (id text primary key, title text, pinned integer);
    create table messages (id text primary key, chat text, body text, n integer);";

/// A device with something of everything: sent, waiting, failed, in conflict.
fn busy_device(fleet: &Fleet) -> Device {
    let (a, b) = (fleet.device("laptop"), fleet.device("phone"));
    a.sql(
        "insert into chats values ('c1', 'Groceries', 0), ('c2', 'Holidays', 1);
         insert into messages values ('m1', 'c1', 'milk', 1), ('m2', 'c1', 'bread', 2)",
    );
    a.tw(&["now"]).ok();
    b.tw(&["now"]).ok();
    b.sql("update chats set title = 'Groceries, and the rest', pinned = 1 where id = 'c1'");
    a.sql("update chats set title = 'Shopping' where id = 'c1'");
    a.tw(&["now"]).ok();
    b.tw(&["now"]).ok();
    a.tw(&["now"]).ok();
    let refuse = "alter table messages add constraint positive_numbers_only check (n > 0)";
    fleet.schema.exec(refuse);
    a.sql("update messages set n = -1 where id = 'm2'");
    a.tw(&["now"]).expect_code(1);
    a.sql(
        "insert into messages values ('a key that is far too long for one line', 'c2', 'sea', 3)",
    );
    a
}

#[test]
fn what_people_see_is_what_was_looked_at() {
    let fleet = Fleet::configured(DDL, "[conflict]\npreserve_original = false\n");
    let device = busy_device(&fleet);
    let conflict = conflicts(&device)[0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let mut faults = Vec::new();
    for (name, code, words) in [
        ("status", 0, &["status"][..]),
        ("queue", 0, &["queue"]),
        ("queue_errors", 0, &["queue", "--errors"]),
        ("conflicts", 0, &["conflicts"]),
        ("conflicts_show", 0, &["conflicts", "show", &conflict]),
        ("verify", 1, &["verify"]),
        ("explain", 0, &["explain", "messages", "m2"]),
    ] {
        for (color, ending) in [("never", ""), ("always", "_colour")] {
            let said = device.tw(&[&["--color", color], words].concat());
            let said = said.expect_code(code).stdout;
            let text = alike(&said.replace(fleet.schema.name(), "team"));
            for line in plain(&said.replace('\u{1b}', "␛")).lines() {
                assert!(line.chars().count() <= 80, "{name}: {line}");
            }
            // Where a sentence breaks depends on ages and on the name of the test's workspace.
            let text = match name {
                "status" => text.replace("\n             ", " "),
                _ => text,
            };
            let file = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests/it/snapshots")
                .join(format!("{name}{ending}.txt"));
            if std::env::var_os("TIDEWATER_UPDATE_SNAPSHOTS").is_some() {
                fs::write(&file, &text).expect("a snapshot");
            }
            let expected = fs::read_to_string(&file).unwrap_or_default();
            if expected != text {
                faults.push(format!("{}\n{expected}\nis now\n\n{text}", file.display()));
            }
            if color == "always" {
                assert!(text.contains('␛'), "{name} has no colour: {text}");
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Ids, times, ages and versions made equal.
fn alike(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut ids: Vec<String> = Vec::new();
    let mut out = String::new();
    let mut i = 0;
    while i < chars.len() {
        let rest = &chars[i..];
        let begins = i == 0 || !chars[i - 1].is_ascii_alphanumeric() || chars[i - 1] == 'm';
        if begins
            && shaped(rest, &["0"])
            && rest.len() >= 26
            && rest[..26]
                .iter()
                .all(|c| c.is_ascii_digit() || c.is_ascii_uppercase())
        {
            let id: String = rest[..26].iter().collect();
            let n = ids
                .iter()
                .position(|known| *known == id)
                .unwrap_or_else(|| {
                    ids.push(id);
                    ids.len() - 1
                });
            out.push_str(&format!(
                "01{}",
                char::from(b'A' + n as u8).to_string().repeat(24)
            ));
            i += 26;
        } else if begins && shaped(rest, &["9999-99-99 99:99:99.999"]) {
            out.push_str("2026-01-02 03:04:05.678");
            i += 23;
        } else if begins && shaped(rest, &["9999-99-99 99:99:99"]) {
            out.push_str("2026-01-02 03:04:05");
            i += 19;
        } else if let Some(n) = age(rest).filter(|_| begins) {
            out.push_str("1 s");
            i += n;
        } else if shaped(rest, &["just now"]) {
            out.push_str("1 s ago");
            i += 8;
        } else if shaped(rest, &["PostgreSQL 99"]) {
            out.push_str("PostgreSQL 15.0");
            i += 13;
            while i < chars.len() && (chars[i].is_ascii_digit() || chars[i] == '.') {
                i += 1;
            }
        } else {
            out.push(if rest[0] == '\u{1b}' { '␛' } else { rest[0] });
            i += 1;
        }
    }
    out
}

/// Whether the text begins like one of the patterns; 9 stands for any digit.
fn shaped(text: &[char], patterns: &[&str]) -> bool {
    patterns.iter().any(|p| {
        let n = p.chars().count();
        text.len() >= n
            && p.chars().zip(text).all(|(p, c)| match p {
                '9' => c.is_ascii_digit(),
                p => p == *c,
            })
    })
}

/// The length of a span of time at the beginning: digits and a unit.
fn age(text: &[char]) -> Option<usize> {
    let digits = text
        .iter()
        .take_while(|c| c.is_ascii_digit() || **c == '.')
        .count();
    let unit: String = text
        .get(digits + 1..)?
        .iter()
        .take_while(|c| c.is_ascii_alphabetic())
        .collect();
    let known = ["ms", "s", "min", "h"].contains(&unit.as_str());
    (digits > 0 && text[digits] == ' ' && known).then(|| digits + 1 + unit.len())
}

/// Without what steers a terminal.
fn plain(text: &str) -> String {
    let mut parts = text.split('␛');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(part.split_once('m').map_or(part, |(_, rest)| rest));
    }
    out
}
