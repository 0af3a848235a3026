//! Addresses in the one spelling under which they are kept.
//!
//! A unique index on this spelling is what makes an address belong to one account.
//!
//! <https://spec.matrix.org/v1.19/appendices/#3pid-types>

use ruma::thirdparty::Medium;

use crate::error::{Error, Result};

/// The longest address and the longest name in one, by <https://www.rfc-editor.org/rfc/rfc5321#section-4.5.3.1>.
const MAX_ADDRESS: usize = 254;
const MAX_LOCAL_PART: usize = 64;
/// Of a domain, by <https://www.rfc-editor.org/rfc/rfc1035#section-2.3.4>.
const MAX_LABEL: usize = 63;

/// By <https://www.itu.int/rec/T-REC-E.164>.
const MAX_DIGITS: usize = 15;

/// An e-mail address: `name@example.org`, in small letters.
///
/// Only ASCII: there, folding case is making letters small, and no two addresses look alike. What is sent goes to this
/// spelling, so that whoever reads it is whom it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EmailAddress(String);

impl EmailAddress {
    /// `M_INVALID_PARAM` for what is none, and for what is allowed but nobody has.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let fits = |(local_part, domain): (&str, &str)| {
            text.len() <= MAX_ADDRESS && is_local_part(local_part) && is_domain(domain)
        };
        if text.rsplit_once('@').is_some_and(fits) {
            return Ok(Self(text.to_ascii_lowercase()));
        }
        Err(Error::invalid_param("This is no e-mail address that this server can write to, such as name@example.org"))
    }

    /// In small letters.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// An address of either kind as it is kept.
pub(crate) fn canonical(medium: &Medium, address: &str) -> Result<String> {
    match medium {
        Medium::Email => EmailAddress::parse(address).map(|address| address.0),
        Medium::Msisdn => {
            let is_number = (1..=MAX_DIGITS).contains(&address.len()) && address.bytes().all(|b| b.is_ascii_digit());
            let invalid = || Error::invalid_param("A telephone number is made of digits, the country's code first");
            if is_number { Ok(address.to_owned()) } else { Err(invalid()) }
        }
        other => Err(Error::invalid_param(format!("`medium` is email or msisdn, not {other}"))),
    }
}

/// Words joined by dots. Quoted names are allowed in mail, but nobody has one.
fn is_local_part(text: &str) -> bool {
    let of_word = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte);
    text.len() <= MAX_LOCAL_PART && text.split('.').all(|word| !word.is_empty() && word.bytes().all(of_word))
}

/// Labels joined by dots. One alone will do: mail servers within a network have such names.
fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_spelling() {
        for text in ["bob@example.org", "Bob@Example.ORG", "BOB@EXAMPLE.ORG"] {
            assert_eq!(EmailAddress::parse(text).unwrap().as_str(), "bob@example.org");
        }
        for text in ["a.b+c@sub.example.org", "x@localhost", "o'hara_1-2@a-b.example"] {
            assert_eq!(EmailAddress::parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long = format!("{}@example.org", "a".repeat(65));
        let longer = format!("a@{}.org", vec!["b".repeat(60); 5].join("."));
        for text in [
            "",
            "bob",
            "@example.org",
            "bob@",
            "bob@@example.org",
            "b..b@example.org",
            ".b@example.org",
            "bob@-example.org",
            "bob@example..org",
            "bob@[127.0.0.1]",
            "\"b b\"@example.org",
            "Bob <bob@example.org>",
            "mailto:bob@example.org ",
            "bob@example.org\r\nRCPT TO:<eve@example.org>",
            "bob@example.org\0",
            "bıb@example.org",
            "bob@exämple.org",
            &long,
            &longer,
        ] {
            assert!(EmailAddress::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_telephone_number_is_digits() {
        assert_eq!(canonical(&Medium::Msisdn, "447700900001").unwrap(), "447700900001");
        for text in ["", "+447700900001", "0770 0900001", "1234567890123456"] {
            assert!(canonical(&Medium::Msisdn, text).is_err(), "{text}");
        }
        assert!(canonical(&Medium::from("fax"), "1").is_err());
    }
}
