//! An internet for tests: a certificate authority, a name server for each homeserver, and a wire between each two of
//! them that can be cut.
//!
//! Every homeserver asks a name server of its own, which leads it to others over wires that are its own, too. So a test
//! can part two servers while both still reach a third.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, UdpSocket as StdUdpSocket},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use hearth::config::Config;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
};

/// Clones are the same internet. Gone with the last of them, and with it its files.
#[derive(Clone)]
pub(crate) struct Internet(Arc<Inner>);

struct Inner {
    dir: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
    /// Where each homeserver's nodes listen.
    ports: Mutex<BTreeMap<String, Vec<u16>>>,
    /// By who reaches whom.
    wires: Mutex<BTreeMap<(String, String), Wire>>,
}

/// From one homeserver to another.
struct Wire {
    port: u16,
    whole: watch::Sender<bool>,
}

impl Internet {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("authority.pem"), authority.as_ref().pem()).unwrap();
        Self(Arc::new(Inner { dir, authority, ports: Mutex::default(), wires: Mutex::default() }))
    }

    /// The certificate of its authority, a PEM file.
    pub(crate) fn authority(&self) -> PathBuf {
        self.0.dir.path().join("authority.pem")
    }

    /// Makes a homeserver of this name part of it: with a certificate, and with others to be reached.
    pub(crate) fn configure(&self, name: &str, config: &mut Config) {
        let (certificate, key) = self.certificate(name);
        config.server_name = name.try_into().unwrap();
        config.tls.certificate = Some(certificate);
        config.tls.key = Some(key);
        config.listen.push("tls:127.0.0.1:0".parse().unwrap());
        config.federation.enabled = true;
        config.federation.certificate_authorities = vec![self.authority()];
        config.federation.allowed_networks = vec!["127.0.0.0/8".parse().unwrap()];
        config.federation.name_servers = vec![self.name_server(name).parse().unwrap()];
    }

    /// The files of a certificate for a name and of its key.
    pub(crate) fn certificate(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0.authority).unwrap();
        let files = ["certificate", "key"].map(|kind| self.0.dir.path().join(format!("{name}.{kind}.pem")));
        std::fs::write(&files[0], certificate.pem()).unwrap();
        std::fs::write(&files[1], key.serialize_pem()).unwrap();
        let [certificate, key] = files;
        (certificate, key)
    }

    /// From now on a homeserver is reached at these ports of this machine, in turn.
    pub(crate) fn announce(&self, name: &str, ports: Vec<u16>) {
        self.0.ports.lock().insert(name.to_owned(), ports);
    }

    /// Cuts the wires between two homeservers: what is open breaks off, what is tried is refused.
    pub(crate) fn part(&self, one: &str, other: &str) {
        self.set_wires(one, other, false);
    }

    /// Mends the wires between two homeservers.
    pub(crate) fn mend(&self, one: &str, other: &str) {
        self.set_wires(one, other, true);
    }

    fn set_wires(&self, one: &str, other: &str, whole: bool) {
        for (from, to) in [(one, other), (other, one)] {
            self.wire(from, to);
            self.0.wires.lock()[&(from.to_owned(), to.to_owned())].whole.send_replace(whole);
        }
    }

    /// The port at which one homeserver finds another.
    pub(crate) fn wire(&self, from: &str, to: &str) -> u16 {
        let mut wires = self.0.wires.lock();
        let wire = wires.entry((from.to_owned(), to.to_owned())).or_insert_with(|| {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let port = listener.local_addr().unwrap().port();
            let (whole, state) = watch::channel(true);
            let (inner, to) = (Arc::downgrade(&self.0), to.to_owned());
            #[expect(clippy::disallowed_methods, reason = "nobody waits for it: it ends with the test")]
            tokio::spawn(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                let next = AtomicUsize::new(0);
                while let Ok((from, _)) = listener.accept().await {
                    let Some(inner) = inner.upgrade() else { return };
                    let ports = inner.ports.lock().get(&to).cloned().unwrap_or_default();
                    if ports.is_empty() || !*state.borrow() {
                        continue;
                    }
                    let port = ports[next.fetch_add(1, Ordering::Relaxed) % ports.len()];
                    #[expect(clippy::disallowed_methods, reason = "nobody waits for it: it ends with the test")]
                    tokio::spawn(carry(from, port, state.clone()));
                }
            });
            Wire { port, whole }
        });
        wire.port
    }

    /// Starts a name server for a homeserver, and returns its address.
    fn name_server(&self, asker: &str) -> String {
        let socket = StdUdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let (internet, asker) = (Arc::downgrade(&self.0), asker.to_owned());
        #[expect(clippy::disallowed_methods, reason = "nobody waits for it: it ends with the test")]
        tokio::spawn(async move {
            let socket = UdpSocket::from_std(socket).unwrap();
            let mut buffer = [0; 1_500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let Some(inner) = internet.upgrade() else { return };
                if let Some(answer) = Self(inner).resolve(&asker, &buffer[..length]) {
                    socket.send_to(&answer, from).await.unwrap_or_default();
                }
            }
        });
        address
    }

    /// Answers one question: an address, or where a homeserver is.
    fn resolve(&self, asker: &str, query: &[u8]) -> Option<Vec<u8>> {
        let question = Question::read(query)?;
        let host = question.name.strip_prefix("_matrix-fed._tcp.").unwrap_or(&question.name);
        let is_known = self.0.ports.lock().contains_key(host);
        let data = match question.kind {
            A if is_known && host == question.name => Some(Ipv4Addr::LOCALHOST.octets().to_vec()),
            SRV if is_known && host != question.name => {
                let port = self.wire(asker, host);
                // Priority, weight, port, target.
                Some([&[0, 10, 0, 10][..], &port.to_be_bytes(), &labels(host)].concat())
            }
            _ => None,
        };
        Some(question.answer(is_known, data))
    }
}

