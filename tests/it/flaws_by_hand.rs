//! The flaws of the protocol that a well-behaved device never provokes: batches made by hand and given
//! to the engine's own remote, pages kept too long (PROTOCOL section 1: F4, F5, F6b, F7).

use crate::support::cli::Device;
use crate::support::fleet::{ALL, Fleet, ITEMS, config, conflicts, crash, id, remote};
use crate::support::proxy::{Mode, Proxy};
use crate::support::wait::PATIENCE;
use std::path::Path;
use tidewater::model::{ChangeKey, Key, Op, Policy, Row, Snapshot, Token, Value};
use tidewater::postgres::PgRemote;
use tidewater::remote::{
    Batch, Hello, Identity, Item, Outcome, Page, PageRequest, PushAnswer, Remote, ServerState,
    Tracked,
};
use tidewater::sqlite::apply::{self, Applied, Slicing};
use tidewater::sqlite::local::{Local, load_tables, tracked};
use tidewater::sqlite::state;
use tokio::runtime::Runtime;

/// A device without a file: it sends what the test tells it to.
struct Hand {
    runtime: Runtime,
    remote: PgRemote,
    tables: Vec<Tracked>,
    identity: Identity,
    device: String,
    /// The time of its next change, ms.
    clock: i64,
}

/// The tables of an initialised device, and a runtime for the engine's calls.
fn engine(of: &Device) -> (Runtime, Local, Vec<Tracked>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let local = Local::open(&of.db()).expect("the file");
    let tables = tracked(&load_tables(local.conn()).expect("its tables"));
    (runtime, local, tables)
}

impl Hand {
    /// Registers a device of its own in the workspace of `of`, by the way that `of` takes.
    fn new(of: &Device) -> Hand {
        let (runtime, _, tables) = engine(of);
        let remote = remote(of);
        let device = ulid::Ulid::generate().to_string();
        let hello = Hello {
            device: device.clone(),
            name: "hand".into(),
            tables: tables.iter().map(|t| t.table.clone()).collect(),
            user_version: 0,
            former: None,
            dropped: std::collections::BTreeMap::new(),
        };
        let workspace = runtime.block_on(remote.prepare(&hello)).expect("prepared");
        Hand {
            identity: workspace.identity,
            runtime,
            remote,
            tables,
            device,
            clock: 1_700_000_000_000,
        }
    }

    /// A token that has seen everything up to now.
    fn seen_all(&self) -> Token {
        let head = self.runtime.block_on(self.remote.head(&self.device));
        Token::at(head.expect("a head").snapshot)
    }

    /// An upsert of row `id` as an edit of what `base` has seen.
    fn item(&mut self, id: &str, body: &str, base: &Token) -> Item {
        self.clock += 1;
        Item {
            change: ChangeKey::new(self.clock, ulid::Ulid::generate().random()),
            table: "items".into(),
            key: Key(vec![Value::Text(id.into())]),
            op: Op::Upsert,
            row: Row(vec![
                ("id".into(), Value::Text(id.into())),
                ("body".into(), Value::Text(body.into())),
                ("n".into(), Value::Int(0)),
            ]),
            base: base.clone(),
            known: base.last != Snapshot::empty(),
            settle: None,
            seen: Vec::new(),
            bury: false,
            policy: Policy::LastWriteWins,
            erase: false,
        }
    }

    fn batch(&self, seq: i64, prev: Option<&Batch>, confirmed: i64, items: Vec<Item>) -> Batch {
        Batch {
            device: self.device.clone(),
            server: ServerState {
                identity: self.identity.clone(),
                ..ServerState::default()
            },
            seq,
            key: ulid::Ulid::generate().to_string(),
            prev: prev.map(|b| b.key.clone()),
            confirmed,
            cursor: Snapshot::empty(),
            items,
            whole: false,
        }
    }

    fn try_push(&self, batch: &Batch) -> tidewater::error::Result<PushAnswer> {
        self.runtime.block_on(self.remote.push(batch, &self.tables))
    }

    #[track_caller]
    fn push(&self, batch: &Batch) -> PushAnswer {
        self.try_push(batch).expect("an answer")
    }
}

