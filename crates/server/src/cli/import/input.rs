//! Where old rows come from: a database, a directory of files, one file. All become CSV records.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;

use anyhow::{Context, Result, anyhow, bail};
use bytes::{Buf, Bytes};
use csv::StringRecord;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::{Map, Value};
use sqlx::postgres::PgConnectOptions;
use tokio::sync::mpsc;
use wasel_db::Error;
use wasel_db::import::source::SourceDb;

use super::mapper::clean;

/// A source of old tables.
pub enum Input {
    Database(SourceDb),
    Files(HashMap<String, (PathBuf, Format)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Csv,
    /// An array of objects, or one object after another.
    Json,
}

/// A table of the source with its columns in order.
#[derive(Clone, Debug)]
pub struct Table {
    pub name: String,
    pub columns: Vec<String>,
}

/// Values of some columns (empty: NULL) and how many rows have them.
pub type Survey = HashMap<Vec<String>, u64>;

/// Pieces of a database's answer that wait to be read.
const PIECES: usize = 8;
/// The longest row of a file, in bytes: what is longer is a quote that nobody closed. A database closes its own.
const LONGEST_ROW: usize = 64 << 20;

impl Input {
    /// Opens `from`: a `postgres://` URL, a directory, or a file. The second value is its name: of a
    /// database where it is, of files their directory's (so those of one export are one source).
    pub async fn open(from: &str, schema: &str, table: Option<&str>) -> Result<(Self, String)> {
        // What is no file might hold a password: it is never repeated.
        if let Some((scheme, rest)) = from.trim().split_once("://") {
            if !["postgres", "postgresql"].contains(&scheme.to_ascii_lowercase().as_str()) {
                bail!("--from is not a postgres:// URL");
            }
            // The parser's own words may repeat the password, too.
            let options: PgConnectOptions = format!("postgres://{rest}")
                .parse()
                .map_err(|_| anyhow!("--from is not a postgres:// URL"))?;
            let mut source = SourceDb::open(&options, schema)
                .await
                .context("--from: the old database cannot be read")?;
            if source.is_ours().await? {
                bail!(
                    "--from: schema `{schema}` there is a Wasel database already; give the schema of the old tables with --schema"
                );
            }
            let name = source.name.clone();
            return Ok((Self::Database(source), name));
        }
        let path = Path::new(from);
        let stem = |path: &Path| Some(path.file_stem()?.to_str()?.to_owned());
        let meta = std::fs::metadata(path)
            .context("--from is neither a postgres:// URL nor a file or directory")?;
        let mut files = HashMap::new();
        if meta.is_dir() {
            for entry in std::fs::read_dir(path)? {
                let path = entry?.path();
                if let (Some(format), Some(name)) = (format_of(&path), stem(&path))
                    && files.insert(name.clone(), (path, format)).is_some()
                {
                    bail!("--from: there are two files for the table `{name}`");
                }
            }
            if files.is_empty() {
                bail!("--from: {from} holds no .csv, .json or .jsonl file");
            }
        } else {
            let format = format_of(path)
                .with_context(|| format!("--from: {from} is no .csv, .json or .jsonl file"))?;
            let name = table.map(str::to_owned).or_else(|| stem(path));
            files.insert(
                name.context("--from: the file has no name")?,
                (path.to_owned(), format),
            );
        }
        let whole = path.canonicalize()?;
        let directory = match meta.is_dir() {
            true => Some(whole.as_path()),
            false => whole.parent(),
        };
        let name = directory
            .and_then(Path::file_name)
            .and_then(|name| name.to_str());
        Ok((Self::Files(files), name.unwrap_or("files").to_owned()))
    }

    /// The tables there are, by name.
    pub async fn tables(&mut self) -> Result<Vec<Table>> {
        let mut tables: Vec<Table> = match self {
            Self::Database(source) => source
                .tables()
                .await?
                .into_iter()
                .map(|table| Table {
                    name: table.name,
                    columns: table.columns,
                })
                .collect(),
            Self::Files(files) => {
                let files = files.clone();
                tokio::task::spawn_blocking(move || {
                    files
                        .into_iter()
                        .map(|(name, (path, format))| {
                            let columns = columns_of(&path, format)
                                .with_context(|| path.display().to_string())?;
                            Ok(Table { name, columns })
                        })
                        .collect::<Result<Vec<Table>>>()
                })
                .await??
            }
        };
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(tables)
    }

