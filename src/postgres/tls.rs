//! Encryption of connections to the server.
//!
//! Owns the choice of roots and the one verifier there is: the server proves with its certificate to
//! be the host that was named. It must never offer a weaker check. What is wrong with the local
//! files is SYNC-013; what is wrong with the server's certificate is SYNC-001.

use crate::config::{Conn, SslMode};
use crate::error::{Code, Error, Result};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use std::error::Error as StdError;
use std::path::Path;
use std::sync::Arc;
use tokio_postgres_rustls::MakeRustlsConnect;

/// The mode that `tokio_postgres` has to be given: with the connector of this module `Require`
/// verifies the certificate and the host name.
pub fn mode(conn: &Conn) -> tokio_postgres::config::SslMode {
    match conn.ssl {
        SslMode::Disable => tokio_postgres::config::SslMode::Disable,
        SslMode::VerifyFull => tokio_postgres::config::SslMode::Require,
    }
}

/// The connector for a connection. Without encryption it trusts nobody, so that a mode mixed up
/// elsewhere fails rather than passes.
pub fn connector(conn: &Conn) -> Result<MakeRustlsConnect> {
    let roots = match (conn.ssl, &conn.ssl_root_cert) {
        (SslMode::Disable, _) => RootCertStore::empty(),
        (SslMode::VerifyFull, Some(file)) => roots_of(file)?,
        (SslMode::VerifyFull, None) => system_roots()?,
    };
    // The provider is named: a process-wide default is not ours to rely on, or to set.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| {
            let message = format!("TLS cannot be set up: {error}");
            Error::new(
                Code::Configuration,
                message,
                "Report this as a fault of tidewater.",
            )
        })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

fn roots_of(file: &Path) -> Result<RootCertStore> {
    let refuse = |why: String| {
        Error::new(
            Code::Configuration,
            format!(
                "the certificates of {} cannot be used: {why}",
                file.display()
            ),
            "Name a PEM file with the certificate of the server's authority in sslrootcert.",
        )
    };
    let mut roots = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(file).map_err(|error| refuse(error.to_string()))?;
    for (index, certificate) in certificates.enumerate() {
        certificate
            .map_err(|error| error.to_string())
            .and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()))
            .map_err(|why| refuse(format!("number {} of it: {why}", index + 1)))?;
    }
    if roots.is_empty() {
        return Err(refuse("there is none in it".to_owned()));
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A single odd certificate in the system's store is no reason to trust none of the others.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found
            .errors
            .first()
            .map_or_else(String::new, |error| format!(" ({error})"));
        return Err(Error::new(
            Code::Configuration,
            format!("this system has no certificate authorities to verify the server with{why}"),
            "Install the system's CA certificates (ca-certificates), or name a PEM file in sslrootcert.",
        ));
    }
    Ok(roots)
}

/// What a failed connection attempt says about the server's certificate; `None` where it failed for
/// another reason.
pub fn explain(error: &(dyn StdError + 'static), conn: &Conn) -> Option<Error> {
    let cause = rustls_error(error)?;
    let place = conn.display();
    let (why, remedy) = match cause {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                (
                    "the server's certificate is for another host name".to_owned(),
                    "Use the host name that the certificate holds; a wrong name may also mean that somebody stands in between.",
                )
            }
            CertificateError::UnknownIssuer => (
                "the server's certificate comes from an authority that is not trusted here"
                    .to_owned(),
                "Name the authority's PEM file in sslrootcert.",
            ),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
                "the server's certificate has expired".to_owned(),
                "Renew the server's certificate, and check this machine's clock.",
            ),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
                "the server's certificate is not valid yet".to_owned(),
                "Check this machine's clock.",
            ),
            other => (
                format!("the server's certificate is not accepted: {other}"),
                "Let an authority issue the server's certificate, and name the authority in sslrootcert; an authority's own certificate is not accepted for a server.",
            ),
        },
        other => (
            format!("the TLS handshake failed: {other}"),
            "Check that the server offers TLS 1.2 or 1.3; sslmode=disable goes without encryption.",
        ),
    };
    Some(Error::new(
        Code::Connection,
        format!("{place} cannot be reached safely: {why}"),
        remedy,
    ))
}

/// `io::Error::source` skips the very error that it wraps, so each one is opened by hand.
fn rustls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut next: Option<&'a (dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        next = match error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
        {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Host, Secret};
    use std::path::PathBuf;
    use std::time::Duration;

    fn conn(ssl: SslMode, ssl_root_cert: Option<PathBuf>) -> Conn {
        Conn {
            host: Host::Tcp("db.example".into()),
            port: 5432,
            user: "me".into(),
            dbname: "app".into(),
            password: Some(Secret::new("canary")),
            ssl,
            ssl_root_cert,
            connect_timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn files_that_hold_no_certificate_are_refused_with_their_name() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("root.pem");
        let refused = |text: Option<&str>| {
            if let Some(text) = text {
                std::fs::write(&file, text).expect("written");
            }
            let error = connector(&conn(SslMode::VerifyFull, Some(file.clone())))
                .err()
                .expect("refused");
            assert_eq!(error.code, Code::Configuration);
            assert!(error.message.contains("root.pem"), "{error}");
        };
        refused(None);
        refused(Some(""));
        refused(Some(
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ));
        refused(Some("-----BEGIN CERTIFICATE-----\n"));
    }

    #[test]
    fn without_encryption_no_file_is_looked_at() {
        let conn = conn(SslMode::Disable, Some("/none/root.pem".into()));
        assert!(connector(&conn).is_ok());
        assert_eq!(mode(&conn), tokio_postgres::config::SslMode::Disable);
    }

    #[test]
    fn a_refused_certificate_is_told_from_other_failures() {
        let conn = conn(SslMode::VerifyFull, None);
        for (cause, part) in [
            (CertificateError::NotValidForName, "another host name"),
            (CertificateError::UnknownIssuer, "not trusted"),
            (CertificateError::Expired, "expired"),
            (CertificateError::BadSignature, "not accepted"),
        ] {
            let wrapped = std::io::Error::other(std::io::Error::other(
                rustls::Error::InvalidCertificate(cause),
            ));
            let error = explain(&wrapped, &conn).expect("explained");
            assert_eq!(error.code, Code::Connection);
            assert!(error.message.contains(part), "{error}");
            assert!(!format!("{error:?}").contains("canary"));
        }
        assert!(explain(&std::io::Error::other("gone"), &conn).is_none());
    }
}
