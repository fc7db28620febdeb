mod refusals;

use super::*;
use crate::error::Code;
use std::ffi::OsString;
use std::fs;
use tempfile::TempDir;

/// A folder with a configuration file in it, and the surroundings of a process that runs there.
struct Place {
    dir: TempDir,
    env: Env,
    overrides: Overrides,
}

impl Place {
    fn new(text: &str) -> Place {
        let dir = tempfile::tempdir().expect("a folder");
        let env = Env {
            current_dir: dir.path().to_path_buf(),
            host_name: Some("tide".into()),
            user: Some("me".into()),
            ..Env::default()
        };
        let place = Place {
            dir,
            env,
            overrides: Overrides::default(),
        };
        if !text.is_empty() {
            place.write(FILE_NAME, text, 0o600);
        }
        place
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(&path, text).expect("written");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mode");
        }
        path
    }

    fn var(mut self, name: &str, value: impl Into<OsString>) -> Place {
        self.env.vars.insert(name.into(), value.into());
        self
    }

    fn load(&self) -> Result<Config> {
        Config::load_in(&self.overrides, &self.env)
    }

    fn good(&self) -> Config {
        self.load().unwrap_or_else(|error| panic!("{error:?}"))
    }

    fn refused(&self) -> Error {
        let error = self.load().expect_err("refused");
        assert_eq!(error.code, Code::Configuration);
        assert!(!error.remedy.is_empty());
        assert!(
            !format!("{error:?} {error}").contains("canary"),
            "{error:?}"
        );
        error
    }
}

fn expect(text: &str, parts: &[&str]) {
    let error = Place::new(text).refused();
    for part in parts {
        assert!(error.message.contains(part), "{text}\n{part}\n{error}");
    }
}

#[test]
fn without_any_file_the_defaults_hold() {
    let c = Place::new("").good();
    assert_eq!(
        (
            c.source.as_ref(),
            c.local.path.as_ref(),
            c.remote.conn.as_ref()
        ),
        (None, None, None)
    );
    assert_eq!(
        (c.local.tables, c.local.exclude),
        (vec!["*".to_owned()], vec![])
    );
    assert_eq!(
        (
            c.device.name.as_str(),
            c.remote.schema.as_str(),
            c.remote.pool_size
        ),
        ("tide", "public", 2)
    );
    assert_eq!(c.remote.connect_timeout, Duration::from_secs(10));
    assert_eq!(c.remote.statement_timeout, Duration::from_secs(60));
    assert_eq!(c.upload.poll_interval, Duration::from_secs(5));
    assert_eq!(
        (
            c.upload.batch_size,
            c.upload.batch_size_max,
            c.upload.max_in_flight
        ),
        (50, 5000, 4)
    );
    assert_eq!(
        (c.upload.batch_bytes_max, c.upload.row_bytes_max),
        (1_048_576, 16_777_216)
    );
    assert_eq!(c.download.poll_interval, Duration::from_secs(30));
    assert_eq!(
        (c.download.page_size, c.download.page_bytes_max),
        (1000, 4_194_304)
    );
    assert_eq!(c.retry.max_attempts, 5);
    assert_eq!(
        (c.retry.base_delay, c.retry.max_delay),
        (Duration::from_secs(1), Duration::from_secs(300))
    );
    assert_eq!(
        (c.conflict.policy, c.conflict.preserve_original),
        (Policy::LastWriteWins, true)
    );
    assert_eq!(c.conflict.directory, PathBuf::from(".tidewater/conflicts"));
    assert_eq!(
        (
            c.retention.synced_days,
            c.retention.conflict_days,
            c.retention.tombstone_days
        ),
        (7, 90, 90)
    );
}

#[test]
fn what_is_missing_is_said_by_whoever_needs_it() {
    let c = Place::new("").good();
    for error in [
        c.path().expect_err("none"),
        c.conn().expect_err("none"),
        c.conflict_directory().expect_err("none"),
    ] {
        assert_eq!(error.code, Code::Configuration);
        assert!(
            error.message.contains("no tidewater.toml was found"),
            "{error}"
        );
    }
    let error = Place::new("[remote]\n").good().conn().expect_err("none");
    assert!(error.message.contains(FILE_NAME) && error.remedy.contains("--remote"));
}

