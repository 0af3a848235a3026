//! Values that must not be seen: they print as `[secret]` wherever they end up, in a log, in an error
//! or in the output of `hearth check-config`.
//!
//! That is so by type: whatever formats or serialises a configuration can't give one away by mistake.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// What is written in place of a secret, in logs and files alike.
const MASK: &str = "[secret]";

/// A secret text. Only [`Secret::expose`] gives it away. It can't be compared, printed or cloned into a text by
/// accident.
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

    /// An empty one would be no protection, and is most likely a variable that was not filled in.
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

/// A URL that may carry a password, which is left out when it is shown. Everything but the password is shown: host and
/// database are what an operator looks for.
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
        // The password first, up to the last `@`: in one that should have been escaped there may be a `?`.
        let masked = mask_user_info(&self.0);
        let (base, query) = match masked.split_once('?') {
            Some((base, query)) => (base, Some(query)),
            None => (&*masked, None),
        };
        let mut shown = base.to_owned();
        if let Some(query) = query {
            let parameters: Vec<_> = query.split('&').map(mask_parameter).collect();
            shown.push('?');
            shown.push_str(&parameters.join("&"));
        }
        shown
    }
}

/// Hides the password in a URL. The user stays readable: which account is refused is what an operator has to know.
pub(super) fn mask_user_info(base: &str) -> String {
    let Some((scheme, rest)) = base.split_once("://") else { return base.to_owned() };
    let Some((user_info, host)) = rest.rsplit_once('@') else { return base.to_owned() };
    match user_info.split_once(':') {
        Some((user, _password)) => format!("{scheme}://{user}:{MASK}@{host}"),
        None => base.to_owned(),
    }
}

/// `sslpassword` as well.
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
            ("postgres://hearth:p?ss@db/hearth", "postgres://hearth:[secret]@db/hearth"),
            ("postgres://hearth:p@s?s@db/hearth?password=y", "postgres://hearth:[secret]@db/hearth?password=[secret]"),
            ("postgres://hearth@db/hearth", "postgres://hearth@db/hearth"),
            ("postgres://db/hearth?user=x&password=y", "postgres://db/hearth?user=x&password=[secret]"),
            ("redis://:hunter2@127.0.0.1:6379/0", "redis://:[secret]@127.0.0.1:6379/0"),
            ("sqlite:some/file.sqlite3", "sqlite:some/file.sqlite3"),
        ] {
            assert_eq!(SecretUrl::new(url.to_owned()).to_string(), shown);
        }
    }
}
