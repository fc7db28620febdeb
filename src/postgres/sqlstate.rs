//! What each SQLSTATE means for a change, a table, the device: one table, first match wins.
//!
//! The table lists every code whose treatment differs from that of its class, then the classes.
//! A code that matches nothing is `Unknown`: tried again with backoff, never discarded.

use crate::error::Disposition::{
    self, NeedsHuman, OutcomeUnknown, Reconnect, RetryNow, Row, RowLater, SchemaDrift, TooSlow,
    Unknown, WrongServer,
};

/// Codes, by prefix: five characters name one code, two a class.
const POLICY: &[(&str, Disposition)] = &[
    // The outcome is unknown: ask the ledger by sending the same batch again.
    ("08006", OutcomeUnknown),
    ("08003", OutcomeUnknown),
    ("08007", OutcomeUnknown),
    ("40003", OutcomeUnknown),
    // The same batch again at once.
    ("40001", RetryNow),
    ("40P01", RetryNow),
    ("40000", RetryNow),
    ("40002", RetryNow),
    ("25P02", RetryNow),
    ("26000", RetryNow),
    ("42P05", RetryNow),
    // Not within its time, on a lock or at work.
    ("55P03", TooSlow),
    ("57014", TooSlow),
    // The server is away, full or busy: nothing of ours is at fault.
    ("08", Reconnect),
    ("53", Reconnect),
    ("57P01", Reconnect),
    ("57P02", Reconnect),
    ("57P03", Reconnect),
    ("57P05", Reconnect),
    ("57P04", WrongServer),
    ("57000", Reconnect),
    ("25P03", Reconnect),
    ("25P04", Reconnect),
    ("58", Reconnect),
    ("55000", Reconnect),
    ("55006", Reconnect),
    ("72", Reconnect),
    ("XX001", NeedsHuman),
    ("XX002", NeedsHuman),
    ("XX", Reconnect),
    // Not this server, or not for writing.
    ("25", WrongServer),
    ("3D000", WrongServer),
    // A person has to act.
    ("28", NeedsHuman),
    ("42501", NeedsHuman),
    ("0L", NeedsHuman),
    ("0P", NeedsHuman),
    ("F0", NeedsHuman),
    // The schema is not what we think.
    ("42P01", SchemaDrift),
    ("42703", SchemaDrift),
    ("42704", SchemaDrift),
    ("42883", SchemaDrift),
    ("42804", SchemaDrift),
    ("42846", SchemaDrift),
    ("42P07", SchemaDrift),
    ("42701", SchemaDrift),
    ("42P10", SchemaDrift),
    ("42601", SchemaDrift),
    ("42602", SchemaDrift),
    ("42622", SchemaDrift),
    ("42939", SchemaDrift),
    ("42P18", SchemaDrift),
    ("42P21", SchemaDrift),
    ("42P22", SchemaDrift),
    ("428C9", SchemaDrift),
    ("42", SchemaDrift),
    ("3F000", SchemaDrift),
    ("0A000", SchemaDrift),
    ("55P04", SchemaDrift),
    ("54011", SchemaDrift),
    // One row, perhaps later.
    ("23503", RowLater),
    ("23505", RowLater),
    // One row, for good.
    ("21", Row),
    ("22", Row),
    ("23", Row),
    ("44", Row),
    ("54", Row),
    ("P0", Row),
    ("SY", Row),
];

/// The disposition of a SQLSTATE.
pub fn disposition(sqlstate: &str) -> Disposition {
    POLICY
        .iter()
        .find(|(prefix, _)| sqlstate.starts_with(prefix))
        .map_or(Unknown, |(_, d)| *d)
}

/// The condition's name for the codes that rows run into, so that a message need not quote the
/// server's text, which may hold row values.
pub fn condition(sqlstate: &str) -> &'static str {
    match sqlstate {
        "22001" => "the value is too long for its column",
        "22003" => "the number is out of the range of its column",
        "22007" | "22008" => "not a valid date or time",
        "22021" => "the text holds bytes that Postgres text cannot hold",
        "22P02" => "the value does not fit the type of its column",
        "22P03" => "the binary form does not fit the type of its column",
        "22P05" => "the text holds a character that Postgres cannot hold",
        "23502" => "NULL where the column does not allow it",
        "23503" => "the row that it refers to is not there",
        "23505" => "another row holds the same unique value",
        "23514" => "a CHECK constraint refuses the row",
        "23P01" => "an exclusion constraint refuses the row",
        "42501" => "a row security policy or a missing privilege refuses the row",
        "54000" => "the row is too large for Postgres",
        _ => match sqlstate.get(..2) {
            Some("22") => "the value does not fit its column",
            Some("23") => "a constraint refuses the row",
            Some("P0") => "a trigger or function on the server refuses the row",
            _ => "the server refuses the row",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_listed_before_their_class_and_decide_as_written() {
        for (i, (prefix, _)) in POLICY.iter().enumerate() {
            let shadowed = POLICY[..i].iter().find(|(p, _)| prefix.starts_with(p));
            assert!(
                shadowed.is_none(),
                "{prefix} can never match behind {shadowed:?}"
            );
        }
        for (code, expected) in [
            ("40P01", RetryNow),
            ("57014", TooSlow),
            ("23505", RowLater),
            ("23514", Row),
            ("22P02", Row),
            ("53300", Reconnect),
            ("57P01", Reconnect),
            ("28P01", NeedsHuman),
            ("42P01", SchemaDrift),
            ("25006", WrongServer),
            ("25P02", RetryNow),
            ("XX001", NeedsHuman),
            ("XX000", Reconnect),
            ("08007", OutcomeUnknown),
            ("ZZ999", Unknown),
        ] {
            assert_eq!(disposition(code), expected, "{code}");
        }
    }
}