/// The outcomes of an answer that says the batch is in.
#[track_caller]
fn outcomes(answer: PushAnswer) -> Vec<Outcome> {
    match answer {
        PushAnswer::Done { outcomes, .. } => outcomes,
        other => panic!("not in: {other:?}"),
    }
}

const STAMPS: &str =
    "select id, body, tidewater_change, tidewater_xid, tidewater_device from items order by id";

#[test]
fn f4_every_batch_that_is_not_confirmed_keeps_its_outcomes() {
    let proxy = Proxy::shared_server();
    let fleet = Fleet::new(ITEMS);
    let a = fleet.device_through(&proxy, "a", "");
    let mut hand = Hand::new(&a);
    let nothing = Token::empty();
    // Somebody's newer row makes the outcome of batch 0 more than plain `applied`.
    fleet
        .schema
        .exec("insert into items values ('w', 'theirs', 0)");
    let (lost, fine) = (
        hand.item("w", "ours", &nothing),
        hand.item("x", "0", &nothing),
    );
    let first = hand.batch(0, None, 0, vec![lost, fine]);
    let items = vec![hand.item("y", "1", &nothing)];
    let second = hand.batch(1, Some(&first), 0, items);
    let expected = [Outcome::Lost, Outcome::Applied];
    assert_eq!(outcomes(hand.push(&first)), expected);
    proxy.set_times(Mode::CutAfterCommitReply, 1);
    let e = hand.try_push(&second).expect_err("cut");
    assert!(e.is_offline(), "{e:?}");
    assert_eq!(proxy.stats().cuts, 1);
    let before = fleet.server(STAMPS);
    assert_eq!(before.len(), 3, "both batches are in");

    // The last outcome alone could not answer the older batch: its chain key is the newer one's.
    let ledger = "select last_batch, (select count(*) from jsonb_object_keys(outcomes)) \
                  from tidewater_devices where name = 'hand'";
    assert_eq!(fleet.server(ledger), [[second.key.as_str(), "2"]]);
    for _ in 0..2 {
        assert_eq!(
            outcomes(hand.push(&first)),
            expected,
            "not a false SYNC-008"
        );
        assert_eq!(outcomes(hand.push(&second)), [Outcome::Applied]);
    }
    assert_eq!(fleet.server(STAMPS), before, "nothing was applied again");
    assert_eq!(fleet.conflicts(), 1);

    // What the device has confirmed is forgotten, so that the ledger stays small.
    let items = vec![hand.item("z", "2", &nothing)];
    let third = hand.batch(2, Some(&second), 2, items);
    assert_eq!(outcomes(hand.push(&third)), [Outcome::Applied]);
    assert_eq!(fleet.server(ledger), [[third.key.as_str(), "1"]]);
    assert_eq!(hand.push(&first), PushAnswer::Mismatch);
    // A batch whose predecessor is missing is not off the chain, only early.
    let early = hand.batch(4, Some(&third), 3, Vec::new());
    assert_eq!(hand.push(&early), PushAnswer::Behind);
}

/// A page of the feed, as the device of `local` asks for it now.
fn ask(runtime: &Runtime, local: &Local, tables: &[Tracked], of: &Device) -> (Page, Token) {
    let token = state::token(local.conn()).expect("a token");
    let request = PageRequest {
        device: id(of),
        former: Vec::new(),
        identity: state::identity(local.conn()).expect("an identity"),
        token: token.clone(),
        rows: 100,
        bytes: 1 << 20,
        tables: tables.to_vec(),
    };
    let page = runtime.block_on(remote(of).page(&request)).expect("a page");
    (page, token)
}

fn apply_to(path: &Path, page: &Page, asked: &Token, epoch: i64) -> Applied {
    let mut local = Local::open(path).expect("the file");
    let slicing = Slicing {
        time: PATIENCE,
        rows: 100,
        history: true,
        now_ms: 1_700_000_000_000,
    };
    apply::page(&mut local, page, asked, epoch, slicing).expect("applied or dropped")
}

