//! Variables that nobody has set: for each service of a namespace, Kubernetes puts its address into the environment of
//! every container, in the manner of Docker's links of old. For a service called `hearth`, or `hearth-metrics`, these
//! begin as ours do.
//!
//! An unknown `HEARTH_` variable is an error otherwise, so without this a service of that name would keep the server
//! from starting.
//!
//! <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>

/// Those that a service of Kubernetes may have.
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// Whether this variable is one of those. `HEARTH_PORT` is only where it holds the address of a service: somebody else
/// who sets it means to say something.
pub fn is_injected(name: &str, text: &str) -> bool {
    if name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_") {
        return true;
    }
    let is_address = text.split_once("://").is_some_and(|(scheme, _)| PROTOCOLS.contains(&&*scheme.to_uppercase()));
    name.ends_with("_PORT") && is_address || name.rsplit_once("_PORT_").is_some_and(|(_, port)| is_port(port))
}

/// `8008_TCP`, and what more is said of it: `8008_TCP_ADDR`.
fn is_port(text: &str) -> bool {
    let Some((number, rest)) = text.split_once('_') else { return false };
    let (protocol, detail) = rest.split_once('_').unwrap_or((rest, ""));
    number.parse::<u16>().is_ok() && PROTOCOLS.contains(&protocol) && ["", "PROTO", "PORT", "ADDR"].contains(&detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_says_of_a_service_is_told_from_settings() {
        for (name, text) in [
            ("HEARTH_SERVICE_HOST", "10.0.0.11"),
            ("HEARTH_SERVICE_PORT", "8008"),
            ("HEARTH_SERVICE_PORT_HTTP", "8008"),
            ("HEARTH_PORT", "tcp://10.0.0.11:8008"),
            ("HEARTH_PORT_8008_TCP", "tcp://10.0.0.11:8008"),
            ("HEARTH_PORT_8008_TCP_PROTO", "tcp"),
            ("HEARTH_PORT_8008_TCP_PORT", "8008"),
            ("HEARTH_PORT_8008_TCP_ADDR", "10.0.0.11"),
            ("HEARTH_PORT_5349_UDP", "udp://10.0.0.11:5349"),
            ("HEARTH_POSTGRES_SERVICE_HOST", "10.0.0.12"),
            ("HEARTH_POSTGRES_PORT", "tcp://10.0.0.12:5432"),
            ("HEARTH_POSTGRES_PORT_5432_TCP_ADDR", "10.0.0.12"),
        ] {
            assert!(is_injected(name, text), "{name}={text}");
        }
        for (name, text) in [
            ("HEARTH_PORT", "8008"),
            ("HEARTH_MAIL_PORT", "465"),
            ("HEARTH_PORT_8008", "8008"),
            ("HEARTH_PORT_HTTP_TCP", "tcp://10.0.0.11:8008"),
            ("HEARTH_PORT_8008_TCP_NAME", "x"),
            ("HEARTH_SERVER_NAME", "example.org"),
            ("HEARTH_SERVICE_NAME", "hearth"),
        ] {
            assert!(!is_injected(name, text), "{name}={text}");
        }
    }
}
