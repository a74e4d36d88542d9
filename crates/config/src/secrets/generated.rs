//! Secrets made at the first start, so that a server without any configuration is still safe.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rand::TryRngCore;
use toml::Value;

use super::is_encryption_key;
use crate::load::line_of;
use crate::{Config, Secret, Source};

/// The file in the data directory.
pub const FILE_NAME: &str = "secrets.toml";
/// Signs access tokens: 32 random bytes as 64 hex digits.
pub const JWT_SECRET: &str = "JWT_SECRET";
/// Seals secrets in the database: 32 random bytes as 64 hex digits.
pub const ENCRYPTION_KEY: &str = "ENCRYPTION_KEY";

const HEADER: &str = "\
# Made by Wasel, because the configuration does not name these secrets. Keep this file private and back it up:
# without ENCRYPTION_KEY the provider tokens in the database cannot be read any more.
";

/// The secrets this server made for itself, by the name of their variable.
#[derive(Debug)]
pub struct Generated {
    path: PathBuf,
    values: BTreeMap<String, Secret>,
    /// The names that were made just now, for the server to say so.
    pub new: Vec<String>,
    /// Whether the file could be read by others until now. Its secrets may be known to them.
    pub tightened: bool,
}

/// Why the secrets could not be read or made. Never holds one.
#[derive(Debug, thiserror::Error)]
pub enum GeneratedError {
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        cause: io::Error,
    },
    #[error("{} can be read by others (mode {mode:o}); giving it mode 600 failed: {cause}", path.display())]
    OpenToOthers {
        path: PathBuf,
        mode: u32,
        cause: io::Error,
    },
    /// Never overwritten: the secrets in it may be needed to read the database.
    #[error("{} line {line} is damaged: restore it from a backup", path.display())]
    Damaged { path: PathBuf, line: usize },
    #[error("{name} in {} is not valid: restore the file from a backup", path.display())]
    Invalid { path: PathBuf, name: String },
    #[error(
        "the database holds secrets sealed with an earlier key: set ENCRYPTION_KEY (or ENCRYPTION_KEY_FILE) \
         to that key, or put it back into {}",
        path.display()
    )]
    EncryptionKeyNeeded { path: PathBuf },
    #[error("the system gave no random bytes: {0}")]
    NoRandomness(String),
}

impl Generated {
    /// Reads `secrets.toml` in `data_dir` and makes those of `names` it does not have. Safe to call from several
    /// processes at once: all get the same secrets.
    ///
    /// `allow_new_encryption_key` must be false where the database has sealed rows: a new key could not open them.
    ///
    /// # Errors
    /// A file that cannot be read, written or kept private; a damaged one; a needed key that may not be made.
    pub fn load_or_create(
        data_dir: &Path,
        names: &[&str],
        allow_new_encryption_key: bool,
    ) -> Result<Self, GeneratedError> {
        Self::with(data_dir, names, |name| {
            if name == ENCRYPTION_KEY && !allow_new_encryption_key {
                return Err(GeneratedError::EncryptionKeyNeeded {
                    path: data_dir.join(FILE_NAME),
                });
            }
            random_hex()
        })
    }

    /// Like [`Self::load_or_create`] for one more secret that the caller makes, such as an API key signed with
    /// [`JWT_SECRET`]. An empty text from `make` is refused as invalid.
    ///
    /// # Errors
    /// As above.
    pub fn keep(
        data_dir: &Path,
        name: &str,
        make: impl Fn() -> String,
    ) -> Result<Self, GeneratedError> {
        Self::with(data_dir, &[name], |_| Ok(make()))
    }

