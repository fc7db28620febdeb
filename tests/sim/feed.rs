//! What changed since, as `src/postgres/{feed,fetch}.rs` answer it.

use super::server::{Conflict, Server, Version, grave_place, place_of, seen};
use tidewater::model::{Key, Op, Position, Side, Snapshot, TOMBSTONES, Token, Value, kind_of};
use tidewater::remote::{self, ConflictRecord, FeedRow, Fetched, Head, Page, PageRequest, Tracked};

/// Behind every mirror.
const CONFLICTS: i32 = i32::MAX;

/// One candidate of a stream, with its place in it.
enum Candidate {
    Row(FeedRow),
    Conflict(Box<ConflictRecord>),
}

impl Server {
    /// Whether something is new in a round.
    fn is_new(&self, xid: u64, token: &Token, target: &Snapshot) -> bool {
        let behind = if self.bug == "cursor_by_sequence" {
            xid < token.last.xmax()
        } else {
            token.last.sees(xid)
        };
        !behind && target.sees(xid)
    }

    fn stream(
        &self,
        request: &PageRequest,
        stream: i32,
        target: &Snapshot,
    ) -> Vec<(u64, String, Position, Candidate)> {
        let token = &request.token;
        let own = |device: &str| device == request.device && self.bug != "own_rows_come_back";
        let mut out = Vec::new();
        let tables = &request.tables;
        let after = |xid: u64, place: &str| {
            token.pos.as_ref().is_none_or(|p| {
                p.stream < stream || (p.stream == stream && (xid, place) > (p.xid, &*place_of(p)))
            })
        };
        if stream == TOMBSTONES {
            for (cell, g) in &self.data.graves {
                let Some(t) = tables.iter().find(|t| t.mirror.id == cell.0) else {
                    continue;
                };
                let place = grave_place(cell);
                if own(&g.device) || !self.is_new(g.xid, token, target) || !after(g.xid, &place) {
                    continue;
                }
                let pos = Position::tombstone(cell.0, g.xid, &cell.1);
                out.push((g.xid, place, pos.clone(), Candidate::Row(row(t, g, pos))));
            }
        } else if stream == CONFLICTS {
            for c in &self.data.conflicts {
                let concerns =
                    |d: &str| d == request.device || request.former.iter().any(|f| f == d);
                let pos = Position {
                    stream,
                    xid: c.xid,
                    key: vec![Value::Text(c.id.clone())],
                };
                let place = place_of(&pos);
                if (concerns(&c.pushed_device) || concerns(&c.server_device))
                    && self.is_new(c.xid, token, target)
                    && after(c.xid, &place)
                {
                    let record = Candidate::Conflict(Box::new(record(c, concerns)));
                    out.push((c.xid, place, pos, record));
                }
            }
        } else if let Some(t) = tables.iter().find(|t| t.mirror.id == stream) {
            for (cell, v) in self.data.rows.iter().filter(|(c, _)| c.0 == stream) {
                if own(&v.device) || !self.is_new(v.xid, token, target) || !after(v.xid, &cell.1) {
                    continue;
                }
                let pos = Position::row(stream, v.xid, &v.key);
                out.push((
                    v.xid,
                    cell.1.clone(),
                    pos.clone(),
                    Candidate::Row(row(t, v, pos)),
                ));
            }
        }
        out.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        out
    }

    pub fn page(&self, request: &PageRequest) -> Page {
        let head = self.head(&request.device);
        let token = &request.token;
        let target = token
            .target
            .clone()
            .unwrap_or_else(|| head.snapshot.clone());
        let mut page = Page {
            head,
            rows: Vec::new(),
            conflicts: Vec::new(),
            next: Token::at(target.clone()),
            more: false,
        };
        let mut streams: Vec<i32> = request.tables.iter().map(|t| t.mirror.id).collect();
        streams.sort_unstable();
        streams.insert(0, TOMBSTONES);
        streams.push(CONFLICTS);
        let (mut rows_left, mut bytes_left) = (request.rows.max(1), request.bytes.max(1));
        for stream in streams {
            let found = self.stream(request, stream, &target);
            if found.is_empty() {
                continue;
            }
            let all = found.len();
            let mut read = 0;
            let mut last = None;
            for (_, _, pos, candidate) in found.into_iter().take(rows_left) {
                let bytes = match &candidate {
                    Candidate::Row(r) => r.version.row.as_ref().map_or(1, |r| r.weight().max(1)),
                    Candidate::Conflict(c) => weight(c),
                };
                let first = read == 0 && page.rows.is_empty();
                if bytes > bytes_left && !first {
                    break;
                }
                bytes_left = bytes_left.saturating_sub(bytes);
                read += 1;
                last = Some(pos);
                match candidate {
                    // A tombstone whose row exists is never reported.
                    Candidate::Row(r) if r.version.row.is_none() && self.lives(&r) => {}
                    Candidate::Row(r) => page.rows.push(r),
                    Candidate::Conflict(c) => page.conflicts.push(*c),
                }
            }
            let more = read < all || read >= rows_left;
            rows_left = rows_left.saturating_sub(read);
            if more || rows_left == 0 || bytes_left == 0 {
                let pos = last
                    .or_else(|| page.rows.last().map(|r| r.pos.clone()))
                    .or_else(|| token.pos.clone());
                page.more = true;
                page.next = Token {
                    last: token.last.clone(),
                    target: Some(target),
                    pos,
                };
                break;
            }
        }
        page
    }

