//! `tidewater demo`: the whole thing in a temporary folder, told as a story.
//!
//! Every answer that is shown is a real one: the same operations as behind the commands, the same
//! words. Ends with exit code 1 where the two devices and PostgreSQL are not equal in the end.

mod stage;
mod voice;

use super::FOUND;
use super::output::{self, Output, error_text};
use super::render;
use crate::config::Env;
use crate::error::{Code, Error, Result};
use crate::report::{Conflict, InitReport, NoProgress, NowReport, Time, VerifyReport};
use crate::sync::ops::{self, InitOptions, InitOutcome, NowOptions};
use serde::Serialize;
use stage::{Device, SCHEMA, Stage};
use std::path::PathBuf;
use std::time::Duration;
use voice::Voice;

/// What the sample app makes of an empty file.
const APP: &str = "\
    create table notes (id text primary key, body text not null, done integer not null default 0);
    insert into notes (id, body) values ('milk', 'Buy milk'), ('plumber', 'Call the plumber');";

/// `--json`: what became of it all.
#[derive(Debug, Serialize)]
struct DemoReport {
    /// The error of the sync while the server was away.
    offline: &'static str,
    /// The changes that waited meanwhile.
    waited: u64,
    /// What the laptop sent afterwards, and the phone received.
    uploaded: u64,
    downloaded: u64,
    /// The one conflict, as the laptop sees it.
    conflict: Conflict,
    /// The rows in the end, on both devices alike.
    rows: Vec<String>,
    /// Whether both devices equal PostgreSQL.
    identical: bool,
    /// Where everything goes on; null where it was removed.
    kept: Option<Kept>,
}

#[derive(Debug, Serialize)]
struct Kept {
    folder: PathBuf,
    url: String,
    schema: &'static str,
    configs: [PathBuf; 2],
    /// The command that ends it all.
    stop: String,
}

/// Tells the story.
pub(super) async fn run(keep: bool, output: &Output) -> Result<u8> {
    let voice = Voice::new(output);
    let stage = Stage::build()?;
    let story = Story {
        voice: &voice,
        stage: &stage,
    };
    voice.title("tidewater demo: two devices, one PostgreSQL, and a row that both change");
    story.two_devices().await?;
    let (offline, waited) = story.written_offline().await?;
    let (sent, received) = story.back_online().await?;
    let conflict = story.both_change_one_row().await?;
    story.by_sql().await?;
    let identical = story.compare().await?;
    let mut report = DemoReport {
        offline,
        waited,
        uploaded: sent.uploaded,
        downloaded: received.downloaded,
        conflict,
        rows: stage.laptop.read(ROWS)?,
        identical,
        kept: None,
    };
    report.identical &= report.rows == stage.phone.read(ROWS)?;
    if keep {
        report.kept = Some(leave_running(stage, &voice)?);
    } else {
        voice.say(
            "That was all. The server stops and the folder goes; `tidewater demo --keep` leaves \
             both for you to play with.",
        )
        .await;
    }
    if output.json() {
        output::document(&report);
    }
    Ok(if report.identical { 0 } else { FOUND })
}

const ROWS: &str = "select id, body from notes order by id";

struct Story<'a> {
    voice: &'a Voice,
    stage: &'a Stage,
}

