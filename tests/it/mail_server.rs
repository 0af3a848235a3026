//! A mail server that keeps what it is given, for the test to read.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
    time::Duration,
};

use hearth::config::{Config, MailEncryption};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::{Notify, RwLock, RwLockWriteGuard},
};

use crate::world::World;

/// Clones share the mails.
#[derive(Clone, Default)]
pub(crate) struct MailServer(Arc<Inner>);

#[derive(Default)]
struct Inner {
    mails: Mutex<Vec<Mail>>,
    /// Those that nobody has asked for: what has happened to an account.
    reports: Mutex<Vec<Mail>>,
    reported: Notify,
    /// What it answers to a recipient, if it takes none.
    refusal: Mutex<Option<&'static str>>,
    /// Closed, it takes no mail and lets whoever brings one wait.
    gate: RwLock<()>,
    brought: Notify,
    refused: Notify,
}

/// A mail as its reader sees it.
#[derive(Clone, Debug)]
pub(crate) struct Mail {
    pub(crate) to: String,
    pub(crate) head: String,
    pub(crate) text: String,
}

/// The servers of all tests, by their ports: the configuration of a server is made before its test begins.
static SERVERS: LazyLock<Mutex<BTreeMap<u16, MailServer>>> = LazyLock::new(Mutex::default);

impl MailServer {
    /// Starts one for the server that is configured.
    pub(crate) fn start(config: &mut Config) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let listener = TcpListener::from_std(listener).unwrap();
        let server = Self::default();
        #[expect(clippy::disallowed_methods, reason = "nobody waits for it: it ends with the test")]
        tokio::spawn(server.clone().listen(listener));
        SERVERS.lock().insert(port, server);
        config.mail.host = Some("127.0.0.1".to_owned().try_into().unwrap());
        config.mail.port = Some(port);
        config.mail.encryption = MailEncryption::None;
        config.mail.from = Some("Hearth <noreply@example.org>".to_owned().try_into().unwrap());
    }

    /// The one that a world's server uses.
    pub(crate) fn of(world: &World) -> Self {
        SERVERS.lock()[&world.config.mail.port.unwrap()].clone()
    }

    /// The mails that have come since this was asked last.
    pub(crate) fn take(&self) -> Vec<Mail> {
        std::mem::take(&mut *self.0.mails.lock())
    }

    /// The one mail that has come.
    #[track_caller]
    pub(crate) fn take_one(&self) -> Mail {
        let mut mails = self.take();
        assert_eq!(mails.len(), 1, "{mails:?}");
        mails.remove(0)
    }

    /// So many mails about what has happened to an account, once they have come, in any order. They come by themselves,
    /// and after what they are about.
    pub(crate) async fn take_reports(&self, count: usize) -> Vec<Mail> {
        let come = async {
            while self.0.reports.lock().len() < count {
                self.0.reported.notified().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(90), come).await.expect("nothing is reported");
        let mut reports = std::mem::take(&mut *self.0.reports.lock());
        assert_eq!(reports.len(), count, "{reports:?}");
        reports.sort_by(|one, other| one.to.cmp(&other.to));
        reports
    }

    /// Refuses every recipient with this reply from now on, or takes them again.
    pub(crate) fn refuse(&self, reply: Option<&'static str>) {
        *self.0.refusal.lock() = reply;
    }

    /// Takes no mail as long as the guard is held.
    pub(crate) async fn close(&self) -> RwLockWriteGuard<'_, ()> {
        self.0.gate.write().await
    }

    /// Returns when somebody has brought a mail and waits.
    pub(crate) async fn brought(&self) {
        self.0.brought.notified().await;
    }

    /// Returns when a recipient has been refused.
    pub(crate) async fn refused(&self) {
        self.0.refused.notified().await;
    }

    async fn listen(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            #[expect(clippy::disallowed_methods, reason = "nobody waits for it: it ends with the test")]
            tokio::spawn(self.clone().converse(stream));
        }
    }

    /// Whoever hangs up early ends the conversation.
    async fn converse(self, stream: TcpStream) -> Option<()> {
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        write.write_all(b"220 mail.example.org\r\n").await.ok()?;
        let mut to = String::new();
        while let Some(line) = lines.next_line().await.ok()? {
            let reply = match line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase().as_str() {
                "EHLO" => "250-mail.example.org\r\n250 8BITMIME",
                "RCPT" => {
                    line.split(['<', '>']).nth(1).unwrap_or_default().clone_into(&mut to);
                    let refusal = *self.0.refusal.lock();
                    if refusal.is_some() {
                        self.0.refused.notify_one();
                    }
                    refusal.unwrap_or("250 OK")
                }
                "DATA" => {
                    if self.0.gate.try_read().is_err() {
                        self.0.brought.notify_one();
                    }
                    drop(self.0.gate.read().await);
                    write.write_all(b"354 Go on\r\n").await.ok()?;
                    let mut raw = Vec::new();
                    while let Some(line) = lines.next_line().await.ok()?.filter(|line| line != ".") {
                        raw.push(line.strip_prefix('.').unwrap_or(&line).to_owned());
                    }
                    let mail = Mail::read(&to, &raw);
                    if mail.head.contains("Subject: A change to your account") {
                        self.0.reports.lock().push(mail);
                        self.0.reported.notify_one();
                    } else {
                        self.0.mails.lock().push(mail);
                    }
                    "250 Taken"
                }
                "QUIT" => "221 Bye",
                _ => "250 OK",
            };
            write.write_all(format!("{reply}\r\n").as_bytes()).await.ok()?;
        }
        Some(())
    }
}

impl Mail {
    fn read(to: &str, lines: &[String]) -> Self {
        let raw = lines.join("\n");
        let (head, text) = raw.split_once("\n\n").unwrap();
        let head = head.replace("\n ", " ");
        let quoted = head.to_ascii_lowercase().contains("content-transfer-encoding: quoted-printable");
        let text = if quoted { unquote(text) } else { text.to_owned() };
        Self { to: to.to_owned(), head, text }
    }

    /// The path and query of the link in it, if there is one.
    pub(crate) fn find_link(&self) -> Option<String> {
        let link = self.text.lines().find_map(|line| line.strip_prefix("https://localhost"));
        link.map(ToOwned::to_owned)
    }

    pub(crate) fn link(&self) -> String {
        self.find_link().unwrap_or_else(|| panic!("no link in {}", self.text))
    }

    /// The token for clients that ask for one.
    pub(crate) fn token(&self) -> String {
        let after = self.text.split_once("this is it:\n\n").unwrap().1;
        after.lines().next().unwrap().to_owned()
    }
}

/// <https://www.rfc-editor.org/rfc/rfc2045#section-6.7>, as far as it is ASCII.
fn unquote(text: &str) -> String {
    let text = text.replace("=\n", "");
    let mut parts = text.split('=');
    let mut out = parts.next().unwrap().to_owned();
    for part in parts {
        out.push(char::from(u8::from_str_radix(&part[..2], 16).unwrap()));
        out.push_str(&part[2..]);
    }
    out
}
