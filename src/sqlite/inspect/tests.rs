use super::*;
use crate::model::Table;
use crate::sqlite::local::Local;

const NOW: i64 = 1_741_000_000_000;

fn file() -> Connection {
    let conn = Connection::open_in_memory().expect("opens");
    Local::migrate(&conn).expect("migrates");
    conn.execute_batch("alter table tidewater_log add column k2")
        .expect("widens");
    for (name, key) in [
        ("messages", vec![("id", "TEXT")]),
        ("votes", vec![("poll", "INT"), ("who", "")]),
    ] {
        let column = |(name, declared): &(&str, &str)| Column {
            name: (*name).into(),
            declared: (*declared).into(),
            not_null: true,
            has_default: false,
            generated: false,
            redacted: false,
            pg_type: None,
        };
        let table = Table {
            name: name.into(),
            columns: key.iter().map(column).collect(),
            key: key.iter().map(|(n, _)| (*n).into()).collect(),
            key_collations: vec![],
            without_rowid: false,
            uniques: vec![],
            foreign_keys: vec![],
            has_app_triggers: false,
            sql: String::new(),
            indexes: vec![],
            privacy: Privacy::Full,
            rows: None,
        };
        conn.execute(
            "insert into tidewater_table (name, rank, spec) values (?1, 0, ?2)",
            [name, &serde_json::to_string(&table).expect("serialises")],
        )
        .expect("inserts");
    }
    conn
}

fn entry(conn: &Connection, change: &str, pk: &str, status: &str, next: Option<i64>) {
    conn.execute(
        "insert into tidewater_outbox (change_key, tbl, pk, op, bytes, base, known, status,
           next_attempt_at, created_at, edited_at, synced_at, error_code, error, remedy)
         values (?1, 'messages', ?2, 'upsert', 10, 1, 0, ?3, ?4, ?5, ?5, ?6, ?7, ?7, ?7)",
        rusqlite::params![
            change,
            pk,
            status,
            next,
            NOW - 5000,
            (status == "synced").then_some(NOW - 1000),
            (status == "failed").then_some("SYNC-005")
        ],
    )
    .expect("inserts");
}

fn log(conn: &Connection, sql: &str) {
    conn.execute_batch(&format!(
        "insert into tidewater_log (tbl, op, at, k1, k2) values {sql}"
    ))
    .expect("inserts");
}

#[test]
fn an_untouched_file_has_nothing_pending() {
    let o = overview(&file(), Time::from_ms(NOW)).expect("reads");
    assert_eq!(o.upload, Upload::default());
    assert_eq!(o.download, Download::default());
    assert_eq!(o.tables.len(), 2);
    let report = o.into_report(Service::default(), RemoteStatus::default(), Circuit::Open);
    assert_eq!(report.mode, Mode::Offline);
}

#[test]
fn captured_changes_count_as_pending_once_for_each_row() {
    let conn = file();
    entry(&conn, "A", "[\"a\"]", "pending", None);
    entry(&conn, "B", "[\"b\"]", "pending", Some(NOW + 1));
    entry(&conn, "C", "[\"c\"]", "failed", None);
    entry(&conn, "D", "[\"d\"]", "uploading", None);
    entry(&conn, "E", "[\"e\"]", "synced", None);
    log(
        &conn,
        "('messages','U',0,'m',null), ('messages','D',0,'m',null), ('votes','B',0,1,'x'), ('votes','I',1740999990000,'1','x')",
    );
    conn.execute_batch(
        "insert into tidewater_state values ('paused','1'), ('synced_total','9'), ('last_pull_at','1741000000000');
         insert into tidewater_note (tbl, pk, base) values ('messages','[\"x\"]',1), ('messages','[\"y\"]',1);
         insert into tidewater_inbox (tbl, pk, op, status, at) values
           ('messages','[\"x\"]','upsert','failed',1), ('messages','[\"z\"]','upsert','applied',1741000000000);",
    )
    .expect("inserts");
    let o = overview(&conn, Time::from_ms(NOW)).expect("reads");
    assert!(o.paused);
    let u = &o.upload;
    assert_eq!((u.pending, u.ready, u.uploading, u.failed), (5, 4, 1, 1));
    assert_eq!(
        (u.synced_today, u.synced_total, u.lag_seconds),
        (1, 9, 10.0)
    );
    assert_eq!(
        (
            o.download.pending,
            o.download.failed,
            o.download.applied_today
        ),
        (1, 1, 1)
    );
    assert_eq!(o.download.last_pull_at, Some(Time::from_ms(NOW)));
    let tables: Vec<_> = o
        .tables
        .iter()
        .map(|t| (t.name.as_str(), t.pending, t.failed))
        .collect();
    assert_eq!(tables, [("messages", 3, 1), ("votes", 2, 0)]);
}

