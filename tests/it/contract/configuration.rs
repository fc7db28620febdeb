//! Where settings come from, which of them wins, and what is refused.

use super::{DDL, NOWHERE};
use crate::support::cli::{Device, Output, Running, command, tidewater};
use crate::support::server::Schema;
use crate::support::wait::PATIENCE;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn run(folder: &Path, env: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = command(folder);
    command.args(arguments).envs(env.iter().copied());
    Running::spawn(command).wait(PATIENCE)
}

/// The name of the device that a run in `folder` means.
#[track_caller]
fn named(folder: &Path, env: &[(&str, &str)], arguments: &[&str]) -> String {
    let said = run(folder, env, &[&["--json", "status"], arguments].concat())
        .ok()
        .json();
    said["device"]["name"].as_str().expect("a name").to_owned()
}

fn file(folder: &Path, name: &str) -> String {
    fs::create_dir_all(folder).expect("a folder");
    let config = folder.join(format!("{name}.toml"));
    let text =
        format!("[local]\npath = '{name}.db'\n[device]\nname = '{name}'\n[metrics]\nlisten = ''\n");
    fs::write(&config, text).expect("a file");
    rusqlite::Connection::open(folder.join(format!("{name}.db")))
        .and_then(|c| c.execute_batch(DDL))
        .expect("a database");
    let config = config.to_str().expect("text").to_owned();
    tidewater(folder, &["-q", "--config", &config, "init"]).ok();
    config
}