#[test]
fn f5_a_page_that_was_asked_for_before_an_acknowledgement_is_dropped() {
    let fleet = Fleet::new(ITEMS);
    let a = fleet.device("a");
    a.sql("insert into items values ('r', 'first', 0)");
    a.json(&["now"]);
    fleet
        .schema
        .exec("update items set body = 'W' where id = 'r'");
    a.sql("update items set body = 'A' where id = 'r'");
    let (runtime, local, tables) = engine(&a);
    let epoch = state::epoch(local.conn()).expect("an epoch");
    let (page, asked) = ask(&runtime, &local, &tables, &a);
    drop(local);
    assert_eq!(page.rows.len(), 1, "the page brings W");
    // The edit wins over W, and the row is clean when the page is applied.
    assert_eq!(a.json(&["now", "--push"])["uploaded"], 1);
    assert_eq!(fleet.server(ALL), [["r", "A", "0"]]);

    // Without the epoch the stale page goes in, and no feed will ever take it out again: the server's
    // row is this device's own.
    let copy = a.folder().join("copy.db");
    a.rows("pragma wal_checkpoint(truncate)");
    std::fs::copy(a.db(), &copy).expect("a copy");
    let raised = Local::open(&copy)
        .and_then(|l| state::epoch(l.conn()))
        .expect("an epoch");
    assert!(!apply_to(&copy, &page, &asked, raised).stale);
    let bitten = rusqlite::Connection::open(&copy).expect("the copy");
    let body = bitten.query_row("select body from items", [], |r| r.get::<_, String>(0));
    assert_eq!(body.expect("the row"), "W");

    let applied = apply_to(&a.db(), &page, &asked, epoch);
    assert!(applied.stale && applied.installed == 0, "{applied:?}");
    fleet.converge(&[&a], ALL);
    assert_eq!(a.rows(ALL), [["r", "A", "0"]]);
}

#[test]
fn f5_a_page_is_dropped_where_the_cursor_has_moved_since() {
    let fleet = Fleet::new(ITEMS);
    let a = fleet.device("a");
    a.json(&["now"]);
    fleet
        .schema
        .exec("insert into items values ('r', 'first', 0)");
    let (runtime, local, tables) = engine(&a);
    let epoch = state::epoch(local.conn()).expect("an epoch");
    let (page, asked) = ask(&runtime, &local, &tables, &a);
    drop(local);
    fleet.schema.exec("update items set body = 'second'");
    a.json(&["now", "--pull"]);
    let applied = apply_to(&a.db(), &page, &asked, epoch);
    assert!(applied.stale, "{applied:?}");
    assert_eq!(a.rows(ALL), [["r", "second", "0"]]);
}

#[test]
fn f6b_a_number_that_happens_to_fit_does_not_let_a_copy_in() {
    let fleet = Fleet::new(ITEMS);
    let a = fleet.device("a");
    let mut hand = Hand::new(&a);
    let nothing = Token::empty();
    let items = vec![hand.item("r", "0", &nothing)];
    let common = hand.batch(0, None, 0, items);
    outcomes(hand.push(&common));
    // The twin deletes the row as batch 1 of the same device.
    let mut gone = hand.item("r", "", &hand.seen_all());
    (gone.op, gone.row) = (Op::Delete, Row::default());
    let twin = hand.batch(1, Some(&common), 1, vec![gone]);
    assert_eq!(outcomes(hand.push(&twin)), [Outcome::Applied]);
    let grave = "select pk, tidewater_change, tidewater_device from tidewater_tombstones";
    let before = fleet.server(grave);
    assert_eq!(before.len(), 1);

    // This copy pipelines its own batches 1 and 2. Number 2 fits by chance; its chain does not.
    let base = hand.seen_all();
    let items = vec![hand.item("x", "1", &base)];
    let one = hand.batch(1, Some(&common), 1, items);
    let items = vec![hand.item("r", "copy", &base)];
    let two = hand.batch(2, Some(&one), 1, items);
    let expected = "select push_seq from tidewater_devices where name = 'hand'";
    assert_eq!(
        fleet.schema.one(expected),
        "2",
        "the number that is expected"
    );
    assert_eq!(hand.push(&one), PushAnswer::Mismatch);
    assert_eq!(hand.push(&two), PushAnswer::Mismatch);
    assert_eq!(fleet.server(grave), before, "the twin's delete stands");
    assert!(fleet.server(ALL).is_empty());
}

