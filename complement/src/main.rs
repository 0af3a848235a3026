//! The entry point of the image that the Matrix project's conformance suite starts: makes the certificate for
//! federation and becomes `hearth serve`.
//!
//! The suite gives each container a name in `SERVER_NAME` and puts its certificate authority into `/complement/ca`,
//! another one in each run; it starts containers anew from what an earlier one left. So the certificate is made at
//! each start. What does not depend on the name stands in the Dockerfile. The image has no shell, hence a program.

mod certificate;

use std::{
    convert::Infallible,
    env,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::{
        fs::{DirBuilderExt as _, OpenOptionsExt as _},
        process::CommandExt as _,
    },
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::Context as _;

use crate::certificate::Issued;

const HEARTH: &str = "/usr/local/bin/hearth";
/// The authority's own certificate, and its key beside it.
const AUTHORITY: &str = "/complement/ca/ca.crt";
const AUTHORITY_KEY: &str = "/complement/ca/ca.key";

fn main() -> ExitCode {
    let Err(error) = run();
    match writeln!(io::stderr(), "hearth-complement: {error:#}") {
        Ok(()) => ExitCode::FAILURE,
        Err(_) => ExitCode::from(2),
    }
}

/// Returns only if Hearth could not take this process's place.
fn run() -> anyhow::Result<Infallible> {
    let server_name = env::var("SERVER_NAME").context("SERVER_NAME must name this server")?;
    let data_dir = env::var_os("HEARTH_DATA_DIR").context("HEARTH_DATA_DIR must name the folder for the data")?;
    let data_dir = Path::new(&data_dir);

    let issued = certificate::issue(&server_name, &read(AUTHORITY)?, &read(AUTHORITY_KEY)?)?;
    let (certificate, key) = (data_dir.join("federation.crt"), data_dir.join("federation.key"));
    write(data_dir, &issued, &certificate, &key).with_context(|| format!("cannot write to {}", data_dir.display()))?;

    let error = Command::new(HEARTH)
        .arg("serve")
        .env("HEARTH_SERVER_NAME", server_name)
        .env("HEARTH_TLS__CERTIFICATE", certificate)
        .env("HEARTH_TLS__KEY", key)
        // Whom Hearth speaks to over HTTPS here has a certificate of this authority, and nobody another one.
        .env("SSL_CERT_FILE", AUTHORITY)
        .exec();
    Err(error).with_context(|| format!("cannot start {HEARTH}"))
}

fn read(path: &str) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

/// Writes both so that nobody but this user can read the key; the folder is made if it is missing.
fn write(folder: &Path, issued: &Issued, certificate: &Path, key: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    for (path, content) in [(certificate, &issued.certificate), (key, &issued.key)] {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(path)?.write_all(content.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_later_start_replaces_the_certificate_and_nobody_else_can_read_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let (certificate, key) = (data.join("crt"), data.join("key"));
        for (first, second) in [("a long certificate", "a long key"), ("short", "brief")] {
            let issued = Issued { certificate: first.to_owned(), key: second.to_owned() };
            write(&data, &issued, &certificate, &key).unwrap();
            assert_eq!(fs::read_to_string(&certificate).unwrap(), first);
            assert_eq!(fs::read_to_string(&key).unwrap(), second);
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&data), mode(&key)), (0o700, 0o600));
    }
}
