//! Several hosts, protection, keepalives and service files.

use super::*;

fn places(text: &str) -> Vec<(Host, u16)> {
    let targets = conn(text, &[]).targets;
    targets.into_iter().map(|t| (t.host, t.port)).collect()
}

#[test]
fn several_hosts_stand_in_the_order_of_the_text() {
    let tcp = |name: &str, port| (Host::Tcp(name.to_owned()), port);
    for (text, expected) in [
        ("postgres://a,b/d", vec![tcp("a", 5432), tcp("b", 5432)]),
        ("postgres://a:1,b:2/d", vec![tcp("a", 1), tcp("b", 2)]),
        ("postgres://a:1,b/d", vec![tcp("a", 1), tcp("b", 5432)]),
        ("postgres://[::2]:7,b:8/d", vec![tcp("::2", 7), tcp("b", 8)]),
        ("host=a,b port=6", vec![tcp("a", 6), tcp("b", 6)]),
        (
            "host=/run/pg,b port=6,7",
            vec![(Host::Socket("/run/pg".into()), 6), tcp("b", 7)],
        ),
        ("host=a,", vec![tcp("a", 5432), tcp("localhost", 5432)]),
        (
            "hostaddr=10.0.0.1,::2",
            vec![tcp("10.0.0.1", 5432), tcp("::2", 5432)],
        ),
    ] {
        assert_eq!(places(text), expected, "{text}");
    }
    // Each place is protected by its own rule unless one is given for all.
    let modes =
        |text: &str| -> Vec<SslMode> { conn(text, &[]).targets.iter().map(|t| t.ssl).collect() };
    assert_eq!(
        modes("host=localhost,db"),
        [SslMode::Disable, SslMode::VerifyFull]
    );
    assert_eq!(
        modes("host=localhost,db sslmode=require"),
        [SslMode::Require, SslMode::Require]
    );
    let named = conn("host=db hostaddr=10.0.0.1", &[]);
    assert_eq!(only(&named).address, Some([10, 0, 0, 1].into()));
    for (text, part) in [
        ("host=a,b port=1,2,3", "3 ports for 2 hosts"),
        (
            "host=a hostaddr=10.0.0.1,10.0.0.2",
            "2 addresses for 1 hosts",
        ),
        ("hostaddr=db.example", "numeric"),
        ("host=/run/pg hostaddr=10.0.0.1", "has no address"),
        ("host=h load_balance_hosts=yes", "disable or random"),
        (
            "host=h target_session_attrs=writer",
            "any, read-write or primary",
        ),
    ] {
        let error = refused(text, &[]);
        assert!(error.message.contains(part), "{text}: {error}");
    }
}

#[test]
fn protection_is_never_less_than_was_asked_for() {
    for (text, part) in [
        ("host=h sslmode=verify-ca", "needs the certificate"),
        ("host=h sslmode=verify-ca sslrootcert=system", "any host"),
        ("host=h sslmode=require sslrootcert=system", "any host"),
        (
            "host=h sslmode=disable channel_binding=require",
            "nothing to bind",
        ),
        ("host=localhost channel_binding=require", "nothing to bind"),
        (
            "host=h channel_binding=always",
            "disable, prefer or require",
        ),
        ("host=h sslcert=c.pem", "has no key"),
        ("host=h sslkey=k.pem", "of no certificate"),
    ] {
        let error = refused(text, &[]);
        let all = format!("{} {}", error.message, error.remedy);
        assert!(all.contains(part), "{text}: {error:?}");
    }
    let c = conn(
        "host=h channel_binding=require sslcert=c.pem sslkey=/k.pem",
        &[],
    );
    assert_eq!(c.channel_binding, ChannelBinding::Require);
    let shown = c.ssl_cert.expect("a certificate");
    assert_eq!(shown.cert, Path::new("/etc/c.pem"));
    assert_eq!(shown.key, Path::new("/k.pem"));
}

#[test]
fn keepalives_are_numbers_and_zero_is_the_systems_own() {
    let k = conn("host=h", &[]).keepalives;
    assert_eq!((k.on, k.idle), (true, Some(Duration::from_secs(60))));
    let k = conn(
        "host=h keepalives=0 keepalives_idle=0 keepalives_interval=5 keepalives_count=3 tcp_user_timeout=1500",
        &[],
    )
    .keepalives;
    assert_eq!((k.on, k.idle), (false, None));
    assert_eq!(
        (k.interval, k.count),
        (Some(Duration::from_secs(5)), Some(3))
    );
    assert_eq!(k.user_timeout, Some(Duration::from_millis(1500)));
    for text in ["keepalives=2", "keepalives_idle=-1", "tcp_user_timeout=1s"] {
        refused(&format!("host=h {text}"), &[]);
    }
}

#[cfg(unix)]
#[test]
fn a_service_fills_what_the_text_leaves_open() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a folder");
    let home = dir.path().to_str().expect("text");
    let file = dir.path().join(".pg_service.conf");
    let other = dir.path().join("other.conf");
    let write = |path: &Path, text: &str, mode: u32| {
        std::fs::write(path, text).expect("written");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("mode");
    };
    write(
        &file,
        "# comment\n[first]\nhost=f\n\n[app]\n  host=db.example\nport=7\nuser=su\npassword=canary\n\
         sslrootcert=ca.pem\n[later]\nhost=l\n",
        0o600,
    );
    write(&other, "[app]\nhost=o.example\nuser=ou\n", 0o644);
    let vars = [
        ("HOME", home),
        ("PGUSER", "eu"),
        ("PGPORT", "8"),
        ("PGSYSCONFDIR", "/none"),
    ];
    let c = conn("service=app dbname=d", &vars);
    assert_eq!(only(&c).host, Host::Tcp("db.example".into()));
    assert_eq!((only(&c).port, c.user.as_str()), (7, "su"));
    assert_eq!(password(&c), Some("canary"));
    assert_eq!(c.ssl_root_cert, Some(dir.path().join("ca.pem")));
    assert!(!format!("{c:?} {c}").contains("canary"));
    // It reads back, password and all, because the service is named again.
    assert_eq!(conn(&c.display(), &vars), c);
    // The text wins over the service, and the service over the variables.
    assert_eq!(conn("postgres://tu@/d?service=app", &vars).user, "tu");
    let by_variable = [&vars[..], &[("PGSERVICE", "app")]].concat();
    let found = resolve(None, None, &env(&by_variable), &mut Vec::new()).expect("good");
    assert_eq!(found.expect("a connection").user, "su");
    let elsewhere = other.to_str().expect("text");
    let named = [&vars[..], &[("PGSERVICEFILE", elsewhere)]].concat();
    assert_eq!(conn("service=app", &named).user, "ou");
    assert_eq!(
        conn(&format!("service=app servicefile={elsewhere}"), &vars).user,
        "ou"
    );

    for (text, part) in [
        (
            "[app]\nhost=h\npassword=canary\ncolour=canary\n",
            "unknown keyword colour",
        ),
        ("[app]\nhost=h\noptions=canary\n", "options"),
        ("[app]\nservice=canary\n", "cannot name another"),
        ("[app]\ncanary\n", "line 2"),
        ("[app]\nldap://canary\n", "LDAP"),
        ("[other]\nhost=h\n", "no service file"),
    ] {
        write(&file, text, 0o600);
        let error = refused("service=app", &vars);
        assert!(error.message.contains(part), "{text}: {error}");
    }
    write(&file, "[app]\nhost=h\npassword=canary\n", 0o640);
    assert!(refused("service=app", &vars).remedy.contains("chmod 600"));
    refused("service=app servicefile=/none", &vars);
}
