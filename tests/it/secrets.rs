//! The password, which appears nowhere, and the certificate, which must prove the server.

use crate::sides;
use crate::stories::MESSAGES;
use crate::support::certificates::{authority, give};
use crate::support::cli::{Device, Output, Running, tidewater};
use crate::support::server::{Schema, start};
use crate::support::wait::{PATIENCE, eventually};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tidewater::throwaway::{Options, Server};

/// Letters that occur nowhere else. It needs no escaping in a URL.
const CANARY: &str = "Zq7xCanary9secret";
const WRONG: &str = "Wv3yCanary9guess";

#[track_caller]
fn silent(said: &Output) {
    for secret in [CANARY, WRONG] {
        assert!(!said.stdout.contains(secret), "{said:#?}");
        assert!(!said.stderr.contains(secret), "{said:#?}");
    }
}

fn guarded() -> Server {
    start(Options {
        password: Some(CANARY.into()),
        ..Options::default()
    })
}

/// A device whose configuration holds `password`.
fn device(server: &Server, schema: &Schema, password: Option<&str>) -> Device {
    let url = server.url_for("postgres", password, "postgres");
    let device = Device::with_url(&url, schema.name(), "a", "");
    device.sql(MESSAGES);
    device.sql("insert into messages values ('m1', 'kept', 1)");
    device
}

#[test]
fn a_wrong_password_is_refused_and_nothing_is_lost() {
    let server = guarded();
    let schema = Schema::on(&server.url());
    let mut device = device(&server, &schema, None);
    for password in [Some(WRONG), None] {
        match password {
            Some(p) => device.set_env("PGPASSWORD", p),
            None => device.unset_env("PGPASSWORD"),
        }
        // Works without the remote, and so without a login too.
        let init = device.tw(&["init"]).ok();
        silent(&init);
        let json = device.tw(&["--json", "now"]).expect_code(3);
        silent(&json);
        let said = json.json();
        assert_eq!(said["error"]["code"], "SYNC-001", "{said}");
        let remedy = said["error"]["remedy"].as_str().unwrap();
        assert!(remedy.contains("PGPASSWORD"), "{said}");
        let human = device.tw(&["now"]).expect_code(3);
        silent(&human);
        assert!(human.stderr.contains("error[SYNC-001]"), "{human:#?}");
        let items = sides::queue(&device, &[]);
        assert!(items.iter().all(|i| i["attempts"] == 0), "{items:?}");
        assert_eq!(device.json(&["status"])["upload"]["pending"], 1);
    }
    device.set_env("PGPASSWORD", CANARY);
    assert_eq!(sides::sync(&device)["uploaded"], 1);
    sides::assert_equal(&device, &schema);
}

