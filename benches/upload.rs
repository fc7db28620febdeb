//! End to end: a queue drained by `tidewater now` against a bare COPY of the same rows, in one run.
//!
//! `make bench` runs it. Each round times both, in turn, on a fresh schema of one throw-away server with
//! fsync on; the ratio is what counts, for both share the machine's mood. Rows: 250 bytes of content.

use std::error::Error;
use std::process::Command;
use std::time::{Duration, Instant};
use tidewater::throwaway::{Options, Server};

const ROWS: usize = 100_000;
const ROUNDS: usize = 3;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let server = Server::start(Options {
        fsync: true,
        ..Options::default()
    })?;
    let mut ratios = Vec::new();
    println!("{ROWS} rows of 250 bytes; rows per second");
    println!(
        "{:>8} {:>12} {:>12} {:>12} {:>7}",
        "round", "now", "idle now", "bare COPY", "ratio"
    );
    for round in 1..=ROUNDS {
        let (upload, idle) = upload(&server, round)?;
        let copy = copy(&server, round)?;
        let ratio = copy.as_secs_f64() / upload.as_secs_f64();
        ratios.push(ratio);
        println!(
            "{round:>8} {:>12.0} {:>9} ms {:>12.0} {ratio:>7.2}",
            ROWS as f64 / upload.as_secs_f64(),
            idle.as_millis(),
            ROWS as f64 / copy.as_secs_f64(),
        );
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "median ratio to a bare COPY: {:.2}",
        ratios[ratios.len() / 2]
    );
    Ok(())
}

fn content(i: usize) -> (String, String, i64, f64) {
    (
        format!("k{i:07}"),
        "x".repeat(226),
        i as i64,
        i as f64 / 3.0,
    )
}

/// A device with every row waiting; how long `now` takes, and how long one with nothing to do.
fn upload(server: &Server, round: usize) -> Outcome<(Duration, Duration)> {
    let folder =
        std::env::temp_dir().join(format!("tidewater-bench-{}-{round}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let db = folder.join("app.db");
    let mut app = rusqlite::Connection::open(&db)?;
    app.pragma_update(None, "journal_mode", "wal")?;
    app.execute_batch("create table item (id text primary key, body text, n integer, r real)")?;
    let tidewater = |args: &[&str]| -> Outcome<Duration> {
        let started = Instant::now();
        let done = Command::new(env!("CARGO_BIN_EXE_tidewater"))
            .args(args)
            .arg("--quiet")
            .arg("--db")
            .arg(&db)
            .current_dir(&folder)
            .env("TIDEWATER_REMOTE__URL", server.url())
            .env("TIDEWATER_REMOTE__SCHEMA", format!("bench_{round}"))
            .status()?;
        if !done.success() {
            return Err(format!("tidewater {args:?} failed").into());
        }
        Ok(started.elapsed())
    };
    tidewater(&["init"])?;
    let tx = app.transaction()?;
    {
        let mut insert = tx.prepare("insert into item values (?1, ?2, ?3, ?4)")?;
        for i in 0..ROWS {
            insert.execute(content(i))?;
        }
    }
    tx.commit()?;
    let busy = tidewater(&["now"])?;
    let idle = tidewater(&["now"])?;
    std::fs::remove_dir_all(&folder)?;
    Ok((busy, idle))
}

/// The same rows through `COPY ... FROM STDIN` into a table with the same key.
fn copy(server: &Server, round: usize) -> Outcome<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (client, connection) =
            tokio_postgres::connect(&server.url(), tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        let table = format!("bare_{round}");
        client
            .batch_execute(&format!(
                "create table {table} (id text collate \"C\" primary key, body text, n bigint, \
                 r double precision)"
            ))
            .await?;
        let started = Instant::now();
        let sink = client.copy_in(&format!("copy {table} from stdin")).await?;
        let mut sink = std::pin::pin!(sink);
        for chunk in (0..ROWS).collect::<Vec<_>>().chunks(1000) {
            let mut text = String::new();
            for i in chunk {
                let (id, body, n, r) = content(*i);
                text.push_str(&format!("{id}\t{body}\t{n}\t{r}\n"));
            }
            futures_util::SinkExt::send(&mut sink, bytes::Bytes::from(text)).await?;
        }
        sink.finish().await?;
        Ok(started.elapsed())
    })
}
