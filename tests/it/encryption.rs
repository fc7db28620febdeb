//! What each `sslmode` proves, client certificates, and logins bound to the channel.

use crate::sides;
use crate::stories::MESSAGES;
use crate::support::certificates::{authority, client, give};
use crate::support::cli::{Device, Output, Running};
use crate::support::server::{Client, Schema, start};
use crate::support::wait::{PATIENCE, eventually};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;
use tidewater::throwaway::{Options, Server};

/// Letters that occur nowhere else; as password, and in files that hold secrets.
const CANARY: &str = "Kd8wCanary5hidden";

struct Sealed {
    server: Server,
    schema: Schema,
    folder: TempDir,
    device: Device,
}

/// A server with TLS whose superuser logs in with SCRAM and whose `certified` with a certificate.
fn sealed() -> Sealed {
    let folder = tempfile::tempdir().unwrap();
    for name in ["mine", "strange"] {
        authority(folder.path(), name);
    }
    client(folder.path(), "mine", "certified");
    client(folder.path(), "strange", "forged");
    let server = start(Options {
        password: Some(CANARY.into()),
        ..Options::default()
    });
    let file = |name: &str| folder.path().join(name);
    give(&server, &file("mine-server.pem"), "server.pem");
    give(&server, &file("mine-server.key"), "server.key");
    give(&server, &file("mine.pem"), "ca.pem");
    let rules = file("pg_hba.conf");
    fs::write(
        &rules,
        "hostssl all certified 127.0.0.1/32 cert\nhost all trusted 127.0.0.1/32 trust\n\
         host all all 127.0.0.1/32 scram-sha-256\n",
    )
    .unwrap();
    give(&server, &rules, "pg_hba.conf");
    server
        .reload(&[
            ("ssl", "on"),
            ("ssl_cert_file", "server.pem"),
            ("ssl_key_file", "server.key"),
            ("ssl_ca_file", "ca.pem"),
        ])
        .unwrap();
    let schema = Schema::on(&server.url());
    eventually(PATIENCE, "a server with TLS", || {
        Client::connect(&server.url()).one("show ssl") == "on"
    });
    for role in ["certified", "trusted"] {
        schema.exec(&format!("create role {role} login superuser"));
    }
    let device = Device::new(&schema, "a");
    device.sql(MESSAGES);
    device.tw(&["init"]).ok();
    Sealed {
        server,
        schema,
        folder,
        device,
    }
}

impl Sealed {
    /// One sync by other settings.
    fn now(&self, user: &str, host: &str, settings: &str) -> Output {
        let port = self.server.port();
        let here = self.folder.path().display().to_string();
        let mut command = self.device.command(&["-vv", "--json", "now"]);
        command.env(
            "TIDEWATER_REMOTE__URL",
            format!(
                "host={host} port={port} user={user} dbname=postgres {}",
                settings.replace("HERE", &here)
            ),
        );
        if user == "postgres" {
            command.env("PGPASSWORD", CANARY);
        }
        let said = Running::spawn(command).wait(PATIENCE * 2);
        silent(&said);
        said
    }

    #[track_caller]
    fn fails(&self, user: &str, host: &str, settings: &str, code: i32, part: &str) {
        let said = self.now(user, host, settings).expect_code(code).json();
        let sync = if code == 2 { "SYNC-013" } else { "SYNC-001" };
        assert_eq!(said["error"]["code"], sync, "{settings}: {said}");
        let all = format!("{} {}", said["error"]["message"], said["error"]["remedy"]);
        assert!(all.contains(part), "{settings}: {said}");
    }
}

#[track_caller]
fn silent(said: &Output) {
    assert!(!said.stdout.contains(CANARY), "{said:#?}");
    assert!(!said.stderr.contains(CANARY), "{said:#?}");
}

#[test]
fn each_sslmode_proves_what_it_says_and_nothing_less() {
    let s = sealed();
    let (right, wrong) = ("127.0.0.1", "localhost");
    for (host, settings) in [
        // Whoever answers is taken ...
        (wrong, "sslmode=require"),
        // ... unless an authority is at hand.
        (wrong, "sslmode=require sslrootcert=HERE/mine.pem"),
        (wrong, "sslmode=verify-ca sslrootcert=HERE/mine.pem"),
        (right, "sslmode=verify-full sslrootcert=HERE/mine.pem"),
        // The address is looked up elsewhere, the name is checked all the same.
        (
            right,
            "hostaddr=127.0.0.1 sslmode=verify-full sslrootcert=HERE/mine.pem",
        ),
    ] {
        s.now("postgres", host, settings).ok();
    }
    for (host, settings, part) in [
        (
            wrong,
            "sslmode=require sslrootcert=HERE/strange.pem",
            "authority",
        ),
        (
            right,
            "sslmode=verify-ca sslrootcert=HERE/strange.pem",
            "authority",
        ),
        (
            right,
            "sslmode=verify-full sslrootcert=HERE/strange.pem",
            "authority",
        ),
        (
            wrong,
            "sslmode=verify-full sslrootcert=HERE/mine.pem",
            "host name",
        ),
        (
            "db.example",
            "hostaddr=127.0.0.1 sslmode=verify-full sslrootcert=HERE/mine.pem",
            "host name",
        ),
    ] {
        s.fails("postgres", host, settings, 3, part);
    }
    // A server that offers no encryption is not taken in its place.
    s.server.reload(&[("ssl", "off")]).unwrap();
    eventually(PATIENCE, "a server without TLS", || {
        Client::connect(&s.server.url()).one("show ssl") == "off"
    });
    for settings in [
        "sslmode=require",
        "sslmode=verify-ca sslrootcert=HERE/mine.pem",
    ] {
        s.fails("postgres", "127.0.0.1", settings, 3, "TLS");
    }
}

