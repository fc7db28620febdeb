//! Where answers and errors go.

use super::args::{Color, Global};
use super::style::{Paint, clean};
use crate::error::Error;
use crate::report::ErrorReport;
use serde::Serialize;
use std::io::{IsTerminal, Write};

/// The form of the output that was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    color: Color,
}

impl Output {
    pub fn new(global: &Global) -> Output {
        Output {
            json: global.json,
            quiet: global.quiet,
            color: global.color,
        }
    }

    /// Whether one JSON document is wanted and nothing else.
    pub fn json(&self) -> bool {
        self.json
    }

    /// Whether only what went wrong is wanted.
    pub fn quiet(&self) -> bool {
        self.quiet
    }

    /// The colours of stdout.
    pub fn paint(&self) -> Paint {
        Paint::stdout(self.color)
    }

    /// The answer to a question: as JSON, or as `render` shows it.
    pub fn answer<T: Serialize>(&self, report: &T, render: impl FnOnce(&T, Paint) -> String) {
        if self.json {
            document(report);
        } else {
            stdout(&render(report, Paint::stdout(self.color)));
        }
    }

    /// The summary of something done; `-q` does without it.
    pub fn summary<T: Serialize>(&self, report: &T, render: impl FnOnce(&T, Paint) -> String) {
        if self.json || !self.quiet {
            self.answer(report, render);
        }
    }

    /// An answer that is given again and again: redrawn in place on a terminal, else one after the other.
    /// Whether anybody still reads it.
    pub fn again<T: Serialize>(
        &self,
        report: &T,
        first: bool,
        render: impl FnOnce(&T, Paint) -> String,
    ) -> bool {
        if self.json {
            return written(&json(report));
        }
        let text = render(report, Paint::stdout(self.color));
        written(&frame(&text, first, std::io::stdout().is_terminal()))
    }

    /// An error; returns the exit code that goes with it.
    pub fn error(&self, e: &Error) -> u8 {
        if self.json {
            document(&ErrorReport::from(e));
        } else {
            stderr(&error_text(e, Paint::stderr(self.color)));
        }
        e.code.exit_code()
    }
}

/// An error as people read it.
pub(super) fn error_text(e: &Error, paint: Paint) -> String {
    let label = paint.bad(&format!("error[{}]", e.code));
    let mut out = format!("{label}: {}\n", clean(&e.message));
    if let Some(table) = &e.table {
        out.push_str(&format!("  table: {}\n", clean(table)));
    }
    if let Some(state) = &e.sqlstate {
        out.push_str(&format!("  sqlstate: {}\n", clean(state)));
    }
    if !e.remedy.is_empty() {
        out.push_str(&format!("  remedy: {}\n", clean(&e.remedy)));
    }
    out
}

/// Prints one JSON document.
pub(crate) fn document<T: Serialize>(report: &T) {
    stdout(&json(report));
}

fn json<T: Serialize>(report: &T) -> String {
    // Reports are made of text, numbers and lists: they always have a JSON form.
    let mut text = serde_json::to_string(report).unwrap_or_default();
    text.push('\n');
    text
}

/// One picture of many. On a terminal each line clears its own rest and the last one what is below, so
/// that nothing flickers.
fn frame(text: &str, first: bool, terminal: bool) -> String {
    match (terminal, first) {
        (true, true) => format!("\u{1b}[2J\u{1b}[H{text}"),
        (true, false) => {
            let lines = text.replace('\n', "\u{1b}[K\n");
            format!("\u{1b}[H{lines}\u{1b}[J")
        }
        (false, true) => text.to_owned(),
        (false, false) => format!("\n{text}"),
    }
}

/// Prints to stdout; whether somebody reads it.
fn written(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_ok()
}

/// Prints to stdout. Whoever reads may stop reading (`| head`): that is no failure of ours.
pub(crate) fn stdout(text: &str) {
    written(text);
}

/// Prints to stderr, likewise.
pub(crate) fn stderr(text: &str) {
    drop(std::io::stderr().lock().write_all(text.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn a_picture_is_redrawn_without_flicker_and_repeated_where_it_is_piped() {
        assert_eq!(frame("a\n", true, true), "\u{1b}[2J\u{1b}[Ha\n");
        assert_eq!(
            frame("a\nb\n", false, true),
            "\u{1b}[Ha\u{1b}[K\nb\u{1b}[K\n\u{1b}[J"
        );
        assert_eq!(frame("a\n", true, false), "a\n");
        assert_eq!(frame("a\n", false, false), "\na\n");
    }

    #[test]
    fn an_error_says_its_code_table_and_remedy() {
        let e =
            Error::new(Code::Connection, "no \u{1b}[2J answer", "check the cable").on_table("t\n");
        assert_eq!(
            error_text(&e, Paint::plain()),
            "error[SYNC-001]: no \\u{1b}[2J answer\n  table: t\\n\n  remedy: check the cable\n"
        );
    }
}
