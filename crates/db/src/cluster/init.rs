//! Making the cluster on first start.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tokio::time::Instant;

use super::ClusterError;
use super::account::Account;
use super::binaries::Binaries;
use super::connection::USER;
use super::log::last_lines;
use super::places::{Places, data_in};

/// How the folders of unfinished clusters begin.
const UNFINISHED: &str = "postgres.unfinished-";

/// Character classes for upper and lower case beyond ASCII, by preference. Sorting is by bytes in
/// every case: quick, good for `LIKE 'x%'`, and the same after an upgrade of the C library.
const CTYPES: [&str; 3] = ["C.UTF-8", "en_US.UTF-8", "C"];

/// The major version of the cluster that exists.
#[derive(Debug)]
pub(super) struct ExistingMajor {
    pub data: PathBuf,
    pub major: u32,
}

/// Reads which Postgres made the cluster, if there is one.
pub(super) fn existing_major(data_dir: &Path) -> Result<Option<ExistingMajor>, ClusterError> {
    let data = data_in(data_dir);
    let version = data.join("PG_VERSION");
    match fs::read_to_string(&version) {
        Ok(text) => match text.trim().parse() {
            Ok(major) => Ok(Some(ExistingMajor { data, major })),
            Err(_) => Err(ClusterError::NotACluster { path: data }),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => match data.exists() {
            true => Err(ClusterError::NotACluster { path: data }),
            false => Ok(None),
        },
        Err(error) => Err(ClusterError::io("read", &version)(error)),
    }
}

/// Makes the cluster in a folder of its own and moves it into place when it is complete and on
/// disk, so that being killed on the way leaves nothing that looks like a cluster.
pub(super) async fn create_if_missing(
    places: &Places,
    account: &Account,
    binaries: &Binaries,
    deadline: Instant,
) -> Result<(), ClusterError> {
    remove_unfinished(&places.data_dir)?;
    if places.data.exists() {
        return Ok(());
    }
    tracing::info!(
        version = %binaries.version,
        data = %places.data.display(),
        "making a private Postgres cluster"
    );
    // A new name each time: an initdb that outlived its server may still write to the old one.
    let unfinished = places
        .data_dir
        .join(format!("{UNFINISHED}{:08x}", rand::random::<u32>()));
    account.own_directory(&unfinished)?;
    run_initdb(&unfinished, &places.data_dir, account, binaries, deadline).await?;
    fs::rename(&unfinished, &places.data)
        .map_err(ClusterError::io("put the new cluster at", &places.data))?;
    File::open(&places.data_dir)
        .and_then(|folder| folder.sync_all())
        .map_err(ClusterError::io("sync", &places.data_dir))
}

fn remove_unfinished(data_dir: &Path) -> Result<(), ClusterError> {
    let entries = fs::read_dir(data_dir).map_err(ClusterError::io("list", data_dir))?;
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            continue;
        }
        let path = entry.path();
        if let Err(error) = fs::remove_dir_all(&path) {
            // Harmless, and gone with the next start.
            tracing::warn!(path = %path.display(), %error, "cannot remove an unfinished cluster");
        }
    }
    Ok(())
}

async fn run_initdb(
    data: &Path,
    data_dir: &Path,
    account: &Account,
    binaries: &Binaries,
    deadline: Instant,
) -> Result<(), ClusterError> {
    let failed = |said: String| ClusterError::Init {
        path: data.to_owned(),
        said,
    };
    let mut said = String::new();
    for ctype in CTYPES {
        // initdb syncs what it has made before it ends. Anybody who reaches the socket is
        // trusted, and only the account itself and root reach it.
        let output = account
            .command(&binaries.initdb(), data_dir)
            .arg("--pgdata")
            .arg(data)
            .args(["--username", USER])
            .args(["--auth-local=trust", "--auth-host=reject"])
            .args(["--encoding=UTF8", "--locale=C"])
            .arg(format!("--lc-ctype={ctype}"))
            .args(["--text-search-config=simple", "--data-checksums"])
            .arg("--no-instructions")
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout_at(deadline, output)
            .await
            .map_err(|_| failed("not finished within the start-up timeout".to_owned()))?
            .map_err(ClusterError::io("run", &binaries.initdb()))?;
        if output.status.success() {
            return Ok(());
        }
        said = last_lines(&output.stderr);
        if !said.contains("invalid locale name") {
            break;
        }
    }
    Err(failed(said))
}
