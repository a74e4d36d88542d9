//! One run of Postgres: launching it, taking over one that runs already, waiting for it to be
//! ready or to end, ending it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};

use super::ClusterError;
use super::account::Account;
use super::binaries::Binaries;
use super::places::{PORT, Places};

/// How often files are looked at while waiting for a start.
const TICK: Duration = Duration::from_millis(3);
/// How often a Postgres that is not our child is looked at; nothing tells us when it ends.
const ADOPTED_TICK: Duration = Duration::from_millis(250);
/// How long each of the harder ways to end Postgres may take.
const HARD_STOP: Duration = Duration::from_secs(5);

/// What Postgres says when an earlier run of it has not quite ended: passes by itself.
fn is_passing_trouble(said: &str) -> bool {
    said.contains("pre-existing shared memory block")
        || (said.contains("lock file") && said.contains("already exists"))
}

/// Settings for a server of this kind on a machine of any size. Values that are Postgres' own
/// defaults are here because durability rests on them.
const SETTINGS: [(&str, &str); 17] = [
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("synchronous_commit", "on"),
    ("max_connections", "100"),
    ("shared_buffers", "128MB"),
    ("max_wal_size", "1GB"),
    ("random_page_cost", "1.1"),
    // Compiling pays off for reports that run for seconds; it slows the short queries here.
    ("jit", "off"),
    // Queue tables turn over quickly: look often, and before a fifth of the table is dead.
    ("autovacuum", "on"),
    ("autovacuum_naptime", "15s"),
    ("autovacuum_vacuum_scale_factor", "0.05"),
    ("autovacuum_analyze_scale_factor", "0.05"),
    // Errors of statements go to the client that caused them. In the log they would show what
    // people wrote and their phone numbers.
    ("log_min_messages", "log"),
    ("log_min_error_statement", "panic"),
    ("log_error_verbosity", "terse"),
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
];

/// Everything needed to start Postgres, again and again.
#[derive(Debug)]
pub(super) struct Launcher {
    places: Places,
    account: Account,
    binaries: Binaries,
    settings: Vec<(String, String)>,
}

impl Launcher {
    pub async fn new(
        places: Places,
        account: Account,
        binaries: Binaries,
        extra: Vec<(String, String)>,
    ) -> Result<Launcher, ClusterError> {
        let mut launcher = Launcher {
            places,
            account,
            binaries,
            settings: Vec::new(),
        };
        let compression = launcher.wal_compression().await?;
        let ours = SETTINGS
            .into_iter()
            .chain([("wal_compression", compression)])
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        // The last one of a name counts.
        launcher.settings = ours.chain(extra).chain(launcher.fixed_settings()).collect();
        Ok(launcher)
    }

    pub fn places(&self) -> &Places {
        &self.places
    }

