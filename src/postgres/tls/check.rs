//! The checks that prove less than `verify-full`, for those who ask for them by name.
//!
//! Invariant: whoever answers proves to hold the key of the certificate that it shows; only whose
//! certificate that is stays open.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// What is asked of a certificate.
#[derive(Debug)]
pub(super) enum Check {
    /// Nothing (`require`).
    Nothing,
    /// That one of these vouches for it, under whatever name (`verify-ca`).
    Authority(RootCertStore),
}

/// A verifier that leaves the name open, and perhaps more.
#[derive(Debug)]
pub(super) struct LooseVerifier {
    check: Check,
    algorithms: WebPkiSupportedAlgorithms,
}

impl LooseVerifier {
    pub fn new(check: Check, algorithms: WebPkiSupportedAlgorithms) -> Self {
        LooseVerifier { check, algorithms }
    }
}

impl ServerCertVerifier for LooseVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Check::Authority(roots) = &self.check {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            verify_server_cert_signed_by_trust_anchor(
                &certificate,
                roots,
                intermediates,
                now,
                self.algorithms.all,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
