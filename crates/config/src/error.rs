use std::io;
use std::path::PathBuf;

/// Why a configuration was refused. Names the variable or the key; never holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {}: {cause}", path.display())]
    ReadFile { path: PathBuf, cause: io::Error },
    #[error("{} line {line}: {reason}", path.display())]
    Syntax {
        path: PathBuf,
        line: usize,
        reason: String,
    },
    #[error("{}: there is no setting {key}", path.display())]
    UnknownKey { path: PathBuf, key: String },
    /// `name` is the variable, or the key and its file.
    #[error("{name}: {reason}")]
    Invalid { name: String, reason: String },
    /// Two settings that are fine alone and wrong together.
    #[error("{0}")]
    Contradiction(String),
    #[error("{variable}: cannot read {}: {cause}", path.display())]
    ReadSecret {
        variable: String,
        path: PathBuf,
        cause: io::Error,
    },
    #[error("{variable} and {variable}_FILE are both set; set one of them")]
    BothSet { variable: String },
}
