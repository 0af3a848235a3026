//! Ports behind which other things than HTTP are listening, such as mail servers. Some take the lines of a request for
//! commands of theirs, so no stranger chooses what they are sent in this server's name.
//!
//! <https://fetch.spec.whatwg.org/#port-blocking>

/// In order.
const OTHERS: [u16; 83] = [
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109,
    110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531,
    532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060,
    5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10_080,
];

/// Whether a port may be asked.
pub(super) fn is_for_http(port: u16) -> bool {
    OTHERS.binary_search(&port).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_others_are_known() {
        assert!(OTHERS.is_sorted());
        for port in [0, 22, 25, 110, 465, 587, 6667, 10_080] {
            assert!(!is_for_http(port), "{port}");
        }
        for port in [80, 443, 8008, 8080, 8443, 8448, u16::MAX] {
            assert!(is_for_http(port), "{port}");
        }
    }
}