    /// The secret of this name, if the file has it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Secret> {
        self.values.get(name)
    }

    /// Where the secrets are kept.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn with(
        data_dir: &Path,
        names: &[&str],
        make: impl Fn(&str) -> Result<String, GeneratedError>,
    ) -> Result<Self, GeneratedError> {
        // Without the lock first: the file is replaced whole, and the directory may be read-only.
        let found = Self::read(data_dir)?;
        if found.missing(names).is_empty() {
            return Ok(found);
        }

        // The private Postgres runs here under its own user, so the directory itself stays open to it.
        fs::create_dir_all(data_dir).map_err(io_error("create", data_dir))?;
        let _lock = lock(data_dir)?;
        let mut current = Self::read(data_dir)?;
        current.tightened |= found.tightened;
        for name in current.missing(names) {
            let value = checked(&name, make(&name)?).ok_or_else(|| GeneratedError::Invalid {
                path: current.path.clone(),
                name: name.clone(),
            })?;
            current.values.insert(name.clone(), value);
            current.new.push(name);
        }
        if !current.new.is_empty() {
            current.write(data_dir)?;
        }
        Ok(current)
    }

    fn missing(&self, names: &[&str]) -> Vec<String> {
        let mut missing: Vec<String> = Vec::new();
        for name in names {
            if !self.values.contains_key(*name) && !missing.iter().any(|known| known == name) {
                missing.push((*name).to_owned());
            }
        }
        missing
    }

    fn read(data_dir: &Path) -> Result<Self, GeneratedError> {
        let path = data_dir.join(FILE_NAME);
        let mut found = Self {
            path,
            values: BTreeMap::new(),
            new: Vec::new(),
            tightened: false,
        };
        let mut file = match File::open(&found.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            Err(error) => return Err(io_error("read", &found.path)(error)),
        };
        found.tightened = tighten(&file, &found.path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)
            .map_err(io_error("read", &found.path))?;

        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| line_of(&text, span.start));
            GeneratedError::Damaged {
                path: found.path.clone(),
                line,
            }
        })?;
        for (name, value) in table {
            let secret = value
                .as_str()
                .and_then(|text| checked(&name, text.to_owned()));
            let Some(secret) = secret else {
                return Err(GeneratedError::Invalid {
                    path: found.path,
                    name,
                });
            };
            found.values.insert(name, secret);
        }
        Ok(found)
    }

    /// Replaces the file whole: after a crash there is the old one or the new one. Only under the lock.
    fn write(&self, data_dir: &Path) -> Result<(), GeneratedError> {
        let mut text = HEADER.to_owned();
        for (name, secret) in &self.values {
            text +=
                &toml::Table::from_iter([(name.clone(), Value::from(secret.expose()))]).to_string();
        }

        let unfinished = data_dir.join("secrets.toml.new");
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("remove", &unfinished)(error));
            }
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)
            .map_err(io_error("create", &unfinished))?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(io_error("write", &unfinished))?;
        fs::rename(&unfinished, &self.path).map_err(io_error("replace", &self.path))?;
        // The rename itself must survive a power loss, before anything is sealed with the key.
        File::open(data_dir)
            .and_then(|directory| directory.sync_all())
            .map_err(io_error("sync", data_dir))
    }
}

impl Config {
    /// Fills in the secrets that are not configured from those kept in the data directory, making new ones where
    /// needed. `None` where nothing was missing; else say which are `new` and whether the file was `tightened`.
    ///
    /// # Errors
    /// As [`Generated::load_or_create`].
    pub fn complete_secrets(
        &mut self,
        allow_new_encryption_key: bool,
    ) -> Result<Option<Generated>, GeneratedError> {
        let mut wanted = [
            (JWT_SECRET, "auth.jwt_secret", &mut self.auth.jwt_secret),
            (
                ENCRYPTION_KEY,
                "secrets.encryption_key",
                &mut self.secrets.encryption_key,
            ),
        ];
        let missing: Vec<&str> = wanted
            .iter()
            .filter(|(_, _, value)| value.is_none())
            .map(|(name, _, _)| *name)
            .collect();
        if missing.is_empty() {
            return Ok(None);
        }
        let generated =
            Generated::load_or_create(&self.database.data_dir, &missing, allow_new_encryption_key)?;
        for (name, key, value) in &mut wanted {
            if value.is_none() {
                **value = generated.get(name).cloned();
                self.sources
                    .insert((*key).to_owned(), Source::Generated(generated.path.clone()));
            }
        }
        Ok(Some(generated))
    }
}

