//! The configuration of a program that embeds the engine.
//!
//! Owns the ways to a [`Config`] that have nothing to do with a command line, and the check of one
//! whose fields a program has set itself. What is given here is what counts: only
//! [`Config::from_file`] looks at `TIDEWATER_...` variables, as the program does. libpq's variables
//! and its pgpass file complete the connection in every case.

use super::source::{self, Opened};
use super::*;

/// How a text that stands in no file is named in errors.
const GIVEN: &str = "the given configuration";

impl Config {
    /// The defaults, for an app's SQLite file and a server, as a URL or a keyword string.
    ///
    /// The URL may hold a password, which then stays in this process. Every field of the result may be
    /// set; [`Engine::start`](crate::Engine::start) checks what was set. No port is opened.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidewater::Config;
    ///
    /// # fn main() -> tidewater::Result<()> {
    /// let mut config = Config::new("notes.db", "postgres://app@db.example/app")?;
    /// config.remote.schema = "team".into();
    /// config.device.name = "laptop".into();
    /// config.upload.poll_interval = Duration::from_secs(1);
    /// assert_eq!(config.upload.batch_size, 50);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(file: impl AsRef<Path>, url: &str) -> Result<Config> {
        let overrides = Overrides {
            db: Some(file.as_ref().to_owned()),
            remote: Some(url.to_owned()),
            no_endpoint: true,
            ..Overrides::default()
        };
        load::assemble(
            None,
            &overrides,
            "the given URL",
            &own_values(Env::process()),
        )
    }

    /// Reads `tidewater.toml` or another file of its form, as `tidewater --config FILE` does: a
    /// `TIDEWATER_<SECTION>__<KEY>` variable wins over the file. No port is opened unless one of them
    /// names it.
    pub fn from_file(file: impl AsRef<Path>) -> Result<Config> {
        Config::load(&Overrides {
            config: Some(file.as_ref().to_owned()),
            no_endpoint: true,
            ..Overrides::default()
        })
    }

    /// Reads the text of a configuration file. Relative paths start from the current directory, and no
    /// port is opened unless the text asks for one.
    ///
    /// ```
    /// # fn main() -> tidewater::Result<()> {
    /// let config = tidewater::Config::from_toml(
    ///     r#"
    ///     [local]
    ///     path = "notes.db"
    ///     exclude = ["cache_*"]
    ///
    ///     [remote]
    ///     url = "postgres://app@db.example/app"
    ///     schema = "team"
    ///
    ///     [tables.drafts]
    ///     privacy = "local_only"
    ///     "#,
    /// )?;
    /// assert!(!config.local.selects("cache_images"));
    ///
    /// // What is wrong is refused with the key, the line and what is allowed.
    /// let refused = tidewater::Config::from_toml("[upload]\nbatch_size = 0").unwrap_err();
    /// assert_eq!(refused.code.as_str(), "SYNC-013");
    /// assert!(refused.message.contains("upload.batch_size"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_toml(text: &str) -> Result<Config> {
        Config::from_toml_in(text, Env::process())
    }

    /// [`Config::from_toml`] in given surroundings.
    pub(super) fn from_toml_in(text: &str, env: Env) -> Result<Config> {
        let file = Opened {
            path: PathBuf::from(GIVEN),
            text: text.to_owned(),
            readable_by_others: false,
        };
        let overrides = Overrides {
            no_endpoint: true,
            ..Overrides::default()
        };
        let mut config = load::assemble(Some(file), &overrides, GIVEN, &own_values(env))?;
        config.source = None;
        Ok(config)
    }

    /// Refuses what a program cannot have meant; a file's values were checked when it was read.
    pub(crate) fn check(&self) -> Result<()> {
        self.path()?;
        self.conn()?;
        let (up, down, retry) = (&self.upload, &self.download, &self.retry);
        let name_fits =
            |name: &str| (1..=63).contains(&name.len()) && !name.chars().any(char::is_control);
        let checks = [
            ("device.name", name_fits(&self.device.name)),
            ("remote.schema", name_fits(&self.remote.schema)),
            ("remote.pool_size", self.remote.pool_size > 0),
            (
                "remote.statement_timeout",
                !self.remote.statement_timeout.is_zero(),
            ),
            ("upload.poll_interval", !up.poll_interval.is_zero()),
            ("upload.batch_size", up.batch_size > 0),
            ("upload.batch_size_max", up.batch_size_max >= up.batch_size),
            ("upload.batch_bytes_max", up.batch_bytes_max > 0),
            ("upload.row_bytes_max", up.row_bytes_max > 0),
            ("upload.max_in_flight", up.max_in_flight > 0),
            ("download.poll_interval", !down.poll_interval.is_zero()),
            ("download.page_size", down.page_size > 0),
            ("download.page_bytes_max", down.page_bytes_max > 0),
            ("retry.max_attempts", retry.max_attempts > 0),
            ("retry.base_delay", !retry.base_delay.is_zero()),
            ("retry.max_delay", retry.max_delay >= retry.base_delay),
        ];
        match checks.iter().find(|(_, fits)| !fits) {
            None => Ok(()),
            Some((field, _)) => Err(refusal(
                format!("the value of `{field}` in the given Config is not possible"),
                "Set it within the range that docs/configuration.md names for the key.",
            )),
        }
    }
}

/// The surroundings without what is meant for the command line.
fn own_values(mut env: Env) -> Env {
    env.vars.retain(|name, _| !name.starts_with(source::PREFIX));
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[local]\npath = \"a.db\"\n[remote]\nurl = \"postgres://app:canary@h/d\"\n";

    #[test]
    fn a_text_is_read_without_the_variables_that_the_command_line_heeds() {
        let mut env = Env::default();
        env.vars
            .insert("TIDEWATER_UPLOAD__BATCH_SIZE".into(), "7".into());
        env.vars.insert("PGUSER".into(), "nobody".into());
        let config = Config::from_toml_in(TEXT, env).expect("reads");
        assert_eq!(config.upload.batch_size, BATCH_SIZE);
        assert_eq!(config.source, None);
        assert_eq!(config.metrics.listen, None);
        assert!(config.check().is_ok());
        assert!(!format!("{config:?}").contains("canary"));
    }

    #[test]
    fn a_port_is_opened_where_the_text_asks_for_one() {
        let text = format!("{TEXT}[metrics]\nlisten = \"127.0.0.1:9900\"\n");
        let config = Config::from_toml_in(&text, Env::default()).expect("reads");
        let listen = config.metrics.listen.map(|l| l.to_string());
        assert_eq!(listen.as_deref(), Some("127.0.0.1:9900"));
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        let e = Config::from_toml_in("[upload]\n\nbatch_sise = 1\n", Env::default())
            .expect_err("refused");
        assert!(e.message.contains("the given configuration, line 3"), "{e}");
    }

    #[test]
    fn values_that_a_program_sets_are_checked() {
        let good = Config::from_toml_in(TEXT, Env::default()).expect("reads");
        let spoil: [fn(&mut Config); 4] = [
            |c| c.upload.batch_size = 0,
            |c| c.upload.batch_size_max = 1,
            |c| c.remote.schema.clear(),
            |c| c.retry.max_delay = Duration::ZERO,
        ];
        for spoil in spoil {
            let mut config = good.clone();
            spoil(&mut config);
            assert!(config.check().is_err(), "{config:?}");
        }
        let mut nowhere = good;
        nowhere.local.path = None;
        assert!(nowhere.check().is_err());
    }
}