const CHECKED: &str = "alter table items add constraint no_bad check (body <> 'bad')";

#[test]
fn f7_the_server_cannot_tell_an_own_older_change_from_a_newer_one() {
    // Why the outbox must never have two changes of a row unresolved.
    let fleet = Fleet::new(ITEMS);
    let a = fleet.device("a");
    let mut hand = Hand::new(&a);
    let base = Token::empty();
    fleet.schema.exec(CHECKED);
    let older = hand.item("r", "bad", &base);
    let first = hand.batch(0, None, 0, vec![older.clone()]);
    let refused = outcomes(hand.push(&first));
    assert!(
        matches!(&refused[..], [Outcome::Refused(r)] if r.sqlstate == "23514"),
        "{refused:?}"
    );
    let newer = vec![hand.item("r", "newer", &base)];
    let second = hand.batch(1, Some(&first), 0, newer);
    outcomes(hand.push(&second));
    fleet
        .schema
        .exec("alter table items drop constraint no_bad");
    let third = hand.batch(2, Some(&second), 0, vec![older]);
    assert_eq!(outcomes(hand.push(&third)), [Outcome::Applied]);
    assert_eq!(
        fleet.schema.one("select body from items"),
        "bad",
        "the older content is back"
    );
}

#[test]
fn f7_a_refused_change_folds_into_the_later_one_of_its_row() {
    let fleet = Fleet::new(ITEMS);
    let a = fleet.device("a");
    a.sql("insert into items values ('r', 'first', 0), ('s', 'other', 0)");
    a.json(&["now"]);
    fleet.schema.exec(CHECKED);
    a.sql("update items set body = 'bad' where id = 'r'");
    crash(&a, "batch_formed", &["now", "--push"]);
    fleet.schema.exec("update items set n = 9 where id = 'r'");
    a.sql("update items set body = 'good' where id = 'r'; update items set n = 1 where id = 's'");
    let pushed = a.json(&["now", "--push"]);
    assert_eq!(
        (&pushed["uploaded"], &pushed["failed"]),
        (&2.into(), &0.into())
    );
    assert_eq!(fleet.server(ALL), [["r", "good", "0"], ["s", "other", "1"]]);
    let unresolved = "select count(*) from tidewater_outbox where status <> 'synced'";
    assert_eq!(a.rows(unresolved), [["0"]]);
    // The fold kept the base of the older change, which had not seen n = 9: nothing was overwritten
    // without a trace.
    fleet.converge(&[&a], ALL);
    let lost = conflicts(&a);
    assert_eq!((lost.len(), &lost[0]["remote"]["n"]), (1, &9.into()));
}

#[test]
fn f7_a_later_change_that_is_too_large_to_send_takes_the_refused_one_in_too() {
    let fleet = Fleet::configured(ITEMS, "[upload]\nrow_bytes_max = 200\n");
    let a = fleet.device("a");
    a.sql("insert into items values ('r', 'first', 0)");
    a.json(&["now"]);
    fleet.schema.exec(CHECKED);
    a.sql("update items set body = 'bad' where id = 'r'");
    crash(&a, "batch_formed", &["now", "--push"]);
    a.sql("update items set body = printf('%.500c', 'x') where id = 'r'");
    a.tw(&["now", "--push"]);
    assert_eq!(a.json(&["queue", "--errors"])["total"], 1);
    let unresolved =
        "select count(*), max(bytes) > 200 from tidewater_outbox where status <> 'synced'";
    assert_eq!(
        a.rows(unresolved),
        [["1", "1"]],
        "one entry, and it is the newer one"
    );
    // Retrying may not bring the older content out again.
    fleet
        .schema
        .exec("alter table items drop constraint no_bad");
    let text = std::fs::read_to_string(a.config()).expect("the configuration");
    a.configure(&text.replace("row_bytes_max = 200", "row_bytes_max = 2000"));
    assert_eq!(config(&a).upload.row_bytes_max, 2000);
    a.tw(&["retry"]).ok();
    assert_eq!(fleet.schema.one("select length(body) from items"), "500");
}
