//! Stands in for the configuration until it is built.

use crate::error::Result;
use std::path::PathBuf;

/// What the command line says over everything else.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--db`.
    pub db: Option<PathBuf>,
    /// `--remote`.
    pub remote: Option<String>,
    /// `--schema`.
    pub schema: Option<String>,
}

/// The configuration.
#[derive(Debug, Clone)]
pub struct Config {}

impl Config {
    /// Reads it.
    pub fn load(_overrides: &Overrides) -> Result<Config> {
        Ok(Config {})
    }
}
