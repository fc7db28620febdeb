use super::*;

#[test]
fn variables_that_mean_nothing_are_refused() {
    for (name, value, part) in [
        (
            "TIDEWATER_UPLOAD__BATCHSIZE",
            "canary",
            "did you mean TIDEWATER_UPLOAD__BATCH_SIZE?",
        ),
        (
            "TIDEWATER_COLOUR__SKY",
            "canary",
            "unknown environment variable TIDEWATER_COLOUR__SKY",
        ),
        ("TIDEWATER_UPLOAD__", "1", "TIDEWATER_UPLOAD__"),
        (
            "TIDEWATER_TABLES__MESSAGES__PRIVACY",
            "local_only",
            "in the file alone",
        ),
        ("TIDEWATER_UPLOAD__BATCH_SIZE", "", "from 1 to 100000"),
        (
            "TIDEWATER_UPLOAD__BATCH_SIZE",
            "0",
            "TIDEWATER_UPLOAD__BATCH_SIZE",
        ),
        ("TIDEWATER_UPLOAD__BATCH_SIZE", "1.5", "a whole number"),
        (
            "TIDEWATER_RETRY__BASE_DELAY_SECONDS",
            "nan",
            "from 0.001 to 3600",
        ),
        (
            "TIDEWATER_CONFLICT__PRESERVE_ORIGINAL",
            "yes",
            "true or false",
        ),
        ("TIDEWATER_DOWNLOAD__LISTEN", "perhaps", "true or false"),
        (
            "TIDEWATER_RETENTION__TOMBSTONE_DAYS",
            "-1",
            "from 0 to 36500",
        ),
        (
            "TIDEWATER_REMOTE__PASSWORD",
            "canary",
            "unknown environment variable TIDEWATER_REMOTE__PASSWORD",
        ),
        ("TIDEWATER_REMOTE__URL", "", "remote.url"),
        ("TIDEWATER_LOCAL__PATH", "file:x", "plain file"),
    ] {
        let error = Place::new("").var(name, value).refused();
        assert!(error.message.contains(part), "{name}: {error}");
    }
}

#[cfg(unix)]
#[test]
fn variables_that_are_not_text_are_refused_by_name() {
    use std::os::unix::ffi::OsStringExt;
    let bytes = || OsString::from_vec(b"\xffcanary".to_vec());
    for name in ["TIDEWATER_REMOTE__URL", "PGHOST"] {
        assert!(
            Place::new("")
                .var(name, bytes())
                .refused()
                .message
                .contains(name)
        );
    }
}

#[test]
fn unknown_keys_are_refused_with_their_line() {
    expect(
        "\n[upload]\nbatchsize = 3\n",
        &[
            "unknown key upload.batchsize",
            "line 3",
            "did you mean upload.batch_size?",
        ],
    );
    expect(
        "[uplaod]\nbatch_size = 3\n",
        &[
            "unknown section [uplaod]",
            "line 1",
            "did you mean [upload]?",
        ],
    );
    expect(
        "batch_size = 3\n",
        &[
            "unknown key batch_size",
            "line 1",
            "did you mean upload.batch_size?",
        ],
    );
    expect(
        "[remote]\npassword = \"canary\"\n",
        &["unknown key remote.password", "line 2"],
    );
    expect("upload = 3\n", &["upload", "line 1"]);
    expect("tables = 3\n", &["tables", "line 1"]);
    expect(
        "[tables]\nmessages = \"full\"\n",
        &["tables.messages", "line 2"],
    );
    expect("[[tables.m]]\nprivacy = \"full\"\n", &["tables.m"]);
    expect(
        "[tables.m]\nprivcy = \"full\"\n",
        &["tables.m.privcy", "line 2", "did you mean privacy?"],
    );
    expect(
        "[upload.batch_size]\nx = 1\n",
        &["upload.batch_size", "a section"],
    );
    let error = Place::new("[remote]\npassword = \"canary\"\n").refused();
    assert!(error.remedy.contains("PGPASSWORD"));
}

