//! How the demo speaks: paragraphs, commands as a person would type them, and what they answer, all
//! within 80 columns. Silent with `--json` and `-q`; without a pause where nobody watches a terminal.

use super::Device;
use crate::cli::output::{self, Output};
use crate::cli::style::Paint;
use std::io::IsTerminal;
use std::time::Duration;

const WIDTH: usize = 80;

pub(super) struct Voice {
    speaks: bool,
    slow: bool,
    paint: Paint,
}

impl Voice {
    pub fn new(output: &Output) -> Voice {
        let speaks = !output.json() && !output.quiet();
        Voice {
            speaks,
            slow: speaks && std::io::stdout().is_terminal(),
            paint: output.paint(),
        }
    }

    pub fn paint(&self) -> Paint {
        self.paint
    }

    pub fn title(&self, text: &str) {
        self.print(&format!("{}\n", self.paint.bold(text)));
    }

    /// Begins a chapter.
    pub async fn chapter(&self, number: u32, title: &str) {
        self.pause(400).await;
        let rule = "─".repeat(WIDTH.saturating_sub(title.chars().count() + 6));
        let title = self.paint.bold(&format!("{number}  {title}"));
        self.print(&format!("\n{title} {}\n", self.paint.dim(&rule)));
        self.pause(400).await;
    }

    /// A paragraph of the story.
    pub async fn say(&self, text: &str) {
        let mut out = String::from("\n");
        for line in wrap(text, WIDTH) {
            out.push_str(&line);
            out.push('\n');
        }
        self.print(&out);
        self.pause(450).await;
    }

    /// What a person would type, in the folder of a device or anywhere.
    pub async fn command(&self, device: Option<&Device>, text: &str) {
        let prompt = match device {
            Some(d) => format!("{} $", d.name),
            None => "$".to_owned(),
        };
        let mut out = String::from("\n");
        for (i, line) in wrap(text, WIDTH - prompt.len() - 3).iter().enumerate() {
            if i == 0 {
                out.push_str(&format!("  {} ", self.paint.dim(&prompt)));
            } else {
                out.push_str(&" ".repeat(prompt.len() + 3));
            }
            out.push_str(&self.paint.bold(line));
            out.push('\n');
        }
        self.print(&out);
        self.pause(200).await;
    }

    /// What the command answered.
    pub async fn answer(&self, text: &str) {
        // Tables are laid out already and colours have no width: only plain long lines are broken.
        let out: String = text
            .trim_end()
            .lines()
            .flat_map(|line| match line {
                "" => vec![String::new()],
                long if long.chars().count() > WIDTH - 2 && !long.contains('\u{1b}') => {
                    wrap(long, WIDTH - 4)
                }
                line => vec![line.to_owned()],
            })
            .map(|line| match line.as_str() {
                "" => "\n".to_owned(),
                line if visible(line) + 2 <= WIDTH => format!("  {line}\n"),
                line => format!("  {}\n", wrap(line, WIDTH - 6).join("\n      ")),
            })
            .collect();
        self.print(&out);
        self.pause(300).await;
    }

    /// Text as it is.
    pub fn print(&self, text: &str) {
        if self.speaks {
            output::stdout(text);
        }
    }

    async fn pause(&self, ms: u64) {
        if self.slow {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
    }
}

/// Lines of at most `width` characters, broken where the text is and between words.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in text.lines() {
        let mut line = String::new();
        for (i, word) in part.split(' ').enumerate() {
            if i > 0 && visible(&line) + 1 + visible(word) > width {
                lines.push(std::mem::take(&mut line));
            } else if i > 0 {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

/// How many characters are seen: colours take no room.
fn visible(text: &str) -> usize {
    let mut parts = text.split('\u{1b}');
    let plain = parts.next().map_or(0, |p| p.chars().count());
    let coloured = parts.map(|p| p.chars().skip_while(|c| *c != 'm').skip(1).count());
    plain + coloured.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrap("a bc def", 4), ["a bc", "def"]);
        assert_eq!(wrap("abcdef g", 4), ["abcdef", "g"]);
        assert_eq!(wrap("ä ö ü", 5), ["ä ö ü"]);
        assert_eq!(wrap("a\nb c", 9), ["a", "b c"]);
        let red = "\u{1b}[1;31mab\u{1b}[0m c";
        assert_eq!(wrap(red, 4), [red]);
    }
}
