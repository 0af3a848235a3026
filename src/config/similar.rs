//! What somebody may have meant who wrote a key that there is not. What is only a little like it is not said: it would
//! lead away from what was meant.

use std::collections::BTreeSet;

use strsim::normalized_damerau_levenshtein as alike;

use super::key::ConfigKey;

/// So much alike are a name and its misspelling, at least, where both stand in the same or nearly the same section.
const MISSPELT: f64 = 0.6;
/// Where the section is missing or another, the name alone has to say it.
const MISPLACED: f64 = 0.85;
/// Whole paths, however they are divided: their sections make them alike.
const DIVIDED: f64 = 0.9;

/// What other servers call some things, which here are called otherwise.
const ELSEWHERE: [(&str, &str); 7] = [
    ("port", "listen"),
    ("host", "listen"),
    ("address", "listen"),
    ("bind", "listen"),
    ("bind_address", "listen"),
    ("domain", "server_name"),
    ("hostname", "server_name"),
];

/// The keys that are most like `path`, and the sections, if they are alike at all. Several if they are equally alike;
/// none rather than a guess.
pub(super) fn similar(path: &str) -> Vec<&'static str> {
    if let Some((_, here)) = ELSEWHERE.iter().find(|(elsewhere, _)| *elsewhere == path) {
        return vec![here];
    }
    let keys = ConfigKey::all().map(|key| (likeness(path, key.path), key.path));
    let sections = sections().into_iter().map(|section| (part_by_part(path, section), section));
    let found: Vec<_> = keys.chain(sections).filter(|(likeness, _)| *likeness > 0.0).collect();
    let best = found.iter().map(|(likeness, _)| *likeness).fold(0.0, f64::max);
    found.into_iter().filter(|(likeness, _)| best - likeness < 0.001).map(|(_, path)| path).collect()
}

/// From 0, which is "not alike", to 1.
fn likeness(path: &str, known: &str) -> f64 {
    let whole = at_least(DIVIDED, alike(&path.replace('.', "_"), &known.replace('.', "_")));
    let placed = match (path.rsplit_once('.'), known.rsplit_once('.')) {
        // A little less than a misspelling in the right section would have.
        (None, Some((_, known_name))) => 0.8 * at_least(MISPLACED, alike(path, known_name)),
        (Some((_, name)), None) => 0.8 * at_least(MISPLACED, alike(name, known)),
        _ => part_by_part(path, known),
    };
    whole.max(placed)
}

/// How alike the names are that stand in sections that are alike too.
fn part_by_part(path: &str, known: &str) -> f64 {
    match (path.rsplit_once('.'), known.rsplit_once('.')) {
        (Some((section, name)), Some((known_section, known_name))) => {
            let section = at_least(MISSPELT, alike(section, known_section));
            let name = at_least(MISSPELT, alike(name, known_name));
            if section > 0.0 && name > 0.0 { f64::midpoint(section, name) } else { 0.0 }
        }
        (None, None) => at_least(MISSPELT, alike(path, known)),
        _ => 0.0,
    }
}

fn at_least(least: f64, likeness: f64) -> f64 {
    if likeness >= least { likeness } else { 0.0 }
}

/// Every section, those within others included.
fn sections() -> BTreeSet<&'static str> {
    ConfigKey::all().filter_map(|key| key.path.rsplit_once('.')).map(|(section, _)| section).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_alike_is_found() {
        for (path, meant) in [
            ("servername", &["server_name"][..]),
            ("databse.url", &["database.url"]),
            ("database_url", &["database.url"]),
            ("rate_limits.login_burst", &["rate_limits.login.burst"]),
            ("rate_limits.logins.burst", &["rate_limits.login.burst"]),
            ("registration.mod", &["registration.mode"]),
            ("max_connections", &["database.max_connections"]),
            ("database.servername", &["server_name"]),
            ("enabled", &["rate_limits.enabled", "presence.enabled", "federation.enabled", "url_previews.enabled"]),
            ("redsi", &["redis"]),
            ("port", &["listen"]),
            ("well_known.suport", &["well_known.support"]),
            ("log_level", &["log.level"]),
        ] {
            assert_eq!(similar(path), meant, "{path}");
        }
    }

    #[test]
    fn what_is_like_nothing_is_like_nothing() {
        for path in [
            "xyzzy",
            "foo",
            "foo.bar",
            "foo.enabled",
            "database.xyz",
            "rate_limits.login.colour",
            "rate_limits.x",
            "workers",
            "a.b.c",
            "",
        ] {
            assert_eq!(similar(path), [""; 0], "{path}");
        }
    }
}
