//! libpq's keywords and their variables: what is honoured and what is refused by name.

/// The keywords this version honours, each with its variable. PGSERVICE is read where
/// service files are.
pub(super) const KEYWORDS: [(&str, Option<&str>); 24] = [
    ("host", Some("PGHOST")),
    ("port", Some("PGPORT")),
    ("dbname", Some("PGDATABASE")),
    ("user", Some("PGUSER")),
    ("password", Some("PGPASSWORD")),
    ("passfile", Some("PGPASSFILE")),
    ("sslmode", Some("PGSSLMODE")),
    ("sslrootcert", Some("PGSSLROOTCERT")),
    ("connect_timeout", Some("PGCONNECT_TIMEOUT")),
    ("hostaddr", Some("PGHOSTADDR")),
    ("service", None),
    ("servicefile", None),
    ("target_session_attrs", Some("PGTARGETSESSIONATTRS")),
    ("load_balance_hosts", Some("PGLOADBALANCEHOSTS")),
    ("channel_binding", Some("PGCHANNELBINDING")),
    ("sslcert", Some("PGSSLCERT")),
    ("sslkey", Some("PGSSLKEY")),
    ("keepalives", None),
    ("keepalives_idle", None),
    ("keepalives_interval", None),
    ("keepalives_count", None),
    ("tcp_user_timeout", None),
    ("application_name", None),
    ("fallback_application_name", None),
];

/// libpq's other keywords, with the variables that would have to be honoured too.
pub(super) const UNSUPPORTED: [(&str, Option<&str>); 21] = [
    ("require_auth", Some("PGREQUIREAUTH")),
    ("requirepeer", Some("PGREQUIREPEER")),
    ("options", Some("PGOPTIONS")),
    ("ssl", None),
    ("sslpassword", None),
    ("sslcertmode", Some("PGSSLCERTMODE")),
    ("sslcrl", Some("PGSSLCRL")),
    ("sslcrldir", Some("PGSSLCRLDIR")),
    ("sslsni", Some("PGSSLSNI")),
    ("sslcompression", None),
    ("sslnegotiation", Some("PGSSLNEGOTIATION")),
    ("ssl_min_protocol_version", Some("PGSSLMINPROTOCOLVERSION")),
    ("ssl_max_protocol_version", Some("PGSSLMAXPROTOCOLVERSION")),
    ("requiressl", Some("PGREQUIRESSL")),
    ("gssencmode", Some("PGGSSENCMODE")),
    ("krbsrvname", None),
    ("gsslib", None),
    ("gssdelegation", None),
    ("client_encoding", None),
    ("replication", None),
    ("scram_client_key", None),
];

/// The variables that, without a URL, say that a server is meant at all.
pub(super) const POINTERS: [&str; 4] = ["PGHOST", "PGHOSTADDR", "PGDATABASE", "PGSERVICE"];
