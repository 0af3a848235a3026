//! Where the configuration comes from: the defaults, then one file, then the environment, each
//! overriding the one before.
//!
//! Nothing is guessed: a key nobody knows is an error, in the file and in the environment alike, and all problems are
//! reported at once.
//!
//! Values are collected by key first, each checked by itself, and only then laid over the defaults and read as a
//! [`Config`]: so every problem has the file and line, or the variable, that it comes from.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize as _;
use toml::{Table, Value, de::DeTable};

use super::{
    Config, ConfigError, FederationConfig, Problem, ValueSources,
    injected::is_injected,
    key::{ConfigKey, ValueKind},
    problem::ValueSource,
    similar::similar,
};
use crate::ground::cause;

/// Of all variables that are looked at. Others are none of this program's business.
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
        Self::load_with_origins(path, environment).map(|(config, _)| config)
    }

    /// As [`Config::load`] does, and returns where each value comes from.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, with the place to mend it.
    pub fn load_with_origins(
        path: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<(Self, ValueSources), ConfigError> {
        let variables: BTreeMap<_, _> = environment.filter(|(name, _)| name.starts_with(PREFIX)).collect();
        let named_by_variable = || variables.get(FILE_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let file = path.map(Path::to_owned).or_else(named_by_variable);

        let mut settings = LoadedValues::default();
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
struct LoadedValues {
    /// What was accepted, by the paths of keys. A later source replaces what an earlier one has said.
    values: BTreeMap<&'static str, Value>,
    /// Of the values, and of the defaults that an empty variable has brought back.
    origins: BTreeMap<&'static str, ValueSource>,
    problems: Vec<Problem>,
}

/// A file that is being read.
struct File<'a> {
    path: &'a Path,
    /// The line of each key and section, counted from 1.
    lines: BTreeMap<String, usize>,
}

impl File<'_> {
    fn origin(&self, path: &str) -> ValueSource {
        ValueSource::File(self.path.to_owned(), self.lines.get(path).copied())
    }
}

impl LoadedValues {
    /// A file that can't be read is a problem like others, and the variables are still looked at.
    fn read_file(&mut self, path: &Path) {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                let origin = ValueSource::File(path.to_owned(), None);
                let problem = format!("cannot be read: {}", cause::in_words(&error));
                return self.problems.push(Problem::at(&origin, problem));
            }
        };
        match text.parse::<Table>() {
            Ok(table) => self.read_section(&File { path, lines: lines_of(&text) }, "", &table),
            Err(error) => {
                // Not the whole error: it quotes the line, and that may hold a secret.
                let line = line_at(&text, error.span().map_or(0, |span| span.start));
                let message = format!("is not valid TOML: {}", error.message());
                self.problems.push(Problem::at(&ValueSource::File(path.to_owned(), Some(line)), message));
            }
        }
    }

    /// Sections are walked by hand rather than deserialised, because the first unknown key would end that and hide what
    /// else is wrong.
    fn read_section(&mut self, file: &File<'_>, section: &str, table: &Table) {
        for (name, value) in table {
            let path = if section.is_empty() { name.clone() } else { format!("{section}.{name}") };
            match (ConfigKey::find(&path), value) {
                (Some(key), value) => self.set(&file.origin(&path), key, value.clone()),
                (None, Value::Table(table)) if !table.is_empty() => {
                    self.read_section(file, &path, table);
                }
                (None, value) => self.refuse_unknown(&file.origin(&path), &path, value),
            }
        }
    }

    /// An empty table of a known section is no problem: a heading alone says nothing.
    fn refuse_unknown(&mut self, origin: &ValueSource, path: &str, value: &Value) {
        let members = ConfigKey::list_in_section(path);
        let message = match find_stray(path) {
            _ if !members.is_empty() && value.is_table() => return,
            _ if !members.is_empty() => {
                format!("`{path}` is a section, not a key; its keys are `{}`", members.join("`, `"))
            }
            Some(key) => {
                format!(
                    "unknown key `{path}`: `{key}` is in no section; put it above the first line in square brackets"
                )
            }
            None => {
                let likely: Vec<_> = similar(path).into_iter().map(|path| format!("`{path}`")).collect();
                format!("unknown key `{path}`{}", did_you_mean(&likely))
            }
        };
        self.problems.push(Problem::at(origin, message));
    }

    /// A variable that is set to nothing brings the default back: in a container's definition it is easier to empty a
    /// variable than to remove one.
    fn read_variable(&mut self, name: &str, text: &str) {
        let origin = ValueSource::Variable(name.to_owned());
        let path = name.strip_prefix(PREFIX).unwrap_or(name).to_lowercase().replace("__", ".");
        if let Some(key) = ConfigKey::find(&path).filter(|key| ConfigKey::variable(key.path) == name) {
            if text.is_empty() {
                self.values.remove(key.path);
                self.origins.insert(key.path, origin);
            } else {
                self.set(&origin, key, value_of_variable(key.kind, text));
            }
            return;
        }
        if is_injected(name, text) {
            return;
        }
        let message = match ConfigKey::list_in_section(&path).as_slice() {
            [] => {
                let of_key = |path: &str| {
                    ConfigKey::find(path).map(|key| format!("{} (`{path}`)", ConfigKey::variable(key.path)))
                };
                let likely: Vec<_> = similar(&path).into_iter().filter_map(of_key).collect();
                format!("sets no known key{}", did_you_mean(&likely))
            }
            members => {
                let variables: Vec<_> = members.iter().map(|path| ConfigKey::variable(path)).collect();
                format!("names a section; its variables are {}", variables.join(", "))
            }
        };
        self.problems.push(Problem::at(&origin, message));
    }

    /// A value that is refused leaves what was there before.
    fn set(&mut self, origin: &ValueSource, key: &'static ConfigKey, value: Value) {
        match key.check(&value) {
            Ok(()) => {
                self.values.insert(key.path, value);
                self.origins.insert(key.path, origin.clone());
            }
            Err(message) => self.problems.push(Problem::at(origin, message)),
        }
    }

    /// Contradictions are looked for even where values were refused, so that those are reported together. What was
    /// refused has its default meanwhile.
    fn into_config(mut self) -> Result<(Config, ValueSources), ConfigError> {
        let config = self.overlay_defaults();
        if let Ok(config) = &config {
            self.problems.extend(config.contradictions());
        }
        match config {
            Ok(config) if self.problems.is_empty() => Ok((config, ValueSources::new(self.origins))),
            Ok(_) => Err(ConfigError { problems: self.problems }),
            Err(error) => {
                self.problems.push(Problem::anywhere(error.to_string()));
                Err(ConfigError { problems: self.problems })
            }
        }
    }

    /// Fails only if a key's check lets something pass that its type does not.
    fn overlay_defaults(&self) -> anyhow::Result<Config> {
        let mut table = Table::try_from(Config::default())?;
        for (path, value) in &self.values {
            insert(&mut table, path, value.clone());
        }
        let mut config = Config::deserialize(table)?;
        // The one default that follows from another value.
        if !self.values.contains_key("federation.enabled") {
            config.federation.enabled = FederationConfig::is_on_by_default(&config.server_name);
        }
        Ok(config)
    }
}

