//! A server with many linked phones.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use sqlx::postgres::{PgPool, PgPoolOptions};
use wasel_simulator::{NewWhatsappPhone, Simulator, WhatsappSend, WhatsappWeb};

use super::{MEGABYTE, business, customer};
use crate::children::{Cluster, Server, free_port, wasel};
use crate::cpu::{Used, memory};
use crate::print;
use crate::report::Figures;

/// Phones of one organisation.
const PHONES_EACH: u32 = 10;
/// Until nothing is left to do after a burst.
const SETTLE: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);
/// A step that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(180);

pub struct Fleet {
    program: PathBuf,
    data_dir: PathBuf,
    log: PathBuf,
    port: u16,
    whatsapp: WhatsappWeb,
    count: u32,
    messages: u32,
    server: Option<Server>,
    cluster: Option<Cluster>,
}

impl Fleet {
    pub fn new(
        program: &Path,
        directory: &Path,
        simulator: &Simulator,
        count: u32,
        messages: u32,
    ) -> Result<Self> {
        Ok(Self {
            program: program.to_owned(),
            data_dir: directory.join("wasel"),
            log: directory.join("wasel.log"),
            port: free_port()?,
            whatsapp: simulator.whatsapp_web(),
            count,
            messages,
            server: None,
            cluster: None,
        })
    }

    pub async fn measure(&mut self, figures: &mut Figures) -> Result<()> {
        let prefix = format!("wasel_{}", self.count);
        let mut note = |what: &str, value: f64, unit| {
            print(&format!("… {prefix}_{what} {value:.2} {unit}"));
            figures.note(format!("{prefix}_{what}"), value, unit);
        };
        self.start().await?;
        let pool = self.pool().await?;
        tokio::time::sleep(SETTLE).await;
        let empty = self.rss()?;
        note("process_before", empty / MEGABYTE, "MB");

        let (begun, before) = (Instant::now(), self.used()?);
        self.declare(&pool).await?;
        self.link(&pool).await?;
        let spent = self.used()?.since(before);
        note("linked_in", begun.elapsed().as_secs_f64(), "s");
        note("linking_cpu", each(spent.server, self.count), "ms/session");
        tokio::time::sleep(SETTLE).await;
        let each_now = |rss: f64| (rss - empty) / MEGABYTE / f64::from(self.count);
        note("rss_idle", self.rss()? / MEGABYTE, "MB");
        note("each_idle", each_now(self.rss()?), "MB");
        let before = self.used()?;
        tokio::time::sleep(IDLE).await;
        let spent = self.used()?.since(before);
        let share = |micros: u64| 100.0 * micros as f64 / IDLE.as_micros() as f64;
        note("idle_cpu", share(spent.server), "% of a core");
        note("idle_postgres_cpu", share(spent.postgres), "% of a core");

        let all = i64::from(self.count * self.messages);
        let (begun, before) = (Instant::now(), self.used()?);
        self.customers_write()?;
        self.until(&pool, INBOUND, all).await?;
        let spent = self.used()?.since(before);
        note(
            "in_rate",
            all as f64 / begun.elapsed().as_secs_f64(),
            "messages/s",
        );
        note("in_cpu", spent.server as f64 / all as f64, "us/message");
        note(
            "in_postgres_cpu",
            spent.postgres as f64 / all as f64,
            "us/message",
        );
        let (begun, before) = (Instant::now(), self.used()?);
        self.answer(&pool).await?;
        self.until(&pool, DELIVERED, all).await?;
        let spent = self.used()?.since(before);
        note(
            "out_rate",
            all as f64 / begun.elapsed().as_secs_f64(),
            "messages/s",
        );
        note("out_cpu", spent.server as f64 / all as f64, "us/message");
        note(
            "out_postgres_cpu",
            spent.postgres as f64 / all as f64,
            "us/message",
        );
        tokio::time::sleep(SETTLE).await;
        note("rss_after", self.rss()? / MEGABYTE, "MB");
        note("each_after", each_now(self.rss()?), "MB");
        self.check(&pool, all).await?;

        if let Some(server) = &mut self.server {
            let begun = Instant::now();
            server.stop().await?;
            note("stopped_in", begun.elapsed().as_secs_f64(), "s");
        }
        let begun = Instant::now();
        self.start().await?;
        self.until_connected().await?;
        note("back_in", begun.elapsed().as_secs_f64(), "s");
        // The private cluster went down and came up with the server.
        let pool = self.pool().await?;
        self.until(&pool, CONNECTED, i64::from(self.count)).await?;
        note("rss_back", self.rss()? / MEGABYTE, "MB");
        pool.close().await;
        Ok(())
    }

    async fn start(&mut self) -> Result<()> {
        let mut command = wasel(&self.program, &self.data_dir);
        command
            .arg("serve")
            .env("PORT", self.port.to_string())
            .env("WHATSAPP_WEB_URL", self.whatsapp.url())
            .env("WASEL_LOGGING_FILTER", "warn");
        self.server = Some(Server::start(command, self.port, "", &self.log).await?);
        self.cluster = Some(Cluster::of(&self.data_dir)?);
        Ok(())
    }

    async fn pool(&self) -> Result<PgPool> {
        let Some(cluster) = &self.cluster else {
            bail!("no cluster");
        };
        Ok(PgPoolOptions::new()
            .max_connections(4)
            .connect_with(cluster.options.clone())
            .await?)
    }

