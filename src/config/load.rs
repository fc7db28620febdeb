//! Finding, layering and reading the configuration.
//!
//! Owns the search order and, for each key, its range and its relation to other keys. A key that is
//! not read here does not exist.

use super::conninfo::{self, Given};
use super::reader::{NAME_BYTES_MAX, Reader, TableReader};
use super::source::{self, Opened, Origin, Sources, Value};
use super::*;

/// Shorter waits would only burn the processor.
const SECONDS_MIN: f64 = 0.001;
const HOUR: f64 = 3600.0;
const DAY: f64 = 86_400.0;
/// Items of a batch or a page; above it the memory of a small device is at stake.
const ITEMS_LIMIT: u32 = 100_000;
/// SQLite's own limit of a value, and within what one message to Postgres can carry.
const BYTES_LIMIT: u32 = 1_000_000_000;
const DAYS_LIMIT: u32 = 36_500;

/// The configuration of given surroundings.
pub(super) fn load(overrides: &Overrides, env: &Env) -> Result<Config> {
    if let Some(text) = &overrides.remote
        && conninfo::holds_password(text)
    {
        return Err(refusal(
            "--remote holds a password, which every user of this machine can read in the process list",
            "Put the password into PGPASSWORD, the pgpass file, or remote.url of a file with mode 0600.",
        ));
    }
    assemble(find(overrides, env)?, overrides, "--remote", env)
}

/// Layers and reads a file that was found, if any; `url_from` names where `overrides.remote` comes from.
pub(super) fn assemble(
    file: Option<Opened>,
    overrides: &Overrides,
    url_from: &'static str,
    env: &Env,
) -> Result<Config> {
    let mut sources = Sources::default();
    if let Some(file) = &file {
        sources.add_file(file)?;
        check_mode(file, &sources)?;
    }
    let faults = sources.add_variables(env);
    if let Some(text) = &overrides.remote {
        sources.add_flag("remote.url", url_from, text);
    }
    if let Some(text) = &overrides.schema {
        sources.add_flag("remote.schema", "--schema", text);
    }
    let folder = file
        .as_ref()
        .and_then(|file| file.path.parent())
        .map(Path::to_path_buf);
    let mut reader = Reader::new(sources, faults);
    let (mut config, url) = read(&mut reader, folder.as_deref(), env);
    if overrides.no_endpoint && !reader.is_set("metrics.listen") {
        config.metrics.listen = None;
    }
    if let Some(db) = &overrides.db {
        config.local.path = Some(env.resolve(db));
    }
    let given = url
        .zip(reader.origin("remote.url").cloned())
        .map(|(text, origin)| Given {
            text,
            folder: match origin {
                Origin::File(..) => folder.clone().unwrap_or_default(),
                _ => env.current_dir.clone(),
            },
            origin,
        });
    let explicit_timeout = reader
        .is_set("remote.connect_timeout_seconds")
        .then_some(config.remote.connect_timeout);
    reader.finish()?;
    if overrides.db.as_ref().is_some_and(|db| !is_plain_file(db)) {
        return Err(refusal(
            "--db does not name a plain file",
            "Name the app's SQLite file, neither a file: URI nor :memory:.",
        ));
    }
    config.source = file.map(|file| file.path);
    config.warnings = near_misses(env);
    config.remote.conn =
        conninfo::resolve(given.as_ref(), explicit_timeout, env, &mut config.warnings)?;
    if let Some(conn) = &config.remote.conn {
        config.remote.connect_timeout = conn.connect_timeout;
    }
    Ok(config)
}

