//! The quoting builder of the SQLite side: every identifier is quoted, no value ever enters SQL.

/// `name` as a quoted identifier.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `text` as a string literal; for names inside trigger bodies, where nothing can be bound.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Identifiers quoted and joined by commas.
pub fn idents<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(ident).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_names() {
        assert_eq!(ident("sel\"ect"), "\"sel\"\"ect\"");
        assert_eq!(literal("we'ird"), "'we''ird'");
        assert_eq!(idents(["a", "t;drop table x"]), "\"a\", \"t;drop table x\"");
    }
}
