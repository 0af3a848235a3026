//! What a user of this server may be called.
//!
//! Rules for new names are stricter than those for names that are there: other servers and older clients have made
//! names with capitals and other characters, which still have to be read.
//!
//! <https://spec.matrix.org/v1.19/appendices/#user-identifiers>

use ruma::{OwnedUserId, ServerName, UserId, api::error::ErrorKind};

use crate::{
    config::is_localpart,
    error::{Error, Result},
};

/// The specification's limit, with `@`, `:` and the server's name.
const MAX_USER_ID_BYTES: usize = 255;

/// The user ID of a new account. Capitals become small, since nobody should be able to take `Alice` beside
/// `alice`; what historical user IDs were allowed besides is refused.
pub(super) fn new_user_id(username: &str, server_name: &ServerName) -> Result<OwnedUserId> {
    let invalid = |message: String| Error::refused(ErrorKind::InvalidUsername, message);
    let localpart = username.to_ascii_lowercase();
    if localpart.is_empty() {
        return Err(invalid("A user name needs at least one character".to_owned()));
    }
    if !is_localpart(&localpart) {
        return Err(invalid("A user name is made of the characters a-z, 0-9 and ._=-/+".to_owned()));
    }
    let user_id = format!("@{localpart}:{server_name}");
    if user_id.len() > MAX_USER_ID_BYTES {
        let left = MAX_USER_ID_BYTES.saturating_sub(user_id.len() - localpart.len());
        return Err(invalid(format!("On this server a user name has at most {left} characters")));
    }
    UserId::parse(user_id).map_err(|e| invalid(format!("This is no user name: {e}")))
}

/// Whom somebody means who types `name` to log in: a whole user ID or its localpart. None for users of other
/// servers and for what can't be a name.
pub(super) fn meant(name: &str, server_name: &ServerName) -> Option<OwnedUserId> {
    let user_id = UserId::parse_with_server_name(name, server_name).ok()?;
    (user_id.server_name() == server_name).then_some(user_id)
}

/// The answer to whoever wants a name that somebody has or had.
pub(super) fn in_use() -> Error {
    Error::refused(ErrorKind::UserInUse, "This user name is taken: choose another one")
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    #[test]
    fn a_new_name_follows_the_grammar() {
        let name = |username: &str| new_user_id(username, server_name!("example.org"));
        assert_eq!(name("Alice").unwrap(), "@alice:example.org");
        assert_eq!(name("a.b_c=d-e/f+0").unwrap(), "@a.b_c=d-e/f+0:example.org");
        let longest = 255 - "@:example.org".len();
        assert!(name(&"a".repeat(longest)).is_ok());
        for bad in ["", "al ice", "al:ice", "@alice", "alïce", "al\0ice", "historical!", &"a".repeat(longest + 1)] {
            let Err(Error::Refused { kind, .. }) = name(bad) else { panic!("{bad} was accepted") };
            assert_eq!(kind, ErrorKind::InvalidUsername, "{bad}");
        }
    }

    #[test]
    fn users_of_other_servers_are_not_meant() {
        let meant = |name: &str| meant(name, server_name!("example.org"));
        assert_eq!(meant("alice").unwrap(), "@alice:example.org");
        assert_eq!(meant("@alice:example.org").unwrap(), "@alice:example.org");
        assert_eq!(meant("@alice:elsewhere.org"), None);
        assert_eq!(meant("@alice"), None);
        assert_eq!(meant("alice:example.org"), None);
    }
}
