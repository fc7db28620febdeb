use super::*;
use crate::error::Code;
use std::ffi::OsString;
use std::path::Path;

mod more;

fn env(vars: &[(&str, &str)]) -> Env {
    Env {
        vars: vars
            .iter()
            .map(|(k, v)| (k.to_string(), OsString::from(v)))
            .collect(),
        user: Some("me".into()),
        ..Env::default()
    }
}

fn given(text: &str) -> Given {
    Given {
        text: text.into(),
        origin: Origin::File(std::sync::Arc::from(Path::new("/etc/tidewater.toml")), 4),
        folder: "/etc".into(),
    }
}

fn conn(text: &str, vars: &[(&str, &str)]) -> Conn {
    resolve(Some(&given(text)), None, &env(vars), &mut Vec::new())
        .unwrap_or_else(|error| panic!("{text}: {error}"))
        .expect("a connection")
}

/// The one place that the text describes.
fn only(c: &Conn) -> &Target {
    assert_eq!(c.targets.len(), 1, "{c:?}");
    &c.targets[0]
}

fn password(c: &Conn) -> Option<&str> {
    only(c).password.as_ref().map(Secret::expose)
}

fn refused(text: &str, vars: &[(&str, &str)]) -> Error {
    let error = resolve(Some(&given(text)), None, &env(vars), &mut Vec::new()).expect_err(text);
    assert_eq!(error.code, Code::Configuration);
    assert!(!error.remedy.is_empty());
    assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    error
}

#[test]
fn settings_mean_what_they_mean_to_libpq() {
    let c = conn(
        "postgres://u:canary@db.example:5433/d?connect_timeout=3&sslrootcert=ca.pem",
        &[],
    );
    assert_eq!(only(&c).host, Host::Tcp("db.example".into()));
    assert_eq!(
        (only(&c).port, c.user.as_str(), c.dbname.as_str()),
        (5433, "u", "d")
    );
    assert_eq!(password(&c), Some("canary"));
    assert_eq!(only(&c).ssl, SslMode::VerifyFull);
    assert_eq!(c.ssl_root_cert, Some("/etc/ca.pem".into()));
    assert_eq!(c.connect_timeout, Duration::from_secs(3));
    assert!(!format!("{c:?} {c} {}", c.display()).contains("canary"));

    let c = conn("", &[]);
    assert_eq!(only(&c).host, Host::Tcp("localhost".into()));
    assert_eq!(
        (only(&c).port, c.user.as_str(), c.dbname.as_str()),
        (5432, "me", "me")
    );
    assert_eq!((password(&c), only(&c).ssl), (None, SslMode::Disable));
    assert_eq!(conn("user=u", &[]).dbname, "u");
    assert_eq!(
        only(&conn("host=/run/pg", &[])).host,
        Host::Socket("/run/pg".into())
    );
    assert_eq!(conn("host=h sslrootcert=system", &[]).ssl_root_cert, None);
}

#[test]
fn encryption_is_left_out_only_where_nothing_leaves_the_machine() {
    for (text, ssl) in [
        ("host=db.example", SslMode::VerifyFull),
        ("host=10.0.0.1", SslMode::VerifyFull),
        ("host=localhost.example", SslMode::VerifyFull),
        ("host=127.1", SslMode::VerifyFull),
        ("host=db.example sslmode=disable", SslMode::Disable),
        ("host=db.example sslmode=''", SslMode::VerifyFull),
        ("host=LOCALHOST", SslMode::Disable),
        ("host=127.8.9.1", SslMode::Disable),
        ("host=::1", SslMode::Disable),
        ("postgres://[::1]/d", SslMode::Disable),
        ("host=/run/pg", SslMode::Disable),
        ("host=localhost sslmode=verify-full", SslMode::VerifyFull),
        ("host=localhost sslrootcert=system", SslMode::VerifyFull),
        ("host=h sslmode=require", SslMode::Require),
        (
            "host=h sslmode=verify-ca sslrootcert=a.pem",
            SslMode::VerifyCa,
        ),
        ("host=/run/pg sslmode=require", SslMode::Disable),
    ] {
        assert_eq!(only(&conn(text, &[])).ssl, ssl, "{text}");
    }
}