    /// Channels and sessions, as `wasel apply` makes them; they may send as fast as they can.
    async fn declare(&self, pool: &PgPool) -> Result<()> {
        for n in 0..self.count {
            for (number, name) in [(business(n), "Business"), (customer(n), "Customer")] {
                self.whatsapp
                    .register(&NewWhatsappPhone::new(number, name))?;
            }
        }
        for statement in [
            "INSERT INTO organizations (id, slug, name)
             SELECT gen_random_uuid(), 'org-' || n, 'Organisation ' || n FROM generate_series(1, ($1 + $2 - 1) / $2) n",
            "INSERT INTO channels (org_id, id, kind, name, limits)
             SELECT o.id, gen_random_uuid(), 'whatsapp_web', 'phone ' || n, '{\"messages_per_second\": 50}'
             FROM generate_series(0, $1 - 1) n JOIN organizations o ON o.slug = 'org-' || (n / $2 + 1)",
            "INSERT INTO whatsapp_sessions (org_id, channel_id, should_run)
             SELECT org_id, id, true FROM channels WHERE kind = 'whatsapp_web' AND $1 > 0 AND $2 > 0",
        ] {
            sqlx::query(statement)
                .bind(self.count as i32)
                .bind(PHONES_EACH as i32)
                .execute(pool)
                .await?;
        }
        Ok(())
    }

    /// Each phone scans the code of one session.
    async fn link(&self, pool: &PgPool) -> Result<()> {
        let begun = Instant::now();
        let mut next = 0;
        while next < self.count {
            let shown: Vec<String> = sqlx::query_scalar(
                "SELECT qr_code FROM whatsapp_sessions WHERE status = 'qr_pending' AND qr_code IS NOT NULL LIMIT 50",
            )
            .fetch_all(pool)
            .await?;
            for picture in shown {
                let Some(code) = wasel_server::linked_phones::qr::text_of(&picture) else {
                    bail!("a QR code without its text");
                };
                // One that is linked already, or has got another code meanwhile, comes again or not.
                if self.whatsapp.scan(&business(next), &code).await.is_ok() {
                    next += 1;
                }
            }
            if begun.elapsed() > PATIENCE {
                bail!("only {next} phones were linked");
            }
            tokio::time::sleep(POLL).await;
        }
        self.until(pool, CONNECTED, i64::from(self.count)).await
    }

    fn customers_write(&self) -> Result<()> {
        for message in 0..self.messages {
            for n in 0..self.count {
                let text = format!("{message}: good morning, is my order on its way?");
                self.whatsapp
                    .send(&WhatsappSend::text(customer(n), business(n), text))?;
            }
        }
        Ok(())
    }

    /// The same number of messages into every conversation, as the server queues them.
    async fn answer(&self, pool: &PgPool) -> Result<()> {
        let mut tx = pool.begin().await?;
        sqlx::query(
            "INSERT INTO messages (org_id, id, conversation_id, channel_id, contact_id, direction, message_type, status,
                 body, content, address)
             SELECT c.org_id, wasel.uuid7(), c.id, c.channel_id, c.contact_id, 'outbound', 'text', 'queued',
                 n || ': it is on its way', jsonb_build_object('type', 'text', 'body', n || ': it is on its way'),
                 c.phone_number
             FROM generate_series(1, $1) n CROSS JOIN conversations c",
        )
        .bind(self.messages as i32)
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "INSERT INTO outbox (org_id, message_id, channel_id, conversation_id)
             SELECT org_id, id, channel_id, conversation_id FROM messages WHERE status = 'queued'",
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Nothing lost, nothing doubled.
    async fn check(&self, pool: &PgPool, all: i64) -> Result<()> {
        let stored: i64 = sqlx::query_scalar(INBOUND).fetch_one(pool).await?;
        let mut shown = 0;
        for n in 0..self.count {
            let messages = self.whatsapp.messages(&customer(n))?;
            let got: Vec<_> = messages.iter().filter(|one| !one.from_me).collect();
            shown += got.len() as i64;
            if got.iter().any(|one| one.copies != 1) {
                bail!("a message came twice");
            }
        }
        if (stored, shown) != (all, all) {
            bail!("{stored} in and {shown} out of {all} each");
        }
        Ok(())
    }

    async fn until(&self, pool: &PgPool, count: &'static str, wanted: i64) -> Result<()> {
        let begun = Instant::now();
        loop {
            let now: i64 = sqlx::query_scalar(count).fetch_one(pool).await?;
            if now >= wanted {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                bail!("{now} of {wanted}: {count}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// As WhatsApp's server sees it.
    async fn until_connected(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let phones = self.whatsapp.phones();
            let companions = phones.iter().flat_map(|phone| &phone.companions);
            let connected = companions.filter(|one| one.connected).count();
            if connected >= self.count as usize {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                bail!("only {connected} came back");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn rss(&self) -> Result<f64> {
        let Some(server) = &self.server else {
            bail!("no server");
        };
        Ok(memory(server.pid)?.rss as f64)
    }

    fn used(&self) -> Result<Used> {
        let (Some(server), Some(cluster)) = (&self.server, &self.cluster) else {
            bail!("no server");
        };
        Used::now(Some(server.pid), cluster.postmaster)
    }

    /// Ends what was started.
    pub async fn clear(&mut self) -> Result<()> {
        let mut result = Ok(());
        if let Some(server) = &mut self.server {
            result = server.stop().await;
        }
        if let Some(cluster) = &self.cluster {
            result = result.and(cluster.stop_if_running().await);
        }
        result
    }
}

const CONNECTED: &str = "SELECT count(*) FROM whatsapp_sessions WHERE status = 'connected'";
const INBOUND: &str = "SELECT count(*) FROM messages WHERE direction = 'inbound'";
const DELIVERED: &str = "SELECT count(*) FROM messages WHERE direction = 'outbound' AND status IN ('delivered', 'read')";

/// Milliseconds of CPU for each session.
fn each(micros: u64, count: u32) -> f64 {
    micros as f64 / 1000.0 / f64::from(count)
}
