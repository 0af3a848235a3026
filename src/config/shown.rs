//! The configuration in effect, as `hearth check-config` shows it: a file that could be used, with the place behind each
//! value that it comes from.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::{Config, key::ConfigKey, problem::ValueSource};

/// Where the values come from that are not the defaults, by the paths of their keys.
#[derive(Clone, Debug, Default)]
pub struct ValueSources(BTreeMap<&'static str, ValueSource>);

impl ValueSources {
    /// A key that is missing has its default.
    pub(super) fn new(origins: BTreeMap<&'static str, ValueSource>) -> Self {
        Self(origins)
    }
}

impl Config {
    /// The effective configuration as a file, its secrets masked, with each value's origin in a comment.
    pub fn to_explained_toml(&self, origins: &ValueSources) -> Result<String, toml::ser::Error> {
        let table = Table::try_from(self.with_database_url())?;
        let mut lines = Vec::new();
        let mut current = "";
        // In the order of the list, so that the keys of one section stand together.
        for key in ConfigKey::all() {
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

/// None of what is not set and has no default.
fn find<'a>(table: &'a Table, path: &str) -> Option<&'a Value> {
    match path.split_once('.') {
        Some((section, rest)) => find(table.get(section)?.as_table()?, rest),
        None => table.get(path),
    }
}