/// A key that stands above all sections, where somebody has written it into one.
fn find_stray(path: &str) -> Option<&'static str> {
    let (_, name) = path.rsplit_once('.')?;
    ConfigKey::find(name).map(|key| key.path)
}

/// The end of a sentence about something that is not known.
fn did_you_mean(likely: &[String]) -> String {
    match likely {
        [] => "; every key is described in config.example.toml".to_owned(),
        [one] => format!("; did you mean {one}?"),
        [some @ .., last] => format!("; did you mean {} or {last}?", some.join(", ")),
    }
}

/// The line of the byte at `place`, counted from 1.
fn line_at(text: &str, place: usize) -> usize {
    text.bytes().take(place).filter(|byte| *byte == b'\n').count() + 1
}

/// Where each key and section stands in a file that could be read.
fn lines_of(text: &str) -> BTreeMap<String, usize> {
    fn walk(text: &str, section: &str, table: &DeTable<'_>, lines: &mut BTreeMap<String, usize>) {
        for (name, value) in table {
            let inner = name.get_ref();
            let path = if section.is_empty() { inner.to_string() } else { format!("{section}.{inner}") };
            if let Some(table) = value.get_ref().as_table() {
                walk(text, &path, table, lines);
            }
            lines.insert(path, line_at(text, name.span().start));
        }
    }
    let mut lines = BTreeMap::new();
    if let Ok(table) = DeTable::parse(text) {
        walk(text, "", table.get_ref(), &mut lines);
    }
    lines
}

/// Sections that are missing are made: those without a default are not in the table.
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
fn value_of_variable(kind: ValueKind, text: &str) -> Value {
    let text_value = || Value::String(text.to_owned());
    match kind {
        ValueKind::Text | ValueKind::Secret => text_value(),
        ValueKind::Boolean => read_boolean(text.trim()).map_or_else(text_value, Value::Boolean),
        ValueKind::Integer | ValueKind::Number => parse_toml_value(text.trim()).unwrap_or_else(text_value),
        ValueKind::List | ValueKind::SecretList if text.trim_start().starts_with('[') => {
            parse_toml_value(text).unwrap_or_else(text_value)
        }
        ValueKind::List | ValueKind::SecretList => {
            let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
            Value::Array(entries.map(|entry| Value::String(entry.to_owned())).collect())
        }
    }
}

/// However it is written where all values are texts: YAML and shells have their own words for it.
fn read_boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// None where it is no value of TOML, or more than one.
fn parse_toml_value(text: &str) -> Option<Value> {
    let mut table = format!("value = {text}").parse::<Table>().ok()?;
    table.remove("value")
}
