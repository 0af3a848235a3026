//! How a node knows that a request was forwarded by another one: a seal that only they can make.
//!
//! It vouches for the client's address and for the body, and says which node is meant; who the client is, its own token
//! says.
//!
//! It covers method, path and query, the node it is meant for and the time, so a seal that somebody has seen is of no
//! use for another request, to another node, or half a minute later. Its key is derived from the server's signing key,
//! which all nodes of a database have. Nodes of the release before are understood, so that a cluster can be upgraded
//! one node after the other.

use std::net::IpAddr;

use aws_lc_rs::{digest, hmac};

use crate::event::fact::NodeId;

/// A seal is good for so many milliseconds, by the time that the nodes have agreed on.
const LIFETIME: i64 = 30_000;

/// What a seal says of the body: that can be looked at before the body is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BodyDigest([u8; 32]);

impl BodyDigest {
    /// SHA-256 of all of it.
    pub(crate) fn of(body: &[u8]) -> Self {
        let mut bytes = [0; 32];
        for (byte, known) in bytes.iter_mut().zip(digest::digest(&digest::SHA256, body).as_ref()) {
            *byte = *known;
        }
        Self(bytes)
    }
}

/// Makes seals and opens them. All nodes of a database have the same.
pub(crate) struct Seal(hmac::Key);

/// What a seal says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum OpenedSeal {
    /// The request is meant for this node, and comes from a client at this address with this body. Nodes of the version
    /// before say nothing of the body.
    Ours(IpAddr, Option<BodyDigest>),
    /// It is meant for another node: whoever sent it has the wrong address.
    Misdirected,
}

impl Seal {
    /// `secret` is known to every node and to nobody else.
    pub(crate) fn new(secret: &[u8]) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret);
        Self(hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&root, b"requests between nodes").as_ref()))
    }

    /// A seal for `call` (method, path and query) to a node, from a client's address. `now` is in milliseconds since
    /// the Unix epoch.
    pub(crate) fn close(&self, to: &NodeId, call: &str, address: IpAddr, body: &BodyDigest, now: i64) -> String {
        let said = format!("{now} {to} {address} {body}", to = to.as_str(), body = hex(&body.0));
        format!("{said} {}", hex(self.sign(&said, call).as_ref()))
    }

    /// None if no node of this database has sealed this call within the last moments.
    pub(crate) fn open(&self, seal: &str, here: &NodeId, call: &str, now: i64) -> Option<OpenedSeal> {
        let (said, tag) = seal.rsplit_once(' ')?;
        hmac::verify(&self.0, &message(said, call), &unhex(tag)?).ok()?;
        let mut words = said.split(' ');
        let (sent, to, address) = (words.next()?.parse::<i64>().ok()?, words.next()?, words.next()?.parse().ok()?);
        if now.saturating_sub(sent).abs() > LIFETIME {
            return None;
        }
        let body = match words.next() {
            Some(digest) => Some(BodyDigest(unhex(digest)?.try_into().ok()?)),
            None => None,
        };
        Some(if to == here.as_str() { OpenedSeal::Ours(address, body) } else { OpenedSeal::Misdirected })
    }

    fn sign(&self, said: &str, call: &str) -> hmac::Tag {
        hmac::sign(&self.0, &message(said, call))
    }
}

fn message(said: &str, call: &str) -> Vec<u8> {
    format!("{said}\n{call}").into_bytes()
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.as_chunks().0.iter().map(|[high, low]| (high << 4) | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: &str = "PUT /_matrix/client/v3/rooms/!r/send/m.room.message/1";

    #[test]
    fn a_seal_opens_where_it_is_meant_to_and_only_there_and_then() {
        let seal = Seal::new(b"secret");
        let (here, there) = (NodeId::from("here".to_owned()), NodeId::from("there".to_owned()));
        let address: IpAddr = "2001:db8::7".parse().unwrap();
        let body = BodyDigest::of(b"{}");
        let closed = seal.close(&here, CALL, address, &body, 1_000_000);
        let ours = Some(OpenedSeal::Ours(address, Some(body)));
        let open = |seal: &Seal, text: &str, call: &str, now| seal.open(text, &here, call, now);
        assert_eq!(open(&seal, &closed, CALL, 1_000_000), ours);
        assert_eq!(open(&seal, &closed, CALL, 1_000_000 - LIFETIME), ours, "clocks differ");
        assert_eq!(seal.open(&closed, &there, CALL, 1_000_000), Some(OpenedSeal::Misdirected));
        assert_eq!(open(&seal, &closed, CALL, 1_000_001 + LIFETIME), None, "it is too old");
        assert_eq!(open(&seal, &closed, "PUT /elsewhere", 1_000_000), None, "it was made for another call");
        assert_eq!(open(&Seal::new(b"other"), &closed, CALL, 1_000_000), None, "somebody else made it");
        let of_body = |body: &[u8]| hex(&BodyDigest::of(body).0);
        let other_body = closed.replace(&of_body(b"{}"), &of_body(b"{\"a\":1}"));
        for forged in [
            "",
            " ",
            "a b c d",
            &closed.replace("db8", "db9"),
            &other_body,
            closed.trim_end_matches(char::is_alphanumeric),
        ] {
            assert_eq!(open(&seal, forged, CALL, 1_000_000), None, "{forged}");
        }
    }

    /// A cluster is upgraded one node after another.
    #[test]
    fn a_seal_of_the_version_before_opens_and_says_nothing_of_the_body() {
        let seal = Seal::new(b"secret");
        let here = NodeId::from("here".to_owned());
        let said = "1000000 here 192.0.2.7";
        let closed = format!("{said} {}", hex(seal.sign(said, CALL).as_ref()));
        let address: IpAddr = "192.0.2.7".parse().unwrap();
        assert_eq!(seal.open(&closed, &here, CALL, 1_000_000), Some(OpenedSeal::Ours(address, None)));
    }
}
