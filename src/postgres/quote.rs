//! The quoting builder of the Postgres side, and statements with their bound parameters.
//!
//! Every identifier is quoted, every value is a parameter with a built-in type given by us: the driver
//! then needs no prepared statement, and PgBouncer in transaction mode works.

use tokio_postgres::types::{ToSql, Type};

/// `name` as a quoted identifier.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `schema.name`, quoted.
pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

/// `text` as a literal, for statements that take no parameters.
pub fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A parameter that can travel between threads.
pub type Param = Box<dyn ToSql + Sync + Send>;

/// A statement under construction: text and parameters grow together.
#[derive(Default)]
pub struct Statement {
    /// The SQL text.
    pub sql: String,
    params: Vec<(Param, Type)>,
}

impl Statement {
    /// A statement without parameters.
    pub fn fixed(sql: impl Into<String>) -> Self {
        Statement {
            sql: sql.into(),
            params: Vec::new(),
        }
    }

    /// Adds a parameter and returns its placeholder, `$1` and so on.
    pub fn bind(&mut self, value: impl ToSql + Sync + Send + 'static, ty: Type) -> String {
        self.bind_boxed(Box::new(value), ty)
    }

    /// The same for a boxed value.
    pub fn bind_boxed(&mut self, value: Param, ty: Type) -> String {
        self.params.push((value, ty));
        format!("${}", self.params.len())
    }

    /// A text parameter.
    pub fn text(&mut self, value: &str) -> String {
        self.bind(value.to_owned(), Type::TEXT)
    }

    /// The parameters in the form the driver takes.
    pub fn params(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        self.params
            .iter()
            .map(|(v, t)| (v.as_ref() as &(dyn ToSql + Sync), t.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_names() {
        assert_eq!(qualified("we\"ird", "a.b"), "\"we\"\"ird\".\"a.b\"");
    }

    #[test]
    fn hostile_texts_stay_texts() {
        assert_eq!(literal("a'b\\"), "E'a''b\\\\'");
    }

    #[test]
    fn placeholders_count_up() {
        let mut s = Statement::default();
        assert_eq!(s.text("a"), "$1");
        assert_eq!(s.bind(1_i64, Type::INT8), "$2");
        assert_eq!(s.params().len(), 2);
    }
}
