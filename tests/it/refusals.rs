//! Bad input: each refusal says its code, its cause and its remedy, ends with the exit code of the
//! contract in both forms of output, and leaves everything as it was.

use crate::sides;
use crate::stories::{MESSAGES, messages, through};
use crate::support::cli::{Device, Output, Running, tidewater};
use crate::support::proxy::{Mode, Proxy};
use crate::support::server::{Client, Schema, shared};
use crate::support::wait::PATIENCE;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// What a refusal must say.
struct Wanted<'a> {
    exit: i32,
    code: &'a str,
    /// Words of the cause.
    says: &'a [&'a str],
}

/// Runs `command` in both forms; each must refuse as wanted.
#[track_caller]
fn refused(mut command: impl FnMut(&[&str]) -> Output, words: &[&str], wanted: &Wanted<'_>) {
    let json = command(&[&["--json"], words].concat()).expect_code(wanted.exit);
    let document = json.json();
    let error = &document["error"];
    assert_eq!(error["code"], wanted.code, "{document:#}");
    let (message, remedy) = (
        error["message"].as_str().unwrap_or_default(),
        error["remedy"].as_str().unwrap_or_default(),
    );
    assert!(!message.is_empty() && !remedy.is_empty(), "{document:#}");
    assert!(error.get("table").is_some(), "{document:#}");
    for says in wanted.says {
        assert!(
            format!("{message} {remedy}").contains(says),
            "no {says:?}: {document:#}"
        );
    }
    let human = command(words).expect_code(wanted.exit);
    assert!(
        human.stdout.is_empty(),
        "an answer beside an error: {human:#?}"
    );
    assert!(
        human.stderr.contains(&format!("error[{}]", wanted.code)),
        "{human:#?}"
    );
    for says in wanted.says {
        assert!(human.stderr.contains(says), "no {says:?}: {human:#?}");
    }
    assert!(human.stderr.contains("remedy: "), "{human:#?}");
}

/// Refuses `status` and `now` for what stands in the configuration, without touching the app's file.
#[track_caller]
fn configuration_refused(device: &Device, says: &[&str]) {
    let before = fs::read(device.db()).unwrap();
    let wanted = Wanted {
        exit: 2,
        code: "SYNC-013",
        says,
    };
    for words in [&["status"][..], &["now"], &["init"], &["run"]] {
        refused(|w| device.tw(w), words, &wanted);
    }
    assert!(
        fs::read(device.db()).unwrap() == before,
        "the file was touched"
    );
}