/// Finds the file. One that was named has to exist; the usual places may be empty.
fn find(overrides: &Overrides, env: &Env) -> Result<Option<Opened>> {
    if overrides.no_file {
        return Ok(None);
    }
    let named = match &overrides.config {
        Some(path) => Some(("--config", path.clone())),
        None => env
            .path("TIDEWATER_CONFIG")
            .map(|path| ("TIDEWATER_CONFIG", path)),
    };
    if let Some((by, path)) = named {
        let path = env.resolve(&path);
        return match source::open(&path)? {
            Some(file) => Ok(Some(file)),
            None => Err(refusal(
                format!(
                    "the configuration file {} that {by} names does not exist",
                    path.display()
                ),
                format!("Name an existing file with {by}, or leave {by} out."),
            )),
        };
    }
    // The XDG specification: a relative path in the variable is to be ignored.
    let user = env
        .path("XDG_CONFIG_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| env.home().map(|home| home.join(".config")));
    let places = [
        Some(env.resolve(Path::new(FILE_NAME))),
        user.map(|folder| folder.join("tidewater").join(FILE_NAME)),
    ];
    for path in places.into_iter().flatten() {
        if let Some(file) = source::open(&path)? {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

fn check_mode(file: &Opened, sources: &Sources) -> Result<()> {
    let Some(entry) = sources
        .file_url
        .as_ref()
        .filter(|_| file.readable_by_others)
    else {
        return Ok(());
    };
    match &entry.value {
        Value::Text(text) if conninfo::holds_password(text) => Err(refusal(
            format!(
                "remote.url ({}) holds a password, and other users can read the file",
                entry.origin
            ),
            format!("Run: chmod 600 {}", file.path.display()),
        )),
        _ => Ok(()),
    }
}

/// Variables that look like keys but for one underscore: not ours to refuse, too likely to ignore.
fn near_misses(env: &Env) -> Vec<String> {
    ["REMOTE_URL", "REMOTE_SCHEMA", "LOCAL_PATH", "DEVICE_NAME"]
        .iter()
        .map(|rest| {
            (
                format!("{}{rest}", source::PREFIX),
                rest.replacen('_', "__", 1),
            )
        })
        .filter(|(name, _)| env.vars.contains_key(name))
        .map(|(name, right)| {
            format!(
                "the environment variable {name} means nothing; did you mean {}{right}?",
                source::PREFIX
            )
        })
        .collect()
}

/// SQLite gives a meaning of its own to both of these.
fn is_plain_file(path: &Path) -> bool {
    let text = path.to_string_lossy();
    !(text.is_empty() || text.starts_with("file:") || text == ":memory:" || text.contains('\0'))
}

/// Reads every key; the URL is returned as text, to be resolved once all keys are known to be good.
pub(super) fn read(r: &mut Reader, folder: Option<&Path>, env: &Env) -> (Config, Option<String>) {
    let config = Config {
        source: None,
        warnings: Vec::new(),
        local: read_local(r, folder, env),
        device: Device {
            name: r.name("device.name").unwrap_or_else(|| device_name(env)),
        },
        remote: read_remote(r),
        upload: read_upload(r),
        download: Download {
            poll_interval: r.seconds(
                "download.poll_interval_seconds",
                DOWNLOAD_POLL_INTERVAL,
                SECONDS_MIN..=DAY,
            ),
            page_size: r.count("download.page_size", PAGE_SIZE, 1..=ITEMS_LIMIT),
            page_bytes_max: r.count("download.page_bytes_max", PAGE_BYTES_MAX, 1..=BYTES_LIMIT),
            listen: r.boolean("download.listen", true),
        },
        retry: read_retry(r),
        conflict: Conflict {
            policy: r.choice("conflict.policy", &POLICIES).unwrap_or_default(),
            preserve_original: r.boolean("conflict.preserve_original", true),
            directory: r
                .text("conflict.directory")
                .map_or_else(|| PathBuf::from(CONFLICT_DIRECTORY), PathBuf::from),
        },
        retention: Retention {
            synced_days: r.uint("retention.synced_days", SYNCED_DAYS, 0..=DAYS_LIMIT),
            conflict_days: r.uint("retention.conflict_days", CONFLICT_DAYS, 0..=DAYS_LIMIT),
            tombstone_days: r.uint("retention.tombstone_days", TOMBSTONE_DAYS, 0..=DAYS_LIMIT),
        },
        metrics: read_metrics(r),
        tables: read_tables(r),
    };
    let url = r.text("remote.url");
    (config, url)
}

fn read_local(r: &mut Reader, folder: Option<&Path>, env: &Env) -> Local {
    let network_filesystem = r.boolean("local.network_filesystem", false);
    let path = r.text("local.path").map(PathBuf::from);
    if path.as_deref().is_some_and(|path| !is_plain_file(path)) {
        r.refuse(
            "local.path",
            "a plain file's path, neither a file: URI nor :memory:",
        );
    }
    let path = path.map(|path| match (r.origin("local.path"), folder) {
        (Some(Origin::File(..)), Some(folder)) => folder.join(path),
        _ => env.resolve(&path),
    });
    let mut globs = |key: &str| {
        let list = r.list(key);
        if list
            .iter()
            .flatten()
            .any(|text| glob::Pattern::new(text).is_err())
        {
            r.refuse(
                key,
                "a list of globs, in which * ? [...] have their usual meaning",
            );
        }
        list
    };
    Local {
        path,
        tables: globs("local.tables").unwrap_or_else(|| vec!["*".to_owned()]),
        exclude: globs("local.exclude").unwrap_or_default(),
        network_filesystem,
    }
}

fn read_remote(r: &mut Reader) -> Remote {
    let schema = r.name("remote.schema");
    if schema
        .as_deref()
        .is_some_and(|name| name.starts_with("pg_") || name == "information_schema")
    {
        r.refuse(
            "remote.schema",
            "a schema that is not PostgreSQL's own (pg_..., information_schema)",
        );
    }
    Remote {
        conn: None,
        schema: schema.unwrap_or_else(|| SCHEMA.to_owned()),
        pool_size: r.count("remote.pool_size", POOL_SIZE, 1..=100),
        connect_timeout: r.seconds(
            "remote.connect_timeout_seconds",
            CONNECT_TIMEOUT,
            SECONDS_MIN..=HOUR,
        ),
        statement_timeout: r.seconds(
            "remote.statement_timeout_seconds",
            STATEMENT_TIMEOUT,
            SECONDS_MIN..=DAY,
        ),
    }
}

fn read_upload(r: &mut Reader) -> Upload {
    let mut upload = Upload {
        poll_interval: r.seconds(
            "upload.poll_interval_seconds",
            UPLOAD_POLL_INTERVAL,
            SECONDS_MIN..=DAY,
        ),
        batch_size: r.count("upload.batch_size", BATCH_SIZE, 1..=ITEMS_LIMIT),
        batch_size_max: r.count("upload.batch_size_max", BATCH_SIZE_MAX, 1..=ITEMS_LIMIT),
        batch_bytes_max: r.count("upload.batch_bytes_max", BATCH_BYTES_MAX, 1..=BYTES_LIMIT),
        row_bytes_max: r.count("upload.row_bytes_max", ROW_BYTES_MAX, 1..=BYTES_LIMIT),
        max_in_flight: r.count("upload.max_in_flight", MAX_IN_FLIGHT, 1..=64),
    };
    if upload.batch_size > upload.batch_size_max {
        if r.is_set("upload.batch_size") {
            let allowed = format!(
                "no greater than upload.batch_size_max, which is {}",
                upload.batch_size_max
            );
            r.refuse("upload.batch_size", &allowed);
        }
        upload.batch_size = upload.batch_size_max;
    }
    upload
}

fn read_retry(r: &mut Reader) -> Retry {
    let mut retry = Retry {
        max_attempts: r.uint("retry.max_attempts", MAX_ATTEMPTS, 1..=1000),
        base_delay: r.seconds("retry.base_delay_seconds", BASE_DELAY, SECONDS_MIN..=HOUR),
        max_delay: r.seconds("retry.max_delay_seconds", MAX_DELAY, SECONDS_MIN..=HOUR),
    };
    if retry.base_delay > retry.max_delay {
        if r.is_set("retry.base_delay_seconds") {
            let allowed = format!(
                "no greater than retry.max_delay_seconds, which is {}",
                retry.max_delay.as_secs_f64()
            );
            r.refuse("retry.base_delay_seconds", &allowed);
        }
        retry.base_delay = retry.max_delay;
    }
    retry
}

fn read_metrics(r: &mut Reader) -> Metrics {
    let listen = r.text_or_empty("metrics.listen");
    let listen = match listen.as_deref() {
        None => HostPort::parse(METRICS_LISTEN),
        Some("") => None,
        Some(text) => {
            let place = HostPort::parse(text).filter(|place| place.port.is_some());
            if place.is_none() {
                r.refuse(
                    "metrics.listen",
                    "an address with a port from 0 to 65535, such as 127.0.0.1:9842 or [::1]:9842, or empty for none",
                );
            }
            place
        }
    };
    let hosts = r.list("metrics.allowed_hosts").unwrap_or_default();
    let allowed_hosts: Vec<HostPort> = hosts.iter().filter_map(|t| HostPort::parse(t)).collect();
    if allowed_hosts.len() < hosts.len() {
        r.refuse(
            "metrics.allowed_hosts",
            "a list of host names, each with or without a port, such as [\"tidewater:9842\"]",
        );
    }
    Metrics {
        listen,
        allowed_hosts,
    }
}

const POLICIES: [(&str, Policy); 3] = [
    ("last_write_wins", Policy::LastWriteWins),
    ("local_wins", Policy::LocalWins),
    ("remote_wins", Policy::RemoteWins),
];

const PRIVACIES: [(&str, Privacy); 3] = [
    ("full", Privacy::Full),
    ("redacted", Privacy::Redacted),
    ("local_only", Privacy::LocalOnly),
];

fn read_tables(r: &mut Reader) -> BTreeMap<String, TableConfig> {
    let mut tables: BTreeMap<String, TableConfig> = BTreeMap::new();
    for mut section in r.tables() {
        let config = read_table(&mut section);
        let name = section.table().to_owned();
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            section.refuse("a table's name has 1 to 63 bytes without control characters");
        }
        if tables.keys().any(|other| other.eq_ignore_ascii_case(&name)) {
            section.refuse("another section names the same table; SQLite ignores case");
        }
        tables.insert(name, config);
        r.close_table(section);
    }
    tables
}

fn read_table(section: &mut TableReader) -> TableConfig {
    TableConfig {
        privacy: section.choice("privacy", &PRIVACIES).unwrap_or_default(),
        privacy_column: section.name("privacy_column"),
        redact: section.names("redact").unwrap_or_default(),
        types: section.types("types").unwrap_or_default(),
        policy: section.choice("policy", &POLICIES),
    }
}

/// The host's name, cut so that it fits where Postgres cuts names.
fn device_name(env: &Env) -> String {
    let mut name: String = env
        .host_name
        .iter()
        .flat_map(|name| name.chars())
        .filter(|c| !c.is_control())
        .collect();
    while name.len() > NAME_BYTES_MAX {
        name.pop();
    }
    if name.is_empty() {
        "device".to_owned()
    } else {
        name
    }
}
