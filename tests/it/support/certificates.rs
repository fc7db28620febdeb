//! Authorities and certificates of a test's own, made by the openssl command.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use tidewater::throwaway::Server;

const KEY: [&str; 5] = [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
    "-nodes",
];

fn openssl(folder: &Path, words: &[&str]) {
    let done = Command::new("openssl")
        .args(words)
        .current_dir(folder)
        .output()
        .expect("the openssl command");
    assert!(done.status.success(), "{words:?}: {done:?}");
}

/// An authority (`NAME.pem`), and a certificate of it for the throw-away server's address
/// (`NAME-server.pem`, `NAME-server.key`).
pub fn authority(folder: &Path, name: &str) {
    let (key, pem) = (format!("{name}.key"), format!("{name}.pem"));
    let subject = format!("/CN={name}");
    let words = [
        &[
            "req", "-x509", "-days", "2", "-keyout", &key, "-out", &pem, "-subj", &subject,
        ][..],
        &["-addext", "basicConstraints=critical,CA:TRUE"],
        &["-addext", "keyUsage=critical,keyCertSign"],
        &KEY,
    ];
    openssl(folder, &words.concat());
    let server =
        "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n";
    issue(folder, name, &format!("{name}-server"), "throwaway", server);
}

/// A certificate of `authority` that a client shows: `NAME.pem` and `NAME.key`.
pub fn client(folder: &Path, authority: &str, name: &str) {
    let extensions = "basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n";
    issue(folder, authority, name, name, extensions);
    let key = folder.join(format!("{name}.key"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("its mode");
}

fn issue(folder: &Path, authority: &str, name: &str, subject: &str, extensions: &str) {
    let file = |name: &str, kind: &str| format!("{name}.{kind}");
    let (key, request) = (file(name, "key"), file(name, "csr"));
    let subject = format!("/CN={subject}");
    let words = [
        &["req", "-keyout", &key, "-out", &request, "-subj", &subject][..],
        &KEY,
    ];
    openssl(folder, &words.concat());
    fs::write(folder.join(file(name, "ext")), extensions).expect("a file");
    openssl(
        folder,
        &[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &file(authority, "pem"),
            "-CAkey",
            &file(authority, "key"),
            "-CAcreateserial",
            "-days",
            "2",
            "-out",
            &file(name, "pem"),
            "-extfile",
            &file(name, "ext"),
        ],
    );
}

/// Puts a file into the server's own folder, as its account wants it.
pub fn give(server: &Server, from: &Path, name: &str) {
    let to = server.data_dir().join(name);
    fs::copy(from, &to).unwrap();
    fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
    let owner = fs::metadata(server.data_dir()).unwrap();
    if fs::metadata(&to).unwrap().uid() != owner.uid() {
        chown(&to, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
}
