//! What the answers of a server mean, in the words of an operator.

use std::collections::{BTreeMap, BTreeSet};

use ruma::ServerName;

use crate::{
    edge::federation_client::{RemoteError, Step},
    federation::server_keys::{LIFETIME, PublishedKeys},
    ground::{clock::millis, date},
};

/// What this server answers to a request that says that it comes from this server itself. It has come whole then: the header
/// is there, and the endpoint was found.
pub(crate) const CALLS_ITSELF: &str = "This server does not call itself";

/// The keys of this server, by their identifiers and in unpadded base64, and the identifier of the one that signs.
#[derive(Clone, Debug)]
pub(super) struct OwnKeys {
    pub(super) all: BTreeMap<String, String>,
    pub(super) current: String,
}

impl OwnKeys {
    /// Those among these that are no keys of this server.
    fn find_strange<'a>(&self, documents: impl IntoIterator<Item = &'a PublishedKeys>) -> BTreeSet<&'a str> {
        let keys = documents.into_iter().flat_map(|document| &document.keys);
        keys.filter(|(id, key)| self.all.get(*id) != Some(*key)).map(|(id, _)| id.as_str()).collect()
    }
}

/// What a server says of its keys, and the keys where they are its own.
pub(super) fn published(
    server: &ServerName,
    read: Result<PublishedKeys, String>,
    now: i64,
) -> (Step, Option<PublishedKeys>) {
    match read {
        Err(error) => {
            let step = Step::badly(format!("the keys of {server} can't be had: {error}"));
            (step.advise("`/_matrix/key/v2/server` has to lead to the server as `/_matrix/federation/` does"), None)
        }
        Ok(keys) if *keys.server_name != *server => {
            let step = Step::badly(format!("what answers there is {}, and not {server}", keys.server_name));
            let advice = "Look where the well-known file, the SRV records and the proxy lead. If this is the right server, \
                          its `server_name` is not what others call it";
            (step.advise(advice), None)
        }
        Ok(keys) => {
            let ids = keys.keys.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let until = date::second(keys.valid_until);
            let step = if keys.valid_until < now {
                let step = Step::badly(format!("{server} signs with {ids}, which were good until {until} only"));
                step.advise("Look at the clocks of both machines")
            } else {
                Step::well(format!("{server} signs with {ids}, and says so until {until}"))
            };
            (step, Some(keys))
        }
    }
}

/// Whether what this server is asked under its own name has this database.
pub(super) fn own_keys_here(published: &PublishedKeys, own: &OwnKeys) -> Step {
    if own.find_strange([published]).is_empty() && published.keys.contains_key(&own.current) {
        return Step::well("these are the keys in this database");
    }
    Step::badly(format!("these are not the keys in this database, which signs with {}", own.current)).advise(
        "Another process answers for this name. Stop it, or give this command the --config and HEARTH_ variables that it has",
    )
}

/// Of a request that this server has signed.
pub(super) fn signed_request(server: &ServerName, answer: Result<(), RemoteError>) -> Step {
    let error = match answer {
        Ok(()) => return Step::well(format!("{server} takes what this server signs")),
        Err(error) => error,
    };
    match &error {
        RemoteError::Refused { status: 401, .. } => Step::badly(format!(
            "{server} does not take what this server signs: {error}"
        ))
        .advise(
            "It may not be able to fetch this server's keys, or have those of a database that this server had before. \
                 `hearth admin federation-check` shows whether others can fetch them",
        ),
        RemoteError::Refused { status: 403, .. } => {
            let step = Step::badly(format!("{server} wants to have nothing to do with this server: {error}"));
            step.advise("Ask its operator whether they have a list of servers, and this one is on it, or not on it")
        }
        RemoteError::Refused { errcode: Some(errcode), .. } if errcode == "M_UNRECOGNIZED" => {
            Step::badly(format!("{server} does not know what every server knows: {error}"))
                .advise("A proxy in front of it may not pass all of `/_matrix/federation/` on, or change the paths")
        }
        RemoteError::Refused { status: 404, .. } => Step::well(format!("{server} takes what this server signs")),
        RemoteError::Refused { status: 429, .. } => {
            Step::oddly(format!("{server} has been asked too much lately: {error}"))
                .advise("Ask again in a few minutes")
        }
        _ => Step::badly(format!("{server} does not answer a signed request as it should: {error}"))
            .advise("The log of that server, or of the proxy in front of it, says why"),
    }
}