#[test]
fn every_key_of_the_contract_is_read() {
    let c = Place::new(
        r#"
        [local]
        path = "data/app.db"
        tables = ["m*"]
        exclude = ["media"]
        [device]
        name = "laptop"
        [remote]
        url = "postgres://app@db.example/app"
        schema = "Works"
        pool_size = 3
        connect_timeout_seconds = 0.5
        statement_timeout_seconds = 2
        [upload]
        poll_interval_seconds = 0.05
        batch_size = 0x10
        batch_size_max = 1_000
        batch_bytes_max = 5
        row_bytes_max = 6
        max_in_flight = 7
        [download]
        poll_interval_seconds = 8
        page_size = 9
        page_bytes_max = 10
        listen = false
        [retry]
        max_attempts = 11
        base_delay_seconds = 0.01
        max_delay_seconds = 3600
        [conflict]
        policy = "remote_wins"
        preserve_original = false
        directory = "lost"
        [retention]
        synced_days = 0
        conflict_days = 12
        tombstone_days = 13
        [metrics]
        listen = "[::1]:9900"
        allowed_hosts = ["tidewater:9842", "Host.Example"]
        [tables.messages]
        privacy = "redacted"
        redact = ["Body"]
        policy = "local_wins"
        [tables."odd name"]
        privacy = "local_only"
        "#,
    );
    let (folder, c) = (c.dir.path().to_path_buf(), c.good());
    assert_eq!(c.source, Some(folder.join(FILE_NAME)));
    assert_eq!(c.path().expect("named"), folder.join("data/app.db"));
    assert_eq!(
        c.conflict_directory().expect("named"),
        folder.join("data/lost")
    );
    assert_eq!(
        c.conn().expect("named").display(),
        "postgres://app@db.example:5432/app"
    );
    assert_eq!(
        c.conn().expect("named").connect_timeout,
        Duration::from_millis(500)
    );
    assert_eq!(
        (
            c.device.name.as_str(),
            c.remote.schema.as_str(),
            c.remote.pool_size
        ),
        ("laptop", "Works", 3)
    );
    assert_eq!(c.remote.statement_timeout, Duration::from_secs(2));
    assert_eq!(c.upload.poll_interval, Duration::from_millis(50));
    assert_eq!((c.upload.batch_size, c.upload.batch_size_max), (16, 1000));
    assert_eq!(
        (
            c.upload.batch_bytes_max,
            c.upload.row_bytes_max,
            c.upload.max_in_flight
        ),
        (5, 6, 7)
    );
    assert_eq!((c.download.page_size, c.download.page_bytes_max), (9, 10));
    assert_eq!(
        (c.retry.max_attempts, c.retry.max_delay),
        (11, Duration::from_secs(3600))
    );
    assert_eq!(
        (c.conflict.policy, c.conflict.preserve_original),
        (Policy::RemoteWins, false)
    );
    assert_eq!(
        (
            c.retention.synced_days,
            c.retention.conflict_days,
            c.retention.tombstone_days
        ),
        (0, 12, 13)
    );
    let places = |list: &[HostPort]| list.iter().map(HostPort::to_string).collect::<Vec<_>>();
    assert_eq!(places(c.metrics.listen.as_slice()), ["[::1]:9900"]);
    assert_eq!(
        places(&c.metrics.allowed_hosts),
        ["tidewater:9842", "host.example"]
    );
    assert_eq!(
        (c.policy("MESSAGES"), c.policy("other")),
        (Policy::LocalWins, Policy::RemoteWins)
    );
    assert!(c.table("Messages").redacts("BODY") && !c.table("messages").redacts("id"));
    assert_eq!(c.table("ODD NAME").privacy, Privacy::LocalOnly);
    assert_eq!(c.table("other").privacy, Privacy::Full);
    assert!(c.local.selects("Messages") && !c.local.selects("media") && !c.local.selects("chats"));
}

#[test]
fn the_endpoint_is_on_unless_it_is_turned_off() {
    let listen = |text: &str| {
        Place::new(text)
            .good()
            .metrics
            .listen
            .map(|l| l.to_string())
    };
    assert_eq!(listen("").as_deref(), Some("127.0.0.1:9842"));
    assert_eq!(listen("[metrics]\nlisten = \"\""), None);
    assert_eq!(
        listen("[metrics]\nlisten = \"localhost:0\"").as_deref(),
        Some("localhost:0")
    );
}

#[test]
fn redact_waits_for_the_level() {
    let c = Place::new("[tables.m]\nredact = [\"body\"]\n").good();
    assert!(!c.table("m").redacts("body"));
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let mut place = Place::new(
        "[remote]\nurl = \"host=file\"\nschema = \"file\"\n[local]\npath = \"file.db\"\n[upload]\nbatch_size = 1\n",
    );
    place.overrides.config = Some(FILE_NAME.into());
    let c = place.good();
    assert_eq!((c.remote.schema.as_str(), c.upload.batch_size), ("file", 1));
    let mut place = place
        .var("TIDEWATER_REMOTE__URL", "host=env")
        .var("TIDEWATER_REMOTE__SCHEMA", "env")
        .var("TIDEWATER_LOCAL__PATH", "env.db")
        .var("TIDEWATER_UPLOAD__BATCH_SIZE", "2");
    let c = place.good();
    assert_eq!((c.remote.schema.as_str(), c.upload.batch_size), ("env", 2));
    assert_eq!(
        c.conn().expect("named").targets[0].host,
        Host::Tcp("env".into())
    );
    assert_eq!(c.local.path, Some(place.dir.path().join("env.db")));
    place.overrides = Overrides {
        no_file: false,
        no_endpoint: false,
        config: None,
        db: Some("flag.db".into()),
        remote: Some("host=flag".into()),
        schema: Some("flag".into()),
    };
    let c = place.good();
    assert_eq!(c.remote.schema, "flag");
    assert_eq!(
        c.conn().expect("named").targets[0].host,
        Host::Tcp("flag".into())
    );
    assert_eq!(c.local.path, Some(place.dir.path().join("flag.db")));
}