/// The secret, where its text may have this name.
fn checked(name: &str, text: String) -> Option<Secret> {
    if name == ENCRYPTION_KEY && !is_encryption_key(&text) {
        return None;
    }
    Secret::try_from(text).ok()
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> GeneratedError {
    move |cause| GeneratedError::Io {
        action,
        path: path.to_owned(),
        cause,
    }
}

/// Held until the file is dropped, also when the process is killed.
fn lock(data_dir: &Path) -> Result<File, GeneratedError> {
    let path = data_dir.join("secrets.lock");
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .and_then(|file| file.lock().map(|()| file))
        .map_err(io_error("lock", &path))
}

/// Takes the file's rights away from group and others. Returns whether they had any.
fn tighten(file: &File, path: &Path) -> Result<bool, GeneratedError> {
    let mode = file
        .metadata()
        .map_err(io_error("read", path))?
        .permissions()
        .mode()
        & 0o777;
    if mode & 0o077 == 0 {
        return Ok(false);
    }
    file.set_permissions(fs::Permissions::from_mode(0o600))
        .map_err(|cause| GeneratedError::OpenToOthers {
            path: path.to_owned(),
            mode,
            cause,
        })?;
    Ok(true)
}

fn random_hex() -> Result<String, GeneratedError> {
    let mut bytes = [0; 32];
    rand::rngs::OsRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| GeneratedError::NoRandomness(error.to_string()))?;
    Ok(hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    const BOTH: &[&str] = &[JWT_SECRET, ENCRYPTION_KEY];

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn value(generated: &Generated, name: &str) -> String {
        generated.get(name).unwrap().expose().to_owned()
    }

    /// A data directory with this `secrets.toml`, private.
    fn with_file(text: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        dir
    }

    #[test]
    fn the_first_start_makes_secrets_and_the_second_finds_them() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("a/b");
        let first = Generated::load_or_create(&data_dir, BOTH, true).unwrap();
        assert_eq!(first.new, BOTH);
        assert!(is_encryption_key(&value(&first, ENCRYPTION_KEY)));
        assert!(value(&first, JWT_SECRET).len() >= 32);
        assert_ne!(value(&first, JWT_SECRET), value(&first, ENCRYPTION_KEY));
        assert_eq!(mode(first.path()), 0o600);

        let second = Generated::load_or_create(&data_dir, BOTH, false).unwrap();
        assert!(second.new.is_empty() && !second.tightened);
        assert_eq!(second.values, first.values);
        let other = tempfile::tempdir().unwrap();
        let other = Generated::load_or_create(other.path(), BOTH, true).unwrap();
        assert_ne!(value(&other, ENCRYPTION_KEY), value(&first, ENCRYPTION_KEY));
    }

    #[test]
    fn only_what_is_wanted_is_made_and_what_is_there_stays() {
        let dir = with_file("OTHER = \"kept\"\n");
        let generated = Generated::load_or_create(dir.path(), &[JWT_SECRET], false).unwrap();
        assert_eq!(generated.new, [JWT_SECRET]);
        assert!(generated.get(ENCRYPTION_KEY).is_none());

        let kept =
            Generated::keep(dir.path(), "SUPABASE_ANON_KEY", || "a.b\"c".to_owned()).unwrap();
        assert_eq!(kept.new, ["SUPABASE_ANON_KEY"]);
        let again =
            Generated::keep(dir.path(), "SUPABASE_ANON_KEY", || "later".to_owned()).unwrap();
        assert!(again.new.is_empty());
        assert_eq!(value(&again, "SUPABASE_ANON_KEY"), "a.b\"c");
        assert_eq!(value(&again, "OTHER"), "kept");
        assert_eq!(value(&again, JWT_SECRET), value(&generated, JWT_SECRET));
    }

    #[test]
    fn a_new_encryption_key_is_refused_where_sealed_rows_exist() {
        let dir = tempfile::tempdir().unwrap();
        let error = Generated::load_or_create(dir.path(), BOTH, false).unwrap_err();
        assert!(matches!(error, GeneratedError::EncryptionKeyNeeded { .. }));
        assert!(error.to_string().contains("set ENCRYPTION_KEY"), "{error}");
        assert!(!dir.path().join(FILE_NAME).exists());
    }

    #[test]
    fn starting_many_times_at_once_makes_the_secrets_once() {
        let dir = tempfile::tempdir().unwrap();
        let barrier = Barrier::new(8);
        let all: Vec<Generated> = thread::scope(|scope| {
            let start = || {
                barrier.wait();
                Generated::load_or_create(dir.path(), BOTH, true).unwrap()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert!(
            all.iter()
                .all(|generated| generated.values == all[0].values)
        );
        assert_eq!(
            all.iter()
                .filter(|generated| !generated.new.is_empty())
                .count(),
            1
        );
    }

    #[test]
    fn a_write_that_was_cut_short_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = dir.path().join("elsewhere");
        symlink(&elsewhere, dir.path().join("secrets.toml.new")).unwrap();
        let generated = Generated::load_or_create(dir.path(), BOTH, true).unwrap();
        assert_eq!(generated.new, BOTH);
        assert!(!elsewhere.exists());
        assert!(!dir.path().join("secrets.toml.new").exists());
    }

    #[test]
    fn a_file_open_to_others_is_tightened_and_reported() {
        let dir = with_file("JWT_SECRET = \"known\"\n");
        let path = dir.path().join(FILE_NAME);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let generated = Generated::load_or_create(dir.path(), BOTH, true).unwrap();
        assert!(generated.tightened);
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn a_damaged_file_is_refused_kept_and_not_quoted() {
        for text in [
            "JWT_SECRET = hunter2\n",
            "JWT_SECRET = [\"hunter2\"]\n",
            "JWT_SECRET = \"\"\n",
            "ENCRYPTION_KEY = \"hunter2\"\n",
            "\n\nJWT_SECRET = \"hunter2\n",
        ] {
            let dir = with_file(text);
            let error = Generated::load_or_create(dir.path(), BOTH, true).unwrap_err();
            assert!(
                !format!("{error} {error:?}").contains("hunter2"),
                "{error:?}"
            );
            assert!(error.to_string().contains(FILE_NAME), "{error}");
            assert_eq!(
                fs::read_to_string(dir.path().join(FILE_NAME)).unwrap(),
                text
            );
        }
    }

    #[test]
    fn configured_secrets_win_and_only_the_missing_are_made() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.database.data_dir = dir.path().to_owned();
        config.auth.jwt_secret = Secret::try_from("configured".to_owned()).ok();
        let generated = config.complete_secrets(true).unwrap().unwrap();
        assert_eq!(generated.new, [ENCRYPTION_KEY]);
        assert_eq!(
            config.auth.jwt_secret.as_ref().unwrap().expose(),
            "configured"
        );
        assert_eq!(
            config.secrets.encryption_key.as_ref(),
            generated.get(ENCRYPTION_KEY)
        );
        assert!(!config.sources.contains_key("auth.jwt_secret"));
        let source = Source::Generated(dir.path().join(FILE_NAME));
        assert_eq!(config.sources.get("secrets.encryption_key"), Some(&source));
        assert!(config.complete_secrets(false).unwrap().is_none());
    }
}
