//! `import`: a million old rows moved by `wasel import`, from CSV and from Postgres, against a plain `COPY` of the same
//! bytes into a table without indexes or constraints. All in one cluster, in alternating rounds.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sqlx::postgres::PgPool;

use crate::bounded::{bounded, ground};
use crate::children::{Cluster, Server, free_port, output_of, wasel};
use crate::cpu::Used;
use crate::print;
use crate::report::{Bar, Figures, machine};

/// A run that takes longer is stopped.
const LIMIT: Duration = Duration::from_secs(9 * 60);
/// Rows a second that an import must reach.
const BAR: f64 = 20_000.0;

#[derive(clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// Distinct numbers; each gets a conversation on two channels.
    #[arg(long, default_value_t = 50_000)]
    customers: u64,
    #[arg(long, default_value_t = 2)]
    rounds: u32,
    /// The server's program; without it a release build is made.
    #[arg(long)]
    wasel: Option<PathBuf>,
    /// Where the data directory is made (and removed again); must be on a real disk. Default: the temporary directory.
    #[arg(long)]
    dir: Option<PathBuf>,
}

const OLD_TABLE: &str = "CREATE TABLE message_logs (id uuid, request_id text, recipient text, message_type text,
    message_content text, provider text, status text, external_id text, metadata jsonb, sender_id uuid, media_url text,
    sent_at timestamptz, delivered_at timestamptz, read_at timestamptz, failed_at timestamptz, error_code text,
    error_message text, created_at timestamptz)";

pub async fn run(args: Args) -> Result<()> {
    if args.rows == 0 || args.customers == 0 || args.rounds == 0 {
        bail!("at least one row, one customer and one round");
    }
    let (program, directory) = ground(args.wasel.as_ref(), args.dir.as_ref(), &[]).await?;
    let mut stage = Stage::default();
    let result = bounded(
        LIMIT,
        measure(&args, &program, directory.path(), &mut stage),
    )
    .await;
    stage.clear().await.and(result)
}

/// What runs, and must not run any more at the end.
#[derive(Default)]
struct Stage {
    server: Option<Server>,
    cluster: Option<Cluster>,
}

