//! Mails: plain texts, handed to the operator's mail server one by one while whoever asked for them waits.
//!
//! There is no queue in this house: the mail server has one. A mail that it did not take is told to the caller, who
//! can ask again.

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
    clock::Clock,
    config::{self, MailEncryption},
    random::Random,
};

/// How long the mail server may take for one command.
const COMMAND: Duration = Duration::from_secs(10);
/// How long it may take for a whole mail.
const PATIENCE: Duration = Duration::from_secs(20);

/// The way to the mail server.
pub(crate) struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    host: String,
    clock: Clock,
    random: Random,
}

/// A mail to one person.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) to: String,
    pub(crate) subject: String,
    pub(crate) text: String,
}

/// Why a mail did not go out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MailError {
    #[error("the mail server takes no mail for this address: {0}")]
    Undeliverable(String),
    #[error("the mail server took no mail: {0}")]
    NotSent(String),
}

impl Mailer {
    /// None where no mail server is configured.
    pub(crate) fn new(
        config: &config::Mail,
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

    /// Hands a letter to the mail server. When this returns, the mail server has taken it.
    pub(crate) async fn send(&self, letter: Letter) -> Result<(), MailError> {
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
