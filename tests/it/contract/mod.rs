//! The public contract, to the letter, as somebody would test it who knows nothing but its page: the
//! program from outside, in the forms that people and programs use. What other tests of this folder
//! show in passing is not repeated here.

mod codes;
mod commands;
mod configuration;
mod documents;

use crate::support::cli::Device;
use crate::support::fleet::Fleet;
use serde_json::Value as Json;

/// Keys of every kind, and a table for what the server refuses.
pub const DDL: &str = "create table messages (id text primary key, body text, n integer);
    create table pairs (a integer, b blob, v real, primary key (a, b)) without rowid;";

/// A device of its own workspace with two rows that were sent.
pub fn synced() -> (Fleet, Device) {
    let fleet = Fleet::new(DDL);
    let device = fleet.device("laptop");
    device.sql(
        "insert into messages values ('m1', 'one', 1);
         insert into pairs values (-2, x'00ff', 1.5)",
    );
    device.json(&["now"]);
    (fleet, device)
}

/// What goes before a command so that it finds no server.
pub const NOWHERE: [&str; 2] = ["--remote", "postgres://postgres@127.0.0.1:1/postgres"];

/// Fails the test unless the text is a time as the contract writes it.
#[track_caller]
pub fn a_time(value: &Json) {
    let text = value.as_str().unwrap_or_else(|| panic!("a time: {value}"));
    assert!(text.ends_with('Z') && text.contains('T'), "{text}");
    serde_json::from_value::<tidewater::report::Time>(value.clone()).expect("RFC 3339");
}

/// Fails the test unless `value` has the form of `pattern`: objects have at least the keys of the
/// pattern, lists have items of the form of its first one. The words of a pattern are types: `text`,
/// `count`, `number`, `bool`, `time`, `ulid`, `any`, with `?` where null is allowed; `a|b` one of several.
#[track_caller]
pub fn has_form(value: &Json, pattern: &Json) {
    let problem = misfit(value, pattern, "");
    assert!(problem.is_none(), "{}: {value:#}", problem.unwrap());
}

fn misfit(value: &Json, pattern: &Json, at: &str) -> Option<String> {
    match pattern {
        Json::Object(keys) => keys.iter().find_map(|(key, inner)| {
            let at = format!("{at}.{key}");
            match value.get(key) {
                Some(found) => misfit(found, inner, &at),
                None => Some(format!("{at} is missing")),
            }
        }),
        Json::Array(items) => match value.as_array() {
            Some(found) => found
                .iter()
                .find_map(|v| misfit(v, items.first().unwrap_or(&Json::Null), &format!("{at}[]"))),
            None => Some(format!("{at} is no list")),
        },
        Json::String(word) => {
            let kind = word.trim_end_matches('?');
            let fits = (value.is_null() && word.ends_with('?'))
                || match kind {
                    "any" => true,
                    "text" => value.as_str().is_some_and(|t| !t.is_empty()),
                    "count" => value.is_u64(),
                    "number" => value.is_number(),
                    "bool" => value.is_boolean(),
                    "time" => value.as_str().is_some_and(|t| {
                        t.ends_with('Z')
                            && serde_json::from_value::<tidewater::report::Time>(value.clone())
                                .is_ok()
                    }),
                    "ulid" => value.as_str().is_some_and(|t| t.len() == 26),
                    words => value
                        .as_str()
                        .is_some_and(|t| words.split('|').any(|w| w == t)),
                };
            (!fits).then(|| format!("{at} is no {word}"))
        }
        other => (value != other).then(|| format!("{at} is not {other}")),
    }
}
