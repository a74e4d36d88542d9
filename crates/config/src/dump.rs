//! The effective configuration as text.

use std::fmt::Write;

use toml::{Table, Value};

use crate::{Config, settings};

impl Config {
    /// The effective configuration as TOML in the order of `config.default.toml`. Secrets are `***`; a comment behind
    /// each value that is not a default says where it came from.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let table = Table::try_from(self).expect("every section is plain text, numbers and lists");
        let mut text = String::new();
        let mut last_section = String::new();
        for setting in settings() {
            let (section, name) = setting.path();
            let Some(value) = table.get(section).and_then(|section| section.get(name)) else {
                continue;
            };
            if section != last_section {
                let gap = if last_section.is_empty() { "" } else { "\n" };
                text += &format!("{gap}[{section}]\n");
                section.clone_into(&mut last_section);
            }
            text += &line(name, value, self.sources.get(&setting.key));
        }
        text
    }
}

fn line(name: &str, value: &Value, source: Option<&crate::Source>) -> String {
    let mut line = format!("{name} = {value}");
    if let Some(source) = source {
        // A path may hold a line break, which would end the comment.
        let source = source.to_string().replace(char::is_control, "?");
        let _ = write!(line, "  # from {source}");
    }
    line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DEFAULTS;

    #[test]
    fn the_printed_defaults_are_the_lines_of_the_default_file() {
        let written: Vec<&str> = DEFAULTS
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .collect();
        let printed = Config::default().to_toml();
        assert_eq!(
            printed
                .lines()
                .filter(|line| !line.is_empty())
                .collect::<Vec<_>>(),
            written
        );
    }

    #[test]
    fn a_printed_configuration_hides_secrets_and_says_where_values_come_from() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a\nb.toml");
        std::fs::write(&file, "[limits]\nbody = \"64KiB\"\n").unwrap();
        let config = Config::load(Some(&file), &|variable| match variable {
            "PORT" => Some("8080".to_owned()),
            "JWT_SECRET" => Some("hunter2".to_owned()),
            "PREVIOUS_ENCRYPTION_KEYS" => Some("ab".repeat(32)),
            _ => None,
        })
        .unwrap();
        let printed = config.to_toml();
        for line in [
            "port = 8080  # from PORT",
            "jwt_secret = \"***\"  # from JWT_SECRET",
            "previous_encryption_keys = [\"***\"]  # from PREVIOUS_ENCRYPTION_KEYS",
            "listen = \"0.0.0.0\"",
        ] {
            assert!(
                printed.lines().any(|printed| printed == line),
                "{line} in\n{printed}"
            );
        }
        assert!(printed.contains("body = \"64KiB\"  # from") && printed.contains("a?b.toml"));
        assert!(!format!("{printed}{config:?}").contains("hunter2"));
        assert!(printed.parse::<Table>().is_ok());
    }
}
