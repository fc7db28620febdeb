//! JSON text beside the text that Postgres makes of it: `jsonb` sorts keys, drops duplicates and writes
//! one spelling. Pure.
//!
//! [`is_stored_as`] may say no to a text that would come back the same, never yes to one that would not.

/// How a text separates its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Spacing {
    /// `{"a": 1, "b": 2}`, as `jsonb` prints it.
    Spaced,
    /// `{"a":1,"b":2}`.
    Compact,
}

/// The spacing of a text, by its first separator; `None` where it has none.
pub fn spacing(text: &str) -> Option<Spacing> {
    let b = text.as_bytes();
    let at = outside(b).find(|i| matches!(b[*i], b':' | b','))?;
    Some(match b.get(at + 1) {
        Some(b' ') => Spacing::Spaced,
        _ => Spacing::Compact,
    })
}

/// Places outside of strings.
fn outside(b: &[u8]) -> impl Iterator<Item = usize> + '_ {
    let (mut inside, mut escaped) = (false, false);
    (0..b.len()).filter(move |i| {
        let c = b[*i];
        if inside {
            inside = escaped || c != b'"';
            escaped = !escaped && c == b'\\';
            return false;
        }
        inside = c == b'"';
        !inside
    })
}

/// A text of `jsonb` with another spacing.
pub fn respace(stored: &str, spacing: Spacing) -> String {
    if spacing == Spacing::Spaced {
        return stored.to_owned();
    }
    let b = stored.as_bytes();
    let drop: std::collections::HashSet<usize> = outside(b).filter(|i| b[*i] == b' ').collect();
    stored
        .char_indices()
        .filter(|(i, _)| !drop.contains(i))
        .map(|(_, c)| c)
        .collect()
}

/// Whether `jsonb` gives back this very text, in a spacing.
pub fn is_stored_as(text: &str, spacing: Spacing) -> bool {
    let mut s = Scan {
        rest: text,
        gap: if spacing == Spacing::Spaced { " " } else { "" },
    };
    s.value(0).is_some() && s.rest.is_empty()
}

/// Deeper nesting is left to the server.
const DEPTH: usize = 64;

struct Scan<'a> {
    rest: &'a str,
    gap: &'static str,
}

impl<'a> Scan<'a> {
    fn take(&mut self, text: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(text)?;
        Some(())
    }

    fn separator(&mut self, c: &str) -> Option<()> {
        self.take(c)?;
        self.take(self.gap)
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        if depth > DEPTH {
            return None;
        }
        match self.rest.as_bytes().first()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string().map(|_| ()),
            b't' => self.take("true"),
            b'f' => self.take("false"),
            b'n' => self.take("null"),
            _ => self.number(),
        }
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        self.take("{")?;
        if self.take("}").is_some() {
            return Some(());
        }
        let mut before: Option<&'a str> = None;
        loop {
            let key = self.string()?;
            // Keys with escapes compare by what they spell.
            if key.contains('\\') {
                return None;
            }
            if before.is_some_and(|b| (b.len(), b) >= (key.len(), key)) {
                return None;
            }
            before = Some(key);
            self.separator(":")?;
            self.value(depth + 1)?;
            if self.take("}").is_some() {
                return Some(());
            }
            self.separator(",")?;
        }
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.take("[")?;
        if self.take("]").is_some() {
            return Some(());
        }
        loop {
            self.value(depth + 1)?;
            if self.take("]").is_some() {
                return Some(());
            }
            self.separator(",")?;
        }
    }

    /// A string without escapes but those that the server writes itself.
    fn string(&mut self) -> Option<&'a str> {
        self.take("\"")?;
        let b = self.rest.as_bytes();
        let mut i = 0;
        loop {
            match b.get(i)? {
                b'"' => break,
                b'\\' => {
                    if !matches!(
                        b.get(i + 1)?,
                        b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't'
                    ) {
                        return None;
                    }
                    i += 2;
                }
                0..=31 => return None,
                _ => i += 1,
            }
        }
        let inner = self.rest.get(..i)?;
        self.rest = self.rest.get(i + 1..)?;
        Some(inner)
    }

    /// A number as `numeric` prints it: no exponent, no needless zero in front, no negative zero.
    fn number(&mut self) -> Option<()> {
        let n = self
            .rest
            .bytes()
            .take_while(|b| b.is_ascii_digit() || matches!(b, b'-' | b'.'))
            .count();
        let (text, rest) = self.rest.split_at_checked(n)?;
        if !is_plain_decimal(text) || matches!(rest.as_bytes().first(), Some(b'e' | b'E' | b'+')) {
            return None;
        }
        self.rest = rest;
        Some(())
    }
}