#[test]
fn the_password_appears_in_no_output_no_log_and_no_process_list() {
    let server = guarded();
    let schema = Schema::on(&server.url());
    let a = device(&server, &schema, Some(CANARY));
    let every: &[&[&str]] = &[
        &["init", "--dry-run"],
        &["init"],
        &["now"],
        &["status"],
        &["status", "messages", "m1"],
        &["queue"],
        &["queue", "--errors"],
        &["conflicts"],
        &["pause"],
        &["resume"],
        &["retry"],
        &["verify"],
        &["help"],
    ];
    for words in every {
        for form in [
            &["-vv"][..],
            &["-vv", "--json"],
            &["-vv", "--log-format", "json"],
        ] {
            silent(&a.tw(&[form, words].concat()).ok());
        }
    }
    let db = a.folder().join("copy/app.db");
    let config = a.folder().join("copy/tidewater.toml");
    fs::create_dir(a.folder().join("copy")).unwrap();
    fs::copy(a.config(), &config).unwrap();
    let clone = [
        "-vv",
        "clone",
        "--config",
        config.to_str().unwrap(),
        db.to_str().unwrap(),
    ];
    silent(&a.tw(&clone).ok());

    // The service, with and without its server.
    let service = a.spawn(&["-vv", "run", "--log-format", "json"]);
    a.sql("insert into messages values ('m2', 'logged', 2)");
    eventually(PATIENCE, "the service at work", || {
        schema.one("select count(*) from messages") == "2"
    });
    let cmdline = fs::read(format!("/proc/{}/cmdline", service.pid()));
    if let Ok(cmdline) = cmdline {
        let text = String::from_utf8_lossy(&cmdline).into_owned();
        assert!(text.contains("run") && !text.contains(CANARY), "{text}");
    }
    server.stop_immediate().unwrap();
    a.sql("insert into messages values ('m3', 'offline', 3)");
    eventually(PATIENCE, "the failure in the log", || {
        service.stderr().contains("SYNC-001")
    });
    for words in [&["now", "--timeout", "5"][..], &["status"], &["verify"]] {
        silent(&a.tw(&[&["-vv"], words].concat()));
    }
    service.signal(libc::SIGTERM);
    let ended = service.wait(PATIENCE).ok();
    silent(&ended);
    assert!(!ended.stderr.is_empty(), "the log was looked at");

    // Nor in the file, whose copy may go anywhere.
    let bytes = fs::read(a.db()).unwrap();
    let found = bytes.windows(CANARY.len()).any(|w| w == CANARY.as_bytes());
    assert!(!found, "the password lies in the app's file");
}

