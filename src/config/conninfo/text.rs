//! libpq's two ways to write connection settings: keyword strings and URLs.
//!
//! Owns the grammar alone; it knows no keyword's meaning. A problem is told without any part of the
//! text: a password that is not escaped may stand anywhere in it.

/// A keyword with its value, in writing order.
pub(super) type Pairs = Vec<(String, String)>;

const ESCAPE_HINT: &str =
    "in a URL the characters : / ? # @ & % of a name or a password are written as %XX";
const QUOTE_HINT: &str = "in a keyword string a value with blanks or quotes stands in '...', with \\ before each ' and \\";

/// Takes a URL or a keyword string apart.
pub(super) fn parse(text: &str) -> Result<Pairs, String> {
    if text.contains('\0') {
        return Err("it holds a NUL character".to_owned());
    }
    let scheme = ["postgresql://", "postgres://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    match scheme {
        Some(rest) => url(rest),
        None if has_other_scheme(text) => {
            Err("a URL has to begin with postgres:// or postgresql://".to_owned())
        }
        None => keywords(text),
    }
}

/// Whether the text begins like a URL of something else; inside a keyword's value `://` is a text.
fn has_other_scheme(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| {
        scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    })
}

fn url(rest: &str) -> Result<Pairs, String> {
    let mut pairs = Pairs::new();
    let (location, query) = match rest.split_once('?') {
        // libpq would take this ? as a part of the password; more likely it begins the parameters.
        Some((before, _))
            if !before.contains('/') && user_end(rest).is_some_and(|at| at > before.len()) =>
        {
            return Err(format!("a ? stands before the @; {ESCAPE_HINT}"));
        }
        Some((location, query)) => (location, Some(query)),
        None => (rest, None),
    };
    let (user, place) = match user_end(location) {
        Some(at) => (
            location.get(..at),
            location.get(at + 1..).unwrap_or_default(),
        ),
        None => (None, location),
    };
    if let Some(user) = user {
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        add(&mut pairs, "user", name)?;
        add(&mut pairs, "password", password)?;
    }
    // Here a raw @ can only be the rest of a password.
    if place.contains('@') {
        return Err(format!("there is an @ too many; {ESCAPE_HINT}"));
    }
    let (authority, dbname) = place.split_once('/').unwrap_or((place, ""));
    let (hosts, ports) = hosts_and_ports(authority)?;
    add(&mut pairs, "host", &hosts)?;
    add(&mut pairs, "port", &ports)?;
    add(&mut pairs, "dbname", dbname)?;
    for pair in query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .filter(|pair| !pair.is_empty())
    {
        let (key, value) = pair
            .split_once('=')
            .filter(|(_, value)| !value.contains('='))
            .ok_or_else(|| format!("each parameter after the ? is key=value; {ESCAPE_HINT}"))?;
        pairs.push((decode(key)?, decode(value)?));
    }
    Ok(pairs)
}

/// Where the user's part ends: at the first @ that no / precedes.
fn user_end(text: &str) -> Option<usize> {
    text.find(['@', '/'])
        .filter(|at| text.as_bytes().get(*at) == Some(&b'@'))
}

/// The hosts and the ports of a URL, each as the list that the keywords hold.
fn hosts_and_ports(text: &str) -> Result<(String, String), String> {
    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    for one in text.split(',') {
        let (host, port) = host_and_port(one)?;
        hosts.push(host);
        ports.push(port);
    }
    let ports = if ports.iter().all(|port| port.is_empty()) {
        String::new()
    } else {
        ports.join(",")
    };
    Ok((hosts.join(","), ports))
}

fn host_and_port(text: &str) -> Result<(&str, &str), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest
            .split_once(']')
            .ok_or("an IPv6 address stands between [ and ]")?;
        let port = match rest.strip_prefix(':') {
            Some(port) => port,
            None if rest.is_empty() => "",
            None => return Err("only :PORT may follow the ] of an IPv6 address".to_owned()),
        };
        return Ok((host, port));
    }
    Ok(text.split_once(':').unwrap_or((text, "")))
}

fn add(pairs: &mut Pairs, key: &str, value: &str) -> Result<(), String> {
    if !value.is_empty() {
        pairs.push((key.to_owned(), decode(value)?));
    }
    Ok(())
}

fn decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
        match digit()
            .zip(digit())
            .and_then(|(high, low)| u8::try_from(high * 16 + low).ok())
        {
            Some(0) => return Err("%00 is not allowed".to_owned()),
            Some(byte) => bytes.push(byte),
            None => {
                return Err(format!(
                    "a % is not followed by two hexadecimal digits; {ESCAPE_HINT}"
                ));
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| "its %XX sequences are not UTF-8".to_owned())
}

