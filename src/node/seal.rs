//! How a node knows that a call was forwarded by another one: a seal that only they can make.
//!
//! The call travels as the bytes that it came in ([`super::ForwardedCall`]), and the seal covers all of them, the
//! client's address, the node that is meant and the time. So a seal that somebody has seen is of no use for another
//! call, at another node, or half a minute later. Who the client is, its own token says, which is in the call. The
//! seal's key is derived from the server's signing key, which all nodes of a database have.

use std::net::IpAddr;

use aws_lc_rs::{digest, hmac};

use crate::event::fact::NodeId;

/// A seal is good for so many milliseconds, by the time that the nodes have agreed on.
const LIFETIME: i64 = 30_000;

/// What a seal says of the call: that can be looked at before the call is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallDigest([u8; 32]);

impl CallDigest {
    /// SHA-256 of all of it.
    pub(crate) fn of(call: &[u8]) -> Self {
        let mut bytes = [0; digest::SHA256_OUTPUT_LEN];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, call).as_ref());
        Self(bytes)
    }
}

/// Makes seals and opens them. All nodes of a database have the same.
pub(crate) struct Seal(hmac::Key);

/// What a seal says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum OpenedSeal {
    /// This call is meant for this node, and comes from a client at this address.
    Ours(IpAddr, CallDigest),
    /// It is meant for another node: whoever sent it has the wrong address.
    Misdirected,
}

impl Seal {
    /// `secret` is known to every node and to nobody else.
    pub(crate) fn new(secret: &[u8]) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret);
        Self(hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&root, b"calls between nodes").as_ref()))
    }

    /// A seal for a call to a node, from a client's address. `now` is in milliseconds since the Unix epoch.
    pub(crate) fn close(&self, to: &NodeId, call: &CallDigest, address: IpAddr, now: i64) -> String {
        let said = format!("{now} {to} {address} {call}", to = to.as_str(), call = hex(&call.0));
        format!("{said} {}", hex(hmac::sign(&self.0, said.as_bytes()).as_ref()))
    }

    /// None if no node of this database has made it within the last moments.
    pub(crate) fn open(&self, seal: &str, here: &NodeId, now: i64) -> Option<OpenedSeal> {
        let (said, tag) = seal.rsplit_once(' ')?;
        hmac::verify(&self.0, said.as_bytes(), &unhex(tag)?).ok()?;
        let mut words = said.split(' ');
        let (sent, to, address) = (words.next()?.parse::<i64>().ok()?, words.next()?, words.next()?.parse().ok()?);
        let call = CallDigest(unhex(words.next()?)?.try_into().ok()?);
        if now.saturating_sub(sent).abs() > LIFETIME {
            return None;
        }
        Some(if to == here.as_str() { OpenedSeal::Ours(address, call) } else { OpenedSeal::Misdirected })
    }
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

    #[test]
    fn a_seal_opens_where_it_is_meant_to_and_only_there_and_then() {
        let seal = Seal::new(b"secret");
        let (here, there) = (NodeId::from("here".to_owned()), NodeId::from("there".to_owned()));
        let address: IpAddr = "2001:db8::7".parse().unwrap();
        let call = CallDigest::of(b"a call");
        let closed = seal.close(&here, &call, address, 1_000_000);
        let ours = Some(OpenedSeal::Ours(address, call));
        let open = |seal: &Seal, text: &str, now| seal.open(text, &here, now);
        assert_eq!(open(&seal, &closed, 1_000_000), ours);
        assert_eq!(open(&seal, &closed, 1_000_000 - LIFETIME), ours, "clocks differ");
        assert_eq!(seal.open(&closed, &there, 1_000_000), Some(OpenedSeal::Misdirected));
        assert_eq!(open(&seal, &closed, 1_000_001 + LIFETIME), None, "it is too old");
        assert_eq!(open(&Seal::new(b"other"), &closed, 1_000_000), None, "somebody else made it");
        let of_call = |call: &[u8]| hex(&CallDigest::of(call).0);
        let other_call = closed.replace(&of_call(b"a call"), &of_call(b"another call"));
        assert_ne!(other_call, closed);
        for forged in [
            "",
            " ",
            "a b c d",
            &closed.replace("db8", "db9"),
            &other_call,
            closed.trim_end_matches(char::is_alphanumeric),
        ] {
            assert_eq!(open(&seal, forged, 1_000_000), None, "{forged}");
        }
    }
}
