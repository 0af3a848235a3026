//! Reading the `Authorization` headers of servers.
//!
//! A value may stand in quotes or not, also one with a colon in it. Parameters that nobody knows are ignored, and so are
//! headers of other schemes.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#request-authentication>

use http::{HeaderMap, header::AUTHORIZATION};
use ruma::{OwnedServerName, OwnedServerSigningKeyId, ServerName, serde::Base64};

const SCHEME: &str = "X-Matrix";
/// A server signs with one key, or with a new one beside the old one.
const MAX_HEADERS: usize = 4;

/// What one header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) origin: OwnedServerName,
    /// None of servers of years ago.
    pub(super) destination: Option<String>,
    pub(super) key_id: OwnedServerSigningKeyId,
    pub(super) signature: Base64,
}

/// Those of all headers. There may be none.
pub(super) fn read(headers: &HeaderMap) -> Result<Vec<Credentials>, String> {
    let mut all = Vec::new();
    for value in headers.get_all(AUTHORIZATION) {
        let text = value.to_str().map_err(|e| format!("An Authorization header can't be read: {e}"))?;
        if let Some(parameters) = of_scheme(text) {
            all.push(parse(parameters).map_err(|reason| format!("An Authorization header can't be read: {reason}"))?);
        }
        if all.len() > MAX_HEADERS {
            return Err(format!("There are more than {MAX_HEADERS} Authorization headers"));
        }
    }
    Ok(all)
}

/// What comes behind the scheme.
fn of_scheme(header: &str) -> Option<&str> {
    let (scheme, parameters) = header.split_once([' ', '\t'])?;
    scheme.eq_ignore_ascii_case(SCHEME).then_some(parameters)
}

fn parse(parameters: &str) -> Result<Credentials, String> {
    let (mut origin, mut destination, mut key_id, mut signature) = (None, None, None, None);
    for (name, value) in split(parameters)? {
        let place = match name.as_str() {
            "origin" => &mut origin,
            "destination" => &mut destination,
            "key" => &mut key_id,
            "sig" => &mut signature,
            _ => continue,
        };
        if place.replace(value).is_some() {
            return Err(format!("`{name}` is there twice"));
        }
    }
    let required = |name: &str, value: Option<String>| value.ok_or_else(|| format!("`{name}` is missing"));
    let malformed = |name: &str, error: &dyn std::fmt::Display| format!("`{name}` is malformed: {error}");
    Ok(Credentials {
        origin: ServerName::parse(required("origin", origin)?).map_err(|e| malformed("origin", &e))?,
        destination,
        key_id: required("key", key_id)?.try_into().map_err(|e: ruma::IdParseError| malformed("key", &e))?,
        signature: Base64::parse(required("sig", signature)?).map_err(|e| malformed("sig", &e))?,
    })
}

/// Names in small letters, and values without their quotes.
fn split(parameters: &str) -> Result<Vec<(String, String)>, String> {
    let mut chars = parameters.chars().peekable();
    let mut found = Vec::new();
    loop {
        while chars.next_if(|c| [' ', '\t', ','].contains(c)).is_some() {}
        if chars.peek().is_none() {
            return Ok(found);
        }
        let mut name = String::new();
        loop {
            match chars.next() {
                Some('=') => break,
                Some(c) => name.push(c),
                None => return Err(format!("`{name}` has no value")),
            }
        }
        while chars.next_if(|c| [' ', '\t'].contains(c)).is_some() {}
        let mut value = String::new();
        if chars.next_if_eq(&'"').is_some() {
            loop {
                match chars.next() {
                    Some('"') => break,
                    Some('\\') => value.extend(chars.next()),
                    Some(c) => value.push(c),
                    None => return Err(format!("the value of `{name}` does not end")),
                }
            }
        } else {
            while let Some(c) = chars.next_if(|c| *c != ',') {
                value.push(c);
            }
            value.truncate(value.trim_end().len());
        }
        found.push((name.trim().to_ascii_lowercase(), value));
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read_all(headers: &[&str]) -> Result<Vec<Credentials>, String> {
        let mut map = HeaderMap::new();
        for header in headers {
            map.append(AUTHORIZATION, HeaderValue::from_str(header).unwrap());
        }
        read(&map)
    }

    fn expected(destination: Option<&str>) -> Vec<Credentials> {
        vec![Credentials {
            origin: ServerName::parse("there.example:8448").unwrap(),
            destination: destination.map(ToOwned::to_owned),
            key_id: "ed25519:a_1".try_into().unwrap(),
            signature: Base64::new(b"test".to_vec()),
        }]
    }

    #[test]
    fn both_forms_are_read_however_they_are_written() {
        for header in [
            r#"X-Matrix origin="there.example:8448",destination="here",key="ed25519:a_1",sig="dGVzdA""#,
            "X-Matrix origin=there.example:8448,destination=here,key=ed25519:a_1,sig=dGVzdA==",
            r#"x-matrix  SIG=dGVzdA , Key = "ed25519:a_1" ,	origin="there.example:8448",,destination="he\re", x="," "#,
        ] {
            assert_eq!(read_all(&[header]).unwrap(), expected(Some("here")), "{header}");
        }
        let of_old = r#"X-Matrix origin=there.example:8448,key="ed25519:a_1",sig="dGVzdA""#;
        assert_eq!(read_all(&[of_old]).unwrap(), expected(None));
    }

    #[test]
    fn several_headers_are_read_and_those_of_other_schemes_left_out() {
        let one = r#"X-Matrix origin=there.example:8448,key="ed25519:a_1",sig="dGVzdA""#;
        assert_eq!(read_all(&["Bearer token", one, one]).unwrap().len(), 2);
        assert!(read_all(&["Bearer token", "X-Matrix"]).unwrap().is_empty());
        assert!(read_all(&[one; 5]).is_err());
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for header in [
            "X-Matrix ",
            "X-Matrix origin",
            r#"X-Matrix origin="there,key=ed25519:a,sig=dGVzdA"#,
            "X-Matrix origin=there,key=ed25519:a",
            "X-Matrix origin=there,key=ed25519,sig=dGVzdA",
            "X-Matrix origin=there,key=ed25519:a,sig=%%",
            "X-Matrix origin=th_ere!,key=ed25519:a,sig=dGVzdA",
            "X-Matrix origin=there,origin=there,key=ed25519:a,sig=dGVzdA",
        ] {
            assert!(read_all(&[header]).is_err(), "{header}");
        }
    }
}
