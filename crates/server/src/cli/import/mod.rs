//! `wasel import`: moves the tables of an older messaging system into a tenant. Repeating it moves what is missing;
//! it never sends anything.

mod channels;
mod input;
mod mapper;
mod progress;
mod report;
mod shapes;
mod values;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use tokio::sync::{mpsc, watch};
use wasel_config::Config;
use wasel_db::import::{Importer, NewConversation, NewMessage, NewQueued, NewSession, NewTemplate};
use wasel_db::organizations::{self, Organization};
use wasel_domain::phone;

use super::{print, with_foundation};
use crate::app::Foundation;
use channels::Channels;
use input::{Input, Table};
use mapper::{Customers, Layout, Mapped, Mapper, Skip};
use progress::Progress;
use report::{Report, TableReport, printable};
use shapes::{Field, Kind, NOTHING_TO_MOVE, Shape, Wants};

#[derive(clap::Args)]
pub struct Args {
    /// The organisation (its slug) that gets the rows.
    #[arg(long)]
    org: String,
    /// postgres://… of the old database, a directory of TABLE.csv, .json or .jsonl files, or one such file.
    /// WASEL_IMPORT_FROM keeps a password out of the shell's history.
    #[arg(long, env = "WASEL_IMPORT_FROM", hide_env_values = true)]
    from: String,
    /// Only these tables; for one file, the table it is.
    #[arg(long, value_name = "NAME")]
    table: Vec<String>,
    /// Where the old tables are in the old database.
    #[arg(long, default_value = "public")]
    schema: String,
    /// What to call this import: rows moved under the same name are not moved again. Default: the recognised system
    /// and where the database is (host, port, database, schema), or the directory's name.
    #[arg(long)]
    source: Option<String>,
    /// The channel (name, kind or id) for rows of its family (WhatsApp, SMS, e-mail) instead of the one they tell.
    #[arg(long, value_name = "NAME, KIND OR ID")]
    channel: Vec<String>,
    /// Only rows with this org_id (of conversations with AI fields: distributor_id).
    #[arg(long, value_name = "ID", conflicts_with = "all_orgs_into_one")]
    old_org: Option<String>,
    /// Move the rows of several old organisations into this one.
    #[arg(long)]
    all_orgs_into_one: bool,
    /// Write nothing; report what would happen.
    #[arg(long)]
    dry_run: bool,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Rows per transaction.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch: u32,
    /// Leave waiting notifications pending: they will be sent. Otherwise they become cancelled, and always those the
    /// old system was sending.
    #[arg(long)]
    keep_pending: bool,
}

pub async fn run(config: Config, args: Args) -> Result<()> {
    let report =
        with_foundation(config, async |foundation| import(foundation, &args).await).await?;
    if args.json {
        print(&serde_json::to_string(&report)?);
    } else {
        for line in report.lines() {
            print(&line);
        }
    }
    Ok(())
}

/// A table that will be read.
struct Planned {
    table: Table,
    layout: Arc<Layout>,
    rows: u64,
    source: String,
}

struct Plan {
    tables: Vec<Planned>,
    unknown: Vec<String>,
    nothing_to_move: Vec<String>,
}

async fn import(foundation: &Foundation, args: &Args) -> Result<Report> {
    let mut tx = foundation.db.system().await?;
    let org = organizations::find_by_slug(&mut tx, &args.org)
        .await?
        .with_context(|| format!("there is no organisation `{}`", args.org))?;
    let all = wasel_db::channels::list_sealed(&mut tx).await?;
    tx.commit().await?;
    let ours = all
        .into_iter()
        .map(|sealed| sealed.channel)
        .filter(|channel| channel.org_id == org.id)
        .collect();
    let channels = Channels::new(ours, &args.channel)?;
    let table = args.table.first().map(String::as_str);
    let (mut input, name) = Input::open(&args.from, &args.schema, table).await?;
    let mut plan = plan(&mut input, args, &name).await?;
    let (presses, pressed) = watch::channel(0);
    let mut job = Job {
        args,
        region: org
            .region
            .as_deref()
            .and_then(|region| phone::parse_region(region).ok()),
        org,
        channels,
        customers: Arc::default(),
        numbers: Arc::default(),
        pressed: pressed.clone(),
    };
    job.survey(&mut input, &mut plan).await?;
    let listening = tokio::spawn(listen(presses));
    let result = tokio::select! {
        result = job.work(foundation, &mut input, plan) => result,
        // The batch in hand is lost with its connection; it is moved again like all that was not.
        () = presses_of(pressed, 2) => Err(anyhow!("interrupted; the same command goes on from there")),
    };
    listening.abort();
    let report = result?;
    input.close().await?;
    Ok(report)
}

