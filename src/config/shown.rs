//! The configuration in effect, as `hearth check-config` shows it: a file that could be used, with the place behind each
//! value that it comes from.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::{Config, key::KEYS, problem::Origin};

/// Where the values come from that are not the defaults, by the paths of their keys.
#[derive(Clone, Debug, Default)]
pub struct Origins(BTreeMap<&'static str, Origin>);

impl Origins {
    pub(super) fn new(origins: BTreeMap<&'static str, Origin>) -> Self {
        Self(origins)
    }
}

impl Config {
    /// The effective configuration as a file, its secrets masked, with each value's origin in a comment.
    pub fn to_explained_toml(&self, origins: &Origins) -> Result<String, toml::ser::Error> {
        let table = Table::try_from(self.with_database_url())?;
        let mut lines = Vec::new();
        let mut current = "";
        for key in KEYS {
            let Some(value) = find(&table, key.path) else { continue };
            let (section, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
            let origin = origins.0.get(key.path).map_or_else(|| "default".to_owned(), ToString::to_string);
            let heading = if section == current { String::new() } else { format!("\n[{section}]\n") };
            current = section;
            lines.push(format!("{heading}{name} = {value}  # {origin}\n"));
        }
        Ok(lines.concat())
    }
}

fn find<'a>(table: &'a Table, path: &str) -> Option<&'a Value> {
    match path.split_once('.') {
        Some((section, rest)) => find(table.get(section)?.as_table()?, rest),
        None => table.get(path),
    }
}