impl Story<'_> {
    async fn two_devices(&self) -> Result<()> {
        let (voice, stage) = (self.voice, self.stage);
        voice.chapter(1, "A file becomes a device").await;
        voice
            .say(&format!(
                "A throw-away PostgreSQL runs on {}:{}. On the laptop, an app keeps notes in a \
                 SQLite file of its own. One command makes that file a device; the app goes on \
                 as before and knows nothing of it:",
                stage.server.host(),
                stage.server.port()
            ))
            .await;
        stage.laptop.write(APP)?;
        voice.command(Some(&stage.laptop), "tidewater init").await;
        let made = init(&stage.laptop).await?;
        voice
            .answer(&render::init(&made, "Initialised", voice.paint()))
            .await;
        self.now(&stage.laptop).await?;
        voice
            .say("The phone has no file yet. It is made from what PostgreSQL holds:")
            .await;
        let command = "tidewater clone --config tidewater.toml app.db";
        voice.command(Some(&stage.phone), command).await;
        let cloned = ops::clone_in(
            Some(stage.phone.config_file.clone()),
            None,
            None,
            &stage.phone.db,
            &Env::default(),
            &NoProgress,
        )
        .await?;
        voice
            .answer(&render::init(&cloned, "Cloned", voice.paint()))
            .await;
        Ok(())
    }

    /// Returns the code of the error that was met, and how many changes waited.
    async fn written_offline(&self) -> Result<(&'static str, u64)> {
        let (voice, stage) = (self.voice, self.stage);
        voice.chapter(2, "Written offline").await;
        voice
            .say("The server goes away. The app does not notice, for it writes to its own file:")
            .await;
        stage.server.stop_immediate()?;
        let sql = "insert into notes (id, body)\n\
                   values ('gift', 'Find a gift'), ('tent', 'Mend the tent')";
        self.app(&stage.laptop, sql).await?;
        voice.command(Some(&stage.laptop), "tidewater now").await;
        let met = match ops::now(&stage.laptop.config, &NowOptions::default(), &NoProgress).await {
            Err(e) if e.is_offline() => e,
            Err(e) => return Err(e),
            Ok(_) => return Err(unexpected("a sync without a server did not fail")),
        };
        voice.answer(&error_text(&met, voice.paint())).await;
        let upload = ops::status(&stage.laptop.config).await?.upload;
        // What was about to leave when the server was missed waits as well.
        let waits = upload.pending + upload.uploading;
        voice
            .say(&format!(
                "Nothing is lost: {waits} changes wait in the file, as long as it takes."
            ))
            .await;
        Ok((met.code.as_str(), waits))
    }

    async fn back_online(&self) -> Result<(NowReport, NowReport)> {
        let (voice, stage) = (self.voice, self.stage);
        voice.chapter(3, "Online again").await;
        stage.server.start_again()?;
        voice
            .say(
                "The server is back. `tidewater run` would have noticed by itself; here each \
                 device syncs when it is told:",
            )
            .await;
        let sent = self.now(&stage.laptop).await?;
        let received = self.now(&stage.phone).await?;
        self.show(&stage.phone, ROWS).await?;
        Ok((sent, received))
    }

    /// Returns the conflict as the laptop sees it.
    async fn both_change_one_row(&self) -> Result<Conflict> {
        let (voice, stage) = (self.voice, self.stage);
        voice.chapter(4, "Both change one row").await;
        voice
            .say("Apart again. The laptop changes a note, and a moment later so does the phone:")
            .await;
        let sql = "update notes set body = 'Buy oat milk'\nwhere id = 'milk'";
        self.app(&stage.laptop, sql).await?;
        // The later one wins: the two times must differ, which are stamped to the millisecond.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let sql = "update notes set body = 'Buy milk, two bottles'\nwhere id = 'milk'";
        self.app(&stage.phone, sql).await?;
        voice
            .say("The phone happens to sync first, the laptop after it:")
            .await;
        self.now(&stage.phone).await?;
        self.now(&stage.laptop).await?;
        let row = "select body from notes where id = 'milk'";
        self.show(&stage.laptop, row).await?;
        voice
            .say(
                "The last write won, and that was the phone's, whoever synced first. The laptop's \
                 own text is not gone. It is a conflict now, to be looked at when there is time:",
            )
            .await;
        voice
            .command(Some(&stage.laptop), "tidewater conflicts")
            .await;
        let list = ops::conflicts(&stage.laptop.config)?;
        voice
            .answer(&render::conflicts(&list, Time::now(), voice.paint()))
            .await;
        let Some(conflict) = list.conflicts.into_iter().next() else {
            return Err(unexpected("two changes of one row made no conflict"));
        };
        let loser = conflict.local.as_ref().and_then(|row| row.get("body"));
        let text = loser.map(super::style::value).unwrap_or_default();
        let file = conflict.original_file.as_deref().unwrap_or_default();
        let file = file
            .strip_prefix(&format!("{}/", stage.folder().display()))
            .unwrap_or(file);
        voice
            .say(&format!(
                "The row that lost (\"{text}\") is kept there with every column, and as JSON in \
                 {file}. `tidewater conflicts restore ID` would bring it back. The phone learns \
                 that it won:"
            ))
            .await;
        self.now(&stage.phone).await?;
        Ok(conflict)
    }

    async fn by_sql(&self) -> Result<()> {
        let (voice, stage) = (self.voice, self.stage);
        voice.chapter(5, "SQL on the server counts as well").await;
        voice
            .say(
                "In PostgreSQL the notes are an ordinary table. Somebody changes a row there, \
                 without tidewater:",
            )
            .await;
        let sql = format!(
            "update {SCHEMA}.notes set body = 'The plumber comes at nine', done = 1\n\
             where id = 'plumber'"
        );
        voice.command(None, &format!("psql -c \"{sql}\"")).await;
        stage.psql(&sql).await?;
        voice.answer("UPDATE 1").await;
        self.now(&stage.laptop).await?;
        self.now(&stage.phone).await?;
        for device in [&stage.laptop, &stage.phone] {
            let row = "select body, done from notes where id = 'plumber'";
            self.show(device, row).await?;
        }
        Ok(())
    }

    async fn compare(&self) -> Result<bool> {
        let (voice, stage) = (self.voice, self.stage);
        voice.chapter(6, "The same everywhere").await;
        voice
            .say("Each device compares its file with PostgreSQL, row by row:")
            .await;
        let mut identical = true;
        for device in [&stage.laptop, &stage.phone] {
            voice.command(Some(device), "tidewater verify").await;
            let report: VerifyReport = ops::verify(&device.config, &[], false, &NoProgress).await?;
            voice.answer(&render::verify(&report, voice.paint())).await;
            identical &= report.identical;
        }
        Ok(identical)
    }

    /// One sync.
    async fn now(&self, device: &Device) -> Result<NowReport> {
        self.voice.command(Some(device), "tidewater now").await;
        let report = ops::now(&device.config, &NowOptions::default(), &NoProgress).await?;
        let text = render::now(&report, self.voice.paint());
        self.voice.answer(&text).await;
        Ok(report)
    }

    /// A write of the app.
    async fn app(&self, device: &Device, sql: &str) -> Result<()> {
        let command = format!("sqlite3 app.db \"{sql}\"");
        self.voice.command(Some(device), &command).await;
        device.write(sql)
    }

    /// A query of the app.
    async fn show(&self, device: &Device, sql: &str) -> Result<()> {
        let command = format!("sqlite3 app.db \"{sql}\"");
        self.voice.command(Some(device), &command).await;
        self.voice.answer(&device.read(sql)?.join("\n")).await;
        Ok(())
    }
}

