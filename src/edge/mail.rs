//! Mails: plain texts, handed to the operator's mail server one by one while whoever asked for them waits.
//!
//! There is no queue here: the mail server has one. A mail that it did not take is an error to the caller, who can ask
//! again.

use std::{
    net::Ipv4Addr,
    time::{Duration, UNIX_EPOCH},
};

use lettre::{
    Address, AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor,
    message::{
        Mailbox,
        header::{ContentType, HeaderName, HeaderValue},
    },
    transport::smtp::{Error as SmtpError, authentication::Credentials, extension::ClientId},
};
use ruma::ServerName;

use crate::{
    config::{self, MailEncryption},
    ground::{clock::Clock, random::Random},
};

/// How long the mail server may take for one command.
const COMMAND: Duration = Duration::from_secs(10);
/// How long it may take for a whole mail. A person waits for it, and so does their client, which gives up at some time.
const PATIENCE: Duration = Duration::from_secs(20);

/// The way to the mail server. Made once at start; a connection is made for each mail.
pub(crate) struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    /// This server's name without its port, for HELO and message ids.
    host: String,
    clock: Clock,
    random: Random,
}

/// A mail to one person.
#[derive(Debug)]
pub(crate) struct OutgoingMail {
    pub(crate) to: String,
    pub(crate) subject: String,
    pub(crate) text: String,
}

/// Why a mail did not go out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MailError {
    /// Trying again with the same address is of no use.
    #[error("the mail server takes no mail for this address: {0}")]
    Undeliverable(String),
    /// The address may be fine: the mail server was not reached, is overloaded or wants something else.
    #[error("the mail server took no mail: {0}")]
    NotSent(String),
}

impl Mailer {
    /// None where no mail server is configured. The mail server is not asked here, so a wrong password shows with the
    /// first mail.
    pub(crate) fn new(
        config: &config::MailConfig,
        server_name: &ServerName,
        clock: Clock,
        random: Random,
    ) -> Result<Option<Self>, MailError> {
        let (Some(server), Some(from)) = (&config.host, &config.from) else { return Ok(None) };
        let host = server_name.host();
        let builder = match config.encryption {
            MailEncryption::Tls => AsyncSmtpTransport::<Tokio1Executor>::relay(server.as_str()),
            MailEncryption::Starttls => AsyncSmtpTransport::<Tokio1Executor>::starttls_relay(server.as_str()),
            MailEncryption::None => Ok(AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(server.as_str())),
        };
        let mut builder = builder.map_err(not_sent)?.timeout(Some(COMMAND)).hello_name(hello(host));
        if let Some(port) = config.port {
            builder = builder.port(port);
        }
        if let (Some(username), Some(password)) = (&config.username, &config.password) {
            builder = builder.credentials(Credentials::new(username.clone(), password.expose().to_owned()));
        }
        let (from, host) = (from.mailbox().clone(), host.to_owned());
        Ok(Some(Self { transport: builder.build(), from, host, clock, random }))
    }

    /// Hands a letter to the mail server. When this returns, the mail server has taken it. An error may be untrue by
    /// one mail: where time is up while the server's last word is on its way, the mail goes out.
    pub(crate) async fn send(&self, letter: OutgoingMail) -> Result<(), MailError> {
        let to = letter.to.parse::<Address>().map_err(not_sent)?;
        let message = self.write(to, letter.subject, letter.text)?;
        match tokio::time::timeout(PATIENCE, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            // Who was written to is nobody's business but theirs.
            Ok(Err(error)) => Err(failed(&error, &error.to_string().replace(&letter.to, "<address>"))),
            Err(_elapsed) => Err(not_sent(format!("it took longer than {PATIENCE:?}"))),
        }
    }

    fn write(&self, to: Address, subject: String, text: String) -> Result<Message, MailError> {
        let now = UNIX_EPOCH + Duration::from_millis(self.clock.now().get().into());
        // So that nobody's absence is reported to us.
        let automatic = HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned());
        let message = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(subject)
            .date(now)
            .message_id(Some(format!("<{}@{}>", self.random.token(24), self.host)))
            .raw_header(automatic)
            .header(ContentType::TEXT_PLAIN);
        message.body(text).map_err(not_sent)
    }
}

/// An IPv6 host stands in brackets in a server name and is sent as it is.
fn hello(host: &str) -> ClientId {
    host.parse::<Ipv4Addr>().map_or_else(|_| ClientId::Domain(host.to_owned()), ClientId::Ipv4)
}

/// Replies of the 55x family blame the address, all others the way there.
///
/// <https://www.rfc-editor.org/rfc/rfc5321#section-4.2.3>
fn failed(error: &SmtpError, reason: &str) -> MailError {
    let blames_address = error.status().is_some_and(|code| ["550", "551", "553"].contains(&&*code.to_string()));
    if blames_address { MailError::Undeliverable(reason.to_owned()) } else { not_sent(reason) }
}

fn not_sent(reason: impl std::fmt::Display) -> MailError {
    MailError::NotSent(reason.to_string())
}