    fn lives(&self, r: &FeedRow) -> bool {
        let id = self.data.tables.get(&r.table).map_or(0, |t| t.0);
        self.data.rows.contains_key(&(id, r.key.encode()))
    }

    pub fn fetch(
        &self,
        device: &str,
        token: &Token,
        t: &Tracked,
        keys: &[Key],
    ) -> (Head, Vec<Fetched>) {
        let fetched = keys
            .iter()
            .map(|key| {
                let cell = (t.mirror.id, key.encode());
                let row = self.data.rows.get(&cell);
                let (version, seen) = match row.or_else(|| self.data.graves.get(&cell)) {
                    None => (None, true),
                    Some(v) => {
                        let (stream, place) = match v.row {
                            Some(_) => (cell.0, cell.1.clone()),
                            None => (TOMBSTONES, grave_place(&cell)),
                        };
                        let seen = v.device == device || seen(token, stream, v.xid, &place);
                        (Some(told(v)), seen)
                    }
                };
                Fetched {
                    key: key.clone(),
                    version,
                    seen,
                }
            })
            .collect();
        (self.head(device), fetched)
    }

    pub fn list(
        &self,
        device: &str,
        token: &Token,
        t: &Tracked,
        after: Option<&Key>,
        rows: usize,
    ) -> Vec<Fetched> {
        let after = after.map(Key::encode);
        self.data
            .rows
            .iter()
            .filter(|(c, _)| c.0 == t.mirror.id && after.as_ref().is_none_or(|a| c.1 > *a))
            .take(rows)
            .map(|(c, v)| Fetched {
                key: v.key.clone(),
                version: Some(told(v)),
                seen: v.device == device || seen(token, c.0, v.xid, &c.1),
            })
            .collect()
    }
}

fn told(v: &Version) -> remote::Version {
    remote::Version {
        change: v.change.clone(),
        device: v.device.clone(),
        row: v.row.clone(),
    }
}

fn row(t: &Tracked, v: &Version, pos: Position) -> FeedRow {
    FeedRow {
        table: t.table.name.clone(),
        key: v.key.clone(),
        version: told(v),
        pos,
    }
}

fn weight(c: &ConflictRecord) -> usize {
    let side = |r: &Option<tidewater::model::Row>| r.as_ref().map_or(0, |r| r.to_json().len());
    side(&c.local) + side(&c.remote)
}

/// A conflict seen from a device.
fn record(c: &Conflict, is_own: impl Fn(&str) -> bool) -> ConflictRecord {
    use tidewater::model::Kind;
    let mine = is_own(&c.pushed_device);
    let known = c.kind != Kind::InsertInsert;
    let op = |row: &Option<tidewater::model::Row>| {
        if row.is_some() {
            Op::Upsert
        } else {
            Op::Delete
        }
    };
    let pushed = (
        op(&c.pushed_row),
        c.pushed_row.clone(),
        c.pushed_change.clone(),
    );
    let there = (
        op(&c.server_row),
        c.server_row.clone(),
        c.server_change.clone(),
    );
    let (local, remote) = if mine {
        (pushed, there)
    } else {
        (there, pushed)
    };
    ConflictRecord {
        id: c.id.clone(),
        table: c.table.clone(),
        key: c.key.clone(),
        kind: kind_of(local.0, known, remote.0),
        policy: c.policy,
        winner: if c.pushed_won == mine {
            Side::Local
        } else {
            Side::Remote
        },
        local: local.1,
        remote: remote.1,
        local_change: local.2,
        remote_change: remote.2,
        remote_device: if mine {
            c.server_device.clone()
        } else {
            c.pushed_device.clone()
        },
        detected_at: c.at,
    }
}