#[test]
fn a_login_can_be_bound_to_the_channel() {
    let s = sealed();
    let verified = "sslmode=verify-full sslrootcert=HERE/mine.pem";
    for binding in ["require", "prefer", "disable"] {
        let settings = format!("{verified} channel_binding={binding}");
        s.now("postgres", "127.0.0.1", &settings).ok();
    }
    // A server that asks for no proof at all cannot be the one that knows the password.
    let demanded = format!("{verified} channel_binding=require");
    s.fails("trusted", "127.0.0.1", &demanded, 3, "channel");
    s.now("trusted", "127.0.0.1", verified).ok();
    s.fails(
        "postgres",
        "127.0.0.1",
        "channel_binding=require",
        2,
        "nothing to bind",
    );
}

#[test]
fn a_client_certificate_logs_in_and_its_key_stays_closed() {
    let s = sealed();
    let verified = "sslmode=verify-full sslrootcert=HERE/mine.pem";
    let shown = |name: &str| format!("{verified} sslcert=HERE/{name}.pem sslkey=HERE/{name}.key");
    s.device
        .sql("insert into messages values ('m1', 'by certificate', 1)");
    let done = s
        .now("certified", "127.0.0.1", &shown("certified"))
        .ok()
        .json();
    assert_eq!(done["uploaded"], 1, "{done}");
    sides::assert_equal(&s.device, &s.schema);
    s.fails("certified", "127.0.0.1", verified, 3, "certificate");
    s.fails("certified", "127.0.0.1", &shown("forged"), 3, "sslcert");
    // As for ssh: a key that others can read is not used, and nothing of it is shown.
    let key = s.folder.path().join("certified.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    s.fails(
        "certified",
        "127.0.0.1",
        &shown("certified"),
        2,
        "chmod 600",
    );
    fs::write(&key, CANARY).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    s.fails("certified", "127.0.0.1", &shown("certified"), 2, "sslkey");
}

#[test]
fn the_password_of_a_service_file_appears_nowhere() {
    let s = sealed();
    let file = s.device.folder().join(".pg_service.conf");
    let write = |text: &str, mode: u32| {
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    };
    let good = format!(
        "[team]\nhost=127.0.0.1\nport={}\nuser=postgres\ndbname=postgres\npassword={CANARY}\n",
        s.server.port()
    );
    let by_service = |words: &[&str]| {
        let mut command = s.device.command(words);
        command.env("TIDEWATER_REMOTE__URL", "service=team");
        let said = Running::spawn(command).wait(PATIENCE * 2);
        silent(&said);
        said
    };
    write(&good, 0o600);
    s.device
        .sql("insert into messages values ('m1', 'by service', 1)");
    for words in [
        &["-vv", "now"][..],
        &["-vv", "--json", "status"],
        &["-vv", "verify"],
    ] {
        by_service(words).ok();
    }
    sides::assert_equal(&s.device, &s.schema);
    // What is written down of it leads back to the service, and not to the password.
    let db = s.device.folder().join("copy/app.db");
    fs::create_dir(s.device.folder().join("copy")).unwrap();
    let mut command = s.device.command(&[
        "-vv",
        "--remote",
        "service=team",
        "--schema",
        s.schema.name(),
        "clone",
    ]);
    command.arg(&db).env_remove("TIDEWATER_CONFIG");
    let said = Running::spawn(command).wait(PATIENCE * 2).ok();
    silent(&said);
    let written = fs::read_to_string(s.device.folder().join("copy/tidewater.toml")).unwrap();
    assert!(
        !written.contains(CANARY) && written.contains("service=team"),
        "{written}"
    );

    for (text, mode) in [
        (good.clone(), 0o644),
        (format!("[team]\nhost=h\npasword={CANARY}\n"), 0o600),
        (format!("[team]\nhost=h\n{CANARY}\n"), 0o600),
        (
            format!("[team]\nhost=h\npassword={CANARY}\nport={CANARY}\n"),
            0o600,
        ),
    ] {
        write(&text, mode);
        by_service(&["-vv", "--json", "now"]).expect_code(2);
        by_service(&["-vv", "now"]).expect_code(2);
    }
}
