//! `tidewater demo`: what a stranger sees first has to work, to fit and to leave nothing behind.

use crate::support::cli::{Output, Running, command};
use crate::support::server::Client;
use crate::support::wait::{PATIENCE, eventually};
use std::path::Path;
use std::process::Command;

/// Runs the demo with `folder` as its place for temporary files.
fn demo(folder: &Path, arguments: &[&str]) -> Output {
    start(folder, arguments).wait(PATIENCE * 2)
}

fn start(folder: &Path, arguments: &[&str]) -> Running {
    let mut command = command(folder);
    // A setting of the person's own must not reach into the demo.
    command
        .env("TMPDIR", folder)
        .env("TIDEWATER_DEVICE__NAME", "elsewhere")
        .arg("demo")
        .args(arguments);
    Running::spawn(command)
}

/// A folder that the account of a throw-away server may enter.
fn open_folder() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    folder
}

fn entries(folder: &Path) -> Vec<String> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}

/// Processes whose command line or folder is under `folder`.
fn processes_of(folder: &Path) -> Vec<String> {
    let needle = folder.to_str().unwrap();
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().into_string().ok()?;
            pid.parse::<u32>().ok()?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(needle).then(|| format!("{pid} {line}"))
        })
        .collect()
}

#[test]
fn the_demo_tells_its_story_in_eighty_columns_and_leaves_nothing_behind() {
    let folder = open_folder();
    let told = demo(folder.path(), &[]).ok();
    let mut rest = told.stdout.as_str();
    for milestone in [
        "laptop $ tidewater init",
        "Initialised laptop",
        "Cloned phone · 1 table · 2 rows",
        "error[SYNC-001]",
        "Nothing is lost: 2 changes wait",
        "↑ 2 sent · ↓ 0 received · 0 conflicts",
        "↑ 0 sent · ↓ 2 received · 0 conflicts",
        "tent|Mend the tent",
        "1 conflict",
        "Buy milk, two bottles",
        "The last write won",
        "(\"Buy oat milk\")",
        "laptop/.tidewater/conflicts/",
        "psql -c",
        "The plumber comes at nine|1",
        "The plumber comes at nine|1",
        "identical",
        "identical",
    ] {
        let at = rest.find(milestone).unwrap_or_else(|| {
            panic!("{milestone:?} is not there, or not in its place\n{told:#?}")
        });
        rest = &rest[at + milestone.len()..];
    }
    for line in told.stdout.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert_eq!(told.stderr, "");
    assert_eq!(entries(folder.path()), Vec::<String>::new());
    assert_eq!(processes_of(folder.path()), Vec::<String>::new());
}

#[test]
fn the_demo_as_json_is_one_document() {
    let folder = open_folder();
    let json = demo(folder.path(), &["--json"]).ok().json();
    assert_eq!(json["identical"], true);
    assert_eq!(json["offline"], "SYNC-001");
    assert_eq!(json["waited"], 2);
    assert_eq!(json["conflict"]["winner"], "remote");
    assert_eq!(json["conflict"]["local"]["body"], "Buy oat milk");
    assert_eq!(json["kept"], serde_json::Value::Null);
    assert_eq!(entries(folder.path()), Vec::<String>::new());
}

#[test]
fn a_kept_demo_goes_on_until_its_own_command_ends_it() {
    let folder = open_folder();
    let json = demo(folder.path(), &["--keep", "--json"]).ok().json();
    let kept = &json["kept"];
    let stop = kept["stop"].as_str().unwrap();
    let ended = Ended(stop.to_owned());
    let server = Client::connect(kept["url"].as_str().unwrap());
    server.exec("update demo.notes set body = 'afterwards' where id = 'tent'");
    for config in kept["configs"].as_array().unwrap() {
        let config = config.as_str().unwrap();
        let mut now = command(folder.path());
        now.args(["--config", config, "--json", "now"]);
        let now = Running::spawn(now).wait(PATIENCE).ok().json();
        assert_eq!(now["downloaded"], 1, "{config}");
    }
    drop(server);
    drop(ended);
    eventually(PATIENCE, "the end of the kept demo", || {
        entries(folder.path()).is_empty() && processes_of(folder.path()).is_empty()
    });
}

/// Runs the command that ends a kept demo, also when the test fails before.
struct Ended(String);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = Command::new("sh").args(["-c", &self.0]).status();
    }
}

#[test]
fn an_interrupted_demo_cleans_up() {
    let folder = open_folder();
    let running = start(folder.path(), &[]);
    eventually(PATIENCE, "the first chapter", || {
        running.stdout().contains("tidewater init")
    });
    running.signal(libc::SIGINT);
    let ended = running.wait(PATIENCE);
    // It may have been done just before.
    assert!([0, 130].contains(&ended.code), "{ended:#?}");
    eventually(PATIENCE, "the folder to be empty", || {
        entries(folder.path()).is_empty() && processes_of(folder.path()).is_empty()
    });
}

#[test]
fn the_demo_refuses_what_it_would_have_to_ignore() {
    let folder = open_folder();
    let refused = demo(folder.path(), &["--db", "mine.db"]).expect_code(2);
    assert!(refused.stderr.contains("--db"), "{refused:#?}");
}
