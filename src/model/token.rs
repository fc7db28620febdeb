//! What a device has seen of the workspace: the causal token.
//!
//! Everything committed and visible in `last` has been delivered. While a round of pages is under
//! way, what is visible in `target` and not after `pos` has been delivered too. The token is the feed
//! cursor, and it travels with each change as its base.

use super::key::Key;
use super::value::Value;
use serde::{Deserialize, Serialize};

/// The stream number of the tombstones; mirrors have their table id, from 1.
pub const TOMBSTONES: i32 = 0;

/// A `pg_snapshot` in its text form, `xmin:xmax:xip,...`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot(pub String);

impl Snapshot {
    /// The snapshot that sees nothing: real transactions start at 3.
    pub fn empty() -> Self {
        Snapshot("1:1:".into())
    }

    /// `xmin`, `xmax` and the transactions in progress; `None` where the text is not a snapshot.
    pub fn parts(&self) -> Option<(u64, u64, Vec<u64>)> {
        let mut it = self.0.splitn(3, ':');
        let xmin = it.next()?.parse().ok()?;
        let xmax = it.next()?.parse().ok()?;
        let xip = it.next()?;
        let xip = if xip.is_empty() {
            Vec::new()
        } else {
            xip.split(',')
                .map(|x| x.parse().ok())
                .collect::<Option<_>>()?
        };
        Some((xmin, xmax, xip))
    }

    /// Whether a transaction had committed or aborted when the snapshot was taken.
    pub fn sees(&self, xid: u64) -> bool {
        self.parts()
            .is_some_and(|(_, xmax, xip)| xid < xmax && !xip.contains(&xid))
    }

    /// The oldest transaction that was in progress: all before it had ended; 0 where the text is no
    /// snapshot.
    pub fn xmin(&self) -> u64 {
        self.parts().map_or(0, |p| p.0)
    }

    /// The first transaction that was not handed out yet; 0 where the text is no snapshot.
    pub fn xmax(&self) -> u64 {
        self.parts().map_or(0, |p| p.1)
    }
}

/// A place in the one total order of a round: stream, then transaction, then key.
///
/// Streams come first because the target is frozen: any total order is sound, and this one pages each
/// table with one index scan (see `docs/adr`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// `TOMBSTONES` or a table id.
    pub stream: i32,
    /// The transaction of the last row delivered.
    pub xid: u64,
    /// Its key; in the tombstone stream the table id and the key's canonical text.
    pub key: Vec<Value>,
}

impl Position {
    /// The position of a row of a mirror.
    pub fn row(table_id: i32, xid: u64, key: &Key) -> Self {
        Position {
            stream: table_id,
            xid,
            key: key.0.clone(),
        }
    }

    /// The position of a tombstone.
    pub fn tombstone(table_id: i32, xid: u64, pk: &str) -> Self {
        Position {
            stream: TOMBSTONES,
            xid,
            key: vec![Value::Int(i64::from(table_id)), Value::Text(pk.to_owned())],
        }
    }
}

/// What a device has seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Everything visible here has been delivered.
    pub last: Snapshot,
    /// The frozen target of a round under way.
    pub target: Option<Snapshot>,
    /// How far that round has come; `None` at its start.
    pub pos: Option<Position>,
}

impl Token {
    /// The token of a device that has seen nothing.
    pub fn empty() -> Self {
        Token {
            last: Snapshot::empty(),
            target: None,
            pos: None,
        }
    }

    /// The token after a round's last page.
    pub fn at(snapshot: Snapshot) -> Self {
        Token {
            last: snapshot,
            target: None,
            pos: None,
        }
    }

    /// The token as JSON text, which is how it is stored and interned.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The token from its JSON text.
    pub fn from_json(text: &str) -> Result<Token, serde_json::Error> {
        serde_json::from_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_sees_what_ended_before_it() {
        let s = Snapshot("10:20:12,15".into());
        for (xid, seen) in [
            (3, true),
            (11, true),
            (12, false),
            (15, false),
            (19, true),
            (20, false),
        ] {
            assert_eq!(s.sees(xid), seen, "xid {xid}");
        }
        assert!(!Snapshot::empty().sees(3));
        assert!(!Snapshot("nonsense".into()).sees(3));
    }
}