    /// Counts the rows of a table by the values of some of its columns.
    pub async fn survey(&mut self, table: &Table, columns: &[String]) -> Result<Survey> {
        let columns = columns.to_vec();
        match self {
            Self::Database(source) => {
                let (sender, receiver) = mpsc::channel(PIECES);
                let width = columns.len();
                let count = tokio::task::spawn_blocking(move || {
                    let mut survey = Survey::new();
                    each_record(
                        Pieces::new(receiver),
                        usize::MAX,
                        Format::Csv,
                        &[],
                        |record| {
                            let values = record.iter().take(width).map(str::to_owned).collect();
                            let rows: u64 = record.get(width).unwrap_or("0").parse()?;
                            *survey.entry(values).or_default() += rows;
                            Ok(())
                        },
                    )?;
                    Ok(survey)
                });
                let names: Vec<&str> = columns.iter().map(String::as_str).collect();
                let (copied, counted) =
                    tokio::join!(source.survey(&table.name, &names, sender), count);
                copied.map_err(advise)?;
                counted?
            }
            Self::Files(files) => {
                let (path, format) = files.get(&table.name).context("no such file")?.clone();
                let table = table.clone();
                tokio::task::spawn_blocking(move || {
                    let places: Vec<usize> = columns
                        .iter()
                        .filter_map(|column| table.columns.iter().position(|c| c == column))
                        .collect();
                    let mut survey = Survey::new();
                    let mut values: Vec<String> = vec![String::new(); places.len()];
                    each_record(
                        File::open(&path)?,
                        LONGEST_ROW,
                        format,
                        &table.columns,
                        |record| {
                            for (value, place) in values.iter_mut().zip(&places) {
                                value.clear();
                                value.push_str(record.get(*place).unwrap_or(""));
                            }
                            match survey.get_mut(&values) {
                                Some(rows) => *rows += 1,
                                None => {
                                    survey.insert(values.clone(), 1);
                                }
                            }
                            Ok(())
                        },
                    )
                    .with_context(|| path.display().to_string())?;
                    Ok(survey)
                })
                .await?
            }
        }
    }

    /// Reads the given columns of a table: `work` gets each record, and `None` after the last, in a thread of its own,
    /// while `beside` runs here. `work` may end the reading early with an error, and so may `beside` by dropping what
    /// `work` sends to; a database is then of no use any more.
    pub async fn read<W, T>(
        &mut self,
        table: &Table,
        columns: &[String],
        mut work: W,
        beside: impl Future<Output = T>,
    ) -> Result<(Result<()>, T)>
    where
        W: FnMut(Option<&StringRecord>) -> Result<()> + Send + 'static,
    {
        match self {
            Self::Database(source) => {
                let (sender, receiver) = mpsc::channel(PIECES);
                let reading = tokio::task::spawn_blocking(move || {
                    let pieces = Pieces::new(receiver);
                    each_record(pieces, usize::MAX, Format::Csv, &[], |record| {
                        work(Some(record))
                    })?;
                    work(None)
                });
                let names: Vec<&str> = columns.iter().map(String::as_str).collect();
                // In a block of its own: with its end the reading ends, too.
                let (copied, result) = async {
                    let mut copy = pin!(source.copy(&table.name, &names, sender));
                    let mut beside = pin!(beside);
                    let mut copied = Ok(());
                    let mut is_copying = true;
                    loop {
                        tokio::select! {
                            done = &mut copy, if is_copying => (copied, is_copying) = (done, false),
                            result = &mut beside => break (copied, result),
                        }
                    }
                }
                .await;
                let read = reading.await;
                copied.map_err(advise).context("reading the old database")?;
                Ok((read?, result))
            }
            Self::Files(files) => {
                let (path, format) = files.get(&table.name).context("no such file")?.clone();
                let all = table.columns.clone();
                let wanted = columns.to_vec();
                let reading = tokio::task::spawn_blocking(move || {
                    let places: Vec<usize> = wanted
                        .iter()
                        .filter_map(|column| all.iter().position(|c| c == column))
                        .collect();
                    let whole = places.len() == all.len();
                    let mut picked = StringRecord::new();
                    each_record(File::open(&path)?, LONGEST_ROW, format, &all, |record| {
                        if whole {
                            return work(Some(record));
                        }
                        picked.clear();
                        for place in &places {
                            picked.push_field(record.get(*place).unwrap_or(""));
                        }
                        work(Some(&picked))
                    })
                    .with_context(|| path.display().to_string())?;
                    work(None)
                });
                let (read, result) = tokio::join!(reading, beside);
                Ok((read?, result))
            }
        }
    }