/// Counts how often Ctrl-C is pressed: once means stop after this batch, twice means now.
async fn listen(presses: watch::Sender<u32>) {
    while tokio::signal::ctrl_c().await.is_ok() {
        presses.send_modify(|presses| *presses += 1);
    }
}

/// Comes back when Ctrl-C was pressed so often.
async fn presses_of(mut pressed: watch::Receiver<u32>, times: u32) {
    if pressed.wait_for(|presses| *presses >= times).await.is_err() {
        // Nobody listens: it never will be.
        std::future::pending::<()>().await;
    }
}

/// Recognises the tables and counts their rows.
async fn plan(input: &mut Input, args: &Args, name: &str) -> Result<Plan> {
    let mut plan = Plan {
        tables: Vec::new(),
        unknown: Vec::new(),
        nothing_to_move: Vec::new(),
    };
    let tables = input.tables().await?;
    for wanted in &args.table {
        if !tables.iter().any(|table| table.name == *wanted) {
            bail!("--table: there is no table `{wanted}`");
        }
    }
    let is_helper = |shape: &Shape| shape.kind <= Kind::Customers;
    for table in tables {
        let chosen = args.table.is_empty() || args.table.contains(&table.name);
        match Shape::recognise(&table.name, &table.columns) {
            Some(shape) if chosen || is_helper(shape) => plan.tables.push(Planned {
                layout: Arc::new(Layout::new(shape, &table.columns)),
                rows: 0,
                source: match &args.source {
                    Some(source) => source.clone(),
                    None => format!("{}:{name}", shape.document),
                },
                table,
            }),
            None if chosen && NOTHING_TO_MOVE.contains(&table.name.as_str()) => {
                plan.nothing_to_move.push(table.name);
            }
            None if chosen => plan.unknown.push(table.name),
            _ => {}
        }
    }
    // Customers are an address book for conversations of the same system, and nothing to others.
    let needs_customers = plan
        .tables
        .iter()
        .any(|planned| planned.layout.column(Field::Customer).is_some());
    let (keep, drop): (Vec<_>, Vec<_>) = plan
        .tables
        .into_iter()
        .partition(|planned| needs_customers || planned.layout.shape.kind != Kind::Customers);
    plan.tables = keep;
    plan.unknown
        .extend(drop.into_iter().map(|planned| planned.table.name));
    if plan.tables.is_empty() {
        let seen = [plan.unknown, plan.nothing_to_move].concat().join(", ");
        bail!("--from: no table we know; there are: {seen}");
    }
    // Conversations before their messages, templates before the queue.
    plan.tables.sort_by_key(|planned| planned.layout.shape.kind);
    Ok(plan)
}

struct Job<'a> {
    args: &'a Args,
    org: Organization,
    region: Option<phone::Region>,
    channels: Channels,
    customers: Arc<Customers>,
    numbers: Arc<HashMap<String, String>>,
    /// How often Ctrl-C was pressed.
    pressed: watch::Receiver<u32>,
}

/// The rows of one batch, by what they became.
#[derive(Default)]
struct Batch {
    read: u64,
    bytes: usize,
    skipped: Vec<Skip>,
    conversations: Vec<NewConversation>,
    messages: Vec<NewMessage>,
    sessions: Vec<NewSession>,
    templates: Vec<NewTemplate>,
    queued: Vec<NewQueued>,
}

impl Batch {
    fn add(&mut self, bytes: usize, mapped: Result<Mapped, Skip>) {
        self.read += 1;
        self.bytes += bytes;
        match mapped {
            Ok(Mapped::Conversation(row)) => self.conversations.push(row),
            Ok(Mapped::Message(row)) => self.messages.push(row),
            Ok(Mapped::Session(row)) => self.sessions.push(row),
            Ok(Mapped::Template(row)) => self.templates.push(row),
            Ok(Mapped::Queued(row)) => self.queued.push(row),
            Err(skip) => self.skipped.push(skip),
        }
    }