/// Flag, `$TIDEWATER_CONFIG`, the working folder, `$XDG_CONFIG_HOME`; paths in a file begin at its folder,
/// wherever the program runs.
#[test]
fn the_configuration_is_found_in_the_order_of_the_contract() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let flag = file(&home.join("with a space"), "flag");
    let variable = file(&home.join("ünïcode"), "variable");
    let here = file(&home.join("here"), "here");
    let user = file(&home.join("xdg/tidewater"), "user");
    let (work, elsewhere) = (home.join("here"), home.join("elsewhere"));
    fs::create_dir(&elsewhere).expect("a folder");
    fs::rename(&here, work.join("tidewater.toml")).expect("renamed");
    fs::rename(&user, home.join("xdg/tidewater/tidewater.toml")).expect("renamed");
    let xdg = home.join("xdg");
    let env = [
        ("TIDEWATER_CONFIG", variable.as_str()),
        ("XDG_CONFIG_HOME", xdg.to_str().expect("text")),
    ];
    assert_eq!(named(&work, &env, &["--config", &flag]), "flag");
    assert_eq!(
        named(&work, &env, &["--config", "../with a space/flag.toml"]),
        "flag"
    );
    assert_eq!(named(&work, &env, &[]), "variable");
    assert_eq!(named(&work, &env[1..], &[]), "here");
    assert_eq!(named(&elsewhere, &env[1..], &[]), "user");
    // A flag's and a variable's path begin where the program runs.
    assert_eq!(
        named(&elsewhere, &[], &["--db", "../ünïcode/variable.db"]),
        "variable"
    );
    assert_eq!(
        named(
            &work,
            &[("TIDEWATER_LOCAL__PATH", "../with a space/flag.db")],
            &[]
        ),
        "flag"
    );
    for (env, arguments) in [
        (&[][..], &["--config", "nosuch.toml", "status"][..]),
        (&[("TIDEWATER_CONFIG", "nosuch.toml")], &["status"]),
        (&[], &["status"]),
    ] {
        run(&elsewhere, env, arguments).expect_code(2);
    }
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let schema = Schema::new();
    let mut device = Device::new(&schema, "a");
    device.sql(DDL);
    device.tw(&["init"]).ok();
    let seen = |device: &Device, arguments: &[&str]| {
        device.json(&[arguments, &["status"]].concat())["remote"]["schema"].clone()
    };
    assert_eq!(seen(&device, &[]), schema.name());
    device.set_env("TIDEWATER_REMOTE__SCHEMA", "by_variable");
    assert_eq!(seen(&device, &[]), "by_variable");
    assert_eq!(seen(&device, &["--schema", "by_flag"]), "by_flag");
    device.unset_env("TIDEWATER_REMOTE__SCHEMA");
    // Lists as text with commas; what a flag once chose gives way to what is configured since.
    let tables = |device: &Device, arguments: &[&str]| {
        let said = device.json(&[&["init"], arguments].concat());
        let names = said["tables"].as_array().expect("a list").iter();
        names
            .map(|t| t["name"].as_str().expect("a name").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(tables(&device, &["--tables", "mess*"]), ["messages"]);
    assert_eq!(tables(&device, &[]), ["messages"], "again");
    device.set_env("TIDEWATER_LOCAL__TABLES", "messages,pa?rs");
    assert_eq!(tables(&device, &[]), ["messages", "pairs"]);
    device.set_env("TIDEWATER_LOCAL__EXCLUDE", "pairs");
    assert_eq!(tables(&device, &[]), ["messages"]);
}

#[test]
fn what_nobody_can_mean_is_refused_with_key_value_range_and_line() {
    let schema = Schema::new();
    let device = Device::new(&schema, "a");
    device.sql(DDL);
    device.tw(&["init"]).ok();
    let config = fs::read_to_string(device.config()).expect("a file");
    let line = config.lines().count() + 2;
    for (more, says) in [
        (
            "[upload]\nbatch_size = 0",
            &["upload.batch_size", "0", "1 to 100000"][..],
        ),
        (
            "[upload]\nbatch_size = 'many'",
            &["upload.batch_size", "many", "whole number"],
        ),
        (
            "[upload]\nbatch_sise = 5",
            &["upload.batch_sise", "upload.batch_size"],
        ),
        (
            "[download]\nlisten = 1",
            &["download.listen", "true or false"],
        ),
        (
            "[retry]\nmax_delay_seconds = 3601",
            &["retry.max_delay_seconds", "3601", "3600"],
        ),
        (
            "[conflict]\npolicy = 'mine'",
            &["conflict.policy", "mine", "last_write_wins"],
        ),
        (
            "[tables.messages]\nprivacy = 'secret'",
            &["tables.messages.privacy", "secret", "redacted"],
        ),
    ] {
        device.configure(&format!("{config}{more}\n"));
        let said = device.tw(&["status", "--json"]).expect_code(2).json();
        let message = said["error"]["message"].as_str().expect("a message");
        let at = format!("line {line}");
        for part in says.iter().copied().chain([at.as_str()]) {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
    device.configure(&config);
    for (name, value) in [
        ("TIDEWATER_UPLOAD__NOSUCH", "1"),
        ("TIDEWATER_NOSUCH__KEY", "1"),
        ("TIDEWATER_UPLOAD__MAX_IN_FLIGHT", "0"),
        ("TIDEWATER_DOWNLOAD__LISTEN", "perhaps"),
    ] {
        let mut command = device.command(&["pause"]);
        command.env(name, value);
        let said = Running::spawn(command).wait(PATIENCE).expect_code(2);
        assert!(said.stderr.contains(name), "{said:?}");
    }
    assert_eq!(
        device.json(&["status"])["mode"],
        "online",
        "none of them paused it"
    );
}

#[test]
fn a_file_with_a_password_is_for_its_owner_alone() {
    let schema = Schema::new();
    let device = Device::new(&schema, "a");
    device.sql(DDL);
    let config = fs::read_to_string(device.config()).expect("a file");
    device.configure(&config.replacen("postgres://postgres@", "postgres://postgres:hidden@", 1));
    device.tw(&["init"]).ok();
    for mode in [0o644, 0o640, 0o604] {
        fs::set_permissions(device.config(), fs::Permissions::from_mode(mode)).expect("a mode");
        let said = device.tw(&["status"]).expect_code(2);
        assert!(
            said.stderr.contains("chmod 600") && !said.stderr.contains("hidden"),
            "{said:?}"
        );
    }
    fs::set_permissions(device.config(), fs::Permissions::from_mode(0o600)).expect("a mode");
    device.tw(&["status"]).ok();
    device.configure(&config);
    fs::set_permissions(device.config(), fs::Permissions::from_mode(0o644)).expect("a mode");
    device.tw(&["status"]).ok();
    for remote in [
        "postgres://u:hidden@h/d",
        "host=h password=hidden",
        "postgres://h/d?password=hidden",
    ] {
        let said = device.tw(&["--remote", remote, "status"]).expect_code(2);
        assert!(!said.stderr.contains("hidden"), "{said:?}");
    }
}

/// What `init` writes is what it was told, and the next command needs no flags.
#[test]
fn init_writes_a_configuration_where_there_is_none() {
    let schema = Schema::new();
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    rusqlite::Connection::open(folder.join("my app.db"))
        .and_then(|c| c.execute_batch(DDL))
        .expect("a database");
    let told = [
        "--db",
        "my app.db",
        "--remote",
        schema.url(),
        "--schema",
        schema.name(),
    ];
    let words = [&["init", "--tables", "mess*,nosuch"], &told[..]].concat();
    let planned = tidewater(folder, &[&words[..], &["--dry-run"]].concat())
        .ok()
        .stdout;
    assert!(
        planned.contains("messages") && !planned.contains("on \"pairs\""),
        "{planned}"
    );
    assert!(
        !folder.join("tidewater.toml").exists(),
        "nothing was changed"
    );
    tidewater(folder, &words).ok();
    let mode = fs::metadata(folder.join("tidewater.toml"))
        .expect("a file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let written = fs::read_to_string(folder.join("tidewater.toml")).expect("a file");
    for part in ["\"my app.db\"", "\"mess*\"", schema.name()] {
        assert!(written.contains(part), "{part}: {written}");
    }
    let again = tidewater(folder, &["--json", "init"]).ok().json();
    assert_eq!(again["tables"].as_array().map(Vec::len), Some(1), "{again}");
    tidewater(folder, &["now"]).ok();
    assert_eq!(
        fs::read_to_string(folder.join("tidewater.toml")).expect("a file"),
        written
    );
    // One that is there is left alone, also where nobody can be reached.
    tidewater(folder, &[&NOWHERE[..], &["init"]].concat()).ok();
}
