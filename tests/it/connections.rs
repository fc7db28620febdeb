//! Connections: the server that may be used, wherever it is, and networks that fall silent.

use crate::sides;
use crate::stories::{MESSAGES, messages, through};
use crate::support::cli::{Device, Output, Running};
use crate::support::neighbour::Standby;
use crate::support::proxy::{Mode, Proxy};
use crate::support::server::{Client, Schema, start};
use crate::support::wait::{PATIENCE, eventually};
use serde_json::Value as Json;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};
use tidewater::throwaway::Options;

const FAST: &str = "[upload]\npoll_interval_seconds = 0.05\n\n\
                    [download]\npoll_interval_seconds = 0.05\n\n[retry]\nbase_delay_seconds = 0.05\n";

/// One command of a device with another URL.
fn with(device: &Device, url: &str, words: &[&str]) -> Output {
    let mut command = device.command(words);
    command.env("TIDEWATER_REMOTE__URL", url);
    Running::spawn(command).wait(PATIENCE * 2)
}

#[track_caller]
fn refused(said: Output, code: i32, sync: &str) -> Json {
    let said = said.expect_code(code).json();
    assert_eq!(said["error"]["code"], sync, "{said}");
    let remedy = said["error"]["remedy"].as_str().expect("a remedy");
    assert!(!remedy.is_empty(), "{said}");
    said
}

fn several(places: &[(&str, u16)]) -> String {
    let places: Vec<String> = places.iter().map(|(h, p)| format!("{h}:{p}")).collect();
    format!(
        "postgres://postgres@{}/postgres?sslmode=disable",
        places.join(",")
    )
}

#[test]
fn a_standby_is_refused_and_the_primary_is_found_wherever_it_moves() {
    let server = start(Options::default());
    let schema = Schema::on(&server.url());
    let device = messages(&schema, schema.url(), "a", FAST);
    device.sql("insert into messages values ('m1', 'first', 1)");
    sides::sync(&device);
    let standby = Standby::of(&server);

    device.sql("insert into messages values ('m2', 'second', 2)");
    for words in [
        &["--json", "now"][..],
        &["--json", "now", "--pull"],
        &["--json", "verify"],
    ] {
        let said = refused(with(&device, &standby.url(), words), 6, "SYNC-016");
        assert!(
            said["error"]["message"]
                .as_str()
                .unwrap()
                .contains("standby"),
            "{said}"
        );
        assert!(
            said["error"]["remedy"]
                .as_str()
                .unwrap()
                .contains("primary"),
            "{said}"
        );
    }
    let items = sides::queue(&device, &[]);
    assert!(items.iter().all(|i| i["attempts"] == 0), "{items:?}");
    let only_standbys = several(&[("127.0.0.1", standby.port()), ("127.0.0.1", standby.port())]);
    refused(
        with(&device, &only_standbys, &["--json", "now"]),
        6,
        "SYNC-016",
    );
    // The primary may be the one that does not answer: that is being offline.
    let (here, there) = (
        Proxy::start(server.host(), server.port()),
        Proxy::start(server.host(), server.port()),
    );
    here.set(Mode::Refuse);
    let one_is_down = several(&[(here.host(), here.port()), ("127.0.0.1", standby.port())]);
    refused(
        with(&device, &one_is_down, &["--json", "now"]),
        3,
        "SYNC-001",
    );

    // A service goes on wherever the primary turns up.
    let mut command = device.command(&["run"]);
    command.env(
        "TIDEWATER_REMOTE__URL",
        several(&[
            (here.host(), here.port()),
            ("127.0.0.1", standby.port()),
            (there.host(), there.port()),
        ]),
    );
    let service = Running::spawn(command);
    for (n, (up, down)) in [(&there, &here), (&here, &there), (&there, &here)]
        .into_iter()
        .enumerate()
    {
        up.set(Mode::Pass);
        down.set(Mode::Refuse);
        device.sql(&format!(
            "insert into messages values ('moved{n}', 'on', {n})"
        ));
        eventually(PATIENCE, "the primary in its new place", || {
            schema.one(&format!(
                "select count(*) from messages where id = 'moved{n}'"
            )) == "1"
        });
    }
    service.signal(libc::SIGTERM);
    service.wait(PATIENCE).ok();

    // A promoted standby is found too, and recognised: it may lack what the old primary had told.
    server.stop_immediate().unwrap();
    Client::connect(&standby.url()).exec("select pg_promote()");
    let both = several(&[
        (server.host(), server.port()),
        ("127.0.0.1", standby.port()),
    ]);
    let said = with(&device, &both, &["now"]).ok();
    assert!(said.stderr.contains("SYNC-007"), "{said:#?}");
}

