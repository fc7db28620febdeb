//! Encryption of connections to the server.
//!
//! Owns the choice of roots, the certificate that this side shows, and the three checks there are:
//! `verify-full` proves the host that was named, `verify-ca` that an authority vouches for whoever
//! answers, `require` nothing. It must never check less than was asked for. What is wrong with the
//! local files is SYNC-013; what is wrong with the server's certificate is SYNC-001.

mod check;

use crate::config::{ClientCert, Conn, SslMode};
use crate::error::{Code, Error, Result};
use check::{Check, LooseVerifier};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use std::error::Error as StdError;
use std::path::Path;
use std::sync::Arc;
use tokio_postgres_rustls::MakeRustlsConnect;

/// The connector for connections that are protected by `ssl`. Without encryption it trusts nobody, so
/// that a mode mixed up elsewhere fails rather than passes.
pub fn connector(conn: &Conn, ssl: SslMode) -> Result<MakeRustlsConnect> {
    // The provider is named: a process-wide default is not ours to rely on, or to set.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| broken(&error))?;
    // As libpq: where a file of authorities is at hand, `require` asks them.
    let ssl = match (ssl, &conn.ssl_root_cert) {
        (SslMode::Require, Some(_)) => SslMode::VerifyCa,
        (other, _) => other,
    };
    let builder = match ssl {
        SslMode::Disable => builder.with_root_certificates(RootCertStore::empty()),
        SslMode::Require => loose(builder, Check::Nothing, &provider),
        SslMode::VerifyCa => {
            let roots = match &conn.ssl_root_cert {
                Some(file) => roots_of(file)?,
                None => system_roots()?,
            };
            loose(builder, Check::Authority(roots), &provider)
        }
        SslMode::VerifyFull => {
            let roots = match &conn.ssl_root_cert {
                Some(file) => roots_of(file)?,
                None => system_roots()?,
            };
            let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider)
                .build()
                .map_err(|error| broken(&error))?;
            builder.with_webpki_verifier(verifier)
        }
    };
    let config = match &conn.ssl_cert {
        Some(shown) if ssl != SslMode::Disable => {
            let (chain, key) = own_certificate(shown)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| {
                Error::new(
                    Code::Configuration,
                    format!(
                        "the certificate {} and the key {} cannot be used: {error}",
                        shown.cert.display(),
                        shown.key.display()
                    ),
                    "Name a certificate in sslcert and its own key in sslkey, both as PEM files.",
                )
            })?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(MakeRustlsConnect::new(config))
}

type Builder<S> = rustls::ConfigBuilder<ClientConfig, S>;

fn loose(
    builder: Builder<rustls::WantsVerifier>,
    check: Check,
    provider: &CryptoProvider,
) -> Builder<rustls::client::WantsClientCert> {
    let verifier = LooseVerifier::new(check, provider.signature_verification_algorithms);
    builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
}

fn broken(error: &dyn StdError) -> Error {
    Error::new(
        Code::Configuration,
        format!("TLS cannot be set up: {error}"),
        "Report this as a fault of tidewater.",
    )
}

/// The certificate that this side shows, with its key, which nobody else may read.
fn own_certificate(
    shown: &ClientCert,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let chain = CertificateDer::pem_file_iter(&shown.cert)
        .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
        .map_err(|error| error.to_string());
    let chain = match chain {
        Ok(chain) if !chain.is_empty() => chain,
        other => {
            let why = other
                .err()
                .unwrap_or_else(|| "there is none in it".to_owned());
            return Err(Error::new(
                Code::Configuration,
                format!(
                    "the certificate {} cannot be used: {why}",
                    shown.cert.display()
                ),
                "Name a PEM file with this client's certificate in sslcert.",
            ));
        }
    };
    let refuse = |why: String, remedy: String| {
        Err(Error::new(
            Code::Configuration,
            format!("the key {} cannot be used: {why}", shown.key.display()),
            remedy,
        ))
    };
    if others_can_read(&shown.key) {
        return refuse(
            "other users can read it".to_owned(),
            format!("Run: chmod 600 {}", shown.key.display()),
        );
    }
    match PrivateKeyDer::from_pem_file(&shown.key) {
        Ok(key) => Ok((chain, key)),
        Err(error) => refuse(
            error.to_string(),
            "Name a PEM file with the key, without a passphrase, in sslkey.".to_owned(),
        ),
    }
}

