//! Mails that let the owner of an account know what somebody has done to it: to its password, and to the addresses by
//! which it can be won back.
//!
//! They are left as errands in the transaction of what they are about, one for each address, with the address in it: so
//! whoever does something and removes the addresses then is reported all the same. They never hold up what they are
//! about. Where no mail server is configured, or it takes none for a day, they are dropped.
//!
//! No link and no secret is in them. What a client calls itself is cut to letters and digits, so that nobody has this
//! server advertise an address in such a mail.

use std::{net::IpAddr, time::Duration};

use ruma::{ServerName, UserId, thirdparty::Medium};
use serde::{Deserialize, Serialize};

use crate::{
    db::Conn,
    edge::mail::OutgoingMail,
    error::{Error, Result},
    ground::{clock::millis, date, random::Random},
    store::{
        device::Device,
        errand::{self, Errand, ErrandKind},
        threepid as store,
    },
};

/// For so long it is tried to send one. Later, it would only frighten.
const GIVE_UP: Duration = Duration::from_hours(24);

/// In characters: how much is shown of what a client calls itself.
const MAX_DEVICE_NAME: usize = 40;

/// What has happened to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SecurityEvent {
    PasswordChanged,
    PasswordReset,
    /// By the operator.
    PasswordSet,
    AddressAdded,
    AddressRemoved,
}

/// By whom something was done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SecurityContext<'a> {
    /// Milliseconds since the Unix epoch.
    pub(crate) now: i64,
    /// Where the request came from. None from the command line.
    pub(crate) address: Option<IpAddr>,
    /// The session that has done it, if one has.
    pub(crate) device: Option<&'a Device>,
}

/// A mail that is still to be sent, as an errand carries it.
#[derive(Debug, Serialize, Deserialize)]
struct SecurityMail {
    to: String,
    event: SecurityEvent,
    ts: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<String>,
}

/// Leaves a mail about something for each e-mail address of a user's but `except`, in the transaction in which it
/// happens.
pub(crate) async fn leave_security_mails(
    conn: &mut Conn,
    user_id: &UserId,
    event: SecurityEvent,
    except: Option<&str>,
    (context, random): (SecurityContext<'_>, &Random),
) -> Result<()> {
    let addresses = store::list(conn, user_id).await?.into_iter();
    let mailed = addresses.filter(|owned| owned.medium == Medium::Email.as_str());
    for owned in mailed.filter(|owned| except != Some(&*owned.address)) {
        let mail = SecurityMail {
            to: owned.address,
            event,
            ts: context.now,
            address: context.address,
            device: context.device.map(describe),
        };
        let body = Some(serde_json::to_string(&mail).map_err(Error::broken)?);
        errand::leave(conn, random, ErrandKind::Mail, (user_id, body), context.now).await?;
    }
    Ok(())
}

/// What is to be sent for an errand. A refusal if it is too late.
pub(super) fn read(errand: &Errand, server: &ServerName, now: i64) -> Result<OutgoingMail> {
    let mail: SecurityMail = serde_json::from_str(errand.body.as_deref().unwrap_or_default()).map_err(Error::broken)?;
    if mail.ts.saturating_add(millis(GIVE_UP)) <= now {
        return Err(Error::not_found("the mail server has taken no mail for a day"));
    }
    Ok(write(server, &errand.user_id, mail))
}

fn write(server: &ServerName, user_id: &UserId, mail: SecurityMail) -> OutgoingMail {
    let what = match mail.event {
        SecurityEvent::PasswordChanged => "The password was changed by somebody who is logged in to the account.",
        SecurityEvent::PasswordReset => "The password was reset by somebody who confirmed that by a mail to you.",
        SecurityEvent::PasswordSet => "The operators of the server have set another password.",
        SecurityEvent::AddressAdded => "Another e-mail address was added to the account.",
        SecurityEvent::AddressRemoved => "An e-mail address was removed from the account.",
    };
    let facts = [
        Some(format!("Account: {user_id}\nWhen: {} UTC\n", date::minute(mail.ts))),
        mail.address.map(|address| format!("From the address: {address}\n")),
        mail.device.map(|device| format!("On the device: {device}\n")),
    ];
    let facts: String = facts.into_iter().flatten().collect();
    let advice = match mail.event {
        SecurityEvent::PasswordSet => format!(
            "If you have asked them for it, there is nothing to do. If you have not, ask the\noperators of {server} why."
        ),
        _ => format!(
            "If it was you, there is nothing to do. If it was not you, somebody else is in\nyour account: open your app, \
             say that you forgot your password, set a new one and\nlet that log out all other devices. Then see which \
             e-mail addresses are on your\naccount. If you can't get in any more, turn to the operators of {server}."
        ),
    };
    let text = format!("Hello,\n\n{what}\n\n{facts}\n{advice}\n");
    OutgoingMail { to: mail.to, subject: format!("A change to your account {user_id}"), text }
}

/// What a client calls itself, as far as it can do no harm, and its identifier else.
fn describe(device: &Device) -> String {
    let plain = |text: &str| {
        let words = text.split(|character: char| !character.is_alphanumeric()).filter(|word| !word.is_empty());
        words.collect::<Vec<_>>().join(" ").chars().take(MAX_DEVICE_NAME).collect::<String>()
    };
    let name = device.display_name.as_deref().map(plain).unwrap_or_default();
    if name.is_empty() { plain(device.id.as_str()) } else { name }
}

#[cfg(test)]
mod tests {
    use ruma::{server_name, user_id};

    use super::*;

    fn device(name: Option<&str>) -> Device {
        let display_name = name.map(ToOwned::to_owned);
        Device { id: "PHONE".into(), display_name, last_seen_ts: None, last_seen_ip: None }
    }

    #[test]
    fn what_a_client_calls_itself_leads_nowhere() {
        for (name, shown) in [
            (Some("Element Web: Firefox"), "Element Web Firefox"),
            (Some("log in at https://evil.example/x?y\r\nBcc: a@b"), "log in at https evil example x y Bcc a b"),
            (Some("://."), "PHONE"),
            (None, "PHONE"),
        ] {
            assert_eq!(describe(&device(name)), shown);
        }
        assert_eq!(describe(&device(Some(&"x".repeat(200)))).len(), MAX_DEVICE_NAME);
    }

    #[test]
    fn a_mail_says_what_happened_when_from_where_and_what_to_do() {
        let mail = SecurityMail {
            to: "alice@example.org".to_owned(),
            event: SecurityEvent::PasswordChanged,
            ts: 1_767_225_600_000,
            address: Some("192.0.2.1".parse().unwrap()),
            device: Some("Phone".to_owned()),
        };
        let OutgoingMail { to, subject, text } =
            write(server_name!("example.org"), user_id!("@alice:example.org"), mail);
        assert_eq!((&*to, &*subject), ("alice@example.org", "A change to your account @alice:example.org"));
        for told in ["password was changed", "2026-01-01 00:00 UTC", "192.0.2.1", "Phone", "not you"] {
            assert!(text.contains(told), "{told}: {text}");
        }
        assert!(!text.contains("http"), "{text}");
        assert!(text.lines().all(|line| line.len() < 90), "{text}");
    }
}