impl Stage {
    async fn clear(mut self) -> Result<()> {
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

async fn measure(args: &Args, program: &Path, directory: &Path, stage: &mut Stage) -> Result<()> {
    print(&format!("machine {}", machine()));
    let data_dir = directory.join("wasel");
    let port = free_port()?;
    let mut command = wasel(program, &data_dir);
    command.arg("serve").env("PORT", port.to_string());
    stage.server = Some(Server::start(command, port, "", &directory.join("wasel.log")).await?);
    let cluster = Cluster::of(&data_dir)?;
    let (options, postmaster) = (cluster.options.clone(), cluster.postmaster);
    let url = cluster.url("bench_old")?;
    stage.cluster = Some(cluster);

    let file = directory.join("message_logs.csv");
    write_csv(&file, args)?;
    let bytes = std::fs::metadata(&file)?.len();
    let admin = PgPool::connect_with(options.clone().database("postgres")).await?;
    sqlx::query("CREATE DATABASE bench_old")
        .execute(&admin)
        .await?;
    let old = PgPool::connect_with(options.clone().database("bench_old")).await?;
    sqlx::raw_sql(OLD_TABLE).execute(&old).await?;
    copy_into(&old, "message_logs", &file).await?;
    let target = PgPool::connect_with(options).await?;

    let mut figures = Figures::default();
    figures.note("csv".to_owned(), bytes as f64 / 1e6, "MB");
    for round in 0..args.rounds {
        sqlx::raw_sql(sqlx::AssertSqlSafe(
            OLD_TABLE.replace("message_logs", "bench_copy"),
        ))
        .execute(&target)
        .await?;
        let (before, begun) = (Used::now(None, postmaster)?, Instant::now());
        copy_into(&target, "bench_copy", &file).await?;
        note(&mut figures, "copy", args.rows, begun, before, postmaster)?;
        sqlx::query("DROP TABLE bench_copy")
            .execute(&target)
            .await?;
        for (name, from) in [
            ("csv", file.to_string_lossy().into_owned()),
            ("postgres", url.clone()),
        ] {
            let org = format!("{name}{round}");
            let mut command = wasel(program, &data_dir);
            command.args(["apply", "-"]);
            output_of(command, &declaration(&org)).await?;
            let mut command = wasel(program, &data_dir);
            command.args(["import", "--json", "--org", &org, "--from", &from]);
            let (before, begun) = (Used::now(None, postmaster)?, Instant::now());
            let report = output_of(command, "").await.context(name)?;
            note(&mut figures, name, args.rows, begun, before, postmaster)?;
            let report: serde_json::Value = serde_json::from_str(&report)?;
            let stored: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM messages WHERE org_id = (SELECT id FROM organizations WHERE slug = $1)",
            )
            .bind(&org)
            .fetch_one(&target)
            .await?;
            let wrong = stored as u64 != args.rows || report["tables"][0]["moved"] != args.rows;
            figures.note("wrong".to_owned(), f64::from(u8::from(wrong)), "imports");
        }
    }
    figures.print();
    for name in ["csv", "postgres"] {
        let rate = figures.median(&format!("import_{name}_rate"));
        let bar = format!("import_{name}_rate");
        Figures::print_bar(&bar, rate, "rows/s", Bar::AtLeast(BAR));
    }
    for name in ["csv", "postgres"] {
        let ratio =
            figures.median(&format!("import_{name}_rate")) / figures.median("import_copy_rate");
        print(&format!("ratio import_{name}_vs_copy {ratio:.3}"));
    }
    if figures.highest("wrong") > 0.0 {
        bail!("what is stored is not what was in the source");
    }
    Ok(())
}

fn note(
    figures: &mut Figures,
    case: &str,
    rows: u64,
    begun: Instant,
    before: Used,
    postmaster: u32,
) -> Result<()> {
    let seconds = begun.elapsed().as_secs_f64();
    let used = Used::now(None, postmaster)?.since(before);
    let each = |micros: u64| micros as f64 / rows as f64;
    figures.note(
        format!("import_{case}_rate"),
        rows as f64 / seconds,
        "rows/s",
    );
    figures.note(format!("import_{case}_seconds"), seconds, "s");
    figures.note(
        format!("import_{case}_postgres_cpu"),
        each(used.postgres),
        "us/row",
    );
    // What neither Postgres nor this program used: the import, and whoever else is on the machine.
    figures.note(
        format!("import_{case}_rest_cpu"),
        each(used.foreign()),
        "us/row",
    );
    Ok(())
}

fn declaration(org: &str) -> String {
    let channel = |kind: &str, from: &str| {
        format!(
            "[[organizations.channels]]\nkind = \"{kind}\"\nname = \"{kind}\"\naccount_sid = \"AC{:0>32}\"\nauth_token = \"t\"\nfrom = \"{from}\"\n",
            hex::encode(org)
        )
    };
    format!(
        "[[organizations]]\nslug = \"{org}\"\nname = \"{org}\"\ntimezone = \"Africa/Cairo\"\n{}{}",
        channel("twilio_sms", "+12025550100"),
        channel("twilio_whatsapp", "+13035550100")
    )
}

/// A log as the Twilio document has it: three of four messages by WhatsApp, Arabic text, all times set.
fn write_csv(file: &Path, args: &Args) -> Result<()> {
    let mut out = std::io::BufWriter::new(std::fs::File::create(file)?);
    writeln!(
        out,
        "id,request_id,recipient,message_type,message_content,provider,status,external_id,metadata,sender_id,media_url,\
         sent_at,delivered_at,read_at,failed_at,error_code,error_message,created_at"
    )?;
    for n in 0..args.rows {
        // Spread like random ids and people, the same in every run.
        let mixed = (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let id = uuid::Builder::from_random_bytes(
            (u128::from(mixed) << 64 | u128::from(mixed.rotate_left(29) ^ n)).to_be_bytes(),
        )
        .into_uuid();
        let customer = mixed % args.customers;
        let kind = if n % 4 == 0 { "sms" } else { "whatsapp" };
        let at = chrono::DateTime::from_timestamp(1_700_000_000 + i64::try_from(n)?, 0)
            .context("time")?
            .format("%Y-%m-%d %H:%M:%S");
        writeln!(
            out,
            "{id},req-{n},0101{customer:07},{kind},\"مرحبا، موعد الصيانة رقم {n} غدا الساعة العاشرة صباحا\",twilio,delivered,SM{mixed:032x},\"{{\"\"job\"\": {n}}}\",,,{at}+00,{at}.25+00,,,,,{at}+00"
        )?;
    }
    out.flush()?;
    Ok(())
}

async fn copy_into(pool: &PgPool, table: &str, file: &Path) -> Result<()> {
    let mut connection = pool.acquire().await?;
    let statement = format!("COPY {table} FROM STDIN (FORMAT csv, HEADER)");
    let mut copy = connection.copy_in_raw(&statement).await?;
    copy.read_from(tokio::fs::File::open(file).await?).await?;
    copy.finish().await?;
    Ok(())
}
