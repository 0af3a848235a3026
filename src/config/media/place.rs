//! Where stores are. What is in a store and no row of the database names there is deleted by a sweep, so no two stores may
//! have the same place, nor one within the other, and none may hold what else is the server's.

use std::path::{Path, PathBuf, absolute};

use super::MediaStoreConfig;
use crate::config::{HttpUrl, Problem};

/// Where one store is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place<'a> {
    Folder(PathBuf),
    /// What comes before the slashes of names there is a part of the place.
    Bucket {
        endpoint: Option<&'a str>,
        bucket: &'a str,
        prefix: Vec<&'a str>,
    },
}

impl<'a> Place<'a> {
    /// None for what is neither, which its own key's check has refused.
    pub(super) fn of(store: &'a MediaStoreConfig) -> Option<Self> {
        if let Some(path) = &store.path {
            return Some(Self::Folder(whole(path)));
        }
        let prefix = store.prefix.as_deref().unwrap_or_default();
        Some(Self::Bucket {
            endpoint: store.endpoint.as_ref().map(HttpUrl::as_str),
            bucket: store.bucket.as_deref()?,
            prefix: prefix.split('/').filter(|part| !part.is_empty()).collect(),
        })
    }

    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Folder(one), Self::Folder(other)) => one.starts_with(other) || other.starts_with(one),
            (
                Self::Bucket { endpoint, bucket, prefix },
                Self::Bucket { endpoint: other_endpoint, bucket: other_bucket, prefix: other },
            ) => {
                let is_same = endpoint == other_endpoint && bucket == other_bucket;
                is_same && (prefix.starts_with(other) || other.starts_with(prefix))
            }
            _ => false,
        }
    }
}

/// Stores that can't be where they are to be.
pub(super) fn misplaced(stores: &[MediaStoreConfig], data_dir: &Path) -> Vec<Problem> {
    let data_dir = whole(data_dir);
    let placed: Vec<_> = stores.iter().filter_map(|store| Some((&store.name, Place::of(store)?))).collect();
    let mut problems = Vec::new();
    for (count, (name, place)) in placed.iter().enumerate() {
        let later = placed.iter().skip(count + 1).filter(|(_, other)| place.overlaps(other));
        for (other, _) in later {
            problems.push(Problem::anywhere(format!(
                "the stores `{name}` and `{other}` of `media.stores` are in the same place, or one is within the other: each \
                 would take what the other has for leftovers"
            )));
        }
        if let Place::Folder(path) = place
            && data_dir.starts_with(path)
        {
            problems.push(Problem::anywhere(format!(
                "the folder of the store `{name}` of `media.stores` holds `data_dir` with the server's own files: give it a \
                 folder to itself, such as `{}`",
                data_dir.join("media").display()
            )));
        }
    }
    problems
}

/// From the root on. Links are not followed: folders need not be there yet.
fn whole(path: &Path) -> PathBuf {
    absolute(path).unwrap_or_else(|_| path.to_owned())
}
