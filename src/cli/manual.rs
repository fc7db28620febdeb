//! `completions` and `man`: both made from the grammar, so that they cannot differ from it.
//!
//! What the grammar hides is left out of both; the crates that write them would show it.

use super::args::Cli;
use super::output::{Output, stdout};
use crate::error::{Code, Error, Result};
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use serde::Serialize;
use std::io;

/// `--json` of both commands: the text that is printed else.
#[derive(Serialize)]
struct Text<'a> {
    text: &'a str,
}

/// A command's name, for as long as the program lives: clap takes no other.
fn name(command: &Command) -> &'static str {
    Box::leak(command.get_name().to_owned().into_boxed_str())
}

/// The grammar without what it hides, at every depth.
fn shown(command: &Command) -> Command {
    let mut out = Command::new(name(command))
        .args(command.get_arguments().filter(|a| !a.is_hide_set()))
        .subcommands(
            command
                .get_subcommands()
                .filter(|c| !c.is_hide_set())
                .map(shown),
        )
        .subcommand_required(command.is_subcommand_required_set());
    if let Some(about) = command.get_about() {
        out = out.about(about.clone());
    }
    if command.get_version().is_some() {
        out = out.version(env!("CARGO_PKG_VERSION"));
    }
    out
}

fn grammar() -> Command {
    let mut command = shown(&Cli::command());
    command.build();
    command
}

/// The completions of a shell.
pub(super) fn completions(shell: clap_complete::Shell, output: &Output) {
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut shown(&Cli::command()), "tidewater", &mut bytes);
    print(&String::from_utf8_lossy(&bytes), output);
}

/// The manual page, all commands on it.
pub(super) fn man(output: &Output) -> Result<()> {
    let page = page().map_err(|e| {
        Error::new(
            Code::Configuration,
            format!("the manual page cannot be made: {e}"),
            "see `tidewater help`",
        )
    })?;
    print(&page, output);
    Ok(())
}

/// A text for people as the one document that `--json` promises.
pub(super) fn print_json(text: &str) {
    super::output::document(&Text { text });
}

fn print(text: &str, output: &Output) {
    if output.json() {
        print_json(text);
    } else {
        stdout(text);
    }
}

fn page() -> io::Result<String> {
    let root = grammar();
    let man = Man::new(root.clone()).title("TIDEWATER");
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    out.extend(b".SH COMMANDS\n");
    for command in root.get_subcommands().filter(|c| c.get_name() != "help") {
        entry(command, "tidewater", &mut out)?;
    }
    man.render_options_section(&mut out)?;
    out.extend(EXIT_CODES.as_bytes());
    man.render_version_section(&mut out)?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// One command and the commands below it, without the options that all of them share.
fn entry(command: &Command, above: &str, out: &mut Vec<u8>) -> io::Result<()> {
    let path = format!("{above} {}", command.get_name());
    let own =
        Command::new(name(command))
            .bin_name(path.clone())
            .disable_help_flag(true)
            .disable_version_flag(true)
            .args(command.get_arguments().filter(|a| {
                !a.is_global_set() && !matches!(a.get_id().as_str(), "help" | "version")
            }));
    out.extend(format!(".SS \"{path}\"\n").bytes());
    if let Some(about) = command.get_about() {
        out.extend(format!("{about}\n").bytes());
    }
    if own.get_arguments().next().is_some() {
        let mut options = Vec::new();
        Man::new(own).render_options_section(&mut options)?;
        let text = String::from_utf8_lossy(&options);
        let lines = text
            .lines()
            .filter(|l| !l.starts_with(".SH") && !l.starts_with(".ie") && !l.starts_with(".el"));
        for line in lines {
            out.extend(format!("{line}\n").bytes());
        }
    }
    for below in command.get_subcommands().filter(|c| c.get_name() != "help") {
        entry(below, &path, out)?;
    }
    Ok(())
}

const EXIT_CODES: &str = "\
.SH \"EXIT STATUS\"
.TP
0
Done.
.TP
1
Done, but in this run items failed, rows differ or a check found a fault.
.TP
2
Usage or configuration.
.TP
3
The remote cannot be reached or refuses the login; nothing is lost.
.TP
4
The local database cannot be used.
.TP
5
Another instance holds the device.
.TP
6
The remote is reached but not usable.
.TP
130
Interrupted.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_in_neither() {
        let hidden = Cli::command()
            .subcommand(Command::new("submerged").hide(true))
            .arg(clap::Arg::new("sunken").long("sunken").hide(true));
        let command = shown(&hidden);
        assert!(command.find_subcommand("submerged").is_none());
        assert!(command.get_arguments().all(|a| a.get_id() != "sunken"));
        assert!(command.find_subcommand("conflicts").is_some());
    }

    #[test]
    fn the_page_has_every_command_once_and_no_stray_request() {
        let page = page().expect("a page");
        for line in [
            ".SH COMMANDS",
            ".SS \"tidewater conflicts restore\"",
            ".SH \"EXIT STATUS\"",
        ] {
            assert_eq!(page.matches(line).count(), 1, "{line}\n{page}");
        }
        assert!(!page.contains("tidewater help help"), "{page}");
    }
}