#[test]
fn variables_fill_what_the_text_leaves_open() {
    let vars = [
        ("PGHOST", "e.example"),
        ("PGPORT", "6000"),
        ("PGDATABASE", "ed"),
        ("PGUSER", "eu"),
        ("PGPASSWORD", "canary"),
        ("PGSSLMODE", "disable"),
        ("PGSSLROOTCERT", "/e.pem"),
        ("PGCONNECT_TIMEOUT", "9"),
    ];
    let c = resolve(None, None, &env(&vars), &mut Vec::new())
        .expect("good")
        .expect("a connection");
    assert_eq!(
        c.display(),
        "postgres://eu@e.example:6000/ed?sslmode=disable&sslrootcert=/e.pem"
    );
    assert_eq!(password(&c), Some("canary"));
    assert_eq!(c.connect_timeout, Duration::from_secs(9));
    let c = conn(
        "host=h port=1 dbname=d user=u password=p sslmode=verify-full connect_timeout=2",
        &vars,
    );
    assert_eq!(c.display(), "postgres://u@h:1/d?sslrootcert=/e.pem");
    assert_eq!(password(&c), Some("p"));
    assert_eq!(c.connect_timeout, Duration::from_secs(2));
    let ours = Some(Duration::from_secs(7));
    let c = resolve(Some(&given("host=h")), ours, &env(&vars), &mut Vec::new()).expect("good");
    assert_eq!(c.map(|c| c.connect_timeout), ours);
}

#[test]
fn nothing_points_to_a_server_unless_it_names_one() {
    for (vars, some) in [
        (vec![], false),
        (
            vec![
                ("PGUSER", "u"),
                ("PGPASSWORD", "p"),
                ("PGSSLMODE", "prefer"),
            ],
            false,
        ),
        (vec![("PGHOST", "")], false),
        (vec![("PGHOST", "h")], true),
        (vec![("PGDATABASE", "d")], true),
    ] {
        let found = resolve(None, None, &env(&vars), &mut Vec::new()).expect("good");
        assert_eq!(found.is_some(), some, "{vars:?}");
    }
    assert!(resolve(None, None, &env(&[("PGSERVICE", "s")]), &mut Vec::new()).is_err());
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    for (keyword, _) in keywords::UNSUPPORTED {
        let error = refused(&format!("host=h {keyword}=1"), &[]);
        assert!(
            error.message.contains(keyword)
                && error.message.contains("not supported by this version yet")
        );
        assert!(
            error.message.contains("/etc/tidewater.toml, line 4"),
            "{error}"
        );
    }
    for variable in keywords::UNSUPPORTED
        .iter()
        .filter_map(|(_, variable)| *variable)
    {
        let error = refused("host=h", &[(variable, "1")]);
        assert!(
            error.message.contains(variable)
                && error.message.contains("not supported by this version yet")
        );
    }
    for mode in ["allow", "prefer"] {
        let error = refused(&format!("postgres://u:canary@h/d?sslmode={mode}"), &[]);
        assert!(
            error.message.contains(&format!("sslmode={mode}"))
                && error.message.contains("not supported")
                && error.remedy.contains("verify-full")
        );
        assert!(
            refused("host=h", &[("PGSSLMODE", mode)])
                .message
                .contains("PGSSLMODE")
        );
    }
    for wish in ["standby", "prefer-standby", "read-only"] {
        let text = format!("host=h target_session_attrs={wish}");
        let error = refused(&text, &[]);
        assert!(error.message.contains(wish) && error.remedy.contains("primary"));
    }
}

#[test]
fn impossible_settings_are_refused_and_passwords_never_shown() {
    for (text, part) in [
        ("host=h porrt=1", "did you mean port?"),
        ("host=h colour=1", "unknown keyword colour"),
        ("host=h port=0", "1 to 65535"),
        ("host=h port=65536", "1 to 65535"),
        ("host=h port=canary", "1 to 65535"),
        ("host=h connect_timeout=0", "1 to 3600"),
        ("host=h connect_timeout=canary", "1 to 3600"),
        (
            "host=h sslmode=canary",
            "verify-full, verify-ca, require or disable",
        ),
        ("host=@canary", "abstract"),
        ("host=x@canary", "host name"),
        ("host='x canary'", "host name"),
        ("host=h dbname=postgres://u:canary@h", "not a URL"),
        ("postgres://u:pa/canary@h/d", "@ too many"),
        ("postgres://u@h/d?password=a&canary=b", "not shown"),
        ("password=a canary=b host=h", "not shown"),
        ("host=h can-ary=b canäry@=c", "not shown"),
        ("mysql://u:canary@h/d", "postgres://"),
    ] {
        let error = refused(text, &[]);
        assert!(error.message.contains(part), "{text}: {error}");
    }
    let long = "x".repeat(64);
    assert!(
        refused(&format!("host=h user={long}"), &[])
            .message
            .contains("63 bytes")
    );
    let nobody = Env::default();
    assert!(resolve(Some(&given("host=h")), None, &nobody, &mut Vec::new()).is_err());
}