#[test]
fn a_read_only_server_is_refused_and_nothing_is_lost() {
    let server = start(Options::default());
    let schema = Schema::on(&server.url());
    let device = messages(&schema, schema.url(), "a", "");
    device.sql("insert into messages values ('m1', 'first', 1)");
    server
        .reload(&[("default_transaction_read_only", "on")])
        .unwrap();
    eventually(PATIENCE, "a read-only server", || {
        Client::connect(&server.url()).one("show default_transaction_read_only") == "on"
    });
    for words in [&["--json", "now"][..], &["--json", "now", "--pull"]] {
        let said = refused(device.tw(words), 6, "SYNC-016");
        assert!(
            said["error"]["message"]
                .as_str()
                .unwrap()
                .contains("read-only"),
            "{said}"
        );
    }
    let fresh = device.folder().join("fresh.db");
    let clone = [
        "--json",
        "clone",
        "--config",
        "tidewater.toml",
        fresh.to_str().unwrap(),
    ];
    refused(device.tw(&clone), 6, "SYNC-016");
    assert!(!fresh.exists());
    let asked = format!("{}&target_session_attrs=read-write", schema.url());
    refused(with(&device, &asked, &["--json", "now"]), 6, "SYNC-016");
    let items = sides::queue(&device, &[]);
    assert!(items.iter().all(|i| i["attempts"] == 0), "{items:?}");
    server.reload(&[]).unwrap();
    eventually(PATIENCE, "a server that takes writes", || {
        Client::connect(&server.url()).one("show default_transaction_read_only") == "off"
    });
    assert_eq!(
        with(&device, &asked, &["--json", "now"]).ok().json()["uploaded"],
        1
    );
    sides::assert_equal(&device, &schema);
}

/// A connection that is cut while nobody uses it: by a reset that is seen at once, by one that is seen
/// at the next use, and by one that takes the answer to a commit with it.
#[test]
fn a_connection_cut_while_idle_is_replaced_without_an_error() {
    let schema = Schema::new();
    let proxy = Proxy::shared_server();
    let rare = "[upload]\npoll_interval_seconds = 3600\n\n\
                [download]\npoll_interval_seconds = 3600\nlisten = false\n";
    let device = messages(&schema, &through(&schema, &proxy), "a", rare);
    let service = device.spawn(&["run"]);
    device.json(&["now"]);
    let idle = || {
        let began = Instant::now();
        eventually(PATIENCE, "an idle while", || {
            began.elapsed() > Duration::from_millis(2_100)
        });
    };

    idle();
    proxy.cut_all();
    device.json(&["now"]);
    idle();
    proxy.set_times(Mode::CutBefore("tidewater_workspace".into()), 1);
    device.json(&["now"]);
    assert_eq!(proxy.stats().cuts, 1);
    idle();
    proxy.set_times(Mode::CutAfterCommitReply, 1);
    device.sql("insert into messages values ('m1', 'once', 1)");
    let done = device.json(&["now"]);
    assert_eq!(proxy.stats().cuts, 2);
    assert_eq!(done["pending"], 0, "{done}");
    service.signal(libc::SIGTERM);
    let said = service.wait(PATIENCE).ok();
    assert!(!said.stderr.contains("SYNC-001"), "{said:#?}");
    sides::assert_equal(&device, &schema);
    assert_eq!(schema.one("select count(*) from messages"), "1");
}

