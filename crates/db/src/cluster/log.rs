//! The file Postgres writes its log to.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::ClusterError;

/// From this size on the file is put aside. Two are kept, so the log takes at most twice this.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// How much of the end is read to explain a failure.
const TAIL_BYTES: u64 = 4096;
const TAIL_LINES: usize = 5;

/// Postgres inherits the open file instead of collecting its log itself: messages from before its
/// collector would run are in the same place, it can be written after the server was killed, and
/// the folder is ours.
#[derive(Debug, Clone)]
pub(super) struct ServerLog {
    path: PathBuf,
}

impl ServerLog {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file for a new Postgres to append to.
    pub fn open(&self) -> Result<File, ClusterError> {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.path)
            .map_err(ClusterError::io("write", &self.path))
    }

    /// The size now, as a mark for [`ServerLog::tail_since`].
    pub fn mark(&self) -> u64 {
        self.path.metadata().map_or(0, |found| found.len())
    }

    /// The last lines written after `mark`, as one line.
    pub fn tail_since(&self, mark: u64) -> String {
        match self.read_tail(mark) {
            Ok(bytes) => last_lines(&bytes),
            Err(error) => format!("(cannot be read: {error})"),
        }
    }

    fn read_tail(&self, mark: u64) -> io::Result<Vec<u8>> {
        let mut file = File::open(&self.path)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(mark.max(end.saturating_sub(TAIL_BYTES))))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Puts a file that has grown large aside. Postgres holds it open for appending, so it is
    /// copied and cut; what is written between the two is lost, and is only log.
    pub async fn keep_small(&self) {
        if self.mark() < MAX_BYTES {
            return;
        }
        if let Err(error) = self.put_aside().await {
            tracing::warn!(path = %self.path.display(), %error, "cannot cut the log of Postgres");
        }
    }

    async fn put_aside(&self) -> io::Result<()> {
        let mut before = self.path.clone().into_os_string();
        before.push(".1");
        tokio::fs::copy(&self.path, &before).await?;
        let file = tokio::fs::OpenOptions::new()
            .write(true)
            .open(&self.path)
            .await?;
        file.set_len(0).await
    }
}

/// The last lines of what a program said, joined to one.
pub(super) fn last_lines(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let lines: Vec<&str> = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    if lines.is_empty() {
        return "(nothing)".to_owned();
    }
    lines[lines.len().saturating_sub(TAIL_LINES)..].join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn only_the_last_lines_are_quoted_and_on_one_line() {
        assert_eq!(last_lines(b"1\n2\n\n3\n4\n 5\n6\n"), "2 | 3 | 4 | 5 | 6");
        assert_eq!(last_lines(b"\n"), "(nothing)");
    }

    #[tokio::test]
    async fn a_large_log_is_put_aside_while_postgres_goes_on_appending() {
        let folder = tempfile::tempdir().unwrap();
        let log = ServerLog::new(folder.path().join("postgres.log"));
        let mut writer = log.open().unwrap();
        writer.write_all(&vec![b'x'; MAX_BYTES as usize]).unwrap();
        log.keep_small().await;
        writer.write_all(b"after\n").unwrap();

        assert_eq!(std::fs::read(log.path()).unwrap(), b"after\n");
        let aside = folder.path().join("postgres.log.1");
        assert_eq!(aside.metadata().unwrap().len(), MAX_BYTES);
    }
}
