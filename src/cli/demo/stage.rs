//! What the demo plays on: a folder with two devices in it, and a server. All of it goes when the stage
//! is dropped, whatever ended the story, unless it is kept.

use crate::config::{Config, Env, Overrides};
use crate::error::{Code, Error, Result};
use crate::postgres;
use crate::sqlite::demo as app;
use crate::throwaway::{self, Server};
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The workspace.
pub(super) const SCHEMA: &str = "demo";

/// A folder that is removed with everything in it.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // Best effort: it is a temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One device: an app's file and a configuration beside it.
pub(super) struct Device {
    pub name: &'static str,
    pub config_file: PathBuf,
    pub config: Config,
    pub db: PathBuf,
}

impl Device {
    fn make(folder: &Path, name: &'static str, url: &str) -> Result<Device> {
        let folder = folder.join(name);
        make_folder(&folder)?;
        let config_file = folder.join("tidewater.toml");
        // Neither listens: two services side by side would meet on one port.
        let text = format!(
            "[local]\npath = \"app.db\"\n\n[device]\nname = \"{name}\"\n\n\
             [remote]\nurl = \"{url}\"\nschema = \"{SCHEMA}\"\n\n[metrics]\nlisten = \"\"\n"
        );
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&config_file)
            .and_then(|mut f| f.write_all(text.as_bytes()))
            .map_err(|e| unusable(&config_file, &e))?;
        let overrides = Overrides {
            config: Some(config_file.clone()),
            ..Overrides::default()
        };
        Ok(Device {
            name,
            // Without the environment: a person's own settings must not reach into the demo.
            config: Config::load_in(&overrides, &Env::default())?,
            config_file,
            db: folder.join("app.db"),
        })
    }

    /// Runs statements as the app.
    pub fn write(&self, sql: &str) -> Result<()> {
        app::execute(&self.db, sql)
    }

    /// The rows of a query, one line each.
    pub fn read(&self, sql: &str) -> Result<Vec<String>> {
        app::rows(&self.db, sql)
    }
}

/// Everything; the folder goes first, for the server's end takes a moment.
pub(super) struct Stage {
    folder: Folder,
    pub server: Server,
    pub laptop: Device,
    pub phone: Device,
}

impl Stage {
    pub fn build() -> Result<Stage> {
        let server = Server::start(throwaway::Options::default())?;
        let name = format!("tidewater-demo-{}", ulid::Ulid::generate()).to_lowercase();
        let folder = Folder(std::env::temp_dir().join(name));
        make_folder(&folder.0)?;
        let url = server.url();
        Ok(Stage {
            laptop: Device::make(&folder.0, "laptop", &url)?,
            phone: Device::make(&folder.0, "phone", &url)?,
            folder,
            server,
        })
    }

    pub fn folder(&self) -> &Path {
        &self.folder.0
    }

    /// Runs SQL on the server: with `psql` where there is one, as the story says.
    pub async fn psql(&self, sql: &str) -> Result<()> {
        let psql = self.server.psql_path().and_then(|psql| {
            Command::new(psql)
                .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql])
                .arg(self.server.url())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .ok()
        });
        match psql {
            Some(status) if status.success() => Ok(()),
            _ => postgres::execute(self.laptop.config.conn()?, sql).await,
        }
    }

    /// Leaves everything where it is and running; returns the folder and the command that ends it all.
    pub fn keep(self) -> Result<(PathBuf, String)> {
        let Stage { folder, server, .. } = self;
        let stop = server.keep()?;
        let path = folder.0.clone();
        std::mem::forget(folder);
        let stop = format!("{stop}; rm -r {}", path.display());
        Ok((path, stop))
    }
}

fn make_folder(path: &Path) -> Result<()> {
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(|e| unusable(path, &e))
}

fn unusable(path: &Path, e: &std::io::Error) -> Error {
    Error::new(
        Code::LocalUnusable,
        format!("{}: {e}", path.display()),
        "choose a temporary folder that can be written with TMPDIR",
    )
}