/// Every phase of a conversation may be the last one that is heard.
#[test]
fn every_round_trip_has_a_deadline() {
    let schema = Schema::new();
    let proxy = Proxy::shared_server();
    let device = messages(&schema, &through(&schema, &proxy), "a", "");
    device.sql("insert into messages values ('m0', 'before', 0)");
    sides::sync(&device);
    // Long enough for a healthy answer, far shorter than the patience below.
    let now = |url: &str| {
        let mut command = device.command(&["--json", "now"]);
        command
            .env("TIDEWATER_REMOTE__URL", url)
            .env("TIDEWATER_REMOTE__STATEMENT_TIMEOUT_SECONDS", "3")
            .env("TIDEWATER_REMOTE__CONNECT_TIMEOUT_SECONDS", "2");
        let began = Instant::now();
        let said = Running::spawn(command).wait(PATIENCE * 2);
        let took = began.elapsed();
        assert!(took < PATIENCE, "{took:?}: {said:#?}");
        said
    };
    let hurried = |url: &str| {
        let said = refused(now(url), 3, "SYNC-001");
        said["error"]["message"].as_str().unwrap().to_owned()
    };

    // The connection itself: a listener that accepts nobody.
    let full = TcpListener::bind("127.0.0.1:0").unwrap();
    // SAFETY: listen on an open socket has no memory effects; it only shortens the queue.
    assert_eq!(unsafe { libc::listen(full.as_raw_fd(), 0) }, 0);
    let address = full.local_addr().unwrap();
    let short = Duration::from_millis(200);
    let waiting: Vec<_> = (0..8)
        .map(|_| TcpStream::connect_timeout(&address, short))
        .collect();
    assert!(
        waiting.iter().any(|w| w.is_err()),
        "the queue is never full"
    );
    let said = hurried(&schema.url_through("127.0.0.1", address.port()));
    assert!(said.contains("no answer within 2"), "{said}");

    // The login.
    proxy.set(Mode::BlackHole);
    let said = hurried(&through(&schema, &proxy));
    assert!(said.contains("no answer within 2"), "{said}");
    proxy.set(Mode::Pass);

    // A question.
    proxy.set_times(Mode::SilenceBefore("pg_current_snapshot".into()), 1);
    let said = hurried(&through(&schema, &proxy));
    assert!(said.contains("no answer within 3"), "{said}");

    // A batch and its commit: sent again, and applied once.
    for (n, silence) in [
        Mode::SilenceBefore("insert into".into()),
        Mode::SilenceBeforeCommit,
    ]
    .into_iter()
    .enumerate()
    {
        device.sql(&format!(
            "insert into messages values ('m{}', 'kept', {n})",
            n + 1
        ));
        proxy.set_times(silence, 1);
        let cuts = proxy.stats().cuts;
        let said = now(&through(&schema, &proxy));
        assert!(matches!(said.code, 0 | 3), "{said:#?}");
        assert_eq!(proxy.stats().cuts, cuts + 1);
        // A batch that was silent waits for its turn.
        eventually(PATIENCE, "the change on the server", || {
            device.tw(&["now"]).ok();
            sides::queue(&device, &[])
                .iter()
                .all(|i| i["status"] == "synced")
        });
        sides::assert_equal(&device, &schema);
    }
    assert_eq!(schema.one("select count(*) from messages"), "3");
    assert_eq!(schema.one("select count(*) from tidewater_conflicts"), "0");
}

#[test]
fn a_socket_and_a_service_lead_to_the_server() {
    let server = crate::support::server::shared();
    if server.socket_dir().is_empty() {
        println!("SKIPPED: the server has no socket here");
        return;
    }
    let schema = Schema::new();
    let mut device = Device::with_url(
        &format!(
            "host={} port={} user=postgres dbname=postgres",
            server.socket_dir(),
            server.port()
        ),
        schema.name(),
        "a",
        "",
    );
    device.sql(MESSAGES);
    device.sql("insert into messages values ('m1', 'by socket', 1)");
    device.tw(&["init"]).ok();
    assert_eq!(sides::sync(&device)["uploaded"], 1);

    // By address and name, in a service that the environment names.
    std::fs::write(
        device.folder().join(".pg_service.conf"),
        format!(
            "[here]\nhost=db.invalid\nhostaddr={}\nport={}\nuser=postgres\ndbname=postgres\nsslmode=disable\n",
            server.host(),
            server.port()
        ),
    )
    .unwrap();
    device.configure(&format!(
        "[local]\npath = \"app.db\"\n\n[remote]\nschema = \"{}\"\n",
        schema.name()
    ));
    device.set_env("PGSERVICE", "here");
    device.sql("insert into messages values ('m2', 'by service', 2)");
    assert_eq!(sides::sync(&device)["uploaded"], 1);
    sides::assert_equal(&device, &schema);
}
