//! The little of SQL's lexis that reading `sqlite_schema.sql` takes.
//!
//! It finds words outside of strings, quoted names, comments and parentheses, and nothing more: it
//! never judges grammar. Where a text is not plain enough to be sure of, it answers `None`, and the
//! caller does without.

/// A word (keyword, name or number) outside of parentheses: where it begins and ends.
struct Scan<'a> {
    sql: &'a str,
    at: usize,
    depth: usize,
    /// A comment was passed.
    comment: bool,
    /// A `.` outside of quotes was passed.
    dot: bool,
}

impl<'a> Scan<'a> {
    fn new(sql: &'a str) -> Self {
        Scan {
            sql,
            at: 0,
            depth: 0,
            comment: false,
            dot: false,
        }
    }

    /// The next word or quoted text as written, with the depth of parentheses it stands at.
    fn next(&mut self) -> Option<(usize, &'a str, usize)> {
        let b = self.sql.as_bytes();
        while let Some(&c) = b.get(self.at) {
            let start = self.at;
            match c {
                b'-' if b.get(start + 1) == Some(&b'-') => {
                    self.comment = true;
                    self.at = find(b, start, b"\n");
                }
                b'/' if b.get(start + 1) == Some(&b'*') => {
                    self.comment = true;
                    self.at = find(b, start + 2, b"*/");
                }
                b'\'' | b'"' | b'`' | b'[' => {
                    let close = if c == b'[' { b']' } else { c };
                    self.at = quoted_end(b, start, close);
                    return Some((start, &self.sql[start..self.at], self.depth));
                }
                b'(' => {
                    self.depth += 1;
                    self.at += 1;
                }
                b')' => {
                    self.depth = self.depth.saturating_sub(1);
                    self.at += 1;
                }
                c if is_word(c) => {
                    while b.get(self.at).copied().is_some_and(is_word) {
                        self.at += 1;
                    }
                    return Some((start, &self.sql[start..self.at], self.depth));
                }
                c => {
                    self.dot |= c == b'.';
                    self.at += 1;
                }
            }
        }
        None
    }
}

fn is_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || c == b'_' || c == b'$' || c >= 0x80
}

/// The end of the first `needle` at or after `from`, or of the text.
fn find(b: &[u8], from: usize, needle: &[u8]) -> usize {
    b.get(from..)
        .and_then(|rest| rest.windows(needle.len()).position(|w| w == needle))
        .map_or(b.len(), |i| from + i + needle.len())
}

/// The end of a quoted text that begins at `start`; a doubled quote stands for itself.
fn quoted_end(b: &[u8], start: usize, close: u8) -> usize {
    let mut i = start + 1;
    while let Some(&c) = b.get(i) {
        i += 1;
        if c == close {
            if close != b']' && b.get(i) == Some(&close) {
                i += 1;
            } else {
                break;
            }
        }
    }
    i
}

/// A name as written, without its quotes.
fn unquote(word: &str) -> String {
    let mut chars = word.chars();
    match chars.next() {
        Some(q @ ('"' | '`' | '\'')) => {
            let inner = word[1..].strip_suffix(q).unwrap_or(&word[1..]);
            inner.replace(&format!("{q}{q}"), &q.to_string())
        }
        Some('[') => word[1..].trim_end_matches(']').to_owned(),
        _ => word.to_owned(),
    }
}

/// The name that follows `keyword` in a statement.
pub(in crate::sqlite) fn name_after(sql: &str, keyword: &str) -> Option<String> {
    let mut scan = Scan::new(sql);
    while let Some((_, word, depth)) = scan.next() {
        if depth == 0 && word.eq_ignore_ascii_case(keyword) {
            return scan.next().map(|(_, w, _)| unquote(w));
        }
    }
    None
}

/// Every word and name of a statement in lower case, inside parentheses too.
pub(in crate::sqlite) fn words(sql: &str) -> Vec<String> {
    let mut scan = Scan::new(sql);
    let mut out = Vec::new();
    while let Some((_, word, _)) = scan.next() {
        out.push(unquote(word).to_ascii_lowercase());
    }
    out
}

/// The condition of a partial index, if it can stand in a statement that gives the table an alias:
/// no qualified name, no comment.
pub(in crate::sqlite) fn partial_condition(sql: &str) -> Option<&str> {
    let mut scan = Scan::new(sql);
    while let Some((start, word, depth)) = scan.next() {
        if depth == 0 && word.eq_ignore_ascii_case("where") {
            let condition = sql[start + word.len()..]
                .trim()
                .trim_end_matches(';')
                .trim();
            let mut rest = Scan::new(condition);
            while rest.next().is_some() {}
            let plain = !rest.dot && !rest.comment && rest.depth == 0 && !condition.is_empty();
            return plain.then_some(condition);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_condition_of_a_partial_index_is_found_behind_names_that_look_like_it() {
        for (sql, want) in [
            ("CREATE UNIQUE INDEX i ON t(a) WHERE b = 0", Some("b = 0")),
            (
                "CREATE UNIQUE INDEX \"where\" ON \"t where\"(\"where\", lower('where'))\nwhere \"x\"\" y\" is null;",
                Some("\"x\"\" y\" is null"),
            ),
            (
                "CREATE UNIQUE INDEX i ON t(a) -- where c\n WHERE (b > 1) and c",
                Some("(b > 1) and c"),
            ),
            ("CREATE UNIQUE INDEX i ON t(a) WHERE t.b = 0", None),
            ("CREATE UNIQUE INDEX i ON t(a) WHERE b = 0 -- live", None),
            (
                "CREATE UNIQUE INDEX i ON t(a) WHERE b = 'a.b--c'",
                Some("b = 'a.b--c'"),
            ),
            ("CREATE UNIQUE INDEX i ON t(a)", None),
        ] {
            assert_eq!(partial_condition(sql), want, "{sql}");
        }
    }

    #[test]
    fn names_lose_their_quotes() {
        for (sql, keyword, want) in [
            ("CREATE UNIQUE INDEX \"a\"\"b\" ON t(x)", "index", "a\"b"),
            ("CREATE INDEX [a b] ON t(x)", "index", "a b"),
            (
                "CREATE VIRTUAL TABLE using_it USING /* x */ `vec0`(a)",
                "using",
                "vec0",
            ),
        ] {
            assert_eq!(name_after(sql, keyword).as_deref(), Some(want), "{sql}");
        }
        assert_eq!(name_after("CREATE TABLE t(using x)", "using"), None);
    }
}
