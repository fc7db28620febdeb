use super::*;

fn text(t: &str) -> Value {
    Value::Text(t.to_owned())
}

fn learned(t: Typed, values: &[&str]) -> String {
    let values: Vec<Value> = values.iter().map(|v| text(v)).collect();
    let form = t.learn(values.iter()).expect("a form");
    for v in &values {
        assert!(
            t.reproduces(form, Affinity::Text, None, v),
            "{v:?} in {form:?}"
        );
    }
    form.pattern()
}

#[test]
fn forms_are_learned_from_what_the_app_writes() {
    let tz = Typed::Timestamptz;
    for (values, pattern) in [
        (vec!["2024-01-02T03:04:05.678Z"], "YYYY-MM-DDTHH:MM:SS.sssZ"),
        (vec!["2024-01-02 03:04:05"], "YYYY-MM-DD HH:MM:SS"),
        (
            vec![
                "2024-01-02T03:04:05+00:00",
                "2024-01-02T03:04:05.000001+00:00",
            ],
            "YYYY-MM-DDTHH:MM:SS[.ssssss]+00:00",
        ),
        (
            vec!["2024-01-02 03:04:05.5", "2024-01-02 03:04:05.25"],
            "YYYY-MM-DD HH:MM:SS[.s]",
        ),
    ] {
        assert_eq!(learned(tz, &values), pattern);
    }
    let lower = "0b9d3a10-7c3e-4f51-8f0e-0123456789ab";
    assert_eq!(learned(Typed::Uuid, &[lower]), "abcd-ef");
    assert_eq!(learned(Typed::Uuid, &[&lower.to_uppercase()]), "ABCD-EF");
    assert_eq!(learned(Typed::Uuid, &[&lower.replace('-', "")]), "abcdef");
    assert_eq!(learned(Typed::Jsonb, &[r#"{"a":1}"#]), r#"{"a":1}"#);
    assert_eq!(learned(Typed::Boolean, &["true", "false"]), "true");
    assert_eq!(learned(Typed::Boolean, &["1"]), "0");
    let millis = [Value::Int(1_700_000_000_123)];
    let form = tz.learn(millis.iter()).expect("a form");
    assert_eq!(form, Form::Millis);
    assert!(tz.reproduces(form, Affinity::Integer, None, &millis[0]));
    assert_eq!(tz.learn([text("yesterday")].iter()), None);
}

#[test]
fn what_the_form_does_not_give_back_is_said_so() {
    let tz = Typed::Timestamptz;
    let form = Form::parse("YYYY-MM-DDTHH:MM:SSZ").expect("a form");
    for no in [
        "2024-01-02T03:04:05.1Z",
        "2024-01-02 03:04:05",
        "2024-01-02T05:04:05+02:00",
        "2024-01-02T03:04:05.000Z",
        "2024-01-02",
    ] {
        assert!(tz.canonical(&text(no)).is_ok(), "{no}");
        assert!(
            !tz.reproduces(form, Affinity::Text, None, &text(no)),
            "{no}"
        );
    }
    let spaced = Form::Json(Spacing::Spaced);
    assert!(!Typed::Jsonb.reproduces(spaced, Affinity::Text, None, &text(r#"{"b": 1, "a": 2}"#)));
    // In a NUMERIC column text that looks like a number is one.
    assert!(!Typed::Jsonb.reproduces(spaced, Affinity::Numeric, None, &Value::Int(5)));
    let decimal =
        |t: &str, scale| Typed::Decimal.reproduces(Form::Only, Affinity::Text, scale, &text(t));
    assert!(decimal("12.50", None) && decimal("12.50", Some(2)));
    assert!(!decimal("12.5", Some(2)) && !decimal("007", None) && !decimal("1e2", None));
}

#[test]
fn what_cannot_be_cast_is_refused_by_its_sqlstate() {
    let state = |t: Typed, v: Value| t.canonical(&v).map_err(|e| e.0);
    for v in ["yesterday", "now", "", "12/31/2024", "noon"] {
        assert_eq!(state(Typed::Timestamptz, text(v)), Err("22007"), "{v}");
        assert_eq!(state(Typed::Date, text(v)), Err("22007"), "{v}");
    }
    assert_eq!(state(Typed::Boolean, Value::Int(2)), Err("22P02"));
    assert_eq!(state(Typed::Boolean, text("maybe")), Err("22P02"));
    assert_eq!(
        state(Typed::Uuid, text("é".repeat(16).as_str())),
        Err("22P02")
    );
    assert_eq!(
        state(Typed::UuidBytes, Value::Blob(vec![0; 15])),
        Err("22P02")
    );
    assert_eq!(state(Typed::Jsonb, text("{a: 1}")), Err("22P02"));
    assert_eq!(
        state(Typed::Jsonb, Value::Real(f64::INFINITY)),
        Err("22P02")
    );
    assert_eq!(state(Typed::Decimal, text("inf")), Err("22P02"));
    assert_eq!(state(Typed::Decimal, text("1,5")), Err("22P02"));
    assert_eq!(
        state(Typed::Timestamptz, Value::Int(i64::MAX)),
        Err("22007")
    );
    assert_eq!(
        state(Typed::Timestamptz, Value::Int(i64::MIN)),
        Err("22007")
    );
}

#[test]
fn the_same_meaning_in_two_forms_is_seen() {
    let tz = Typed::Timestamptz;
    assert!(tz.means_same(
        &text("2024-01-02 03:04:05"),
        &text("2024-01-02T05:04:05+02:00")
    ));
    assert!(!tz.means_same(&text("2024-01-02 03:04:05"), &text("2024-01-02 03:04:06")));
    let json = |a: &str, b: &str| Typed::Jsonb.means_same(&text(a), &text(b));
    assert!(json(r#"{"b":1,"a":[2]}"#, r#"{"a": [2], "b": 1}"#));
    assert!(!json(r#"{"b":1}"#, r#"{"b":2}"#));
    assert!(Typed::Decimal.means_same(&text("1.50"), &text("1.5")));
    assert!(!Typed::Decimal.means_same(&text("1.50"), &text("1.51")));
    assert!(Typed::Boolean.means_same(&Value::Int(1), &text("true")));
}