#[test]
fn the_file_is_searched_in_the_order_of_the_contract() {
    let schema = |place: &Place| place.good().remote.schema;
    let text = |name: &str| format!("[remote]\nschema = \"{name}\"\n");
    let place = Place::new("");
    let home = place.dir.path().join("home");
    place.write(
        "home/.config/tidewater/tidewater.toml",
        &text("home"),
        0o644,
    );
    let place = place.var("HOME", home.as_os_str());
    assert_eq!(schema(&place), "home");
    place.write("xdg/tidewater/tidewater.toml", &text("xdg"), 0o644);
    let xdg = place.dir.path().join("xdg");
    let place = place.var("XDG_CONFIG_HOME", xdg.as_os_str());
    assert_eq!(schema(&place), "xdg");
    place.write(FILE_NAME, &text("here"), 0o644);
    assert_eq!(schema(&place), "here");
    place.write("var.toml", &text("var"), 0o644);
    let mut place = place.var("TIDEWATER_CONFIG", "var.toml");
    assert_eq!(schema(&place), "var");
    place.write("flag.toml", &text("flag"), 0o644);
    place.overrides.config = Some("flag.toml".into());
    assert_eq!(schema(&place), "flag");
    place.overrides.config = Some("none.toml".into());
    let error = place.refused();
    assert!(error.message.contains("none.toml") && error.message.contains("does not exist"));
    place.overrides.config = None;
    let place = place.var("TIDEWATER_CONFIG", "none.toml");
    assert!(place.refused().message.contains("TIDEWATER_CONFIG"));
    let mut place = place;
    place.overrides.config = Some(".".into());
    assert!(place.refused().message.contains("cannot be read"));
}

#[test]
fn the_environment_sets_every_scalar_and_list() {
    let c = Place::new("[local]\nexclude = [\"x\"]\n")
        .var("TIDEWATER_LOCAL__TABLES", "a, b,,c")
        .var("TIDEWATER_LOCAL__EXCLUDE", "")
        .var("TIDEWATER_UPLOAD__POLL_INTERVAL_SECONDS", "0.05")
        .var("TIDEWATER_CONFLICT__PRESERVE_ORIGINAL", "false")
        .var("TIDEWATER_CONFLICT__POLICY", "local_wins")
        .var("TIDEWATER_DOWNLOAD__LISTEN", "false")
        .var("TIDEWATER_METRICS__LISTEN", "")
        .var("TIDEWATER_METRICS__ALLOWED_HOSTS", "a:1, b")
        .var("TIDEWATER_OTHER", "ignored")
        .good();
    assert_eq!(c.local.tables, ["a", "b", "c"]);
    assert!(c.local.exclude.is_empty() && !c.conflict.preserve_original);
    assert_eq!(c.upload.poll_interval, Duration::from_millis(50));
    assert_eq!(c.conflict.policy, Policy::LocalWins);
    assert_eq!((c.metrics.listen, c.metrics.allowed_hosts.len()), (None, 2));
    let c = Place::new("")
        .var("TIDEWATER_REMOTE_URL", "postgres://u:canary@h/d")
        .good();
    assert!(
        c.warnings.concat().contains("TIDEWATER_REMOTE__URL")
            && !c.warnings.concat().contains("canary")
    );
}

#[test]
fn a_default_gives_way_to_a_smaller_limit() {
    let c = Place::new("[upload]\nbatch_size_max = 10\n[retry]\nmax_delay_seconds = 0.05\n").good();
    assert_eq!((c.upload.batch_size, c.upload.batch_size_max), (10, 10));
    assert_eq!(c.retry.base_delay, Duration::from_millis(50));
}

#[test]
fn a_long_host_name_is_cut() {
    for (host, expected) in [
        (Some("é".repeat(40)), "é".repeat(31)),
        (Some("a\nb".to_owned()), "ab".to_owned()),
        (None, "device".to_owned()),
    ] {
        let mut place = Place::new("");
        place.env.host_name = host;
        assert_eq!(place.good().device.name, expected);
    }
}

#[test]
fn the_documentation_names_every_key_and_its_variable() {
    let text = include_str!("../../docs/configuration.md");
    let mut reader = reader::Reader::new(source::Sources::default(), Vec::new());
    load::read(&mut reader, None, &Env::default());
    for key in reader.asked() {
        assert!(text.contains(&format!("`{key}`")), "{key}");
        assert!(
            text.contains(&format!("`{}`", source::variable(key))),
            "{key}"
        );
    }
}
