//! Where the configuration comes from: the defaults, then one file, then the environment, each
//! overriding the one before.
//!
//! Nothing is guessed: a key nobody knows is an error, in the file and in the environment alike, and
//! all problems are told at once.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize as _;
use toml::{Table, Value};

use super::{
    Config, ConfigError, Problem,
    key::{Key, Kind},
    problem::Origin,
};
use crate::cause;

const PREFIX: &str = "HEARTH_";
/// Names the file instead of a key.
const FILE_VARIABLE: &str = "HEARTH_CONFIG";

impl Config {
    /// Reads the file, if `path` or `HEARTH_CONFIG` names one, and the `HEARTH_…` variables.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, with the place to mend it.
    pub fn load(path: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let variables: BTreeMap<_, _> = environment.filter(|(name, _)| name.starts_with(PREFIX)).collect();
        let named_by_variable = || variables.get(FILE_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let file = path.map(Path::to_owned).or_else(named_by_variable);

        let mut settings = Settings::default();
        if let Some(file) = file {
            settings.read_file(&file);
        }
        for (name, text) in variables.iter().filter(|(name, _)| *name != FILE_VARIABLE) {
            settings.read_variable(name, text);
        }
        settings.into_config()
    }
}

/// The process's `HEARTH_…` variables.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(name, text)| (name.to_string_lossy().into_owned(), text.to_string_lossy().into_owned()))
        .filter(|(name, _)| name.starts_with(PREFIX))
}

/// What has been read so far, and what was wrong with it.
#[derive(Default)]
struct Settings {
    values: BTreeMap<&'static str, Value>,
    problems: Vec<Problem>,
}

impl Settings {
    fn read_file(&mut self, path: &Path) {
        let origin = Origin::File(path.to_owned());
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                return self
                    .problems
                    .push(Problem::at(&origin, format!("cannot be read: {}", cause::in_words(&error))));
            }
        };
        match text.parse::<Table>() {
            Ok(table) => self.read_section(&origin, "", &table),
            Err(error) => {
                // Not the whole error: it quotes the line, and that may hold a secret.
                let start = error.span().map_or(0, |span| span.start);
                let line = text.bytes().take(start).filter(|byte| *byte == b'\n').count() + 1;
                let message = format!("is not valid TOML: line {line}: {}", error.message());
                self.problems.push(Problem::at(&origin, message));
            }
        }
    }

    fn read_section(&mut self, origin: &Origin, section: &str, table: &Table) {
        for (name, value) in table {
            let path = if section.is_empty() { name.clone() } else { format!("{section}.{name}") };
            match (Key::find(&path), value) {
                (Some(key), value) => self.set(origin, key, value.clone()),
                (None, Value::Table(table)) if !table.is_empty() => {
                    self.read_section(origin, &path, table);
                }
                (None, value) => self.refuse_unknown(origin, &path, value),
            }
        }
    }

    fn refuse_unknown(&mut self, origin: &Origin, path: &str, value: &Value) {
        let members = Key::list_in_section(path);
        let message = if members.is_empty() {
            let nearest = Key::nearest(path);
            format!("unknown key `{path}`; the nearest known key is `{nearest}`")
        } else if value.is_table() {
            return;
        } else {
            format!("`{path}` is a section, not a key; its keys are `{}`", members.join("`, `"))
        };
        self.problems.push(Problem::at(origin, message));
    }

    fn read_variable(&mut self, name: &str, text: &str) {
        let origin = Origin::Variable(name.to_owned());
        let path = name.strip_prefix(PREFIX).unwrap_or(name).to_lowercase().replace("__", ".");
        if let Some(key) = Key::find(&path).filter(|key| Key::variable(key.path) == name) {
            if text.is_empty() {
                self.values.remove(key.path);
            } else {
                self.set(&origin, key, value_of_variable(key.kind, text));
            }
            return;
        }
        let message = match Key::list_in_section(&path).as_slice() {
            [] => {
                let nearest = Key::nearest(&path);
                format!("sets no known key; the nearest is {} (`{nearest}`)", Key::variable(nearest))
            }
            members => {
                let variables: Vec<_> = members.iter().map(|path| Key::variable(path)).collect();
                format!("names a section; its variables are {}", variables.join(", "))
            }
        };
        self.problems.push(Problem::at(&origin, message));
    }

    fn set(&mut self, origin: &Origin, key: &'static Key, value: Value) {
        match key.check(&value) {
            Ok(()) => {
                self.values.insert(key.path, value);
            }
            Err(message) => self.problems.push(Problem::at(origin, message)),
        }
    }

    fn into_config(mut self) -> Result<Config, ConfigError> {
        let config = self.overlay_defaults();
        if let Ok(config) = &config {
            self.problems.extend(config.contradictions());
        }
        match config {
            Ok(config) if self.problems.is_empty() => Ok(config),
            Ok(_) => Err(ConfigError { problems: self.problems }),
            Err(error) => {
                self.problems.push(Problem::anywhere(error.to_string()));
                Err(ConfigError { problems: self.problems })
            }
        }
    }

    fn overlay_defaults(&self) -> anyhow::Result<Config> {
        let mut table = Table::try_from(Config::default())?;
        for (path, value) in &self.values {
            insert(&mut table, path, value.clone());
        }
        Ok(Config::deserialize(table)?)
    }
}

fn insert(table: &mut Table, path: &str, value: Value) {
    let Some((section, rest)) = path.split_once('.') else {
        table.insert(path.to_owned(), value);
        return;
    };
    let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(section) = section {
        insert(section, rest, value);
    }
}

/// Reads a variable's text as the type that its key has. What cannot be read stays a text, and the
/// key's own check says what was expected.
fn value_of_variable(kind: Kind, text: &str) -> Value {
    let text_value = || Value::String(text.to_owned());
    match kind {
        Kind::Text | Kind::Secret => text_value(),
        Kind::Boolean | Kind::Integer | Kind::Number => parse_toml_value(text.trim()).unwrap_or_else(text_value),
        Kind::List if text.trim_start().starts_with('[') => parse_toml_value(text).unwrap_or_else(text_value),
        Kind::List => {
            let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
            Value::Array(entries.map(|entry| Value::String(entry.to_owned())).collect())
        }
    }
}

fn parse_toml_value(text: &str) -> Option<Value> {
    let mut table = format!("value = {text}").parse::<Table>().ok()?;
    table.remove("value")
}
