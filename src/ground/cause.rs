//! Causes in words: what the operating system says, without the numbers that mean nothing to its reader.
//!
//! The words become part of a sentence, so they begin with a small letter and end without a stop.

use std::io;

/// `permission denied` rather than `Permission denied (os error 13)`.
pub fn in_words(error: &io::Error) -> String {
    let text = error.to_string();
    let words = text.rsplit_once(" (os error ").map_or(&*text, |(words, _)| words);
    let mut letters = words.chars();
    // Not where the first word is a name, such as `TLS`.
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() => first.to_lowercase().chain(letters).collect(),
        _ => words.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_has_no_number_and_no_capital() {
        assert_eq!(in_words(&io::Error::from_raw_os_error(13)), "permission denied");
        assert_eq!(in_words(&io::Error::other("TLS is off")), "TLS is off");
        assert_eq!(in_words(&io::Error::other("")), "");
    }
}
