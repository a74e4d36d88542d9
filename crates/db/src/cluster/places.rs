//! What lies where, who may see it, and the lock that keeps a second server out.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ring::digest;

use super::ClusterError;
use super::account::Account;
use super::log::ServerLog;

/// The port that names the socket file; nothing listens on TCP.
pub(super) const PORT: u16 = 5432;

/// The longest socket path that systems take: `sun_path` is 108 bytes on Linux and 104 on macOS
/// and the BSDs, and ends with a zero byte.
const MAX_SOCKET_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// Absolute paths of everything the cluster consists of.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub data_dir: PathBuf,
    /// The cluster itself, PGDATA.
    pub data: PathBuf,
    /// The folder of the socket.
    pub sockets: PathBuf,
    pub log: ServerLog,
}

impl Places {
    /// Makes the folders that are missing.
    pub fn prepare(data_dir: PathBuf, account: &Account) -> Result<Places, ClusterError> {
        account.open_way_into(&data_dir)?;
        let inside = data_dir.join("run");
        let socket = inside.join(format!(".s.PGSQL.{PORT}"));
        let sockets = if socket.as_os_str().len() <= MAX_SOCKET_PATH {
            account.own_directory(&inside)?;
            inside
        } else {
            let short = short_directory(&data_dir, account);
            own_short_directory(&short, account)?;
            short
        };
        Ok(Places {
            data: data_in(&data_dir),
            log: ServerLog::new(data_dir.join("postgres.log")),
            data_dir,
            sockets,
        })
    }

    pub fn pid_file(&self) -> PathBuf {
        self.data.join("postmaster.pid")
    }

    pub fn socket_lock_file(&self) -> PathBuf {
        self.sockets.join(format!(".s.PGSQL.{PORT}.lock"))
    }
}

pub(super) fn data_in(data_dir: &Path) -> PathBuf {
    data_dir.join("postgres")
}

/// Makes the data directory if missing (mode 0700) and returns its absolute path without links,
/// so that one directory has one name.
pub(super) fn open_data_dir(data_dir: &Path) -> Result<PathBuf, ClusterError> {
    if !data_dir.is_dir() {
        if let Some(parent) = data_dir.parent() {
            fs::create_dir_all(parent).map_err(ClusterError::io("make", parent))?;
        }
        make_private(data_dir)?;
    }
    data_dir
        .canonicalize()
        .map_err(ClusterError::io("open the data directory", data_dir))
}

/// Makes a directory with mode 0700, unless it is there.
pub(super) fn make_private(directory: &Path) -> Result<(), ClusterError> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(ClusterError::io("make the directory", directory)(error))
        }
        _ => Ok(()),
    }
}

/// Where the socket goes when its path in the data directory would be too long: always the same
/// folder for the same data directory.
fn short_directory(data_dir: &Path, account: &Account) -> PathBuf {
    let hash = digest::digest(&digest::SHA256, data_dir.as_os_str().as_bytes());
    let name = format!("wasel-{}-{}", account.uid, hex::encode(&hash.as_ref()[..8]));
    // Only root may write to /run. Not `temp_dir()`: TMPDIR may differ from one start to the next.
    let run = Path::new("/run");
    let parent = match nix::unistd::geteuid().is_root() && run.is_dir() {
        true => run,
        false => Path::new("/tmp"),
    };
    parent.join(name)
}

/// Makes the short directory. In /tmp somebody else may have put one there to get at the
/// database, so one that exists is looked at without following links, and not put right.
fn own_short_directory(path: &Path, account: &Account) -> Result<(), ClusterError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return account.own_directory(path),
        Err(error) => return Err(ClusterError::io("look at", path)(error)),
        Ok(found) => {
            let ours =
                found.is_dir() && found.uid() == account.uid && found.mode() & 0o777 == 0o700;
            if ours {
                return Ok(());
            }
        }
    }
    Err(ClusterError::SocketDirectory {
        path: path.to_owned(),
        owner: account.uid,
    })
}

/// The right to use a data directory, held as long as this lives. The system lets go of it when
/// the process ends, however it ends.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    _file: File,
}

/// Takes the lock of the data directory and notes our process id in it.
pub(super) fn lock(data_dir: &Path) -> Result<DirectoryLock, ClusterError> {
    let path = data_dir.join("wasel.lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(ClusterError::io("write", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Without the number the message is still of use.
            let _ = file.read_to_string(&mut holder);
            return Err(ClusterError::Locked {
                data_dir: data_dir.to_owned(),
                holder: holder.trim().parse().ok(),
            });
        }
        Err(TryLockError::Error(error)) => return Err(ClusterError::io("lock", &path)(error)),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(ClusterError::io("write", &path))?;
    Ok(DirectoryLock { _file: file })
}
