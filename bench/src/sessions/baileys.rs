//! The same with Baileys, which is what people run today: `bench/baileys/fleet.mjs` under Node, one process.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use wasel_simulator::{NewWhatsappPhone, Simulator, WhatsappSend, WhatsappTick, WhatsappWeb};

use super::{MEGABYTE, business, customer};
use crate::cpu::{memory, of_process};
use crate::print;
use crate::report::Figures;

const SETTLE: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(50);

/// What the fleet says, a line each.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// Before the first session.
    Ready,
    /// To be scanned by the phone of session `n`.
    Qr { n: u32, code: String },
    /// So many are connected now.
    Connected(u32),
    /// So many messages came in altogether.
    Received(u64),
}

struct Fleet {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

pub async fn measure(
    simulator: &Simulator,
    count: u32,
    messages: u32,
    figures: &mut Figures,
) -> Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("baileys");
    install(&directory).await?;
    let whatsapp = simulator.whatsapp_web();
    for n in 0..count {
        for (number, name) in [(business(n), "Business"), (customer(n), "Customer")] {
            whatsapp.register(&NewWhatsappPhone::new(number, name))?;
        }
    }
    let mut fleet = Fleet::start(&directory, &whatsapp, count)?;
    let result = fleet.measure(&whatsapp, count, messages, figures).await;
    fleet.child.kill().await?;
    result
}

/// What `package-lock.json` names, from the registry npm is set to.
async fn install(directory: &PathBuf) -> Result<()> {
    if directory.join("node_modules").exists() {
        return Ok(());
    }
    let status = Command::new("npm")
        .args(["ci", "--no-audit", "--no-fund"])
        .current_dir(directory)
        .stdout(Stdio::null())
        .status()
        .await
        .context("npm is needed for Baileys; --baileys 0 leaves it out")?;
    if !status.success() {
        bail!("Baileys cannot be installed");
    }
    Ok(())
}

impl Fleet {
    fn start(directory: &Path, whatsapp: &WhatsappWeb, count: u32) -> Result<Self> {
        let mut child = Command::new("node")
            .arg(directory.join("fleet.mjs"))
            .arg(whatsapp.url())
            .arg(count.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("node")?;
        let stdin = child.stdin.take().context("no pipe")?;
        let stdout = child.stdout.take().context("no pipe")?;
        Ok(Self {
            child,
            stdin,
            lines: BufReader::new(stdout).lines(),
        })
    }

    async fn measure(
        &mut self,
        whatsapp: &WhatsappWeb,
        count: u32,
        messages: u32,
        figures: &mut Figures,
    ) -> Result<()> {
        let pid = self.child.id().context("node ended")?;
        let prefix = format!("baileys_{count}");
        let mut note = |what: &str, value: f64, unit| {
            print(&format!("… {prefix}_{what} {value:.2} {unit}"));
            figures.note(format!("{prefix}_{what}"), value, unit);
        };
        self.until(whatsapp, |line| matches!(line, Line::Ready))
            .await?;
        tokio::time::sleep(SETTLE).await;
        let empty = memory(pid)?.rss as f64;
        note("process_before", empty / MEGABYTE, "MB");
        let (begun, before) = (Instant::now(), of_process(pid)?);
        self.say("connect").await?;
        self.until(
            whatsapp,
            |line| matches!(line, Line::Connected(all) if *all >= count),
        )
        .await?;
        note("linked_in", begun.elapsed().as_secs_f64(), "s");
        let spent = of_process(pid)? - before;
        note(
            "linking_cpu",
            spent as f64 / 1000.0 / f64::from(count),
            "ms/session",
        );
        tokio::time::sleep(SETTLE).await;
        let each = |rss: f64| (rss - empty) / MEGABYTE / f64::from(count);
        let rss = memory(pid)?.rss as f64;
        note("rss_idle", rss / MEGABYTE, "MB");
        note("each_idle", each(rss), "MB");

        let all = u64::from(count * messages);
        let before = of_process(pid)?;
        for message in 0..messages {
            for n in 0..count {
                let text = format!("{message}: good morning, is my order on its way?");
                whatsapp.send(&WhatsappSend::text(customer(n), business(n), text))?;
            }
        }
        self.until(
            whatsapp,
            |line| matches!(line, Line::Received(got) if *got >= all),
        )
        .await?;
        note(
            "in_cpu",
            (of_process(pid)? - before) as f64 / all as f64,
            "us/message",
        );
        let before = of_process(pid)?;
        self.say(&format!("send {messages}")).await?;
        let begun = Instant::now();
        while shown(whatsapp, count)? < all {
            if begun.elapsed() > PATIENCE {
                bail!("{} of {all} were shown", shown(whatsapp, count)?);
            }
            tokio::time::sleep(POLL).await;
        }
        note(
            "out_cpu",
            (of_process(pid)? - before) as f64 / all as f64,
            "us/message",
        );
        tokio::time::sleep(SETTLE).await;
        let rss = memory(pid)?.rss as f64;
        note("rss_after", rss / MEGABYTE, "MB");
        note("each_after", each(rss), "MB");
        Ok(())
    }

    async fn say(&mut self, word: &str) -> Result<()> {
        self.stdin.write_all(format!("{word}\n").as_bytes()).await?;
        Ok(())
    }

    /// Reads until a line is as wanted; codes are scanned on the way.
    async fn until(
        &mut self,
        whatsapp: &WhatsappWeb,
        wanted: impl Fn(&Line) -> bool,
    ) -> Result<()> {
        let reading = async {
            while let Some(text) = self.lines.next_line().await? {
                let Ok(line) = serde_json::from_str::<Line>(&text) else {
                    continue;
                };
                if let Line::Qr { n, code } = &line {
                    whatsapp.scan(&business(*n), code).await?;
                }
                if wanted(&line) {
                    return Ok(());
                }
            }
            bail!("the fleet of Baileys ended")
        };
        tokio::time::timeout(PATIENCE, reading)
            .await
            .unwrap_or_else(|_| bail!("the fleet of Baileys does not answer"))
    }
}

/// Messages on the customers' phones.
fn shown(whatsapp: &WhatsappWeb, count: u32) -> Result<u64> {
    let mut shown = 0;
    for n in 0..count {
        let messages = whatsapp.messages(&customer(n))?;
        let got = messages
            .iter()
            .filter(|one| !one.from_me && one.tick >= WhatsappTick::Sent);
        shown += got.count() as u64;
    }
    Ok(shown)
}
