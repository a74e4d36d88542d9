//! Finding an installed Postgres.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::ClusterError;
use super::init::ExistingMajor;

/// The oldest major version whose features the schema relies on.
pub(super) const OLDEST_MAJOR: u32 = 15;

/// Where packages put server programs: (folder, start of its children's names, folder inside).
const USUAL_PLACES: [(&str, &str, &str); 7] = [
    ("/usr/lib/postgresql", "", "bin"),         // Debian, Ubuntu
    ("/usr", "pgsql-", "bin"),                  // packages of postgresql.org for Red Hat
    ("/usr/libexec", "postgresql", ""),         // Alpine
    ("/opt/homebrew/opt", "postgresql", "bin"), // Homebrew on Apple silicon
    ("/usr/local/opt", "postgresql", "bin"),    // Homebrew on Intel
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];

/// A version of Postgres, such as `15.18`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresVersion {
    /// The major version, such as 15.
    pub major: u32,
    /// The whole version as Postgres says it, such as `15.18` or `18beta1`.
    pub text: String,
}

impl PostgresVersion {
    /// Reads the answer to `postgres --version`: `postgres (PostgreSQL) 15.18 (Debian …)`.
    fn parse(answer: &str) -> Option<Self> {
        let (_, rest) = answer.split_once("(PostgreSQL)")?;
        let text = rest.split_whitespace().next()?.to_owned();
        let digits = text.find(|c: char| !c.is_ascii_digit());
        let major = text[..digits.unwrap_or(text.len())].parse().ok()?;
        Some(Self { major, text })
    }

    /// For choosing the newest. A beta counts as older than its first release.
    fn rank(&self) -> (u32, Option<u32>) {
        let minor = self.text.split_once('.').and_then(|(_, m)| m.parse().ok());
        (self.major, minor)
    }
}

impl fmt::Display for PostgresVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A folder with `postgres` and `initdb` in it.
#[derive(Debug, Clone)]
pub(super) struct Binaries {
    pub directory: PathBuf,
    pub version: PostgresVersion,
}

impl Binaries {
    pub fn postgres(&self) -> PathBuf {
        self.directory.join("postgres")
    }

    pub fn initdb(&self) -> PathBuf {
        self.directory.join("initdb")
    }
}

/// Chooses the programs to use: the first fit in `PATH` (or in `given`), else the newest fit in
/// the usual places. A cluster that exists needs programs of its own major version.
pub(super) async fn find(
    given: Option<&[PathBuf]>,
    existing: Option<ExistingMajor>,
) -> Result<Binaries, ClusterError> {
    let mut preferred = match given {
        Some(dirs) => installed(dirs.iter().cloned()).await,
        None => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            installed(std::env::split_paths(&path)).await
        }
    };
    let mut others = match given {
        Some(_) => Vec::new(),
        None => installed(usual_places().into_iter()).await,
    };
    others.sort_by_key(|found| Reverse(found.version.rank()));
    preferred.append(&mut others);

    if preferred.is_empty() {
        let searched = match given {
            Some(dirs) => format!("looked in {}", list(dirs.iter().map(|dir| dir.display()))),
            None => "looked in PATH and the usual places".to_owned(),
        };
        return Err(ClusterError::NoBinaries { searched });
    }
    if let Some(existing) = existing {
        let fit = preferred
            .iter()
            .find(|found| found.version.major == existing.major);
        return fit.cloned().ok_or_else(|| ClusterError::WrongMajor {
            data: existing.data,
            cluster: existing.major,
            found: list(preferred.iter().map(|found| &found.version)),
        });
    }
    let fit = preferred
        .iter()
        .find(|found| found.version.major >= OLDEST_MAJOR);
    match fit {
        Some(found) => Ok(found.clone()),
        None => {
            let Binaries { version, directory } = preferred.swap_remove(0);
            Err(ClusterError::TooOld { version, directory })
        }
    }
}

fn list(items: impl Iterator<Item = impl fmt::Display>) -> String {
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    items.join(", ")
}

fn usual_places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    for (folder, start, inside) in USUAL_PLACES {
        // A folder that is not there is the normal case.
        let Ok(children) = std::fs::read_dir(folder) else {
            continue;
        };
        for child in children.flatten() {
            if child.file_name().to_string_lossy().starts_with(start) {
                places.push(child.path().join(inside));
            }
        }
    }
    places
}

/// Those of the folders that hold both programs, in order, each installation once.
async fn installed(dirs: impl Iterator<Item = PathBuf>) -> Vec<Binaries> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for dir in dirs {
        // Following links (/usr/local/bin/postgres -> …) leads to the rest of the installation.
        let Ok(program) = dir.join("postgres").canonicalize() else {
            continue;
        };
        let real = program.parent().map_or(dir.clone(), Path::to_owned);
        let directory = if real.join("initdb").is_file() {
            real
        } else {
            dir
        };
        if !directory.join("initdb").is_file() || !seen.insert(directory.clone()) {
            continue;
        }
        match version_of(&directory.join("postgres")).await {
            Some(version) => found.push(Binaries { directory, version }),
            None => {
                tracing::debug!(directory = %directory.display(), "passing over a postgres that does not tell its version")
            }
        }
    }
    found
}

async fn version_of(program: &Path) -> Option<PostgresVersion> {
    let answer = Command::new(program).arg("--version").output().await.ok()?;
    PostgresVersion::parse(&String::from_utf8_lossy(&answer.stdout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_packages_print() {
        let parse = |text| PostgresVersion::parse(text).map(|v| (v.major, v.text));
        assert_eq!(
            parse("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"),
            Some((15, "15.18".to_owned()))
        );
        assert_eq!(
            parse("postgres (PostgreSQL) 18beta1"),
            Some((18, "18beta1".to_owned()))
        );
        assert_eq!(
            parse("postgres (PostgreSQL) 9.6.24"),
            Some((9, "9.6.24".to_owned()))
        );
        assert_eq!(parse("busybox 1.36"), None);
    }

    #[test]
    fn a_later_minor_release_is_newer_although_it_sorts_before_as_text() {
        let rank = |text: &str| {
            PostgresVersion::parse(&format!("postgres (PostgreSQL) {text}"))
                .unwrap()
                .rank()
        };
        assert!(rank("15.10") > rank("15.9"));
        assert!(rank("16.0") > rank("15.10"));
        assert!(rank("18.0") > rank("18beta1"));
    }
}
