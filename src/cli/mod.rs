//! The command line: grammar, dispatch, output, exit codes.
//!
//! Knows the operations of `sync::ops` and the documents of `report`, and nothing of either database;
//! only `demo` plays an app on one side and a person with SQL on the other.
//! Stdout carries the answer only (with `--json` exactly one document), stderr everything else. A
//! password given on the command line is refused before anything echoes it. Every failure ends as one
//! error with its code, cause and remedy, and with the exit code of the contract.

mod args;
mod command;
mod demo;
mod logging;
mod manual;
mod notify;
mod output;
mod progress;
mod render;
mod secret;
mod signal;
mod style;
mod watch;

use crate::error::{Code, Error};
use args::Cli;
use clap::Parser;
use clap::error::ErrorKind;
use output::Output;
use std::process::ExitCode;
use style::Paint;

/// Exit code of a command that a person interrupted.
pub(crate) const INTERRUPTED: u8 = 130;
/// Exit code of a command that was done, but found or left something failed.
pub(crate) const FOUND: u8 = 1;

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let words: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&words) {
        Ok(cli) => cli,
        Err(e) => return ExitCode::from(usage(&e, words.iter().skip(1).any(|w| w == "--json"))),
    };
    let output = Output::new(&cli.global);
    let code = match dispatch(cli, &output) {
        Ok(code) => code,
        Err(e) => output.error(&e),
    };
    ExitCode::from(code)
}

/// Everything before the async runtime: what can be refused is refused here.
fn dispatch(cli: Cli, output: &Output) -> Result<u8, Error> {
    cli.check()?;
    logging::start(&cli.global, &cli.command);
    command::execute(cli, output)
}

/// What clap has to say: help and version on stdout, all else as a usage error.
fn usage(e: &clap::Error, json: bool) -> u8 {
    if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let text = e.render().to_string();
        if json {
            manual::print_json(&text);
        } else {
            output::stdout(&text);
        }
        return 0;
    }
    let text = secret::mask(&e.render().to_string());
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    if json {
        let message = match e.kind() {
            ErrorKind::MissingSubcommand => "a command is missing".to_owned(),
            _ => first_paragraph(text),
        };
        let error = Error::new(
            Code::Configuration,
            message,
            "see `tidewater help`, or `--help` after the command",
        );
        output::document(&crate::report::ErrorReport::from(&error));
    } else if e.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        output::stderr(text);
    } else {
        let paint = Paint::stderr(args::Color::Auto);
        output::stderr(&format!("{}: {text}", paint.bad("error[SYNC-013]")));
    }
    Code::Configuration.exit_code()
}

/// The sentence itself, on one line; clap's tips and usage follow it.
fn first_paragraph(text: &str) -> String {
    let paragraph = text.split("\n\n").next().unwrap_or(text);
    paragraph.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usage_error_becomes_one_sentence() {
        assert_eq!(
            first_paragraph(
                "the following required arguments were not provided:\n  <KEY>...\n\nUsage: x"
            ),
            "the following required arguments were not provided: <KEY>..."
        );
    }
}
