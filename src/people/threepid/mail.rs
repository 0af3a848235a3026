//! What the mails say. They are plain text, and nothing in them comes from whoever asked for them but the link.
//!
//! There are three, since only the owner of an address may learn whether it has an account: the link, that it is taken,
//! and that there is none.

use ruma::{OwnedUserId, ServerName};

use super::proof::Operation;
use crate::edge::mail::OutgoingMail;

/// The link that completes a session, and the token in it for clients that ask for that.
#[derive(Debug)]
pub(super) struct ConfirmationLink {
    /// With the session and the client's secret in it.
    pub(super) link: String,
    /// To be typed.
    pub(super) token: String,
}

/// Lets whoever reads it confirm that they do. `owner`: whose address it is.
pub(super) fn confirm(
    server: &ServerName,
    operation: Operation,
    owner: Option<&OwnedUserId>,
    to: &str,
    link: &ConfirmationLink,
) -> OutgoingMail {
    let (subject, what) = match (operation, owner) {
        (Operation::ResetPassword, Some(user_id)) => (
            format!("A new password for {user_id}"),
            format!(
                "Somebody, you we hope, has forgotten the password of {user_id} and wants a new\none. Whoever goes on \
                 from here gets into that account: only do so if you have\njust asked for it yourself."
            ),
        ),
        (Operation::Register, _) => (
            format!("Confirm your address for {server}"),
            format!("Somebody, you we hope, is making an account on {server} with this address."),
        ),
        _ => (
            format!("Confirm your address for {server}"),
            format!("Somebody, you we hope, wants to add this address to their account on\n{server}."),
        ),
    };
    let ConfirmationLink { link, token } = link;
    let text = format!(
        "Hello,\n\n{what}\n\nIf that is you, open this page and confirm it there:\n\n{link}\n\nIf your app asks for a \
         code instead, this is it:\n\n{token}\n\nBoth are good for a day. If it was not you, do nothing, and nothing \
         happens.\n"
    );
    OutgoingMail { to: to.to_owned(), subject, text }
}

/// For the owner of an address: it can't be had again.
pub(super) fn taken(server: &ServerName, owner: &OwnedUserId, to: &str) -> OutgoingMail {
    let text = format!(
        "Hello,\n\nSomebody, you perhaps, wanted to use this address on {server}. It belongs to\nan account there \
         already: {owner}\n\nIf that was you, log in to it. If you have forgotten its password, ask for a new one\nin \
         your app. If it was not you, there is nothing to do.\n"
    );
    OutgoingMail { to: to.to_owned(), subject: format!("You have an account on {server}"), text }
}

/// For somebody with an address that no account has: there is no password to reset.
pub(super) fn unknown(server: &ServerName, to: &str) -> OutgoingMail {
    let text = format!(
        "Hello,\n\nSomebody, you perhaps, wanted a new password for an account on {server} with\nthis address. There \
         is none.\n\nIf that was you, you may have used another address, or none. If it was not you,\nthere is nothing \
         to do.\n"
    );
    OutgoingMail { to: to.to_owned(), subject: format!("You have no account on {server}"), text }
}
