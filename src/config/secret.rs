//! Values that must not be seen: they print as `[secret]` wherever they end up, in a log, in an error
//! or in the output of `hearth check-config`.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

const MASK: &str = "[secret]";

/// A secret text. Only [`Secret::expose`] gives it away.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Secret(String);

impl Secret {
    /// The secret itself: for the one use that it was configured for, never for a message.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Secret {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.is_empty() { Err("it is empty") } else { Ok(Self(text)) }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

/// A URL that may carry a password, which is left out when it is shown.
#[derive(Clone)]
pub struct SecretUrl(String);

impl SecretUrl {
    pub(super) fn new(url: String) -> Self {
        Self(url)
    }

    /// The whole URL, password included: only for opening the connection.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The URL with the password in front of the host, and any `…password=` parameter, masked.
    fn masked(&self) -> String {
        let (base, query) = match self.0.split_once('?') {
            Some((base, query)) => (base, Some(query)),
            None => (self.0.as_str(), None),
        };
        let mut shown = mask_user_info(base);
        if let Some(query) = query {
            let parameters: Vec<_> = query.split('&').map(mask_parameter).collect();
            shown.push('?');
            shown.push_str(&parameters.join("&"));
        }
        shown
    }
}

fn mask_user_info(base: &str) -> String {
    let Some((scheme, rest)) = base.split_once("://") else { return base.to_owned() };
    let Some((user_info, host)) = rest.rsplit_once('@') else { return base.to_owned() };
    match user_info.split_once(':') {
        Some((user, _password)) => format!("{scheme}://{user}:{MASK}@{host}"),
        None => base.to_owned(),
    }
}

fn mask_parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, _)) if name.ends_with("password") => format!("{name}={MASK}"),
        _ => parameter.to_owned(),
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.masked())
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.masked())
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print() {
        let secret = Secret::try_from("hunter2".to_owned()).unwrap();
        assert_eq!(format!("{secret:?}"), "[secret]");
        assert_eq!(serde_json::to_string(&secret).unwrap(), r#""[secret]""#);
    }

    #[test]
    fn a_url_prints_without_its_password() {
        for (url, shown) in [
            ("postgres://hearth:hunter2@db:5432/hearth", "postgres://hearth:[secret]@db:5432/hearth"),
            ("postgres://hearth:p@ss@db/hearth", "postgres://hearth:[secret]@db/hearth"),
            ("postgres://hearth@db/hearth", "postgres://hearth@db/hearth"),
            ("postgres://db/hearth?user=x&password=y", "postgres://db/hearth?user=x&password=[secret]"),
            ("redis://:hunter2@127.0.0.1:6379/0", "redis://:[secret]@127.0.0.1:6379/0"),
            ("sqlite:some/file.sqlite3", "sqlite:some/file.sqlite3"),
        ] {
            assert_eq!(SecretUrl::new(url.to_owned()).to_string(), shown);
        }
    }
}
