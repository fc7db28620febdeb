//! A text that must not be seen.
//!
//! Owns the rule that a password never reaches a log, an error or a screen: neither `Debug` nor
//! `Display` shows it, and `expose` is the only way to it.

use std::fmt;

/// A password.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text itself, for the login alone.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A configured value as an error may show it: whatever could hold a password is left out, also
/// where it stands under a key that should not hold one.
pub(super) fn shown(value: &str) -> String {
    let lower = value.to_ascii_lowercase();
    if lower.contains("password") || (lower.contains("://") && lower.contains('@')) {
        return "(hidden)".to_owned();
    }
    let mut text: String = value
        .chars()
        .take(80)
        .flat_map(char::escape_debug)
        .collect();
    if value.chars().count() > 80 {
        text.push('…');
    }
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_itself_only_when_asked() {
        let secret = Secret::new("canary");
        assert!(!format!("{secret:?} {secret} {secret:#?}").contains("canary"));
        assert_eq!(secret.expose(), "canary");
    }

    #[test]
    fn values_that_could_hold_a_password_are_not_shown() {
        for text in ["postgres://a:canary@h/d", "host=h PASSWORD=canary"] {
            assert_eq!(shown(text), "(hidden)");
        }
        assert_eq!(shown("public\n"), "\"public\\n\"");
    }
}
