//! Passwords on the command line: found, so that they are refused, and never repeated.

/// Whether a connection string carries a password, as URL or as keywords. In doubt it does.
pub(crate) fn holds_password(remote: &str) -> bool {
    let in_userinfo = remote.split_once("://").is_some_and(|(_, rest)| {
        rest.split_once('@')
            .and_then(|(user, _)| user.split_once(':'))
            .is_some_and(|(_, password)| !password.is_empty())
    });
    in_userinfo || keyword(remote).is_some()
}

/// Where the value of a `password=` begins.
fn keyword(text: &str) -> Option<usize> {
    let lower = text.to_ascii_lowercase();
    let mut from = 0;
    while let Some(at) = lower[from..].find("password") {
        let end = from + at + "password".len();
        let rest = lower[end..].trim_start();
        if let Some(value) = rest.strip_prefix('=') {
            return Some(lower.len() - value.len());
        }
        from = end;
    }
    None
}

/// The text with everything between `://` and the last `@` of the same word, and everything after a
/// `password=`, made unreadable.
pub(crate) fn mask(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_inclusive(char::is_whitespace) {
        let hidden = word.find("://").and_then(|scheme| {
            let at = word.rfind('@').filter(|at| *at > scheme)?;
            Some((scheme + "://".len(), at))
        });
        match hidden {
            Some((from, to)) => {
                out.push_str(&word[..from]);
                out.push_str("***");
                out.push_str(&word[to..]);
            }
            None => out.push_str(word),
        }
    }
    if let Some(from) = keyword(&out) {
        let line = out[from..].find('\n').map_or(out.len(), |n| from + n);
        out.replace_range(from..line, "***");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_found_in_both_forms() {
        for with in [
            "postgres://u:p@h/db",
            "postgresql://u:p@h:5432/db?sslmode=require",
            "postgres://u:p/w@h/db",
            "postgres://u@h/db?password=p",
            "host=h user=u password=p",
            "host=h PASSWORD = 'p'",
            "host=h sslpassword=p",
        ] {
            assert!(holds_password(with), "{with}");
        }
        for without in [
            "postgres://u@h:5432/db",
            "postgres://h:5432/db",
            "postgres://u:@h/db",
            "host=h user=u port=5432",
            "host=h user=password_reset",
            "postgres:///db?host=/run/postgresql",
        ] {
            assert!(!holds_password(without), "{without}");
        }
    }

    #[test]
    fn a_usage_error_does_not_repeat_a_password() {
        assert_eq!(
            mask("unrecognized subcommand 'postgres://u:p@w@h/db'\n\nUsage: tidewater"),
            "unrecognized subcommand 'postgres://***@h/db'\n\nUsage: tidewater"
        );
        assert_eq!(
            mask("unexpected 'host=h password=p x'\nUsage"),
            "unexpected 'host=h password=***\nUsage"
        );
        assert_eq!(
            mask("unrecognized subcommand 'nwo'"),
            "unrecognized subcommand 'nwo'"
        );
    }
}
