//! A small internet for tests: an authority that vouches for anybody, and names that lead where a test wants.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
};

use futures_util::future::{BoxFuture, FutureExt as _, ready};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use reqwest::Certificate;
use rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer};

use super::names::{NameError, Names, Service};

/// Signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// The certificate of a server, and its key, as PEM.
pub(crate) struct Made {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "an authority of tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// For who is to believe it.
    pub(crate) fn certificates(&self) -> Vec<Certificate> {
        Certificate::from_pem_bundle(self.pem.as_bytes()).unwrap()
    }

    /// The same in a file, which goes with the folder.
    pub(crate) fn write(&self, folder: &tempfile::TempDir) -> PathBuf {
        let path = folder.path().join("authority.pem");
        std::fs::write(&path, &self.pem).unwrap();
        path
    }

    /// A certificate for these names, or addresses.
    pub(crate) fn make(&self, names: &[&str]) -> Made {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let (params, key) = (CertificateParams::new(names).unwrap(), KeyPair::generate().unwrap());
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Made { certificate, key: key.serialize_pem() }
    }

    /// What a server needs that has these names.
    pub(crate) fn tls(&self, names: &[&str]) -> Arc<ServerConfig> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let (params, key) = (CertificateParams::new(names).unwrap(), KeyPair::generate().unwrap());
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private);
        Arc::new(config.unwrap())
    }
}

/// Names as a test wants them, which it may change.
#[derive(Default)]
pub(crate) struct TestNames(Mutex<Records>);

#[derive(Default)]
struct Records {
    addresses: BTreeMap<String, Vec<IpAddr>>,
    services: BTreeMap<String, Vec<Service>>,
    /// Names that nobody answers for.
    broken: BTreeSet<String>,
    asked: Vec<String>,
}

impl TestNames {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn address(&self, host: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.0.lock().addresses.insert(host.to_owned(), addresses);
    }

    /// An SRV record more.
    pub(crate) fn service(&self, name: &str, (priority, port): (u16, u16), target: &str) {
        let record = Service { priority, weight: 0, port, target: target.to_owned() };
        self.0.lock().services.entry(name.to_owned()).or_default().push(record);
    }

    pub(crate) fn fail(&self, name: &str) {
        self.0.lock().broken.insert(name.to_owned());
    }

    /// What was asked since the last call.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().asked)
    }

    fn find<T>(&self, name: &str, of: impl FnOnce(&Records) -> Option<Vec<T>>) -> Result<Vec<T>, NameError> {
        let mut records = self.0.lock();
        records.asked.push(name.to_owned());
        if records.broken.contains(name) {
            return Err(NameError("request timed out".to_owned()));
        }
        Ok(of(&records).unwrap_or_default())
    }
}

impl Names for TestNames {
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, NameError>> {
        ready(self.find(host, |records| records.addresses.get(host).cloned())).boxed()
    }

    fn services<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<Service>, NameError>> {
        ready(self.find(name, |records| records.services.get(name).cloned())).boxed()
    }
}
