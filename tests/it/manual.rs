//! Completions and the manual page: made without any configuration, whole, and without what is hidden.

use crate::support::cli::tidewater;
use std::collections::BTreeSet;

/// The commands that `--help` shows.
fn commands() -> BTreeSet<String> {
    let folder = tempfile::tempdir().unwrap();
    let help = tidewater(folder.path(), &["--help"]).ok().stdout;
    let list = help.split("Commands:").nth(1).expect("a list").to_owned();
    list.lines()
        .skip(1)
        .take_while(|l| !l.is_empty())
        .filter(|l| l.starts_with("  ") && !l.starts_with("   "))
        .filter_map(|l| l.split_whitespace().next())
        .filter(|c| *c != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn completions_need_no_configuration_and_name_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let commands = commands();
    assert!(commands.len() > 10, "{commands:?}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = tidewater(folder.path(), &["completions", shell]).ok();
        assert_eq!(script.stderr, "");
        for command in &commands {
            assert!(script.stdout.contains(command), "{shell}: {command}");
        }
    }
    let script = tidewater(folder.path(), &["completions", "bash"])
        .ok()
        .stdout;
    let json = tidewater(folder.path(), &["--json", "completions", "bash"])
        .ok()
        .json();
    assert_eq!(json["text"], script);
    tidewater(folder.path(), &["completions", "tcsh"]).expect_code(2);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn bash_takes_the_completions_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let script = tidewater(folder.path(), &["completions", "bash"])
        .ok()
        .stdout;
    let file = folder.path().join("tidewater.bash");
    std::fs::write(&file, script).unwrap();
    let done = std::process::Command::new("bash")
        .arg("-c")
        .arg(
            "source \"$1\" && COMP_WORDS=(tidewater conf) COMP_CWORD=1 && \
              _tidewater tidewater conf tidewater && printf '%s\\n' \"${COMPREPLY[@]}\"",
        )
        .args(["bash".as_ref(), file.as_os_str()])
        .output()
        .expect("bash");
    let said = String::from_utf8_lossy(&done.stdout);
    assert_eq!(said.trim(), "conflicts", "{done:?}");
}

#[test]
fn the_manual_page_has_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let page = tidewater(folder.path(), &["man"]).ok().stdout;
    assert!(page.contains(".TH TIDEWATER 1"), "{page}");
    for command in commands() {
        assert!(
            page.contains(&format!(".SS \"tidewater {command}\"")),
            "{command}"
        );
    }
    for heading in [
        ".SH NAME",
        ".SH SYNOPSIS",
        ".SH OPTIONS",
        ".SH \"EXIT STATUS\"",
    ] {
        assert!(page.contains(heading), "{heading}");
    }
    let json = tidewater(folder.path(), &["--json", "man"]).ok().json();
    assert_eq!(json["text"], page);
}
