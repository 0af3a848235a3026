//! `[mail]`: where mails go, and whom they come from.
//!
//! What can be known without speaking to the mail server is checked when the configuration is read. Whether it takes
//! mails shows with the first one.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// How the way to the mail server is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MailEncryption {
    /// From the first byte on.
    #[default]
    Tls,
    /// Before anything is said. A server that can't is not spoken to.
    Starttls,
    /// Not at all.
    None,
}

/// The name of a machine, or its address. It is looked up when a mail is sent, so that a mail server may move.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

impl HostName {
    /// A name, or an address without brackets and port.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HostName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let is_name = !text.is_empty() && text.bytes().all(fits);
        if !is_name && text.parse::<IpAddr>().is_err() {
            return Err("it is the name alone, without scheme and port".to_owned());
        }
        Ok(Self(text))
    }
}

impl From<HostName> for String {
    fn from(host: HostName) -> Self {
        host.0
    }
}

/// Whom mails come from: `name@host`, or `Somebody <name@host>`. Without control characters, which could begin another
/// header.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct MailFrom(lettre::message::Mailbox);

impl MailFrom {
    /// For the `From` header.
    pub(crate) fn mailbox(&self) -> &lettre::message::Mailbox {
        &self.0
    }
}

impl TryFrom<String> for MailFrom {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.contains(char::is_control) {
            return Err("it contains a control character".to_owned());
        }
        text.parse().map(Self).map_err(|error: lettre::address::AddressError| error.to_string())
    }
}

impl From<MailFrom> for String {
    fn from(from: MailFrom) -> Self {
        from.0.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_comes_back_as_it_was_written() {
        for text in ["noreply@example.org", "Hearth <noreply@example.org>"] {
            assert_eq!(String::from(MailFrom::try_from(text.to_owned()).unwrap()), text);
        }
        for text in ["", "noreply", "Hearth", "<>", "a@b\r\nBcc: c@d"] {
            assert!(MailFrom::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_host_is_a_name_alone() {
        for text in ["mail.example.org", "localhost", "127.0.0.1", "::1", "2001:db8::25"] {
            assert_eq!(HostName::try_from(text.to_owned()).unwrap().as_str(), text);
        }
        for text in [
            "",
            "smtp://mail.example.org",
            "mail example",
            "mail/x",
            "mail.example.org:587",
            "127.0.0.1:587",
            "[::1]:587",
            "mail:",
        ] {
            assert!(HostName::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