    fn is_full(&self, rows: u64) -> bool {
        self.read >= rows || self.bytes >= BATCH_BYTES
    }
}

/// Mapped batches that wait while one is written.
const WAITING: usize = 2;
/// A batch of so many bytes is large enough, however few rows it has.
const BATCH_BYTES: usize = 16 << 20;
/// Reasons that are told when an import does not begin.
const REASONS: usize = 10;

impl Job<'_> {
    /// Looks through the source before anything is written: whose rows they are, which channels they need.
    async fn survey(&mut self, input: &mut Input, plan: &mut Plan) -> Result<()> {
        self.read_helpers(input, plan).await?;
        let mut orgs: BTreeSet<String> = BTreeSet::new();
        let mut missing: BTreeSet<String> = BTreeSet::new();
        for planned in &mut plan.tables {
            let layout = planned.layout.clone();
            let asked = match layout.shape.wants {
                Wants::Nothing | Wants::Whatsapp | Wants::TwilioWhatsapp => &[][..],
                Wants::CloudNumber => &[Field::PhoneNumberId],
                Wants::Log => &[Field::Channel, Field::Provider],
                Wants::Channel => &[Field::Channel],
            };
            let fields: Vec<Field> = std::iter::once(Field::Org)
                .chain(asked.iter().copied())
                .filter(|field| layout.column(*field).is_some())
                .collect();
            let columns: Vec<String> = fields
                .iter()
                .filter_map(|field| layout.column(*field).map(str::to_owned))
                .collect();
            let survey = input
                .survey(&planned.table, &columns)
                .await
                .with_context(|| planned.table.name.clone())?;
            planned.rows = survey.values().sum();
            // Rows that do not say whose they are would all come; messages go with their conversations.
            let says = layout.column(Field::Org).is_some() || layout.shape.conversations.is_some();
            if self.args.old_org.is_some()
                && planned.rows > 0
                && layout.shape.kind > Kind::Customers
                && !says
            {
                bail!(
                    "--old-org: the table `{}` does not say whose its rows are; name the tables that do with --table; nothing was written",
                    planned.table.name
                );
            }
            let mapper = self.mapper(planned);
            for (values, rows) in survey {
                let get = |field: Field| {
                    let place = fields.iter().position(|f| *f == field)?;
                    values.get(place).filter(|value| !value.is_empty()).cloned()
                };
                let org = get(Field::Org);
                orgs.extend(org.clone());
                let is_others = self.args.old_org.is_some() && org != self.args.old_org;
                if rows == 0 || layout.shape.wants == Wants::Nothing || (is_others && org.is_some())
                {
                    continue;
                }
                let hint = mapper.hint(get);
                // A word for a channel that nobody knows is a matter of its rows.
                if let Some(word) = &hint.channel
                    && !channels::is_family(word)
                {
                    continue;
                }
                if let Err(reason) = self.channels.find(layout.shape.wants, &hint) {
                    missing.insert(format!("{}: {reason}", planned.table.name));
                }
            }
        }
        if orgs.len() > 1 && self.args.old_org.is_none() && !self.args.all_orgs_into_one {
            let some: Vec<String> = orgs.iter().take(10).map(|org| printable(org)).collect();
            bail!(
                "the rows are of {} old organisations ({}{}): choose one with --old-org, or --all-orgs-into-one; nothing was written",
                orgs.len(),
                some.join(", "),
                if orgs.len() > 10 { ", …" } else { "" }
            );
        }
        if !missing.is_empty() {
            let reasons: Vec<String> = missing
                .iter()
                .take(REASONS)
                .map(|reason| printable(reason))
                .collect();
            let more = if missing.len() > REASONS { "; …" } else { "" };
            bail!("{}{more}; nothing was written", reasons.join("; "));
        }
        Ok(())
    }

    /// Tables that are looked things up in.
    async fn read_helpers(&mut self, input: &mut Input, plan: &Plan) -> Result<()> {
        for planned in &plan.tables {
            let layout = planned.layout.clone();
            let (sender, mut receiver) =
                mpsc::channel::<(String, Vec<String>, Option<String>)>(1024);
            let wanted = match layout.shape.kind {
                Kind::Numbers if layout.column(Field::PhoneNumberId).is_some() => {
                    Field::PhoneNumberId
                }
                Kind::Customers => Field::Address,
                _ => continue,
            };
            let reader = layout.clone();
            let work = move |record: Option<&csv::StringRecord>| {
                if let Some(record) = record
                    && let Some(id) = reader.get(record, Field::Id)
                {
                    let found = reader.all(record, wanted).map(|(_, text)| text.to_owned());
                    let name = reader.get(record, Field::Name).map(str::to_owned);
                    sender.blocking_send((id.to_owned(), found.collect(), name))?;
                }
                Ok(())
            };
            let collect = async {
                let mut all = Customers::new();
                while let Some((id, found, name)) = receiver.recv().await {
                    all.insert(id, (found, name));
                }
                all
            };
            let (read, rows) = input
                .read(&planned.table, &layout.columns, work, collect)
                .await?;
            read.with_context(|| planned.table.name.clone())?;
            if layout.shape.kind == Kind::Customers {
                self.customers = Arc::new(rows);
            } else {
                self.numbers = Arc::new(
                    rows.into_iter()
                        .filter_map(|(id, (numbers, _))| Some((id, numbers.into_iter().next()?)))
                        .collect(),
                );
            }
        }
        Ok(())
    }

    fn mapper(&self, planned: &Planned) -> Mapper {
        Mapper {
            layout: planned.layout.clone(),
            source: planned.source.clone(),
            old_org: self.args.old_org.clone(),
            region: self.region,
            channels: self.channels.clone(),
            customers: self.customers.clone(),
            numbers: self.numbers.clone(),
            keep_pending: self.args.keep_pending,
            phones: HashMap::new(),
            found: HashMap::new(),
            unnamed: HashMap::new(),
        }
    }

    async fn work(&self, foundation: &Foundation, input: &mut Input, plan: Plan) -> Result<Report> {
        let mut report = Report {
            organization: self.args.org.clone(),
            dry_run: self.args.dry_run,
            tables: Vec::new(),
            unknown_tables: plan.unknown,
            nothing_to_move: plan.nothing_to_move,
        };
        let mut importer =
            Importer::begin(&foundation.db, self.org.id.into(), "", self.args.dry_run)
                .await
                .map_err(|error| match error {
                    wasel_db::Error::Raced => {
                        anyhow!("another import into this organisation is running")
                    }
                    error => error.into(),
                })?;
        for planned in &plan.tables {
            importer.set_source(&planned.source);
            let mut table = TableReport {
                table: planned.table.name.clone(),
                document: planned.layout.shape.document.to_owned(),
                source: planned.source.clone(),
                unknown_columns: planned.layout.unknown.clone(),
                ..TableReport::default()
            };
            let moved = self.move_table(input, &mut importer, planned, &mut table);
            moved.await.with_context(|| {
                format!(
                    "{}: stopped after {} of {} rows; what was moved stays, and the same command goes on from there",
                    planned.table.name, table.read, planned.rows
                )
            })?;
            report.tables.push(table);
        }
        let mut pressed = self.pressed.clone();
        pressed.mark_unchanged();
        tokio::select! {
            finished = importer.finish() => finished?,
            // One that was pressed during the last batch came too late to stop anything.
            Ok(()) = pressed.changed() => {
                bail!("interrupted; all rows are moved, and the same command brings the last lines up to date");
            }
        }
        Ok(report)
    }

    async fn move_table(
        &self,
        input: &mut Input,
        importer: &mut Importer,
        planned: &Planned,
        report: &mut TableReport,
    ) -> Result<()> {
        if planned.layout.shape.kind <= Kind::Customers {
            return self.report_helper(input, planned, report).await;
        }
        let mut mapper = self.mapper(planned);
        let (sender, receiver) = mpsc::channel::<Batch>(WAITING);
        let size = u64::from(self.args.batch);
        let (mut batch, mut number) = (Batch::default(), 0);
        // Reads and maps the next batches while one is written.
        let work = move |record: Option<&csv::StringRecord>| {
            if let Some(record) = record {
                number += 1;
                batch.add(record.as_slice().len(), mapper.map(record, number));
            }
            if batch.is_full(size) || record.is_none() {
                sender.blocking_send(std::mem::take(&mut batch))?;
            }
            Ok(())
        };
        let progress = Progress::new(&planned.table.name, planned.rows);
        let write = self.write(importer, planned, receiver, report, progress);
        let (read, written) = input
            .read(&planned.table, &planned.layout.columns, work, write)
            .await?;
        // Where writing failed, reading only failed because of it.
        written?;
        read
    }

    async fn write(
        &self,
        importer: &mut Importer,
        planned: &Planned,
        mut batches: mpsc::Receiver<Batch>,
        report: &mut TableReport,
        mut progress: Progress,
    ) -> Result<()> {
        let kind = planned.layout.shape.table;
        loop {
            let is_complete = report.read >= planned.rows;
            let batch = tokio::select! {
                biased;
                () = presses_of(self.pressed.clone(), 1), if !is_complete => bail!("interrupted"),
                batch = batches.recv() => batch,
            };
            let Some(batch) = batch else { break };
            for skip in &batch.skipped {
                report.skip(&skip.reason, &skip.id);
            }
            let rows = &batch.conversations;
            if !rows.is_empty() {
                let outcomes = importer.write_conversations(kind, rows).await?;
                report.count(outcomes, rows.iter().map(|row| row.external_id.as_str()));
            }
            let rows = &batch.messages;
            if !rows.is_empty() {
                let outcomes = importer.write_messages(kind, rows).await?;
                report.count(outcomes, rows.iter().map(|row| row.external_id.as_str()));
            }
            let rows = &batch.sessions;
            if !rows.is_empty() {
                let outcomes = importer.write_sessions(kind, rows).await?;
                report.count(outcomes, rows.iter().map(|row| row.external_id.as_str()));
            }
            let rows = &batch.templates;
            if !rows.is_empty() {
                let outcomes = importer.write_templates(kind, rows).await?;
                report.count(outcomes, rows.iter().map(|row| row.external_id.as_str()));
            }
            let rows = &batch.queued;
            if !rows.is_empty() {
                let outcomes = importer.write_queue(kind, rows).await?;
                report.count(outcomes, rows.iter().map(|row| row.external_id.as_str()));
            }
            report.read += batch.read;
            progress.advance(batch.read);
        }
        progress.finish();
        Ok(())
    }

    /// Tables that only tell about others.
    async fn report_helper(
        &self,
        input: &mut Input,
        planned: &Planned,
        report: &mut TableReport,
    ) -> Result<()> {
        let layout = planned.layout.clone();
        let (sender, mut receiver) = mpsc::channel::<(String, Option<String>)>(1024);
        let work = move |record: Option<&csv::StringRecord>| {
            if let Some(record) = record {
                let id = layout.get(record, Field::Id).unwrap_or("").to_owned();
                let number = layout.get(record, Field::PhoneNumberId).map(str::to_owned);
                sender.blocking_send((id, number))?;
            }
            Ok(())
        };
        let shape = planned.layout.shape;
        let tell = async {
            while let Some((id, number)) = receiver.recv().await {
                report.read += 1;
                match number {
                    _ if shape.kind == Kind::Customers => {}
                    Some(number) if self.channels.has_number(&number) => report.already_moved += 1,
                    Some(number) => report.skip(
                        "phone_number_id: no channel yet; connect it with `wasel apply`",
                        &number,
                    ),
                    None => report.skip(
                        "access tokens are not moved; connect the numbers with `wasel apply`",
                        &id,
                    ),
                }
            }
        };
        let (read, ()) = input
            .read(&planned.table, &planned.layout.columns, work, tell)
            .await?;
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_full_by_its_rows_or_by_its_bytes() {
        let row = || {
            Err(Skip {
                reason: "because".into(),
                id: "1".to_owned(),
            })
        };
        let mut batch = Batch::default();
        batch.add(BATCH_BYTES / 2, row());
        assert!(batch.is_full(1) && !batch.is_full(10_000));
        batch.add(BATCH_BYTES / 2, row());
        assert!(batch.is_full(10_000));
    }
}