#[test]
fn a_password_on_the_command_line_is_refused_before_anything_happens() {
    let folder = tempfile::tempdir().unwrap();
    for remote in [
        format!("postgres://app:{CANARY}@127.0.0.1/app"),
        format!("host=127.0.0.1 user=app password={CANARY}"),
    ] {
        for words in [&["status"][..], &["now"], &["clone", "new.db"], &["init"]] {
            let words = [&["--remote", &remote], words].concat();
            let human = tidewater(folder.path(), &words).expect_code(2);
            silent(&human);
            assert!(human.stderr.contains("error[SYNC-013]"), "{human:#?}");
            assert!(human.stderr.contains("PGPASSWORD"), "{human:#?}");
            let json = tidewater(folder.path(), &[&["--json"], words.as_slice()].concat());
            silent(&json);
            let said = json.expect_code(2).json();
            assert_eq!(said["error"]["code"], "SYNC-013", "{said}");
        }
        // As a word in the wrong place it is not repeated either.
        silent(&tidewater(folder.path(), &[&remote]).expect_code(2));
        silent(&tidewater(folder.path(), &["status", "--remot", &remote]).expect_code(2));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_broken_configuration_is_refused_without_its_password() {
    let schema = Schema::new();
    let device = Device::new(&schema, "a");
    device.sql(MESSAGES);
    let base = format!(
        "[local]\npath = \"app.db\"\n\n[remote]\nschema = \"{}\"\n",
        schema.name()
    );
    for broken in [
        format!("url = \"postgres://app:{CANARY}@127.0.0.1/app\n"),
        format!("url = \"postgres://app:{CANARY}@127.0.0.1:port/app\"\n"),
        format!("url = \"postgres://app:{CANARY}@127.0.0.1/app?sslmode=allow\"\n"),
        format!("url = \"host=127.0.0.1 password={CANARY} nonsense=1\"\n"),
        format!("url = [\"postgres://app:{CANARY}@127.0.0.1/app\"]\n"),
        format!("url = \"postgres://app:{CANARY}@127.0.0.1/app\" x\n"),
        format!("urll = \"postgres://app:{CANARY}@127.0.0.1/app\"\n"),
        format!("schema2 = \"x\"\nurl = \"postgres://app:{CANARY}@127.0.0.1/app\"\n"),
    ] {
        device.configure(&format!("{base}{broken}"));
        for form in [&["-vv", "status"][..], &["--json", "now"]] {
            silent(&device.tw(form).expect_code(2));
        }
    }
    // A file with a password that others can read is refused, as ssh does.
    device.configure(&format!(
        "{base}url = \"postgres://app:{CANARY}@127.0.0.1/app\"\n"
    ));
    fs::set_permissions(device.config(), fs::Permissions::from_mode(0o644)).unwrap();
    let said = device.tw(&["status"]).expect_code(2);
    silent(&said);
    assert!(said.stderr.contains("chmod 600"), "{said:#?}");
}

#[test]
fn the_servers_certificate_is_verified_and_a_stranger_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    authority(folder.path(), "mine");
    authority(folder.path(), "strange");
    let server = start(Options {
        settings: vec![("log_connections".into(), "on".into())],
        ..Options::default()
    });
    give(
        &server,
        &folder.path().join("mine-server.pem"),
        "server.pem",
    );
    give(
        &server,
        &folder.path().join("mine-server.key"),
        "server.key",
    );
    server
        .reload(&[
            ("ssl", "on"),
            ("ssl_cert_file", "server.pem"),
            ("ssl_key_file", "server.key"),
            ("log_connections", "on"),
        ])
        .unwrap();
    let schema = Schema::on(&server.url());
    eventually(PATIENCE, "a server with TLS", || {
        schema.one("show ssl") == "on"
    });

    let url = |host: &str, ca: &str| {
        format!(
            "postgres://postgres@{host}:{}/postgres?sslmode=verify-full&sslrootcert={}",
            server.port(),
            folder.path().join(ca).display()
        )
    };
    let device = Device::with_url(&url("127.0.0.1", "mine.pem"), schema.name(), "a", "");
    device.sql(MESSAGES);
    device.sql("insert into messages values ('m1', 'sealed', 1)");
    device.tw(&["init"]).ok();
    assert_eq!(sides::sync(&device)["uploaded"], 1);
    sides::assert_equal(&device, &schema);
    let log = server.log();
    assert!(
        log.lines()
            .any(|l| l.contains("application_name=tidewater/") && l.contains("SSL enabled")),
        "{log}"
    );

    device.sql("insert into messages values ('m2', 'kept', 2)");
    let with = |url: &str, words: &[&str]| {
        let mut command = device.command(words);
        command.env("TIDEWATER_REMOTE__URL", url);
        Running::spawn(command).wait(PATIENCE)
    };
    // Another authority, another name, and nobody's authority at all.
    for stranger in [
        url("127.0.0.1", "strange.pem"),
        url("localhost", "mine.pem"),
        format!(
            "postgres://postgres@127.0.0.1:{}/postgres?sslmode=verify-full",
            server.port()
        ),
    ] {
        let said = with(&stranger, &["--json", "now"]);
        // A machine without any authorities says so, which is a matter of its configuration.
        if said.code == 2 && said.stdout.contains("certificate authorities") {
            continue;
        }
        let said = said.expect_code(3).json();
        assert_eq!(said["error"]["code"], "SYNC-001", "{said}");
        let message = said["error"]["message"].as_str().unwrap();
        assert!(message.contains("certificate"), "{said}");
        let human = with(&stranger, &["now"]).expect_code(3);
        assert!(human.stderr.contains("remedy: "), "{human:#?}");
    }
    assert_eq!(schema.one("select count(*) from messages"), "1");
    // A server without TLS is no substitute.
    server.reload(&[("ssl", "off")]).unwrap();
    eventually(PATIENCE, "a server without TLS", || {
        schema.client().one("show ssl") == "off"
    });
    let said = device.tw(&["--json", "now"]).expect_code(3).json();
    assert_eq!(said["error"]["code"], "SYNC-001", "{said}");
    assert_eq!(schema.one("select count(*) from messages"), "1");
    // What cannot be read as an authority is the configuration's fault.
    let said = with(&url("127.0.0.1", "missing.pem"), &["--json", "now"]).expect_code(2);
    assert!(said.stdout.contains("missing.pem"), "{said:#?}");
}