#[test]
fn what_is_displayed_reads_back() {
    for text in [
        "postgres://a%20b:x@h:1/d%2Fe",
        "postgres://[fe80::2]:7/d",
        "host=/run/p\\ g user=u dbname='d?&'",
        "host=h sslmode=disable",
        "host=localhost sslmode=verify-full sslrootcert='/a b.pem'",
        "postgres://a:1,[::2],c:3/d?target_session_attrs=primary&load_balance_hosts=random",
        "host=/run/pg,localhost,db port=1,2,3 target_session_attrs=read-write",
        "host=/run/pg,localhost,db sslmode=require",
        "host=a,b hostaddr=10.0.0.1,::2 port=6",
        "host=h channel_binding=require sslcert='/c d.pem' sslkey=/k.pem",
        "host=h channel_binding=disable sslmode=verify-ca sslrootcert=/a.pem",
        "host=h keepalives=0 keepalives_idle=0 keepalives_interval=1 keepalives_count=2 tcp_user_timeout=3",
    ] {
        let mut first = conn(text, &[]);
        for target in &mut first.targets {
            target.password = None;
        }
        assert_eq!(conn(&first.display(), &[]), first, "{text}");
    }
}

#[test]
fn a_local_socket_is_found_by_its_port() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join(".s.PGSQL.6001"), "").expect("written");
    let env = Env {
        socket_dirs: vec!["/none".into(), dir.path().into()],
        ..env(&[])
    };
    let host = |text: &str| {
        let found = resolve(Some(&given(text)), None, &env, &mut Vec::new()).expect("good");
        found.map(|conn| only(&conn).host.clone())
    };
    assert_eq!(host("port=6001"), Some(Host::Socket(dir.path().into())));
    assert_eq!(host("port=6002"), Some(Host::Tcp("localhost".into())));
}

#[cfg(unix)]
#[test]
fn the_password_file_is_asked_last_and_by_the_right_name() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join(".pgpass");
    std::fs::write(
        &file,
        "localhost:*:*:*:local\n/run/pg:*:*:*:socket\nh:*:*:*:host\n",
    )
    .expect("written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("mode");
    let path = file.to_str().expect("text");
    let home = dir.path().to_str().expect("text");
    let password = |text: &str, vars: &[(&str, &str)]| {
        let env = Env {
            socket_dirs: vec!["/var/run/pg".into()],
            ..env(vars)
        };
        let found = resolve(Some(&given(text)), None, &env, &mut Vec::new()).expect("good");
        found.and_then(|conn| super::tests::password(&conn).map(str::to_owned))
    };
    for (text, vars, expected) in [
        ("host=h", vec![("HOME", home)], Some("host")),
        ("host=h", vec![("PGPASSFILE", path)], Some("host")),
        (
            "host=h",
            vec![("HOME", home), ("PGPASSWORD", "env")],
            Some("env"),
        ),
        (
            "host=h password=url",
            vec![("HOME", home), ("PGPASSWORD", "env")],
            Some("url"),
        ),
        ("host=h passfile=/none", vec![("HOME", home)], None),
        ("host=other", vec![("HOME", home)], None),
        ("host=localhost", vec![("HOME", home)], Some("local")),
        ("host=/var/run/pg", vec![("HOME", home)], Some("local")),
        ("host=/run/pg", vec![("HOME", home)], Some("socket")),
        ("host=/run/other", vec![("HOME", home)], None),
    ] {
        assert_eq!(password(text, &vars).as_deref(), expected, "{text}");
    }
}

#[test]
fn an_application_name_is_said_to_have_no_effect() {
    let mut warnings = Vec::new();
    let url = given("postgres://h/d?application_name=x");
    assert!(resolve(Some(&url), None, &env(&[]), &mut warnings).is_ok());
    assert!(warnings.concat().contains("application_name"));
}
