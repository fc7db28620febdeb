//! How connections are protected: what was asked for, and never less.

use super::super::env::Env;
use super::super::refusal;
use super::{ChannelBinding, ClientCert, Host, Setting, Settings, SslMode, Target};
use crate::error::Result;
use std::path::PathBuf;

/// What holds where nobody says otherwise: the server is verified unless nothing leaves the machine.
pub(super) fn usual(host: &Host) -> SslMode {
    if host.is_local() {
        SslMode::Disable
    } else {
        SslMode::VerifyFull
    }
}

/// Decides for each place how the connection to it is protected.
pub(super) fn protect(settings: &Settings, targets: &mut [Target]) -> Result<()> {
    let asked = settings.get("sslmode").map(mode).transpose()?;
    let system = settings.get("sslrootcert").filter(|s| s.value == "system");
    if let (Some(setting), Some(SslMode::Require | SslMode::VerifyCa)) = (system, asked) {
        // Everybody can get a certificate from one of them; libpq refuses it too.
        return Err(setting.bad(
            "sslrootcert=system",
            "the system's authorities vouch for any host, so that only sslmode=verify-full goes with them",
        ));
    }
    for target in targets {
        target.ssl = match (&target.host, asked) {
            // A socket carries no TLS, whatever was asked for; libpq says so too.
            (Host::Socket(_), _) => SslMode::Disable,
            (_, Some(mode)) => mode,
            (_, None) if system.is_some() => SslMode::VerifyFull,
            (host, None) => usual(host),
        };
    }
    Ok(())
}

fn mode(setting: &Setting) -> Result<SslMode> {
    match setting.value.as_str() {
        mode @ ("allow" | "prefer") => Err(refusal(
            format!(
                "sslmode={mode} in {} is not supported: it goes without encryption wherever somebody in between wants it to",
                setting.place
            ),
            "Use verify-full, require to be encrypted without proof of who answers, or disable to go without encryption.",
        )),
        _ => setting.choice(
            "sslmode",
            &[
                ("verify-full", SslMode::VerifyFull),
                ("verify-ca", SslMode::VerifyCa),
                ("require", SslMode::Require),
                ("disable", SslMode::Disable),
            ],
        ),
    }
}

/// The named file; else the one that libpq looks for; else the system's authorities, which only
/// `verify-full` can do with.
pub(super) fn root_cert(settings: &Settings, ssl: SslMode, env: &Env) -> Result<Option<PathBuf>> {
    let found = match settings.get("sslrootcert") {
        Some(setting) if setting.value == "system" => None,
        Some(setting) => Some(setting.path()),
        None => in_home(env, "root.crt").filter(|_| ssl != SslMode::Disable),
    };
    if found.is_none() && ssl == SslMode::VerifyCa {
        return Err(refusal(
            "sslmode=verify-ca needs the certificate of the server's authority, and none is named",
            "Name its PEM file in sslrootcert, or use sslmode=verify-full.",
        ));
    }
    Ok(found)
}

/// The certificate that this side shows: the named one, else the one that libpq looks for.
pub(super) fn client_cert(
    settings: &Settings,
    ssl: SslMode,
    env: &Env,
) -> Result<Option<ClientCert>> {
    let (cert, key) = (settings.get("sslcert"), settings.get("sslkey"));
    if let (None, Some(key)) = (cert, key)
        && in_home(env, "postgresql.crt").is_none()
    {
        return Err(key.bad(
            "sslkey",
            "it is the key of no certificate; name that in sslcert",
        ));
    }
    let Some(cert) = cert
        .map(Setting::path)
        .or_else(|| in_home(env, "postgresql.crt").filter(|_| ssl != SslMode::Disable))
    else {
        return Ok(None);
    };
    let key = key
        .map(Setting::path)
        .or_else(|| in_home(env, "postgresql.key"));
    match key {
        Some(key) => Ok(Some(ClientCert { cert, key })),
        None => Err(refusal(
            format!("the certificate {} has no key", cert.display()),
            "Name the PEM file of its key in sslkey.",
        )),
    }
}

fn in_home(env: &Env, name: &str) -> Option<PathBuf> {
    let file = env.home()?.join(".postgresql").join(name);
    file.exists().then_some(file)
}

/// Whether the login is bound to the channel. Where there is no channel to bind it to, a demand for
/// it cannot be met, and is refused here rather than at every attempt.
pub(super) fn channel_binding(settings: &Settings, targets: &[Target]) -> Result<ChannelBinding> {
    let Some(setting) = settings.get("channel_binding") else {
        return Ok(ChannelBinding::Prefer);
    };
    let asked = setting.choice(
        "channel_binding",
        &[
            ("disable", ChannelBinding::Disable),
            ("prefer", ChannelBinding::Prefer),
            ("require", ChannelBinding::Require),
        ],
    )?;
    let bare = targets.iter().any(|target| target.ssl == SslMode::Disable);
    if asked == ChannelBinding::Require && bare {
        return Err(setting.bad(
            "channel_binding=require",
            "a connection to this machine, or one with sslmode=disable, is not encrypted and has nothing to bind the login to; name a sslmode such as verify-full",
        ));
    }
    Ok(asked)
}