/// Of a request by which this server calls itself, as a server that others would refuse.
pub(super) fn own_request(answer: Result<(), RemoteError>) -> Step {
    match answer {
        Err(RemoteError::Refused { status: 401, message, .. }) if message == CALLS_ITSELF => {
            Step::well("what servers sign arrives as it was sent")
        }
        Err(error @ RemoteError::Refused { status: 401, .. }) => {
            Step::badly(format!("the signature of a request is lost on its way: {error}"))
                .advise("The proxy in front of the server has to leave the header `Authorization` as it is")
        }
        Err(error) => Step::badly(format!("a signed request does not arrive as it was sent: {error}")).advise(
            "The proxy in front of the server has to pass the path on as it comes, with what is escaped in it. For nginx \
             that is a `proxy_pass` without anything after the port, for Apache `nocanon` and `AllowEncodedSlashes NoDecode`",
        ),
        Ok(()) => Step::badly("whoever answers there does not ask who signs").advise(
            "Another server, or a proxy that makes up answers, is reached by this name",
        ),
    }
}

/// What a notary has of this server's keys that was asked for fresh ones: good until `fresh_until` at least. `is_trusted`:
/// whether it has taken a signature of this server's.
pub(super) fn reverse(
    notary: &ServerName,
    answer: Result<Vec<PublishedKeys>, RemoteError>,
    own: &OwnKeys,
    (fresh_until, is_trusted): (i64, bool),
) -> Step {
    let see_itself = "`hearth admin federation-check` without a name shows what others find";
    let documents = match answer {
        Ok(documents) => documents,
        Err(error) => {
            let text = format!("whether {notary} reaches this server can't be told, as it does not say: {error}");
            return Step::oddly(text).advise(see_itself);
        }
    };
    let strange = own.find_strange(&documents);
    if !strange.is_empty() {
        let strange = strange.into_iter().collect::<Vec<_>>().join(", ");
        return Step::badly(format!(
            "{notary} takes {strange} for keys of this server, which are not in this database"
        ))
        .advise(
            "Somebody else answers in its name, or did so, such as this server with a database that is gone: restore \
                 that if you can. Else others take the new keys when they next ask for them",
        );
    }
    let Some(until) = documents.iter().map(|document| document.valid_until).max() else {
        let text = format!("{notary} has no keys of this server and can't get them, so it does not reach it");
        let step = if is_trusted { Step::oddly(text) } else { Step::badly(text) };
        return step.advise(see_itself);
    };
    if until >= fresh_until {
        return Step::well(format!("{notary} has just fetched this server's keys, so it reaches this server"));
    }
    let fetched = date::second(until.saturating_sub(millis(LIFETIME)));
    Step::oddly(format!("{notary} has this server's keys of {fetched}, and has not fetched them again when asked to"))
        .advise(format!("It may have lost sight of this server since, or not ask twice. {see_itself}"))
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;
    use crate::edge::federation_client::Went;

    const NOW: i64 = 1_700_000_000_000;

    fn keys(server: &ServerName, keys: &[(&str, &str)], valid_until: i64) -> PublishedKeys {
        let keys = keys.iter().map(|(id, key)| ((*id).to_owned(), (*key).to_owned())).collect();
        PublishedKeys { server_name: server.to_owned(), keys, valid_until }
    }

    fn own() -> OwnKeys {
        let all = [("ed25519:a", "aaaa"), ("ed25519:b", "bbbb")];
        let all = all.map(|(id, key)| (id.to_owned(), key.to_owned())).into();
        OwnKeys { all, current: "ed25519:b".to_owned() }
    }

    fn refused(status: u16, errcode: &str) -> RemoteError {
        RemoteError::Refused { status, errcode: Some(errcode.to_owned()), message: "no".to_owned() }
    }

    fn says(step: &Step, went: Went, words: &str) {
        let said = format!("{} {}", step.text, step.advice.as_deref().unwrap_or_default());
        assert!(step.went == went && said.contains(words), "{step:?}");
        assert!(went == Went::Well || step.advice.is_some(), "nothing to do about it: {step:?}");
    }

    #[test]
    fn keys_of_another_server_are_noticed() {
        let (here, there) = (server_name!("here"), server_name!("there"));
        let (step, read) = published(there, Ok(keys(there, &[("ed25519:x", "xxxx")], NOW + 1)), NOW);
        says(&step, Went::Well, "there signs with ed25519:x");
        assert!(read.is_some());
        let (step, read) = published(there, Ok(keys(here, &[("ed25519:a", "aaaa")], NOW + 1)), NOW);
        says(&step, Went::Badly, "what answers there is here");
        assert!(read.is_none());
        says(&published(there, Ok(keys(there, &[], NOW - 1)), NOW).0, Went::Badly, "clocks");
        says(&published(there, Err("it is no JSON".to_owned()), NOW).0, Went::Badly, "/_matrix/key/v2/server");
    }

    #[test]
    fn a_server_with_another_database_is_noticed() {
        let here = server_name!("here");
        let all = [("ed25519:a", "aaaa"), ("ed25519:b", "bbbb")];
        says(&own_keys_here(&keys(here, &all, NOW), &own()), Went::Well, "this database");
        for others in [&[("ed25519:a", "aaaa")][..], &[("ed25519:b", "xxxx")], &[("ed25519:x", "xxxx"), all[1]], &[]] {
            says(&own_keys_here(&keys(here, others, NOW), &own()), Went::Badly, "--config");
        }
    }

    #[test]
    fn a_refusal_says_whether_the_signature_was_good() {
        let there = server_name!("there");
        for (answer, went, words) in [
            (Ok(()), Went::Well, "takes"),
            (Err(refused(404, "M_NOT_FOUND")), Went::Well, "takes"),
            (Err(refused(404, "M_UNRECOGNIZED")), Went::Badly, "paths"),
            (Err(refused(401, "M_UNAUTHORIZED")), Went::Badly, "fetch this server's keys"),
            (Err(refused(403, "M_FORBIDDEN")), Went::Badly, "list of servers"),
            (Err(refused(429, "M_LIMIT_EXCEEDED")), Went::Oddly, "in a few minutes"),
            (Err(refused(502, "M_UNKNOWN")), Went::Badly, "log"),
            (Err(RemoteError::Unreachable("gone".to_owned())), Went::Badly, "gone"),
        ] {
            says(&signed_request(there, answer), went, words);
        }
    }

    #[test]
    fn a_proxy_that_changes_requests_is_noticed() {
        let itself = RemoteError::Refused {
            status: 401,
            errcode: Some("M_UNAUTHORIZED".to_owned()),
            message: CALLS_ITSELF.to_owned(),
        };
        says(&own_request(Err(itself)), Went::Well, "as it was sent");
        says(&own_request(Err(refused(401, "M_UNAUTHORIZED"))), Went::Badly, "`Authorization`");
        says(&own_request(Err(refused(404, "M_UNRECOGNIZED"))), Went::Badly, "proxy_pass");
        says(&own_request(Ok(())), Went::Badly, "Another server");
    }

    #[test]
    fn what_a_notary_has_says_whether_it_reaches_this_server() {
        let (here, notary) = (server_name!("here"), server_name!("notary"));
        let (key, fresh) = (("ed25519:b", "bbbb"), NOW + millis(LIFETIME));
        let judge =
            |documents: Vec<PublishedKeys>, is_trusted| reverse(notary, Ok(documents), &own(), (fresh, is_trusted));
        says(&judge(vec![keys(here, &[key], fresh)], true), Went::Well, "so it reaches this server");
        let old = vec![keys(here, &[key], NOW - 1_000)];
        says(&judge(old, true), Went::Oddly, "2023-11-13");
        says(&judge(Vec::new(), true), Went::Oddly, "no keys");
        says(&judge(Vec::new(), false), Went::Badly, "no keys");
        says(&judge(vec![keys(here, &[("ed25519:z", "zzzz")], fresh)], false), Went::Badly, "ed25519:z");
        let unknown = reverse(notary, Err(refused(404, "M_UNRECOGNIZED")), &own(), (fresh, true));
        says(&unknown, Went::Oddly, "can't be told");
    }
}