#[test]
fn impossible_values_are_refused_with_key_value_range_and_line() {
    for (text, parts) in [
        (
            "[upload]\n\nbatch_size = 0",
            vec!["upload.batch_size = 0", "line 3", "from 1 to 100000"],
        ),
        (
            "[upload]\nbatch_size = -1",
            vec!["upload.batch_size = -1", "from 1 to 100000"],
        ),
        (
            "[upload]\nbatch_size = 100001",
            vec!["100001", "from 1 to 100000"],
        ),
        (
            "[upload]\nbatch_size = 99999999999999999999999999999999999999999999",
            vec!["upload.batch_size"],
        ),
        (
            "[upload]\nbatch_size = \"5\"",
            vec!["upload.batch_size = \"5\"", "a whole number"],
        ),
        ("[upload]\nbatch_size = 5.0", vec!["a whole number"]),
        ("[upload]\nbatch_size = 2020-01-01", vec!["(a date)"]),
        (
            "[upload]\nbatch_size = 60\nbatch_size_max = 50",
            vec![
                "upload.batch_size = 60",
                "line 2",
                "batch_size_max, which is 50",
            ],
        ),
        ("[upload]\nbatch_size = 6000", vec!["which is 5000"]),
        ("[upload]\nmax_in_flight = 0", vec!["from 1 to 64"]),
        (
            "[upload]\npoll_interval_seconds = 0",
            vec!["from 0.001 to 86400"],
        ),
        ("[upload]\nrow_bytes_max = 0", vec!["upload.row_bytes_max"]),
        ("[download]\npage_size = 0", vec!["download.page_size"]),
        (
            "[download]\npoll_interval_seconds = nan",
            vec!["download.poll_interval_seconds"],
        ),
        ("[remote]\npool_size = 0", vec!["from 1 to 100"]),
        (
            "[remote]\nconnect_timeout_seconds = -0.5",
            vec!["-0.5", "from 0.001 to 3600"],
        ),
        (
            "[remote]\nstatement_timeout_seconds = inf",
            vec!["from 0.001 to 86400"],
        ),
        (
            "[remote]\nstatement_timeout_seconds = true",
            vec!["= true", "seconds"],
        ),
        (
            "[remote]\nschema = \"\"",
            vec!["remote.schema = \"\"", "1 to 63 bytes"],
        ),
        (
            "[remote]\nschema = \"a\\u0000b\"",
            vec!["remote.schema", "control characters"],
        ),
        ("[remote]\nschema = \"pg_x\"", vec!["PostgreSQL's own"]),
        (
            "[remote]\nschema = \"information_schema\"",
            vec!["PostgreSQL's own"],
        ),
        (
            "[remote]\nschema = \"postgres://u:canary@h/d\"\nurl = 3",
            vec!["remote.url = 3"],
        ),
        (
            "[remote]\nurl = [\"postgres://u:canary@h/d\"]",
            vec!["remote.url", "(hidden)"],
        ),
        ("[remote]\nurl = \"\"", vec!["remote.url"]),
        (
            "[remote]\nurl = \"postgres://u:ca/nary@h/d\"",
            vec!["remote.url", "line 2"],
        ),
        ("[device]\nname = \"\"", vec!["device.name"]),
        ("[local]\npath = \"\"", vec!["local.path"]),
        (
            "[local]\npath = \":memory:\"",
            vec!["local.path", "plain file"],
        ),
        (
            "[local]\ntables = \"*\"",
            vec!["local.tables", "a list of texts"],
        ),
        ("[local]\ntables = [1]", vec!["local.tables"]),
        ("[local]\ntables = [\"[a\"]", vec!["local.tables", "globs"]),
        ("[retry]\nmax_attempts = 0", vec!["from 1 to 1000"]),
        (
            "[retry]\nmax_delay_seconds = 3601",
            vec!["= 3601", "from 0.001 to 3600"],
        ),
        (
            "[retry]\nbase_delay_seconds = 5\nmax_delay_seconds = 2",
            vec!["retry.base_delay_seconds = 5", "which is 2"],
        ),
        (
            "[conflict]\npolicy = \"newest\"",
            vec!["\"last_write_wins\" or \"local_wins\" or \"remote_wins\""],
        ),
        ("[conflict]\npreserve_original = 1", vec!["true or false"]),
        ("[conflict]\ndirectory = \"\"", vec!["conflict.directory"]),
        ("[retention]\nsynced_days = -1", vec!["from 0 to 36500"]),
        ("[retention]\nconflict_days = 1.5", vec!["from 0 to 36500"]),
        (
            "[retention]\ntombstone_days = 36501",
            vec!["from 0 to 36500"],
        ),
        (
            "[tables.m]\nprivacy = \"FULL\"",
            vec![
                "tables.m.privacy",
                "\"full\" or \"redacted\" or \"local_only\"",
            ],
        ),
        ("[tables.m]\npolicy = 1", vec!["tables.m.policy = 1"]),
        (
            "[tables.m]\nredact = \"body\"",
            vec!["tables.m.redact", "a list of texts"],
        ),
        ("[tables.m]\nredact = [\"\"]", vec!["tables.m.redact"]),
        ("[tables.m]\n[tables.M]", vec!["[tables.m]", "same table"]),
        ("[tables.\"\"]", vec!["1 to 63 bytes"]),
    ] {
        expect(text, &parts);
    }
    let long = "x".repeat(64);
    for text in [
        format!("[remote]\nschema = \"{long}\""),
        format!("[device]\nname = \"{long}\""),
        format!("[tables.{long}]"),
        format!("[tables.m]\nredact = [\"{long}\"]"),
    ] {
        expect(&text, &["63 bytes"]);
    }
}

