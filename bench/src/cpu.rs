//! What processes cost, read from /proc.

use std::fs;

use anyhow::{Context, Result};

/// Linux counts CPU time for user space in hundredths of a second on every architecture.
const TICK_US: u64 = 10_000;

/// Microseconds of CPU used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// The server under test.
    pub server: u64,
    /// All Postgres processes of the cluster.
    pub postgres: u64,
    /// This program: the load generator, and the writer of the in-process limit.
    pub load: u64,
    /// All cores, every process.
    pub machine: u64,
}

impl Used {
    /// Reads the counters now.
    pub fn now(server: Option<u32>, postmaster: u32) -> Result<Self> {
        Ok(Self {
            server: server.map_or(Ok(0), of_process)?,
            postgres: of_cluster(postmaster)?,
            load: of_process(std::process::id())?,
            machine: of_machine()?,
        })
    }

    pub fn since(self, before: Self) -> Self {
        Self {
            server: self.server.saturating_sub(before.server),
            postgres: self.postgres.saturating_sub(before.postgres),
            load: self.load.saturating_sub(before.load),
            machine: self.machine.saturating_sub(before.machine),
        }
    }

    /// What others on the machine used.
    pub fn foreign(self) -> u64 {
        self.machine
            .saturating_sub(self.server + self.postgres + self.load)
    }
}

struct Stat {
    parent: u32,
    own: u64,
    /// Of children that have ended.
    ended: u64,
}

fn stat(pid: u32) -> Result<Stat> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    // The second field is the name in brackets and may hold anything; count from its end (proc(5)).
    let fields: Vec<&str> = text
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
    let number = |index: usize| -> Result<u64> {
        fields
            .get(index)
            .and_then(|field| field.parse().ok())
            .with_context(|| format!("{path}: field {index}"))
    };
    Ok(Stat {
        parent: number(1)? as u32,
        own: number(11)? + number(12)?,
        ended: number(13)? + number(14)?,
    })
}

/// User and system time of all threads of a process.
pub fn of_process(pid: u32) -> Result<u64> {
    Ok(stat(pid)?.own * TICK_US)
}

/// The postmaster, its children, and those of its children that have ended.
fn of_cluster(postmaster: u32) -> Result<u64> {
    let root = stat(postmaster)?;
    let mut ticks = root.own + root.ended;
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        // A process may end between the listing and the look at it.
        if let Ok(child) = stat(pid)
            && child.parent == postmaster
        {
            ticks += child.own + child.ended;
        }
    }
    Ok(ticks * TICK_US)
}

fn of_machine() -> Result<u64> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("cpu "))
        .context("/proc/stat")?;
    let fields: Vec<u64> = line
        .split_whitespace()
        .filter_map(|field| field.parse().ok())
        .collect();
    // user, nice, system, irq, softirq, steal; not idle and iowait.
    let busy: u64 = [0, 1, 2, 5, 6, 7]
        .iter()
        .filter_map(|index| fields.get(*index))
        .sum();
    Ok(busy * TICK_US)
}

/// Memory of a process in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    pub rss: u64,
    /// Shared pages counted in part.
    pub pss: u64,
    /// The most it ever was.
    pub peak_rss: u64,
}

pub fn memory(pid: u32) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let find = |text: &str, name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
            .unwrap_or(0)
            * 1024
    };
    Ok(Memory {
        rss: find(&status, "VmRSS:"),
        pss: find(&rollup, "Pss:"),
        peak_rss: find(&status, "VmHWM:"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_is_charged_for_it() {
        let before = of_process(std::process::id()).unwrap();
        let started = std::time::Instant::now();
        let mut sum = 0u64;
        while of_process(std::process::id()).unwrap() == before && started.elapsed().as_secs() < 20
        {
            sum = (0..1_000_000u64).fold(sum, |sum, n| sum.wrapping_add(std::hint::black_box(n)));
        }
        assert!(of_process(std::process::id()).unwrap() > before, "{sum}");
        assert!(memory(std::process::id()).unwrap().rss > 0);
    }
}