fn configured(schema: &Schema, more: &str) -> Device {
    let device = Device::with_url(schema.url(), schema.name(), "a", more);
    device.sql(MESSAGES);
    device.sql("insert into messages values ('m1', 'precious', 1)");
    device
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_likely_one() {
    let schema = Schema::new();
    let device = configured(&schema, "[upload]\nbatch_sise = 10\n");
    let text = fs::read_to_string(device.config()).unwrap();
    let line = 1 + text.lines().position(|l| l.contains("sise")).unwrap();
    let line = format!("line {line}");
    configuration_refused(&device, &["batch_sise", "batch_size", &line]);
    let device = configured(&schema, "[uplaod]\nbatch_size = 10\n");
    configuration_refused(&device, &["uplaod", "upload"]);
}

#[test]
fn a_wrong_type_and_an_impossible_value_are_refused_with_the_range() {
    let schema = Schema::new();
    let device = configured(&schema, "[upload]\nbatch_size = \"many\"\n");
    configuration_refused(&device, &["upload.batch_size", "many", "line"]);
    let device = configured(&schema, "[upload]\nbatch_size = 0\n");
    configuration_refused(&device, &["upload.batch_size", "0", "1", "100000"]);
    let device = configured(&schema, "[retry]\nmax_delay_seconds = -3\n");
    configuration_refused(&device, &["retry.max_delay_seconds", "-3", "3600"]);
    let device = configured(&schema, "[conflict]\npolicy = \"coin_toss\"\n");
    configuration_refused(
        &device,
        &["conflict.policy", "coin_toss", "last_write_wins"],
    );
}

#[test]
fn an_unknown_or_impossible_variable_is_refused_by_its_name() {
    let schema = Schema::new();
    let mut device = configured(&schema, "");
    device.set_env("TIDEWATER_UPLOAD__BATCH_SISE", "10");
    configuration_refused(&device, &["TIDEWATER_UPLOAD__BATCH_SISE"]);
    device.unset_env("TIDEWATER_UPLOAD__BATCH_SISE");
    device.set_env("TIDEWATER_NOWHERE__KEY", "10");
    configuration_refused(&device, &["TIDEWATER_NOWHERE__KEY"]);
    device.unset_env("TIDEWATER_NOWHERE__KEY");
    device.set_env("TIDEWATER_UPLOAD__BATCH_SIZE", "ten");
    configuration_refused(&device, &["TIDEWATER_UPLOAD__BATCH_SIZE", "ten"]);
    device.unset_env("TIDEWATER_UPLOAD__BATCH_SIZE");
    device.tw(&["init"]).ok();
}

#[test]
fn a_type_that_no_mirror_can_have_is_refused_with_those_that_can() {
    let schema = Schema::new();
    let device = configured(&schema, "[tables.messages]\ntypes = { n = \"money\" }\n");
    configuration_refused(&device, &["types", "money", "timestamptz"]);
}

#[test]
fn a_host_that_does_not_answer_or_exist_loses_nothing() {
    let schema = Schema::new();
    let proxy = Proxy::shared_server();
    let device = messages(&schema, &through(&schema, &proxy), "a", "");
    device.sql("insert into messages values ('m1', 'kept', 1)");
    let wanted = |says| Wanted {
        exit: 3,
        code: "SYNC-001",
        says,
    };
    proxy.set(Mode::Refuse);
    for words in [&["now"][..], &["verify"]] {
        refused(|w| device.tw(w), words, &wanted(&[]));
    }
    // The local commands go on working.
    for words in [
        &["status"][..],
        &["queue"],
        &["conflicts"],
        &["pause"],
        &["resume"],
    ] {
        device.tw(words).ok();
    }
    let nowhere = |w: &[&str]| {
        let mut command = device.command(w);
        command.env(
            "TIDEWATER_REMOTE__URL",
            "postgres://app@no-such-host.invalid/app?sslmode=disable",
        );
        Running::spawn(command).wait(PATIENCE)
    };
    refused(nowhere, &["now"], &wanted(&["no-such-host.invalid"]));
    // It waits in the batch that was formed for it.
    let upload = &device.json(&["status"])["upload"];
    let waiting = upload["pending"].as_u64().zip(upload["uploading"].as_u64());
    assert!(matches!(waiting, Some((1, 0) | (0, 1))), "{upload}");
    proxy.set(Mode::Pass);
    assert_eq!(sides::sync(&device)["uploaded"], 1);
    sides::assert_equal(&device, &schema);
}

/// A role of the shared server, gone with the test.
struct Role(String);

impl Role {
    fn new() -> Role {
        let name = format!("r_{}", ulid::Ulid::generate()).to_lowercase();
        Client::connect(&shared().url()).exec(&format!("create role {name} login"));
        Role(name)
    }

    fn url(&self) -> String {
        shared().url_for(&self.0, None, "postgres")
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        if let Ok(client) = Client::try_connect(&shared().url()) {
            let _ = client.try_exec(&format!("drop owned by {0} cascade; drop role {0}", self.0));
        }
    }
}

#[test]
fn a_login_without_the_privilege_is_told_which_and_loses_nothing() {
    let schema = Schema::new();
    let role = Role::new();
    schema.exec(&format!(
        "grant usage on schema {} to {}",
        schema.name(),
        role.0
    ));
    let device = Device::with_url(&role.url(), schema.name(), "a", "");
    device.sql(MESSAGES);
    device.sql("insert into messages values ('m1', 'precious', 1)");
    let wanted = Wanted {
        exit: 6,
        code: "SYNC-011",
        says: &[schema.name(), "grant"],
    };
    for words in [&["init"][..], &["now"], &["init"]] {
        refused(|w| device.tw(w), words, &wanted);
    }
    assert_eq!(device.json(&["status"])["upload"]["pending"], 1);
    // With the privilege all goes on.
    schema.exec(&format!(
        "grant create on schema {} to {}",
        schema.name(),
        role.0
    ));
    assert_eq!(sides::sync(&device)["uploaded"], 1);
    sides::assert_equal(&device, &schema);
}

#[test]
fn a_database_that_does_not_exist_is_not_usable() {
    let schema = Schema::new();
    let device = configured(&schema, "");
    device.tw(&["init"]).ok();
    let elsewhere = |w: &[&str]| {
        let mut command = device.command(w);
        let url = shared().url_for("postgres", None, "no_such_database");
        command.env("TIDEWATER_REMOTE__URL", url);
        Running::spawn(command).wait(PATIENCE)
    };
    let wanted = Wanted {
        exit: 6,
        code: "SYNC-016",
        says: &["no_such_database"],
    };
    refused(elsewhere, &["now"], &wanted);
    assert_eq!(sides::sync(&device)["uploaded"], 1);
}

#[test]
fn a_file_that_is_missing_or_no_database_or_not_initialised_is_refused() {
    let schema = Schema::new();
    let device = Device::new(&schema, "a");
    let all = [
        &["init"][..],
        &["status"],
        &["now"],
        &["queue"],
        &["run"],
        &["verify"],
    ];
    let unusable = |says| Wanted {
        exit: 4,
        code: "SYNC-012",
        says,
    };
    for words in all {
        refused(|w| device.tw(w), words, &unusable(&["app.db"]));
        assert!(!device.db().exists(), "{words:?} made a file");
    }
    fs::write(
        device.db(),
        "this is a letter to my aunt, not a database\n".repeat(100),
    )
    .unwrap();
    let letter = fs::read(device.db()).unwrap();
    for words in all {
        refused(|w| device.tw(w), words, &unusable(&["app.db", "not"]));
    }
    assert!(
        fs::read(device.db()).unwrap() == letter,
        "the file was touched"
    );

    fs::remove_file(device.db()).unwrap();
    device.sql(MESSAGES);
    for words in &all[1..] {
        refused(|w| device.tw(w), words, &unusable(&["tidewater init"]));
    }
    assert_eq!(
        device
            .rows("select name from sqlite_schema where name like 'tidewater%'")
            .len(),
        0
    );
}

#[test]
fn a_folder_without_a_configuration_says_how_to_get_one() {
    let folder = tempfile::tempdir().unwrap();
    let wanted = Wanted {
        exit: 2,
        code: "SYNC-013",
        says: &[],
    };
    refused(|w| tidewater(folder.path(), w), &["status"], &wanted);
    refused(
        |w| tidewater(folder.path(), w),
        &["--config", "nowhere.toml", "status"],
        &Wanted {
            says: &["nowhere.toml"],
            ..wanted
        },
    );
    for words in [
        &["nwo"][..],
        &["now", "--timeout", "soon"],
        &["queue", "--limit", "0"],
    ] {
        let said = tidewater(folder.path(), &[&["--json"], words].concat()).expect_code(2);
        assert_eq!(said.json()["error"]["code"], "SYNC-013");
        assert!(
            tidewater(folder.path(), words)
                .expect_code(2)
                .stdout
                .is_empty()
        );
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// Somebody without privileges, and not the owner of anything.
const NOBODY: u32 = 65_534;

/// The program in `folder` as a user whom file modes bind. Root makes a copy of the program that this
/// user can reach, for the build folder may be closed to others.
fn unprivileged(device: &Device) -> impl Fn(&[&str]) -> Output {
    let root = fs::metadata(device.folder()).unwrap().uid() == 0;
    let program = device.folder().join("tidewater");
    if root {
        fs::copy(env!("CARGO_BIN_EXE_tidewater"), &program).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        for path in [device.folder(), &device.config()] {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
    let (folder, config) = (device.folder().to_owned(), device.config());
    move |words| {
        let mut command = match root {
            true => Command::new(&program),
            false => Command::new(env!("CARGO_BIN_EXE_tidewater")),
        };
        command
            .current_dir(&folder)
            .env_clear()
            .env("HOME", &folder);
        command.env("TIDEWATER_CONFIG", &config).args(words);
        if root {
            command.uid(NOBODY).gid(NOBODY);
        }
        Running::spawn(command).wait(PATIENCE)
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_file_that_cannot_be_written_is_refused_and_left_alone() {
    let schema = Schema::new();
    let device = configured(&schema, "");
    let run = unprivileged(&device);
    mode(&device.db(), 0o444);
    let before = fs::read(device.db()).unwrap();
    let wanted = |says| Wanted {
        exit: 4,
        code: "SYNC-012",
        says,
    };
    refused(&run, &["init"], &wanted(&["writable"]));
    mode(&device.db(), 0o000);
    refused(&run, &["init"], &wanted(&["app.db"]));
    mode(&device.db(), 0o644);
    assert!(
        fs::read(device.db()).unwrap() == before,
        "the file was touched"
    );

    // One that became read-only later: what was captured stays captured.
    device.tw(&["init"]).ok();
    device.sql("insert into messages values ('m2', 'captured', 2)");
    // The app's last connection is closed, so no log lies beside the file.
    mode(&device.db(), 0o444);
    refused(&run, &["now"], &wanted(&["writable"]));
    mode(&device.db(), 0o644);
    assert_eq!(sides::sync(&device)["uploaded"], 2);
    sides::assert_equal(&device, &schema);
}