/// Carries bytes to a port of this machine until somebody ends it or the wire is cut.
async fn carry(mut from: TcpStream, port: u16, mut whole: watch::Receiver<bool>) {
    let Ok(mut to) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut from, &mut to) => {}
        _ = whole.wait_for(|whole| !whole) => {}
    }
}

/// Types of records, of RFC 1035 and RFC 2782.
const A: u16 = 1;
const SRV: u16 = 33;

struct Question {
    id: [u8; 2],
    /// As it was sent, for the answer.
    bytes: Vec<u8>,
    /// In small letters, without the dot at its end.
    name: String,
    kind: u16,
}

impl Question {
    fn read(query: &[u8]) -> Option<Self> {
        let (mut name, mut at) = (Vec::new(), 12);
        loop {
            let length = usize::from(*query.get(at)?);
            if length == 0 {
                break;
            }
            name.push(String::from_utf8(query.get(at + 1..at + 1 + length)?.to_vec()).ok()?.to_ascii_lowercase());
            at += 1 + length;
        }
        let kind = u16::from_be_bytes([*query.get(at + 1)?, *query.get(at + 2)?]);
        let bytes = query.get(12..at + 5)?.to_vec();
        Some(Self { id: [query[0], query[1]], bytes, name: name.join("."), kind })
    }

    /// Without data it says that there is no such record, or no such name.
    fn answer(&self, is_known: bool, data: Option<Vec<u8>>) -> Vec<u8> {
        let code = if is_known { 0 } else { 3 };
        let count = u8::from(data.is_some());
        let mut answer = [&self.id[..], &[0x85, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0], &self.bytes].concat();
        if let Some(data) = data {
            answer.extend([0xC0, 12]);
            answer.extend(self.kind.to_be_bytes());
            // The internet, and not to be remembered.
            answer.extend([0, 1, 0, 0, 0, 0]);
            answer.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            answer.extend(data);
        }
        answer
    }
}

/// A name as it is written in answers.
fn labels(name: &str) -> Vec<u8> {
    let label = |label: &str| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat();
    name.split('.').flat_map(label).chain([0]).collect()
}