    /// What keeps the cluster private, and ours.
    fn fixed_settings(&self) -> [(String, String); 5] {
        // A comma would separate two folders, unless the name is quoted.
        let sockets = self.places.sockets.to_string_lossy().replace('"', "\"\"");
        [
            ("listen_addresses", String::new()),
            ("port", PORT.to_string()),
            ("unix_socket_directories", format!("\"{sockets}\"")),
            ("unix_socket_permissions", "0700".to_owned()),
            ("cluster_name", "wasel".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
    }

    /// lz4 where this Postgres was built with it, else its own slower method.
    async fn wal_compression(&self) -> Result<&'static str, ClusterError> {
        let program = self.binaries.postgres();
        let answer = self
            .account
            .command(&program, &self.places.data_dir)
            .args(["-C", "wal_compression", "-c", "wal_compression=lz4", "-D"])
            .arg(&self.places.data)
            .output()
            .await
            .map_err(ClusterError::io("run", &program))?;
        Ok(if answer.status.success() { "lz4" } else { "on" })
    }

    /// Starts Postgres, or takes over the one that runs in our directory, and waits until it
    /// accepts connections.
    pub async fn bring_up(&self, deadline: Instant) -> Result<Postmaster, ClusterError> {
        let begun = Instant::now();
        let log_before = self.places.log.mark();
        loop {
            let mut postmaster = match self.running() {
                Some(running) => running,
                None => {
                    self.remove_lock_files_of_others()?;
                    self.launch()?
                }
            };
            match self.wait_until_ready(&mut postmaster, deadline).await {
                Progress::Ready if postmaster.is_child() => return Ok(postmaster),
                Progress::Ready if self.has_our_socket() => {
                    tracing::info!(
                        pid = postmaster.pid.as_raw(),
                        "taking over the Postgres an earlier server left running"
                    );
                    return Ok(postmaster);
                }
                Progress::Ready => {
                    tracing::info!(
                        "the Postgres left running has its socket elsewhere: restarting it"
                    );
                    postmaster
                        .stop(deadline.saturating_duration_since(Instant::now()))
                        .await?;
                }
                Progress::Ended if !postmaster.is_child() => {}
                Progress::Ended => {
                    let said = self.places.log.tail_since(postmaster.log_mark);
                    if !is_passing_trouble(&said) || Instant::now() >= deadline {
                        return Err(self.not_started(postmaster.log_mark));
                    }
                    tracing::debug!(%said, "an earlier Postgres is still ending");
                    sleep(10 * TICK).await;
                }
                Progress::TooSlow => {
                    return Err(ClusterError::StartTimeout {
                        waited: begun.elapsed(),
                        log: self.places.log.path().to_owned(),
                        said: self.places.log.tail_since(log_before),
                    });
                }
            }
        }
    }

    /// The Postgres that runs in our directory and that nobody here started.
    pub fn running(&self) -> Option<Postmaster> {
        let pid = PidFile::read(&self.places)?.pid;
        is_postgres_in(pid, &self.places.data).then(|| Postmaster {
            pid,
            log_mark: self.places.log.mark(),
            data: self.places.data.clone(),
            run: Run::Adopted,
        })
    }

    /// Removes lock files that name a process which is alive and not Postgres: after a reboot or
    /// in a new container the number may be anybody's, and a dead parent that reaps nobody leaves
    /// a number that never goes away. Postgres itself only asks whether the number is in use, and
    /// would refuse to start. (If a Postgres did use this directory after all, its shared memory,
    /// whose key is the directory's inode, still keeps ours out.)
    fn remove_lock_files_of_others(&self) -> Result<(), ClusterError> {
        for path in [self.places.pid_file(), self.places.socket_lock_file()] {
            let Some(pid) = first_line_pid(&path) else {
                continue;
            };
            let arguments = command_line(pid);
            if arguments.is_some_and(|arguments| !starts_postgres_in(&arguments, &self.places.data))
            {
                tracing::info!(path = %path.display(), pid = pid.as_raw(), "removing a stale lock file of Postgres");
                fs::remove_file(&path).map_err(ClusterError::io("remove", &path))?;
            }
        }
        Ok(())
    }

    fn launch(&self) -> Result<Postmaster, ClusterError> {
        let program = self.binaries.postgres();
        let log_mark = self.places.log.mark();
        let log = self.places.log.open()?;
        let also_log = log
            .try_clone()
            .map_err(ClusterError::io("write", self.places.log.path()))?;
        let mut command = self.account.command(&program, &self.places.data_dir);
        command.arg("-D").arg(&self.places.data);
        for (name, value) in &self.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(also_log)
            // Ctrl-C at the terminal is for the server, which then stops Postgres when its own
            // work is done.
            .process_group(0)
            .spawn()
            .map_err(ClusterError::io("run", &program))?;
        let Some(pid) = child.id() else {
            return Err(self.not_started(log_mark));
        };
        Ok(Postmaster {
            pid: Pid::from_raw(pid.cast_signed()),
            log_mark,
            data: self.places.data.clone(),
            run: Run::Child(child),
        })
    }

    /// Waits until the pid file says what `pg_ctl` waits for too.
    async fn wait_until_ready(&self, postmaster: &mut Postmaster, deadline: Instant) -> Progress {
        loop {
            if postmaster.has_ended() {
                return Progress::Ended;
            }
            let file = PidFile::read(&self.places);
            if file.is_some_and(|file| file.pid == postmaster.pid && file.ready) {
                return Progress::Ready;
            }
            if Instant::now() >= deadline {
                return Progress::TooSlow;
            }
            sleep(TICK).await;
        }
    }

    fn not_started(&self, log_mark: u64) -> ClusterError {
        ClusterError::NotStarted {
            log: self.places.log.path().to_owned(),
            said: self.places.log.tail_since(log_mark),
        }
    }

    fn has_our_socket(&self) -> bool {
        let file = PidFile::read(&self.places);
        file.is_some_and(|file| Path::new(&file.sockets) == self.places.sockets)
    }
}

enum Progress {
    Ready,
    Ended,
    TooSlow,
}

/// A Postgres that runs. Dropped while it runs, it is asked to end, which nobody waits for.
#[derive(Debug)]
pub(super) struct Postmaster {
    pid: Pid,
    /// How long the log was before this run.
    log_mark: u64,
    data: PathBuf,
    run: Run,
}

#[derive(Debug)]
enum Run {
    /// Started here; must be reaped, or its number counts as alive.
    Child(Child),
    /// Started by a server that was killed.
    Adopted,
    Ended,
}

impl Postmaster {
    fn is_child(&self) -> bool {
        matches!(self.run, Run::Child(_))
    }