fn keywords(text: &str) -> Result<Pairs, String> {
    let mut pairs = Pairs::new();
    let mut rest = text.chars().peekable();
    loop {
        while rest.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        if rest.peek().is_none() {
            return Ok(pairs);
        }
        let mut key = String::new();
        while let Some(c) = rest.next_if(|c| *c != '=' && !c.is_ascii_whitespace()) {
            key.push(c);
        }
        while rest.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        if key.is_empty() || rest.next() != Some('=') {
            return Err(format!(
                "it is neither a postgres:// URL nor keyword=value pairs; {QUOTE_HINT}"
            ));
        }
        while rest.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        let mut value = String::new();
        if rest.next_if_eq(&'\'').is_some() {
            loop {
                match rest.next() {
                    None => return Err(format!("a quoted value does not end; {QUOTE_HINT}")),
                    Some('\\') => value.extend(rest.next()),
                    // libpq knows the backslash alone and fails at a doubled quote; no string that it
                    // accepts means something else here.
                    Some('\'') if rest.next_if_eq(&'\'').is_some() => value.push('\''),
                    Some('\'') => break,
                    Some(c) => value.push(c),
                }
            }
        } else {
            while let Some(c) = rest.next_if(|c| !c.is_ascii_whitespace()) {
                match c {
                    '\\' => value.extend(rest.next()),
                    c => value.push(c),
                }
            }
        }
        pairs.push((key, value));
    }
}

/// Writes a value so that it stands in a URL as itself; `also` names further characters that may
/// stay as they are.
pub(super) fn encode(text: &str, also: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let c = char::from(byte);
        if byte.is_ascii_alphanumeric()
            || "-._~".contains(c)
            || (byte.is_ascii() && also.contains(c))
        {
            out.push(c);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap_or_else(|problem| panic!("{text}: {problem}"))
    }

    #[test]
    fn both_forms_are_taken_apart_as_libpq_does() {
        for (text, expected) in [
            ("", vec![]),
            ("postgres://", vec![]),
            ("postgresql:///db", vec![("dbname", "db")]),
            ("postgres://h", vec![("host", "h")]),
            (
                "postgres://u:p%40ss@h:5433/d?sslmode=disable&connect_timeout=3",
                vec![
                    ("user", "u"),
                    ("password", "p@ss"),
                    ("host", "h"),
                    ("port", "5433"),
                    ("dbname", "d"),
                    ("sslmode", "disable"),
                    ("connect_timeout", "3"),
                ],
            ),
            (
                "postgres://[::1]:5433/d",
                vec![("host", "::1"), ("port", "5433"), ("dbname", "d")],
            ),
            ("postgres://[::1]", vec![("host", "::1")]),
            (
                "postgres://a:1,[::2],c:3/d",
                vec![("host", "a,::2,c"), ("port", "1,,3"), ("dbname", "d")],
            ),
            ("postgres://a,b", vec![("host", "a,b")]),
            (
                "postgres://%2Frun%2Fpg/d",
                vec![("host", "/run/pg"), ("dbname", "d")],
            ),
            (
                "postgres:///d?host=/run/pg",
                vec![("dbname", "d"), ("host", "/run/pg")],
            ),
            ("postgres://u@/d", vec![("user", "u"), ("dbname", "d")]),
            ("postgres://h?user=u", vec![("host", "h"), ("user", "u")]),
            (
                "postgres://h/d?user=a@b",
                vec![("host", "h"), ("dbname", "d"), ("user", "a@b")],
            ),
            ("host=h  port = 1", vec![("host", "h"), ("port", "1")]),
            ("password=a://b", vec![("password", "a://b")]),
            ("password='it''s'", vec![("password", "it's")]),
            (
                r"password='it\'s \\ ok' user=u",
                vec![("password", r"it's \ ok"), ("user", "u")],
            ),
            (
                r"password=a\ b user=''",
                vec![("password", "a b"), ("user", "")],
            ),
        ] {
            let expected: Vec<_> = expected
                .iter()
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .collect();
            assert_eq!(pairs(text), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_without_a_word_of_it() {
        for text in [
            "mysql://u:canary@h/d",
            "postgres://u:canary@canary@h/d",
            "postgres://u:12/canary@h/d",
            "postgres://u:can?canary@h/d",
            "postgres://u:%zzcanary@h/d",
            "postgres://u:%00canary@h/d",
            "postgres://u:%ffcanary@h/d",
            "postgres://[::1canary",
            "postgres://[::1]canary",
            "postgres://h/d?canary",
            "postgres://h/d?a=b=canary",
            "canary",
            "password=a canary host=h",
            "password='canary",
            "=canary",
            "host=h\0canary",
        ] {
            let problem = parse(text).expect_err(text);
            assert!(!problem.contains("canary"), "{text}: {problem}");
        }
    }

    #[test]
    fn what_is_encoded_decodes_to_itself() {
        for text in ["", "a b", "pä/ss@w:rd?#&%", "/run/pg"] {
            assert_eq!(decode(&encode(text, "")).as_deref(), Ok(text));
            assert_eq!(decode(&encode(text, "/")).as_deref(), Ok(text));
        }
    }
}
