//! Servers outside, for tests: each answers as its script says, and knows what it was asked. Each of this machine's
//! addresses leads to it, so that a test finds out when the wrong one is asked.

use std::{
    collections::{HashMap, VecDeque},
    io::{BufRead as _, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
    thread,
};

use parking_lot::Mutex;
use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A server, until the tests end.
pub(crate) struct Site {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    /// By names in small letters.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// What is sent back.
pub(crate) enum Scripted {
    /// These bytes, head and all, and then the end.
    Bytes(Vec<u8>),
    /// These, and then nothing more until the other side has gone.
    Held(Vec<u8>),
    /// These, and then such bytes until the other side has gone.
    Endless(Vec<u8>, u8),
}

impl Scripted {
    pub(crate) fn ok(content_type: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n", body.len());
        Self::Bytes([head.as_bytes(), b"Connection: close\r\n\r\n", body].concat())
    }

    pub(crate) fn redirect(location: &str) -> Self {
        let head = "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nConnection: close\r\n";
        Self::Bytes(format!("{head}Location: {location}\r\n\r\n").into_bytes())
    }

    pub(crate) fn status(status: &str) -> Self {
        Self::Bytes(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes())
    }
}

impl Site {
    pub(crate) fn start(script: impl Fn(&Asked) -> Scripted + Send + Sync + 'static) -> Self {
        Self::start_with(None, script)
    }

    /// One that speaks TLS. Who breaks off the handshake has asked nothing.
    pub(crate) fn start_tls(
        tls: Arc<ServerConfig>,
        script: impl Fn(&Asked) -> Scripted + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(Some(tls), script)
    }

    fn start_with(tls: Option<Arc<ServerConfig>>, script: impl Fn(&Asked) -> Scripted + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port()));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (script, heard) = (Arc::new(script), Arc::clone(&asked));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (script, heard, tls) = (Arc::clone(&script), Arc::clone(&heard), tls.clone());
                thread::spawn(move || match tls {
                    None => answer(stream, &*script, &heard),
                    Some(tls) => {
                        let connection = ServerConnection::new(tls).unwrap();
                        answer(StreamOwned::new(connection, stream), &*script, &heard);
                    }
                });
            }
        });
        Self { address, asked }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// By its number.
    pub(crate) fn url(&self, path: &str) -> Url {
        Url::parse(&format!("http://{}{path}", self.address)).unwrap()
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }

    /// The paths that were asked for, in order.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.asked.lock().iter().map(|asked| asked.path.clone()).collect()
    }
}

fn answer(
    mut stream: impl Read + Write,
    script: &(dyn Fn(&Asked) -> Scripted + Send + Sync),
    heard: &Mutex<Vec<Asked>>,
) {
    let Some(asked) = read(&mut stream) else { return };
    heard.lock().push(asked.clone());
    // Whoever has read enough goes, which is no failure of the test.
    match script(&asked) {
        Scripted::Bytes(bytes) => drop(stream.write_all(&bytes).and_then(|()| stream.flush())),
        Scripted::Held(bytes) => {
            if stream.write_all(&bytes).and_then(|()| stream.flush()).is_ok() {
                while stream.read(&mut [0]).is_ok_and(|read| read > 0) {}
            }
        }
        Scripted::Endless(bytes, filling) => {
            let (mut sent, filling) = (stream.write_all(&bytes), [filling; 8_192]);
            while sent.is_ok() {
                sent = stream.write_all(&filling);
            }
        }
    }
}

fn read(stream: &mut impl Read) -> Option<Asked> {
    let mut lines = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        lines.read_line(&mut line).ok().filter(|read| *read > 0).map(|_| line.trim_end().to_owned())
    };
    let first = line()?;
    let (method, rest) = first.split_once(' ')?;
    let (path, _) = rest.split_once(' ')?;
    let mut headers = HashMap::new();
    while let Some(header) = line().filter(|line| !line.is_empty()) {
        let (name, value) = header.split_once(':')?;
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(Some(0), |length| length.parse().ok())?;
    let mut body = vec![0; length];
    lines.read_exact(&mut body).ok()?;
    Some(Asked { method: method.to_owned(), path: path.to_owned(), headers, body })
}

/// Names as a test wants them: each question takes the next answer, and the last one stays.
#[derive(Default)]
pub(crate) struct ScriptedNames {
    names: Mutex<HashMap<String, VecDeque<Vec<IpAddr>>>>,
    asked: Mutex<Vec<String>>,
}

impl ScriptedNames {
    pub(crate) fn new(names: &[(&str, &[&[&str]])]) -> Arc<Self> {
        let parse =
            |addresses: &&[&str]| -> Vec<IpAddr> { addresses.iter().map(|address| address.parse().unwrap()).collect() };
        let names = names.iter().map(|(name, answers)| ((*name).to_owned(), answers.iter().map(parse).collect()));
        Arc::new(Self { names: Mutex::new(names.collect()), asked: Mutex::default() })
    }

    /// How often names were looked up.
    pub(crate) fn count(&self) -> usize {
        self.asked.lock().len()
    }
}

impl Resolve for ScriptedNames {
    fn resolve(&self, name: Name) -> Resolving {
        self.asked.lock().push(name.as_str().to_owned());
        let mut names = self.names.lock();
        let addresses = names.get_mut(name.as_str()).and_then(|answers| {
            let next = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
            next.map(|addresses| addresses.into_iter().map(|address| SocketAddr::new(address, 0)).collect::<Vec<_>>())
        });
        Box::pin(async move {
            let addresses = addresses.ok_or("there is no such name")?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
