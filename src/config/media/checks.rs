//! What the keys of `[media]` make together: what could not work, and what is probably not meant.

use std::path::Path;

use super::{MediaConfig, MediaRedirect, MediaStoreConfig, place};
use crate::config::Problem;

/// What the store is called that there is without any in the configuration.
const DEFAULT_STORE: &str = "files";

impl MediaConfig {
    /// The store that new media go to. None where that is the folder in `data_dir`.
    fn current(&self) -> Option<&MediaStoreConfig> {
        match &self.store {
            Some(name) => self.stores.iter().find(|store| store.name == *name),
            None => self.stores.first(),
        }
    }

    /// What each key allows but their combination does not.
    pub(in crate::config) fn contradictions(&self, data_dir: &Path) -> Vec<Problem> {
        let mut problems = Vec::new();
        let is_there = |name: &String| match &*self.stores {
            [] => name == DEFAULT_STORE,
            stores => stores.iter().any(|store| store.name == *name),
        };
        if let Some(name) = self.store.as_ref().filter(|name| !is_there(name)) {
            problems.push(Problem::anywhere(format!(
                "`media.store` is `{name}`, which is the name of none of `media.stores`"
            )));
        }
        if self.redirect == MediaRedirect::Cdn && self.cdn_url.is_none() {
            problems.push(Problem::anywhere("`media.redirect` is `cdn`, which needs `media.cdn_url`"));
        }
        if self.redirect != MediaRedirect::Off && !self.master_keys.is_empty() {
            problems.push(Problem::anywhere(
                "with `media.master_keys` the bytes of media are encrypted where they are stored, so clients can't get them \
                 there: `media.redirect` has to be `off`",
            ));
        }
        if !self.scanner.command.is_empty() && self.scanner.clamd.is_some() {
            problems.push(Problem::anywhere(
                "`media.scanner.command` and `media.scanner.clamd` are both set: choose the one that is to look at media",
            ));
        }
        problems.extend(place::misplaced(&self.stores, data_dir));
        problems
    }

    /// What is allowed but probably not meant. `in_cluster`: whether this is to be one of several
    /// nodes.
    pub(in crate::config) fn warnings(&self, in_cluster: bool) -> Vec<&'static str> {
        let mut warnings = Vec::new();
        let buckets: Vec<_> = self.stores.iter().filter(|store| store.bucket.is_some()).collect();
        if in_cluster && self.current().is_none_or(|store| store.bucket.is_none()) {
            warnings.push(
                "`redis.url` is set, as for several nodes, but new media go to a folder: unless all nodes have the same \
                 folder there, users don't see what was uploaded through another node (`media.stores`)",
            );
        }
        if self.redirect == MediaRedirect::Signed && buckets.is_empty() {
            warnings.push(
                "`media.redirect` is `signed`, but none of `media.stores` is a bucket: this server serves all media itself",
            );
        }
        let is_plain = |store: &&MediaStoreConfig| {
            store.endpoint.as_ref().is_some_and(|endpoint| endpoint.as_str().starts_with("http://"))
        };
        if self.redirect == MediaRedirect::Signed && buckets.iter().any(is_plain) {
            warnings.push(
                "`media.redirect` is `signed`, and the `endpoint` of a store begins with `http://`: clients are sent there, \
                 and those in a browser don't follow from a page that came by https",
            );
        }
        if self.redirect != MediaRedirect::Cdn && self.cdn_url.is_some() {
            warnings.push("`media.cdn_url` is set, but `media.redirect` is not `cdn`, so nothing uses it");
        }
        let quotas = [self.user_megabytes_per_day, self.user_megabytes];
        if quotas.into_iter().flatten().any(|quota| quota < self.max_upload_megabytes) {
            warnings.push(
                "`media.max_upload_megabytes` is more than a user may upload (`media.user_megabytes_per_day`, \
                 `media.user_megabytes`): clients are promised what they are refused then",
            );
        }
        warnings
    }
}
