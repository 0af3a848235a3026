//! The certificate of the `tls:` listeners, read again when its files change and on SIGHUP.
//!
//! Renewal tools replace two files one after the other, so a change counts once it has held still for
//! one look, and a pair that cannot be used leaves the old one in place.
//!
//! Connections that are open keep the certificate with which they were made. HTTP/2 is offered by ALPN; the versions of
//! TLS are rustls' own choice, 1.2 and 1.3.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum_server::tls_rustls::RustlsConfig;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use crate::ground::{cause, tasks::Shutdown};

/// How often the files are looked at.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Why certificate and key cannot be used. At start it is printed and the server ends; later it is logged and the
/// certificate stays.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("`{key}`: cannot read {path}: {}", cause::in_words(error))]
    Read { key: &'static str, path: PathBuf, error: io::Error },
    #[error("`{key}`: {path} is not PEM that can be read: {}", pem_in_words(error))]
    Pem { key: &'static str, path: PathBuf, error: pem::Error },
    #[error("`tls.certificate`: {0} holds no PEM certificate")]
    NoCertificate(PathBuf),
    #[error("`tls.key`: {0} holds no PEM private key")]
    NoKey(PathBuf),
    #[error(
        "the certificate in {certificate} and the key in {key} cannot be used together: {error}. The \
         first certificate of the file must belong to that key"
    )]
    Unusable { certificate: PathBuf, key: PathBuf, error: rustls::Error },
}

/// Without what the file holds: it may be a key.
fn pem_in_words(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end",
        pem::Error::IllegalSectionStart { .. } => "a section has no proper beginning",
        pem::Error::Base64Decode(_) => "a section is not base64",
        pem::Error::NoItemsFound => "there is nothing in it",
        _ => "it is too large or broken",
    }
}

/// A certificate and its key, kept fresh. Clones share what is in use. Both files are PEM: the chain with the server's
/// own certificate first, and one private key.
#[derive(Clone)]
pub(super) struct Certificate {
    chain_file: PathBuf,
    key_file: PathBuf,
    in_use: RustlsConfig,
}

impl Certificate {
    /// Reads files, for a few milliseconds: before anything is served.
    pub(super) fn load(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        let in_use = RustlsConfig::from_config(Arc::new(read(certificate, key)?));
        Ok(Self { chain_file: certificate.to_owned(), key_file: key.to_owned(), in_use })
    }

    /// What new connections are accepted with, now and after a change.
    pub(super) fn tls_config(&self) -> RustlsConfig {
        self.in_use.clone()
    }

    /// Looks every `period` whether the files have changed, until shutdown. On SIGHUP they are read at once, changed or
    /// not.
    pub(super) async fn keep_fresh(self, period: Duration, shutdown: Shutdown) {
        let mut hangups = match signal(SignalKind::hangup()) {
            Ok(hangups) => hangups,
            Err(error) => return tracing::error!(%error, "cannot watch for SIGHUP, so certificates stay as they are"),
        };
        let mut looks = interval(period);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // What has been tried, well or not, is not tried again until it changes.
        let mut tried = self.stamps();
        let mut last_seen = tried;
        loop {
            let asked = tokio::select! {
                _ = looks.tick() => false,
                _ = hangups.recv() => true,
                () = shutdown.started() => return,
            };
            let seen = self.stamps();
            // Two looks with the same stamps: whoever replaces the files has had `period` to write the second one.
            if asked || (seen != tried && seen == last_seen) {
                tried = seen;
                self.reload();
            }
            last_seen = seen;
        }
    }

    fn reload(&self) {
        match read(&self.chain_file, &self.key_file) {
            Ok(config) => {
                self.in_use.reload_from_config(Arc::new(config));
                tracing::info!(certificate = %self.chain_file.display(), "new connections use the new certificate");
            }
            Err(error) => {
                tracing::error!(%error, "the new certificate is not used and the old one stays; mend the files");
            }
        }
    }

    /// Two calls of `stat` on files that the kernel has at hand: not worth a thread of their own.
    fn stamps(&self) -> [Option<FileStamp>; 2] {
        [FileStamp::of(&self.chain_file), FileStamp::of(&self.key_file)]
    }
}

/// What changes when a file is written or another takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileStamp {
    modified: SystemTime,
    length: u64,
    inode: u64,
}

impl FileStamp {
    /// None while a file is not there, as between removing and writing it.
    fn of(path: &Path) -> Option<Self> {
        fn stat(path: &Path) -> io::Result<FileStamp> {
            use std::os::unix::fs::MetadataExt as _;
            let metadata = fs::metadata(path)?;
            Ok(FileStamp { modified: metadata.modified()?, length: metadata.len(), inode: metadata.ino() })
        }
        stat(path).ok()
    }
}

fn read(certificate: &Path, key: &Path) -> Result<ServerConfig, CertificateError> {
    const CERTIFICATE: &str = "tls.certificate";
    const KEY: &str = "tls.key";
    let read_file =
        |key, path: &Path| fs::read(path).map_err(|error| CertificateError::Read { key, path: path.to_owned(), error });
    let not_pem = |key, path: &Path, error| CertificateError::Pem { key, path: path.to_owned(), error };
    let chain = CertificateDer::pem_slice_iter(&read_file(CERTIFICATE, certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| not_pem(CERTIFICATE, certificate, error))?;
    if chain.is_empty() {
        return Err(CertificateError::NoCertificate(certificate.to_owned()));
    }
    let private_key = PrivateKeyDer::from_pem_slice(&read_file(KEY, key)?).map_err(|error| match error {
        pem::Error::NoItemsFound => CertificateError::NoKey(key.to_owned()),
        error => not_pem(KEY, key, error),
    })?;
    let unusable =
        |error| CertificateError::Unusable { certificate: certificate.to_owned(), key: key.to_owned(), error };
    build(chain, private_key).map_err(unusable)
}

/// Fails where the key is not that of the first certificate.
fn build(
    chain: Vec<CertificateDer<'static>>,
    private_key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private_key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
