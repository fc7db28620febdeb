use super::*;
use clap::CommandFactory;

fn parse(words: &str) -> std::result::Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("tidewater").chain(words.split_whitespace()))
}

fn refusal(words: &str) -> Error {
    parse(words)
        .expect("parses")
        .check()
        .expect_err("is refused")
}

#[test]
fn the_grammar_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn the_commands_of_the_contract_are_all_there() {
    for words in [
        "status",
        "queue --errors --limit 3",
        "queue --inbox --errors",
        "queue show 01J",
        "explain votes -7 x",
        "status votes 1 --watch",
        "now --dry-run",
        "init --dry-run",
        "init --adopt-remote",
        "conflicts",
        "demo --keep",
        "detach --yes",
        "verify --repair",
        "doctor --json",
        "prune --failed --older-than 3 --yes",
        "devices",
        "devices retire X",
        "provision --dry-run --device a --device b",
        "devices revoke X",
    ] {
        assert!(parse(words).is_ok(), "{words}");
    }
}

#[test]
fn a_password_in_remote_is_refused_and_not_echoed() {
    let e = refusal("clone --remote postgres://app:hunter2@db/app new.db");
    assert_eq!(e.code.exit_code(), 2);
    assert!(!e.to_string().contains("hunter2"));
}

#[test]
fn a_discard_needs_a_yes() {
    assert!(refusal("discard 01J").remedy.contains("--yes"));
    assert!(parse("discard 01J --yes").expect("parses").check().is_ok());
    assert!(parse("discard --yes").is_err());
}

#[test]
fn words_fall_into_their_places() {
    let cli = parse("status votes -7 x --json -vv").expect("parses");
    assert!(cli.global.json && cli.global.verbose == 2);
    assert!(
        matches!(cli.command, Command::Status { table: Some(t), key, .. } if t == "votes" && key == ["-7", "x"])
    );
    assert_eq!(refusal("status votes").table.as_deref(), Some("votes"));
    let cli = parse("--db a.db init --tables a*,b").expect("parses");
    assert_eq!(cli.overrides().db, Some(PathBuf::from("a.db")));
    assert!(matches!(cli.command, Command::Init { tables, .. } if tables == ["a*", "b"]));
    for words in [
        "",
        "now --timeout 0",
        "now --timeout x",
        "queue --limit 0",
        "queue --errors --ready",
        "explain votes",
        "conflicts ack",
        "conflicts ack A --all",
        "-q -v status",
        "prune --failed",
        "prune --older-than 3",
    ] {
        assert!(parse(words).is_err(), "{words}");
    }
    assert!(refusal("clone --db a.db b.db").message.contains("--db"));
    assert!(refusal("demo --db a.db").remedy.contains("--db"));
}