/// Whether `numeric` gives back this very text.
pub fn is_plain_decimal(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    let zero = digits.bytes().all(|b| matches!(b, b'0' | b'.'));
    all(whole)
        && all(fraction)
        && (whole == "0" || !whole.starts_with('0'))
        && !(zero && text.starts_with('-'))
        && text.len() < 1000
}

/// Whether every `\u` escape of a JSON text stands for a character that Postgres text can hold: no NUL,
/// no half of a surrogate pair.
pub fn has_characters(text: &str) -> bool {
    let mut rest = text;
    let mut high = false;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        if high && !before.is_empty() {
            return false;
        }
        let code = escape
            .strip_prefix("\\u")
            .and_then(|e| u16::from_str_radix(e.get(..4)?, 16).ok());
        match code {
            Some(0) => return false,
            Some(0xd800..=0xdbff) if high => return false,
            Some(0xdc00..=0xdfff) if !high => return false,
            Some(0xd800..=0xdbff) => high = true,
            _ if high && !matches!(code, Some(0xdc00..=0xdfff)) => return false,
            _ => high = false,
        }
        rest = escape
            .get(if code.is_some() { 6 } else { 2 }..)
            .unwrap_or("");
    }
    !high
}

/// Whether two plain decimals are one number; `false` where either has an exponent.
pub fn same_decimal(a: &str, b: &str) -> bool {
    let bare = |t: &str| {
        let negative = t.starts_with('-');
        let t = t.trim_start_matches(['-', '+']);
        let (w, f) = t.split_once('.').unwrap_or((t, ""));
        let (w, f) = (w.trim_start_matches('0'), f.trim_end_matches('0'));
        (
            negative && !(w.is_empty() && f.is_empty()),
            w.to_owned(),
            f.to_owned(),
        )
    };
    !a.contains(['e', 'E']) && !b.contains(['e', 'E']) && bare(a) == bare(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_comes_back_the_same_counts_as_stored() {
        let (spaced, compact) = (Spacing::Spaced, Spacing::Compact);
        for yes in [
            r#"{"a": 1, "bb": [1, 2.50, {"c": "x, y: z"}]}"#,
            "[]",
            "{}",
            "null",
            "-0.5",
            r#""é\n\"""#,
        ] {
            assert!(is_stored_as(yes, spaced), "{yes}");
        }
        assert!(is_stored_as(r#"{"a":1,"bb":[1,2]}"#, compact));
        for no in [
            r#"{"b": 1, "a": 2}"#,
            r#"{"bb": 1, "a": 2}"#,
            r#"{"a": 1, "a": 2}"#,
            r#"{"a":1}"#,
            "1e5",
            "1E5",
            "-0",
            "-0.0",
            "01",
            "1.",
            r#""\u00e9""#,
            r#""\/""#,
            " {}",
            "{} ",
            "[1,2]",
            "nul",
            "",
        ] {
            assert!(!is_stored_as(no, spaced), "{no}");
        }
    }

    #[test]
    fn escapes_that_stand_for_no_character_are_found() {
        for yes in [
            r#""\u00e9""#,
            r#""\ud83d\ude00""#,
            r#""\\u0000""#,
            r#""\n\u0001""#,
            "{}",
        ] {
            assert!(has_characters(yes), "{yes}");
        }
        for no in [
            r#""\u0000""#,
            r#""a\\\u0000""#,
            r#""\ud83d""#,
            r#""\ud83dx\ude00""#,
            r#""\ude00""#,
            r#""\ud83d\n""#,
        ] {
            assert!(!has_characters(no), "{no}");
        }
    }

    #[test]
    fn spaces_go_only_between_the_parts() {
        let text = r#"{"a b": "c, d: \" e", "f": [1, 2]}"#;
        assert_eq!(
            respace(text, Spacing::Compact),
            r#"{"a b":"c, d: \" e","f":[1,2]}"#
        );
        assert_eq!(spacing(text), Some(Spacing::Spaced));
        assert_eq!(spacing(r#"{"a: b":1}"#), Some(Spacing::Compact));
        assert_eq!(spacing("1"), None);
    }
}