/// By libpq's rule: a key of one's own is closed to everyone else, one of root's may be readable to a
/// group.
#[cfg(unix)]
fn others_can_read(file: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(file).is_ok_and(|meta| {
        let forbidden = if meta.uid() == 0 { 0o037 } else { 0o077 };
        meta.mode() & forbidden != 0
    })
}

#[cfg(not(unix))]
fn others_can_read(_file: &Path) -> bool {
    false
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
pub fn explain(error: &(dyn StdError + 'static), what: &str) -> Option<Error> {
    let cause = rustls_error(error)?;
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
        rustls::Error::AlertReceived(alert) => (
            format!("the server ended the TLS handshake: {alert:?}"),
            "Where the server asks for a client certificate, name one that it accepts in sslcert and its key in sslkey.",
        ),
        other => (
            format!("the TLS handshake failed: {other}"),
            "Check that the server offers TLS 1.2 or 1.3; sslmode=disable goes without encryption.",
        ),
    };
    Some(Error::new(
        Code::Connection,
        format!("{what}: {why}"),
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
    use crate::config::{Config, Env};

    fn conn(ssl: SslMode, root: Option<&Path>) -> Conn {
        let mode = match ssl {
            SslMode::Disable => "disable",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyFull => "verify-full",
        };
        let mut text = format!("host=db.example user=me sslmode={mode}");
        if let Some(root) = root {
            text.push_str(&format!(" sslrootcert='{}'", root.display()));
        }
        let overrides = crate::config::Overrides {
            remote: Some(text),
            no_file: true,
            ..Default::default()
        };
        let config = Config::load_in(&overrides, &Env::default()).expect("good");
        config.conn().expect("a connection").clone()
    }

    fn made(ssl: SslMode, root: Option<&Path>) -> Result<MakeRustlsConnect> {
        connector(&conn(ssl, root), ssl)
    }

    #[test]
    fn files_that_hold_no_certificate_are_refused_with_their_name() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("root.pem");
        let refused = |text: Option<&str>| {
            if let Some(text) = text {
                std::fs::write(&file, text).expect("written");
            }
            for mode in [SslMode::Require, SslMode::VerifyCa, SslMode::VerifyFull] {
                let error = made(mode, Some(&file)).err().expect("refused");
                assert_eq!(error.code, Code::Configuration);
                assert!(error.message.contains("root.pem"), "{error}");
            }
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
        assert!(made(SslMode::Disable, Some(Path::new("/none/root.pem"))).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a folder");
        let (cert, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
        std::fs::write(
            &cert,
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        )
        .expect("written");
        std::fs::write(&key, "canary").expect("written");
        for (mode, part) in [(0o644, "chmod 600"), (0o604, "chmod 600"), (0o600, "PEM")] {
            std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).expect("mode");
            let shown = ClientCert {
                cert: cert.clone(),
                key: key.clone(),
            };
            let error = own_certificate(&shown).expect_err("refused");
            assert_eq!(error.code, Code::Configuration);
            assert!(error.remedy.contains(part), "{error:?}");
            assert!(!format!("{error:?}").contains("canary"));
        }
    }

    #[test]
    fn a_refused_certificate_is_told_from_other_failures() {
        for (cause, part) in [
            (CertificateError::NotValidForName, "another host name"),
            (CertificateError::UnknownIssuer, "not trusted"),
            (CertificateError::Expired, "expired"),
            (CertificateError::BadSignature, "not accepted"),
        ] {
            let wrapped = std::io::Error::other(std::io::Error::other(
                rustls::Error::InvalidCertificate(cause),
            ));
            let error = explain(&wrapped, "connecting").expect("explained");
            assert_eq!(error.code, Code::Connection);
            assert!(error.message.contains(part), "{error}");
        }
        assert!(explain(&std::io::Error::other("gone"), "connecting").is_none());
    }
}