#[test]
fn a_type_that_there_is_not_is_refused_with_those_there_are() {
    for types in [
        "{ a = \"timestampz\" }",
        "{ a = \"real\" }",
        "{ a = 1 }",
        "\"jsonb\"",
        "{ a = \"jsonb\", A = \"text\" }",
    ] {
        expect(
            &format!("[tables.m]\ntypes = {types}"),
            &[
                "tables.m.types",
                "line 2",
                "timestamptz",
                "double precision",
            ],
        );
    }
}

#[test]
fn an_endpoint_that_cannot_be_is_refused() {
    for listen in [
        "127.0.0.1",
        "9842",
        "localhost:http",
        "127.0.0.999:1",
        "a:65536",
        "http://a:1",
    ] {
        expect(
            &format!("[metrics]\nlisten = \"{listen}\""),
            &["metrics.listen", "line 2", listen, "127.0.0.1:9842"],
        );
    }
    for hosts in [
        "[\"a b\"]",
        "[\"http://a\"]",
        "[\"a:b\"]",
        "[\"\"]",
        "\"a\"",
        "7",
    ] {
        let parts = ["metrics.allowed_hosts", "line 2"];
        expect(&format!("[metrics]\nallowed_hosts = {hosts}"), &parts);
    }
    expect("[metrics]\nlisten = 9842", &["metrics.listen", "9842"]);
    expect("[metrics]\nport = 1", &["metrics.port", "unknown"]);
}

#[test]
fn text_that_is_not_toml_is_refused_without_being_quoted() {
    for text in [
        "[remote]\nurl = \"postgres://u:canary@h/d\nx = 1\n",
        "[remote]\nurl = postgres://u:canary@h/d\n",
        "[remote]\nurl = \"host=h\"\nurl = \"canary\"\n",
        "[remote\ncanary",
    ] {
        let error = Place::new(text).refused();
        assert!(error.message.contains(", line "), "{error}");
    }
    let place = Place::new("");
    fs::write(place.dir.path().join(FILE_NAME), b"\xff\xfe").expect("written");
    assert!(place.refused().message.contains("cannot be read"));
}

#[test]
fn the_first_fault_is_told_with_the_number_of_the_others() {
    let error =
        Place::new("[upload]\nbatch_size = 0\nnothing = 1\n[retry]\nmax_attempts = 0\n").refused();
    assert!(
        error.message.starts_with("upload.batch_size = 0"),
        "{error}"
    );
    assert!(
        error.message.ends_with("(and 2 more to correct)"),
        "{error}"
    );
}

#[cfg(unix)]
#[test]
fn a_file_with_a_password_has_to_be_private() {
    for url in [
        "postgres://u:canary@h/d",
        "postgres://h/d?password=canary",
        "host=h password='canary'",
        "postgres://u:12/canary@h/d",
    ] {
        let text = format!("[remote]\nurl = \"{url}\"\n");
        for mode in [0o644, 0o640, 0o604, 0o620, 0o610] {
            let place = Place::new("").var("TIDEWATER_REMOTE__URL", "host=env");
            let path = place.write(FILE_NAME, &text, mode);
            let error = place.refused();
            assert!(error.message.contains("holds a password"), "{error}");
            assert_eq!(error.remedy, format!("Run: chmod 600 {}", path.display()));
        }
    }
    let place = Place::new("[remote]\nurl = \"postgres://u:canary@h/d\"\n");
    let c = place.good();
    assert!(!format!("{c:?}").contains("canary"));
    place.write(FILE_NAME, "[remote]\nurl = \"postgres://u@h/d\"\n", 0o644);
    assert!(place.load().is_ok());
}

#[test]
fn a_password_on_the_command_line_is_refused() {
    let mut place = Place::new("");
    for url in [
        "postgres://u:canary@h/d",
        "host=h password=canary",
        "postgres://h?password=canary",
        "postgres://u:1/canary@h",
    ] {
        place.overrides.remote = Some(url.into());
        let error = place.refused();
        assert!(error.message.contains("process list"), "{error}");
        assert_eq!(error.code.exit_code(), 2);
    }
    for url in ["canary", "mysql://canary"] {
        place.overrides.remote = Some(url.into());
        assert!(
            place
                .refused()
                .message
                .starts_with("--remote cannot be read")
        );
    }
    place.overrides.remote = Some("postgres://u@h/d".into());
    assert!(place.load().is_ok());
    for db in ["", ":memory:", "file:x.db"] {
        place.overrides.db = Some(db.into());
        assert!(place.refused().message.contains("--db"));
    }
}
