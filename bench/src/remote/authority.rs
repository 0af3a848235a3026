//! A certificate authority for homeservers on this machine, kept in a folder: the server under test has to know it before it
//! starts, and may have its certificate from it as well.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

const AUTHORITY: &str = "authority.pem";
const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";
/// All that the certificate is for.
const NAMES: [&str; 2] = ["127.0.0.1", "localhost"];

/// What homeservers of the generator prove with that they are 127.0.0.1.
pub(crate) struct Authority {
    acceptor: TlsAcceptor,
}

/// Makes an authority and a certificate of it in a folder. The authority's own key is kept nowhere.
pub(crate) fn make(folder: &Path) -> Result<()> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(NAMES.map(ToOwned::to_owned))?.signed_by(&key, &authority)?;
    fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    for (name, pem) in
        [(AUTHORITY, authority.as_ref().pem()), (CERTIFICATE, certificate.pem()), (KEY, key.serialize_pem())]
    {
        let file = folder.join(name);
        fs::write(&file, pem).with_context(|| format!("{} cannot be written", file.display()))?;
    }
    Ok(())
}

impl Authority {
    /// Reads what [`make`] has written.
    pub(crate) fn load(folder: Option<&Path>) -> Result<Self> {
        let folder = folder.context(
            "this plays other homeservers: make them a certificate with --make-authority, name it with --authority, \
             and have the server under test believe its authority.pem",
        )?;
        let read = |name: &str| format!("{} cannot be read (--authority)", folder.join(name).display());
        let certificate = CertificateDer::from_pem_file(folder.join(CERTIFICATE)).with_context(|| read(CERTIFICATE))?;
        let key = PrivateKeyDer::from_pem_file(folder.join(KEY)).with_context(|| read(KEY))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_can_be_used() {
        let folder = std::env::temp_dir().join(format!("hearth-bench-authority-{}", std::process::id()));
        make(&folder).unwrap();
        let loaded = Authority::load(Some(&folder));
        fs::remove_dir_all(&folder).unwrap();
        loaded.unwrap();
        assert!(Authority::load(Some(&folder)).is_err() && Authority::load(None).is_err());
    }
}
