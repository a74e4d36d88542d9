//! Which user Postgres runs under. It refuses root, so a server started as root lends it another.

use std::fs::{self, Metadata, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User, getegid, geteuid};
use tokio::process::Command;

use super::ClusterError;
use super::binaries::Binaries;
use super::places::{Places, data_in, make_private};

#[derive(Debug, Clone)]
pub(super) struct Account {
    pub uid: u32,
    pub gid: u32,
    name: String,
    /// Whether this is somebody else than the user we run as.
    other: bool,
}

impl Account {
    /// The owner of the cluster that exists; for a new one ourselves or, if we are root, the
    /// system user `postgres`, else `nobody`.
    pub fn for_cluster(data_dir: &Path) -> Result<Account, ClusterError> {
        let data = data_in(data_dir);
        let owner = match fs::metadata(&data) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(ClusterError::io("look at", &data)(error)),
        };
        let account = match &owner {
            Some(owner) if geteuid().is_root() && owner.uid() != 0 => Account::of_owner(owner),
            _ => Account::for_new_cluster()?,
        };
        match owner {
            Some(owner) if owner.uid() != account.uid => Err(ClusterError::WrongOwner {
                path: data,
                owner: owner.uid(),
                user: account.name,
            }),
            _ => Ok(account),
        }
    }

    fn for_new_cluster() -> Result<Account, ClusterError> {
        let us = geteuid();
        if !us.is_root() {
            return Ok(Account {
                uid: us.as_raw(),
                gid: getegid().as_raw(),
                name: name_of(us.as_raw()),
                other: false,
            });
        }
        // A look-up that fails is as good as no such user.
        let user = ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .filter(|user| !user.uid.is_root())
            .ok_or(ClusterError::NoAccount)?;
        Ok(Account {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            name: user.name,
            other: true,
        })
    }

    fn of_owner(owner: &Metadata) -> Account {
        Account {
            uid: owner.uid(),
            gid: owner.gid(),
            name: name_of(owner.uid()),
            other: true,
        }
    }

    /// A command that runs as this account in `directory`, with next to nothing of our
    /// environment: that holds secrets which SQL could read (`COPY … FROM PROGRAM 'env'`), and
    /// `PG*` variables meant for other databases.
    pub fn command(&self, program: &Path, directory: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(directory).env_clear();
        for name in ["PATH", "LD_LIBRARY_PATH"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        // English messages, which we read; and a fixed zone, which initdb would search for long.
        command.env("LC_ALL", "C").env("TZ", "UTC");
        if self.other {
            // This also drops root's supplementary groups.
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Makes `directory` with mode 0700 for this account, or puts an existing one right. Only for
    /// folders in a place the account cannot write to: as root we would follow its links.
    pub fn own_directory(&self, directory: &Path) -> Result<(), ClusterError> {
        make_private(directory)?;
        let metadata = fs::metadata(directory).map_err(ClusterError::io("look at", directory))?;
        if self.other && metadata.uid() != self.uid {
            chown(directory, Some(self.uid), Some(self.gid))
                .map_err(ClusterError::io("hand over", directory))?;
        }
        if metadata.mode() & 0o777 != 0o700 {
            fs::set_permissions(directory, Permissions::from_mode(0o700))
                .map_err(ClusterError::io("close to others", directory))?;
        }
        Ok(())
    }

    /// Lets the account pass through (not list) the data directory, where that is closed to all
    /// but root. Only its group is let in, so the secrets beside the cluster stay as private.
    pub fn open_way_into(&self, data_dir: &Path) -> Result<(), ClusterError> {
        let metadata = fs::metadata(data_dir).map_err(ClusterError::io("look at", data_dir))?;
        let only_roots = metadata.uid() == 0 && metadata.gid() == 0;
        if !self.other || self.may_enter(&metadata) || !only_roots {
            return Ok(());
        }
        chown(data_dir, None, Some(self.gid))
            .and_then(|()| {
                let mode = metadata.mode() & 0o700 | 0o010;
                fs::set_permissions(data_dir, Permissions::from_mode(mode))
            })
            .map_err(ClusterError::io("let Postgres pass through", data_dir))
    }

    /// Finds out by trying whether the account reaches the cluster and the programs, and names
    /// what is in the way.
    pub async fn check_can_enter(
        &self,
        places: &Places,
        binaries: &Binaries,
    ) -> Result<(), ClusterError> {
        if !self.other {
            return Ok(());
        }
        let program = binaries.postgres();
        let tried = self
            .command(&program, &places.data_dir)
            .arg("--version")
            .output()
            .await;
        match tried {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                Err(match self.first_closed(&places.data_dir) {
                    Some(blocked) => ClusterError::CannotEnter {
                        user: self.name.clone(),
                        blocked,
                    },
                    None => ClusterError::CannotRun {
                        user: self.name.clone(),
                        program,
                    },
                })
            }
            Err(error) => Err(ClusterError::io("run", &program)(error)),
        }
    }

    fn first_closed(&self, path: &Path) -> Option<PathBuf> {
        let mut folders: Vec<&Path> = path.ancestors().collect();
        folders.reverse();
        folders
            .into_iter()
            .find(|folder| fs::metadata(folder).is_ok_and(|found| !self.may_enter(&found)))
            .map(Path::to_owned)
    }

    fn may_enter(&self, folder: &Metadata) -> bool {
        let bit = if folder.uid() == self.uid {
            0o100
        } else if folder.gid() == self.gid {
            0o010
        } else {
            0o001
        };
        folder.mode() & bit != 0
    }
}

/// The user's name, or the bare number for one without a name (common in containers).
fn name_of(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}
