//! The real `wasel` program, run as an operator runs it.

#![expect(
    clippy::disallowed_methods,
    reason = "what waits here for a process is not async"
)]

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// A data directory that the account Postgres runs under can reach.
pub fn data_dir() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    folder
}

/// `wasel` with a data directory and an otherwise empty configuration.
pub fn wasel(data_dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wasel"));
    command
        .args(args)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
        .env("WASEL_DATA_DIR", data_dir)
        .env("WASEL_SERVER_LISTEN", "127.0.0.1")
        .env("PORT", "0");
    command
        .env("WASEL_LOGGING_FORMAT", "json")
        .stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

/// Its standard output, if it succeeded.
#[track_caller]
pub fn succeed(command: &mut Command) -> String {
    let output = run(command);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A running `wasel serve`; killed when dropped.
pub struct Server {
    child: Child,
    /// `http://127.0.0.1:port`
    pub base: String,
    log: Arc<Mutex<String>>,
}

impl Server {
    /// Starts it and waits until it says that it is ready.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(String::new()));
        let (tell, told) = std::sync::mpsc::channel();
        let kept = log.clone();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let entry: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
                if entry["fields"]["message"] == "ready" {
                    // The test may have given up.
                    drop(
                        tell.send(
                            entry["fields"]["server.address"]
                                .as_str()
                                .unwrap_or_default()
                                .to_owned(),
                        ),
                    );
                }
                kept.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        match told.recv_timeout(Duration::from_secs(90)) {
            Ok(address) => Self {
                child,
                base: format!("http://{address}"),
                log,
            },
            Err(_) => {
                drop(child.kill());
                panic!("the server never was ready:\n{}", log.lock().unwrap());
            }
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill(
            Pid::from_raw(i32::try_from(self.child.id()).unwrap()),
            signal,
        )
        .unwrap();
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the server does not end:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // An orderly end takes its Postgres along.
            self.signal(Signal::SIGTERM);
            let deadline = Instant::now() + Duration::from_secs(30);
            while matches!(self.child.try_wait(), Ok(None)) {
                if Instant::now() > deadline {
                    drop(self.child.kill());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}