    pub async fn close(self) -> Result<()> {
        if let Self::Database(source) = self {
            source.close().await?;
        }
        Ok(())
    }
}

/// What to do where the old database refuses.
fn advise(error: Error) -> anyhow::Error {
    let hides_rows = matches!(&error, Error::Forbidden(source)
        if source.to_string().contains("row-level security"));
    let error = anyhow::Error::from(error);
    if hides_rows {
        return error.context(
            "its row-level security would hide rows: read it as the tables' owner or a user with BYPASSRLS",
        );
    }
    error
}

fn format_of(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "csv" => Some(Format::Csv),
        "json" | "jsonl" | "ndjson" => Some(Format::Json),
        _ => None,
    }
}

/// The header of a CSV file; of JSON, all keys in the order in which they first come.
fn columns_of(path: &Path, format: Format) -> Result<Vec<String>> {
    let file = File::open(path)?;
    match format {
        Format::Csv => Ok(csv::Reader::from_reader(Bounded::new(file, LONGEST_ROW))
            .headers()?
            .iter()
            .map(str::to_owned)
            .collect()),
        Format::Json => {
            let mut columns: Vec<String> = Vec::new();
            each_object(file, |object| {
                for key in object.keys() {
                    if !columns.iter().any(|column| column == key) {
                        columns.push(key.clone());
                    }
                }
                Ok(())
            })?;
            Ok(columns)
        }
    }
}

/// Calls `work` with every record of up to `longest` bytes. A file that is not what its name says fails with the place.
fn each_record(
    from: impl Read,
    longest: usize,
    format: Format,
    columns: &[String],
    mut work: impl FnMut(&StringRecord) -> Result<()>,
) -> Result<()> {
    let mut clean_work = move |record: &StringRecord| {
        // Postgres keeps no U+0000.
        if record.as_slice().contains('\0') {
            return work(&record.iter().map(clean).collect());
        }
        work(record)
    };
    match format {
        Format::Csv => {
            let from = Bounded::new(from, longest);
            let left = from.left.clone();
            let mut reader = csv::ReaderBuilder::new()
                .buffer_capacity(128 * 1024)
                .from_reader(from);
            let mut record = StringRecord::new();
            loop {
                let line = reader.position().line();
                let is_row = reader
                    .read_record(&mut record)
                    .with_context(|| format!("the row from line {line} on"))?;
                if !is_row {
                    return Ok(());
                }
                left.set(longest);
                clean_work(&record)?;
            }
        }
        Format::Json => {
            let mut record = StringRecord::new();
            each_object(from, |object| {
                record.clear();
                for column in columns {
                    match object.get(column) {
                        None | Some(Value::Null) => record.push_field(""),
                        Some(Value::String(text)) => record.push_field(text),
                        Some(other) => record.push_field(&other.to_string()),
                    }
                }
                clean_work(&record)
            })
        }
    }
}

/// A reader that fails where a row does not end.
struct Bounded<R> {
    from: R,
    /// Bytes that may still come before somebody sets it back.
    left: Rc<Cell<usize>>,
}

impl<R> Bounded<R> {
    fn new(from: R, longest: usize) -> Self {
        Self {
            from,
            left: Rc::new(Cell::new(longest)),
        }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.from.read(buffer)?;
        match self.left.get().checked_sub(length) {
            Some(left) => self.left.set(left),
            None => {
                return Err(std::io::Error::other(
                    "a row of more than 64 MB: is there a quote that is not closed?",
                ));
            }
        }
        Ok(length)
    }
}

fn each_object(
    from: impl Read,
    mut work: impl FnMut(&Map<String, Value>) -> Result<()>,
) -> Result<()> {
    let from = Bounded::new(from, LONGEST_ROW);
    let left = from.left.clone();
    let mut reader = BufReader::with_capacity(128 * 1024, from);
    let first = first_byte(&mut reader)?;
    let mut work = |object: &Map<String, Value>| {
        left.set(LONGEST_ROW);
        work(object)
    };
    let mut failed = None;
    if first == Some(b'[') {
        let mut json = serde_json::Deserializer::from_reader(reader);
        let each = Each {
            work: &mut work,
            failed: &mut failed,
        };
        let read = each.deserialize(&mut json);
        if let Some(error) = failed {
            return Err(error);
        }
        read?;
        json.end()?;
        return Ok(());
    }
    for object in serde_json::Deserializer::from_reader(reader).into_iter::<Map<String, Value>>() {
        work(&object?)?;
    }
    Ok(())
}

