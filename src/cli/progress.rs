//! Progress bars on stderr, for people only.

use super::args::Global;
use super::style::clean;
use crate::report::{NoProgress, Progress};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What is drawn at present; log lines are written above it.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Stderr for log lines: a bar that is drawn steps aside for each. A line that cannot be written, to a
/// file on a full disk or a reader that is gone, is lost: the logger would panic over an error.
pub(crate) struct AboveBars;

impl Write for AboveBars {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        BARS.suspend(|| drop(std::io::stderr().write_all(line)));
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A bar where somebody watches, else nothing.
pub(crate) fn new(global: &Global) -> Box<dyn Progress> {
    let watched = std::io::stderr().is_terminal();
    if watched && !global.quiet && !global.no_progress && !global.json {
        Box::new(Bar(Mutex::new(None)))
    } else {
        Box::new(NoProgress)
    }
}

struct Bar(Mutex<Option<ProgressBar>>);

impl Bar {
    fn current(&self) -> MutexGuard<'_, Option<ProgressBar>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Bar {
    fn begin(&self, what: &str, total: Option<u64>) {
        self.end();
        let (bar, template) = match total {
            Some(n) => (
                ProgressBar::new(n),
                "{spinner} {msg:24} {bar:20} {human_pos}/{human_len} {eta}",
            ),
            None => (ProgressBar::new_spinner(), "{spinner} {msg:24} {human_pos}"),
        };
        let bar = BARS.add(bar);
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.set_message(clean(what));
        bar.enable_steady_tick(Duration::from_millis(120));
        *self.current() = Some(bar);
    }

    fn advance(&self, by: u64) {
        if let Some(bar) = self.current().as_ref() {
            bar.inc(by);
        }
    }

    fn end(&self) {
        if let Some(bar) = self.current().take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.end();
    }
}
