//! Defaults ← file ← environment.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::settings::{Setting, settings};
use crate::{Config, ConfigError, DEFAULTS, Source};

/// Looks a variable up in the environment of this process. What is not UTF-8 comes with replacement characters, so
/// that it is refused by name and not overlooked.
#[must_use]
pub fn process_environment(variable: &str) -> Option<String> {
    std::env::var_os(variable).map(|value| value.to_string_lossy().into_owned())
}

impl Config {
    /// Reads the configuration: the defaults, over them `file` (else the file `WASEL_CONFIG` names), over them the
    /// environment, which `env` looks up ([`process_environment`] outside tests).
    ///
    /// # Errors
    /// A file that cannot be read, an unknown key, a value out of place: named, and never with a secret's value.
    pub fn load(
        file: Option<&Path>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let env = |variable: &str| env(variable).filter(|value| !value.is_empty());
        let mut layers = Layers {
            table: default_table(),
            sources: BTreeMap::new(),
        };
        if let Some(path) = file
            .map(Path::to_owned)
            .or_else(|| env("WASEL_CONFIG").map(PathBuf::from))
        {
            layers.add_file(&path)?;
        }
        layers.add_environment(&env)?;

        let mut config = parse(layers.table).map_err(ConfigError::Contradiction)?;
        config.sources = layers.sources;
        Ok(config)
    }

    /// Rules about one setting each.
    fn check(&self) -> Result<(), String> {
        self.server.check()?;
        self.database.check()?;
        self.secrets.check()?;
        self.providers.check()?;
        self.storage.check()?;
        self.logging.check()?;
        self.reserved.check()
    }
}

pub(crate) fn default_table() -> Table {
    DEFAULTS
        .parse()
        .expect("config.default.toml is valid: a test reads it")
}

/// Reads a whole table. The error is the bare reason.
pub(crate) fn parse(table: Table) -> Result<Config, String> {
    let config: Config = table
        .try_into()
        .map_err(|error: toml::de::Error| error.message().to_owned())?;
    config.check()?;
    Ok(config)
}

/// The values so far and where those that are not defaults came from.
struct Layers {
    table: Table,
    sources: BTreeMap<String, Source>,
}

impl Layers {
    fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = fs::read_to_string(path).map_err(|cause| ConfigError::ReadFile {
            path: path.to_owned(),
            cause,
        })?;
        // The parser's own rendering quotes the line, which may hold a secret; its message does not.
        let file: Table = text
            .parse()
            .map_err(|error: toml::de::Error| ConfigError::Syntax {
                path: path.to_owned(),
                line: error.span().map_or(1, |span| line_of(&text, span.start)),
                reason: error.message().to_owned(),
            })?;
        let unknown = |key: String| ConfigError::UnknownKey {
            path: path.to_owned(),
            key,
        };

        let settings = settings();
        for (section, values) in file {
            if !self.table.contains_key(&section) {
                return Err(unknown(section));
            }
            let Value::Table(values) = values else {
                return Err(ConfigError::Invalid {
                    name: format!("{section} in {}", path.display()),
                    reason: format!("is a section: write [{section}] and its settings below"),
                });
            };
            for (name, value) in values {
                let key = format!("{section}.{name}");
                let setting = settings
                    .iter()
                    .find(|setting| setting.key == key)
                    .ok_or_else(|| unknown(key.clone()))?;
                self.set(setting, value, Source::File(path.to_owned()))
                    .map_err(|reason| ConfigError::Invalid {
                        name: format!("{key} in {}", path.display()),
                        reason,
                    })?;
            }
        }
        Ok(())
    }

    fn add_environment(&mut self, env: &dyn Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        for setting in settings() {
            for variable in setting.variables() {
                let Some((name, text)) = lookup(&setting, variable, env)? else {
                    continue;
                };
                let (section, key) = setting.path();
                from_text(&text, &self.table[section][key])
                    .and_then(|value| self.set(&setting, value, Source::Environment(name.clone())))
                    .map_err(|reason| ConfigError::Invalid { name, reason })?;
                break;
            }
        }
        Ok(())
    }

    /// Puts one value in place, tried alone over the defaults first so that a mistake is known by its name.
    fn set(&mut self, setting: &Setting, value: Value, source: Source) -> Result<(), String> {
        // First of all: the reader's own message about a wrong kind would quote the value, which may be a secret.
        let (section, name) = setting.path();
        check_kind(&value, &self.table[section][name])?;
        let mut trial = default_table();
        put(&mut trial, setting, value.clone());
        parse(trial)?;

        put(&mut self.table, setting, value);
        self.sources.insert(setting.key.clone(), source);
        Ok(())
    }
}

fn put(table: &mut Table, setting: &Setting, value: Value) {
    let (section, name) = setting.path();
    if let Some(section) = table.get_mut(section).and_then(Value::as_table_mut) {
        section.insert(name.to_owned(), value);
    }
}

/// Whether a value is of the kind its setting has.
fn check_kind(value: &Value, kind: &Value) -> Result<(), String> {
    let (fits, wanted) = match kind {
        Value::Integer(_) => (value.is_integer(), "a whole number, without quotes"),
        Value::Array(_) => (
            value
                .as_array()
                .is_some_and(|items| items.iter().all(Value::is_str)),
            "a list of texts, each in quotes",
        ),
        _ => (value.is_str(), "text in quotes"),
    };
    if fits {
        Ok(())
    } else {
        Err(format!("must be {wanted}"))
    }
}

/// The line a byte of the text is in, from 1.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    1 + text
        .bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
}

/// The value of a variable or of the file its `_FILE` twin names, with the name that gave it.
fn lookup(
    setting: &Setting,
    variable: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<(String, String)>, ConfigError> {
    let direct = env(variable);
    if !setting.secret {
        let text = direct
            .map(|text| text.trim().to_owned())
            .filter(|text| !text.is_empty());
        return Ok(text.map(|text| (variable.to_owned(), text)));
    }
    let twin = format!("{variable}_FILE");
    match (direct, env(&twin)) {
        (Some(_), Some(_)) => Err(ConfigError::BothSet {
            variable: variable.to_owned(),
        }),
        (Some(text), None) => Ok(Some((variable.to_owned(), text))),
        (None, Some(path)) => read_secret(&twin, Path::new(&path)).map(|text| Some((twin, text))),
        (None, None) => Ok(None),
    }
}

/// A file's text without the line break editors and `echo` put at its end.
fn read_secret(variable: &str, path: &Path) -> Result<String, ConfigError> {
    let text = fs::read_to_string(path).map_err(|cause| ConfigError::ReadSecret {
        variable: variable.to_owned(),
        path: path.to_owned(),
        cause,
    })?;
    let text = text.strip_suffix('\n').map_or(text.as_str(), |line| {
        line.strip_suffix('\r').unwrap_or(line)
    });
    if text.is_empty() {
        return Err(ConfigError::Invalid {
            name: variable.to_owned(),
            reason: format!("{} is empty", path.display()),
        });
    }
    Ok(text.to_owned())
}

/// Reads a variable's text as the kind of value the setting has.
fn from_text(text: &str, kind: &Value) -> Result<Value, String> {
    match kind {
        Value::Integer(_) => text
            .parse()
            .map(Value::Integer)
            .map_err(|_| "must be a whole number".to_owned()),
        Value::Array(_) => Ok(text
            .split(|c: char| c == ',' || c.is_whitespace())
            .filter(|item| !item.is_empty())
            .map(Value::from)
            .collect::<Vec<_>>()
            .into()),
        _ => Ok(Value::from(text)),
    }
}

#[cfg(test)]
mod tests;