/// The first byte that is no white space and no byte-order mark, which are read away.
fn first_byte(reader: &mut BufReader<impl Read>) -> Result<Option<u8>> {
    use std::io::BufRead;
    loop {
        let buffer = reader.fill_buf()?;
        let Some(byte) = buffer.first().copied() else {
            return Ok(None);
        };
        if byte.is_ascii_whitespace() || matches!(byte, 0xEF | 0xBB | 0xBF) {
            reader.consume(1);
        } else {
            return Ok(Some(byte));
        }
    }
}

/// Reads an array one object at a time.
struct Each<'a, W> {
    work: &'a mut W,
    /// What `work` said; serde has room for words only.
    failed: &'a mut Option<anyhow::Error>,
}

impl<'de, W: FnMut(&Map<String, Value>) -> Result<()>> DeserializeSeed<'de> for Each<'_, W> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, W: FnMut(&Map<String, Value>) -> Result<()>> Visitor<'de> for Each<'_, W> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while let Some(object) = items.next_element()? {
            if let Err(error) = (self.work)(&object) {
                *self.failed = Some(error);
                return Err(serde::de::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

/// The pieces of a channel as one stream of bytes, for a thread that may block.
struct Pieces {
    receiver: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Pieces {
    fn new(receiver: mpsc::Receiver<Bytes>) -> Self {
        Self {
            receiver,
            current: Bytes::new(),
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.current = piece,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Vec<String>>> {
        let columns = ["id".to_owned(), "body".to_owned()];
        let mut rows = Vec::new();
        each_record(
            text.as_bytes(),
            LONGEST_ROW,
            Format::Json,
            &columns,
            |record| {
                rows.push(record.iter().map(str::to_owned).collect());
                Ok(())
            },
        )?;
        Ok(rows)
    }

    #[test]
    fn an_array_and_lines_of_json_are_the_same_rows() {
        let array = "\u{feff}[{\"id\": 1, \"body\": \"مرحبا\"},\n {\"body\": {\"a\": [1]}}]";
        let lines = "{\"id\": 1, \"body\": \"مرحبا\"}\n{\"id\": null, \"body\": {\"a\": [1]}}\n";
        let expected = vec![vec!["1", "مرحبا"], vec!["", "{\"a\":[1]}"]];
        assert_eq!(read(array).unwrap(), expected);
        assert_eq!(read(lines).unwrap(), expected);
        assert!(read("[{\"id\": 1},").is_err());
        assert!(read("{\"id\": 1").is_err());
    }

    #[test]
    fn u0000_is_replaced_and_a_backslash_before_u0000_is_left_alone() {
        let rows = read(r#"{"id": "a\u0000b", "body": {"a": "\\u0000"}}"#).unwrap();
        assert_eq!(rows, [["a\u{fffd}b", r#"{"a":"\\u0000"}"#]]);
    }

    #[test]
    fn a_row_that_does_not_end_is_refused_before_it_fills_the_memory() {
        for (start, format) in [
            ("id,body\n1,\"", Format::Csv),
            ("[{\"body\": \"", Format::Json),
        ] {
            let endless = Read::chain(start.as_bytes(), std::io::repeat(b'x'));
            let refused = each_record(endless, LONGEST_ROW, format, &[], |_| Ok(())).unwrap_err();
            let words = format!("{refused:#}");
            assert!(words.contains("a quote that is not closed"), "{words}");
        }
    }

    #[tokio::test]
    async fn what_may_hold_a_password_is_never_repeated() {
        for from in [
            "mysql://me:hunter2@old.test/db",
            "postgres:/me:hunter2@old.test/db",
            "host=old.test password=hunter2",
            " POSTGRES://me:hunter2@[/db ",
        ] {
            let Err(refused) = Input::open(from, "public", None).await else {
                panic!("{from}");
            };
            let words = format!("{refused:#}");
            assert!(
                words.contains("postgres:// URL") && !words.contains("hunter2"),
                "{words}"
            );
        }
    }

    #[tokio::test]
    async fn files_of_one_directory_are_one_source_and_a_file_among_them_too() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("old export");
        std::fs::create_dir(&directory).unwrap();
        let file = directory.join("messages.csv");
        std::fs::write(&file, "id\n").unwrap();
        for from in [&directory, &file] {
            let opened = Input::open(from.to_str().unwrap(), "public", None).await;
            assert_eq!(opened.unwrap().1, "old export");
        }
    }
}