#[test]
fn the_queue_lists_claimed_changes_before_captured_ones() {
    let conn = file();
    entry(&conn, "A", "[\"a\"]", "synced", None);
    entry(&conn, "B", "[\"b\"]", "failed", None);
    entry(&conn, "C", "[\"c\"]", "pending", Some(NOW + 1));
    log(
        &conn,
        "('messages','I',5,'m',null), ('votes','I',6,1,x'ff'), ('messages','D',7,'m',null), ('gone','I',8,'g',null)",
    );
    let q = |which, limit| queue(&conn, which, limit, Time::from_ms(NOW)).expect("reads");
    let all = q(Which::All, 50);
    assert_eq!(all.total, 5);
    let shown: Vec<_> = all
        .items
        .iter()
        .map(|i| (i.key.as_deref(), i.op.as_str(), Key(i.pk.clone()).encode()))
        .collect();
    assert_eq!(
        shown,
        [
            (Some("B"), "upsert", "[\"b\"]".to_owned()),
            (Some("C"), "upsert", "[\"c\"]".to_owned()),
            (None, "upsert", "[1,{\"hex\":\"ff\"}]".to_owned()),
            (None, "delete", "[\"m\"]".to_owned()),
            (None, "upsert", "[\"g\"]".to_owned()),
        ]
    );
    assert_eq!(
        (q(Which::All, 3).items.len(), q(Which::All, 3).total),
        (3, 5)
    );
    let errors = q(Which::Errors, 50);
    assert_eq!((errors.items.len(), errors.total), (1, 1));
    assert_eq!(
        errors.items[0].error.as_ref().map(|e| e.code.as_str()),
        Some("SYNC-005")
    );
    assert_eq!(q(Which::Ready, 50).total, 3);
    assert_eq!(
        queue_item(&conn, "A").expect("reads").map(|i| i.status),
        Some("synced".into())
    );
    assert_eq!(queue_item(&conn, "Z").expect("reads"), None);
    assert_eq!(inbox(&conn, false, 50).expect("reads").total, 0);
}

#[test]
fn a_rows_status_names_the_most_urgent_fact() {
    let conn = file();
    let key = |word: &str| parse_key(&conn, "messages", &[word.to_owned()]).expect("parses");
    let status = |word: &str| row_status(&conn, "messages", &key(word)).expect("reads");
    let nowhere = row_status(&conn, "messages", &key("a")).expect_err("is nowhere");
    assert_eq!(nowhere.code, Code::Configuration);
    conn.execute_batch(
        "create table messages (id text primary key); insert into messages values ('a')",
    )
    .expect("creates");
    assert_eq!(status("a").status, "synced");
    assert!(row_status(&conn, "messages", &key("b")).is_err());
    entry(&conn, "A", "[\"a\"]", "synced", None);
    let synced = status("a");
    assert_eq!(
        (synced.change_key.as_deref(), synced.synced_at),
        (Some("A"), Some(Time::from_ms(NOW - 1000)))
    );
    conn.execute_batch(
        "insert into tidewater_conflict (id, tbl, pk, kind, policy, winner, detected_at)
         values ('01A', 'messages', '[\"a\"]', 'update_update', 'last_write_wins', 'remote', 5)",
    )
    .expect("inserts");
    assert_eq!(status("a").status, "conflict");
    log(&conn, "('messages','U',0,'a',null)");
    assert_eq!(status("a").status, "pending");
    entry(&conn, "B", "[\"a\"]", "failed", None);
    let failed = status("a");
    assert_eq!(
        (failed.status.as_str(), failed.change_key.as_deref()),
        ("failed", Some("B"))
    );
    assert!(failed.error.is_some());
    assert_eq!(table_named(&conn, "Messages").expect("is one"), "messages");
    assert!(table_named(&conn, "nope").is_err());
    let unknown = parse_key(&conn, "nope", &[]).expect_err("not tracked");
    assert_eq!(unknown.code, Code::Configuration);
}

#[test]
fn keys_are_read_by_the_affinity_of_their_columns() {
    let conn = file();
    let words = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
    let key = |a: &str, b: &str| {
        parse_key(&conn, "votes", &words(a, b))
            .expect("parses")
            .encode()
    };
    assert_eq!(key("7", "7"), "[7,7]");
    assert_eq!(key("seven", "x'ff'"), "[\"seven\",{\"hex\":\"ff\"}]");
    assert_eq!(
        key("1.5", "nan"),
        "[{\"real\":\"3ff8000000000000\"},\"nan\"]"
    );
    assert!(parse_key(&conn, "votes", &["7".to_owned()]).is_err());
    let text = parse_key(&conn, "messages", &["7".to_owned()]).expect("parses");
    assert_eq!(text.encode(), "[\"7\"]");
}

#[test]
fn conflicts_come_newest_first_and_are_found_by_a_beginning() {
    let conn = file();
    conn.execute_batch(
        "insert into tidewater_conflict (id, tbl, pk, kind, policy, winner, local, remote, detected_at) values
         ('01AB', 'messages', '[\"a\"]', 'update_update', 'last_write_wins', 'remote', '{\"z\":1,\"a\":\"x\"}', null, 5),
         ('01AC', 'messages', '[\"b\"]', 'insert_insert', 'last_write_wins', 'local', null, null, 9)",
    )
    .expect("inserts");
    let list = conflicts(&conn, 10).expect("reads");
    let ids: Vec<_> = list.conflicts.iter().map(|c| c.id.as_str()).collect();
    assert_eq!((ids, list.total), (vec!["01AC", "01AB"], 2));
    let local = list.conflicts[1]
        .local
        .as_ref()
        .map(crate::model::Row::to_json);
    assert_eq!(local.as_deref(), Some("{\"z\":1,\"a\":\"x\"}"));
    assert_eq!(conflict(&conn, "01ab").expect("finds").id, "01AB");
    assert!(conflict(&conn, "01A").is_err());
    assert!(conflict(&conn, "").is_err());
    assert_eq!(conflict_counts(&conn).expect("counts").unseen, 2);
    let seen = mark_seen(&conn, &["01AB".to_owned()]).expect("marks");
    assert!(seen.conflicts[0].seen);
    assert!(mark_seen(&conn, &["09".to_owned()]).is_err());
    assert_eq!(mark_seen(&conn, &[]).expect("marks").total, 1);
    assert_eq!(conflict_counts(&conn).expect("counts").unseen, 0);
}
