//! A step on the way to a server in the words of an operator: how it went, and what can be done about it.

use std::net::SocketAddr;

use serde::Serialize;

use super::remote_error::RemoteError;

/// A step on the way to a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    pub went: Went,
    /// A sentence without a stop.
    pub text: String,
    /// What to do about it, without a stop at its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Went {
    Well,
    /// It may be as its operator wants it.
    Oddly,
    /// Something has to be done.
    Badly,
}

impl Step {
    pub(crate) fn well(text: impl Into<String>) -> Self {
        Self::new(Went::Well, text)
    }

    pub(crate) fn oddly(text: impl Into<String>) -> Self {
        Self::new(Went::Oddly, text)
    }

    pub(crate) fn badly(text: impl Into<String>) -> Self {
        Self::new(Went::Badly, text)
    }

    fn new(went: Went, text: impl Into<String>) -> Self {
        Self { went, text: text.into(), advice: None }
    }

    /// With what to do about it.
    pub(crate) fn advise(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

/// What whoever runs the server at an address can do about an error. `host`: for whom the certificate has to be.
///
/// The libraries tell their errors apart by words alone. Where they change those, less is said.
pub(super) fn remedy(error: &RemoteError, host: &str, address: SocketAddr) -> String {
    let text = error.to_string().to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["certificate"]) {
        return of_certificate(&says, host);
    }
    match error {
        RemoteError::Refused { .. } | RemoteError::Malformed(_) => format!(
            "Something else answers at {address}. A proxy there has to pass `/_matrix/` on to Hearth, without redirects"
        ),
        _ if says(&["too long", "timed out"]) => format!(
            "Nobody answers at {address}. A firewall may drop what goes there, or a router does not pass the port on"
        ),
        _ if says(&["connection refused"]) => {
            format!(
                "Nobody listens at {address}: is the server running, and is this its port? Or a firewall turns others away"
            )
        }
        _ if says(&["unreachable"]) => format!(
            "There is no way to {address} from here. If this machine has no IPv6, that is no fault of the server's"
        ),
        _ => format!("What listens at {address} does not speak HTTPS to the end: look at its log"),
    }
}

fn of_certificate(says: &impl Fn(&[&str]) -> bool, host: &str) -> String {
    if says(&["not valid for name", "notvalidforname"]) {
        format!("The certificate there is for another name. It has to be for {host}, whatever SRV records lead to")
    } else if says(&["expired"]) {
        "Renew the certificate there, and see that whoever serves it has loaded the new one".to_owned()
    } else if says(&["unknownissuer", "unknown issuer"]) {
        "Nobody whom this machine believes vouches for the certificate there. Serve it with its intermediates \
         (fullchain.pem), or name an authority of your own in `federation.certificate_authorities`"
            .to_owned()
    } else {
        format!("It has to be a certificate for {host} from an authority that others believe")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_come_with_what_to_do() {
        let address = SocketAddr::from(([192, 0, 2, 1], 8448));
        let unreachable = |text: &str| RemoteError::Unreachable(text.to_owned());
        let wrong_name = "invalid peer certificate: certificate not valid for name \"a.example\"";
        for (error, expected) in [
            (unreachable(wrong_name), "has to be for a.example,"),
            (unreachable("invalid peer certificate: certificate expired: verification time 5"), "Renew"),
            (unreachable("invalid peer certificate: UnknownIssuer"), "federation.certificate_authorities"),
            (unreachable("invalid peer certificate: BadEncoding"), "certificate for a.example"),
            (unreachable("connection refused"), "Nobody listens at 192.0.2.1:8448"),
            (RemoteError::slow(), "firewall"),
            (unreachable("network is unreachable"), "IPv6"),
            (unreachable("tls handshake eof"), "does not speak HTTPS"),
            (RemoteError::Malformed("it answers with the status 302".to_owned()), "without redirects"),
        ] {
            let advice = remedy(&error, "a.example", address);
            assert!(advice.contains(expected), "{error}: {advice}");
        }
    }
}