    fn has_ended(&mut self) -> bool {
        let ended = match &mut self.run {
            // An error means that there is no such child any more.
            Run::Child(child) => !matches!(child.try_wait(), Ok(None)),
            Run::Adopted => !is_postgres_in(self.pid, &self.data),
            Run::Ended => return true,
        };
        if ended && matches!(self.run, Run::Adopted) {
            self.run = Run::Ended;
        }
        ended
    }

    /// Waits for the end and says how it came, as far as known.
    pub async fn wait(&mut self) -> String {
        let how = match &mut self.run {
            Run::Child(child) => match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            },
            Run::Adopted => {
                while is_postgres_in(self.pid, &self.data) {
                    sleep(ADOPTED_TICK).await;
                }
                "not our child".to_owned()
            }
            Run::Ended => return "ended before".to_owned(),
        };
        self.run = Run::Ended;
        how
    }

    /// Fast shutdown; after `patience` immediate shutdown, then SIGKILL.
    pub async fn stop(mut self, patience: Duration) -> Result<(), ClusterError> {
        for (signal, patience) in [
            (Signal::SIGINT, patience),
            (Signal::SIGQUIT, HARD_STOP),
            (Signal::SIGKILL, HARD_STOP),
        ] {
            self.signal(signal);
            if timeout(patience, self.wait()).await.is_ok() {
                return Ok(());
            }
            tracing::warn!(pid = self.pid.as_raw(), %signal, "Postgres does not end");
        }
        Err(ClusterError::StillRunning {
            pid: self.pid.as_raw(),
        })
    }

    fn signal(&mut self, signal: Signal) {
        // The number may have gone to somebody else; an unreaped child keeps it.
        if self.has_ended() {
            return;
        }
        if let Err(error) = kill(self.pid, signal) {
            tracing::warn!(pid = self.pid.as_raw(), %signal, %error, "cannot signal Postgres");
        }
    }
}

impl Drop for Postmaster {
    fn drop(&mut self) {
        if !matches!(self.run, Run::Ended) {
            self.signal(Signal::SIGINT);
        }
    }
}

/// What `postmaster.pid` says. Its lines: process id, PGDATA, start time, port, first socket
/// folder, listen address, shared memory, state (PostgreSQL source, `utils/pidfile.h`).
struct PidFile {
    pid: Pid,
    sockets: String,
    ready: bool,
}

impl PidFile {
    fn read(places: &Places) -> Option<PidFile> {
        let text = fs::read_to_string(places.pid_file()).ok()?;
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        Some(PidFile {
            pid: parse_pid(lines.first()?)?,
            sockets: lines.get(4).copied().unwrap_or_default().to_owned(),
            ready: lines.get(7) == Some(&"ready"),
        })
    }
}

fn first_line_pid(path: &Path) -> Option<Pid> {
    parse_pid(fs::read_to_string(path).ok()?.lines().next()?.trim())
}

/// A stand-alone backend writes its number negated, and 0 and below mean groups to `kill`.
fn parse_pid(text: &str) -> Option<Pid> {
    let pid: i32 = text.parse().ok()?;
    (pid > 0).then(|| Pid::from_raw(pid))
}

/// Whether the process is a postmaster that was started for this directory. A process that has
/// ended and was not reaped has no command line, so it is none.
fn is_postgres_in(pid: Pid, data: &Path) -> bool {
    command_line(pid).is_some_and(|arguments| starts_postgres_in(&arguments, data))
}

fn starts_postgres_in(arguments: &str, data: &Path) -> bool {
    let Some((program, rest)) = arguments.split_once(" -D ") else {
        return false;
    };
    program.ends_with("postgres") && format!("{rest} ").starts_with(&format!("{} ", data.display()))
}

/// The command line with single spaces between the arguments; empty for a process that has ended
/// and was not reaped, `None` where there is no such process or it cannot be known. (What a process has open or where
/// it stands would be firmer, but root in a container may not see that of another user.)
#[cfg(target_os = "linux")]
fn command_line(pid: Pid) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(String::from_utf8_lossy(&bytes).replace('\0', " "))
}

#[cfg(not(target_os = "linux"))]
fn command_line(pid: Pid) -> Option<String> {
    let answer = std::process::Command::new("ps")
        .args(["-ww", "-o", "command=", "-p", &pid.to_string()])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&answer.stdout);
    answer.status.success().then(|| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_postmaster_of_this_directory_counts_as_ours() {
        let ours = |arguments| starts_postgres_in(arguments, Path::new("/srv/my data/postgres"));
        assert!(ours(
            "/usr/bin/postgres -D /srv/my data/postgres -c jit=off "
        ));
        assert!(ours("/opt/pg 15/bin/postgres -D /srv/my data/postgres"));
        assert!(!ours(
            "/usr/bin/postgres -D /srv/my data/postgres-of-another -c jit=off"
        ));
        assert!(!ours("postgres: checkpointer "));
        assert!(!ours("tar -D /srv/my data/postgres"));
        assert!(!ours(""));
    }
}