async fn init(device: &Device) -> Result<InitReport> {
    match ops::init(&device.config, &InitOptions::default(), &NoProgress).await? {
        InitOutcome::Done(report) | InitOutcome::Partly(report) => Ok(report),
        InitOutcome::DryRun(_) => Err(unexpected("an init turned out to be a dry run")),
    }
}

fn unexpected(what: &str) -> Error {
    Error::new(
        Code::Batch,
        format!("the demo did not go as it should: {what}"),
        "run it again with -v and report what it says",
    )
}

/// Keeps the stage and says how to play on it. Paths are whole, to be copied, however long the lines.
fn leave_running(stage: Stage, voice: &Voice) -> Result<Kept> {
    let url = stage.server.url();
    let psql = match stage.server.psql_path() {
        Some(path) => path.display().to_string(),
        None => "psql".to_owned(),
    };
    let (laptop, phone) = (&stage.laptop, &stage.phone);
    let configs = [laptop.config_file.clone(), phone.config_file.clone()];
    let db = laptop.db.display().to_string();
    let tw = program();
    let [a, b] = configs.each_ref().map(|c| c.display());
    let text = format!(
        "\nEverything goes on running. Change something on either side:\n\
         \n  sqlite3 {db} \"update notes set done = 1\"\n  \
         {psql} '{url}' -c 'table {SCHEMA}.notes'\n\
         \nLet the devices meet, and look at them:\n\
         \n  {tw} --config {a} now\n  {tw} --config {b} now\n  {tw} --config {a} status\n  \
         {tw} --config {a} conflicts\n  {tw} --config {b} run\n"
    );
    let (folder, stop) = stage.keep()?;
    voice.print(&text);
    voice.print(&format!("\nEnd it all:\n\n  {stop}\n"));
    Ok(Kept {
        folder,
        url,
        schema: SCHEMA,
        configs,
        stop,
    })
}

/// This program as it can be typed: by its name where it was found by its name.
fn program() -> String {
    let called = std::env::args().next().unwrap_or_default();
    match std::env::current_exe() {
        Ok(path) if called.contains('/') => path.display().to_string(),
        _ => "tidewater".to_owned(),
    }
}
