use std::fmt;
use std::path::PathBuf;

/// Where a value that is not a default came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The configuration file.
    File(PathBuf),
    /// An environment variable, by name; with `_FILE` at its end where the value was read from a file.
    Environment(String),
    /// Made by this server and kept in this file.
    Generated(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(variable) => f.write_str(variable),
            Self::Generated(path) => write!(f, "{} (made by this server)", path.display()),
        }
    }
}
