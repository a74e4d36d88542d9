//! What an import tells in the end.

use std::collections::BTreeMap;

use serde::Serialize;
use wasel_db::import::Outcome;

/// Rows named per reason.
const EXAMPLES: usize = 5;
/// Characters of an old id that are told.
const ID_LENGTH: usize = 100;

#[derive(Debug, Serialize)]
pub struct Report {
    pub organization: String,
    pub dry_run: bool,
    pub tables: Vec<TableReport>,
    /// Tables of the source that we do not know.
    pub unknown_tables: Vec<String>,
    /// Known tables whose rows have no place here yet.
    pub nothing_to_move: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
pub struct TableReport {
    pub table: String,
    /// The system whose table this was recognised as.
    pub document: String,
    /// What its rows are called in `external_refs`.
    pub source: String,
    pub read: u64,
    pub moved: u64,
    /// By an earlier run (or an earlier row with the same id).
    pub already_moved: u64,
    pub skipped: BTreeMap<String, Skipped>,
    /// Columns we do not know; those of messages and conversations are kept in `metadata.imported`.
    pub unknown_columns: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
pub struct Skipped {
    pub rows: u64,
    /// Old ids of the first ones.
    pub examples: Vec<String>,
}

impl TableReport {
    /// Counts what became of a batch.
    pub fn count<'a>(&mut self, outcomes: Vec<Outcome>, ids: impl Iterator<Item = &'a str>) {
        for (outcome, id) in outcomes.into_iter().zip(ids) {
            match outcome {
                Outcome::Moved => self.moved += 1,
                Outcome::AlreadyMoved => self.already_moved += 1,
                Outcome::InTheLog => self.skip("already in the log", id),
                Outcome::NoConversation => {
                    self.skip("conversation_id: that conversation was not moved", id);
                }
                Outcome::NameTaken => self.skip("name: there is a template of this name", id),
            }
        }
    }

    pub fn skip(&mut self, reason: &str, id: &str) {
        if !self.skipped.contains_key(reason) {
            self.skipped.insert(reason.to_owned(), Skipped::default());
        }
        if let Some(skipped) = self.skipped.get_mut(reason) {
            skipped.rows += 1;
            if skipped.examples.len() < EXAMPLES {
                skipped.examples.push(id.chars().take(ID_LENGTH).collect());
            }
        }
    }
}

impl Report {
    /// For people, on a terminal.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        let moved = if self.dry_run { "would move" } else { "moved" };
        for table in &self.tables {
            lines.push(format!(
                "{} ({}): {} read, {} {moved}, {} already moved",
                table.table, table.document, table.read, table.moved, table.already_moved
            ));
            for (reason, skipped) in &table.skipped {
                lines.push(format!(
                    "  {} skipped: {reason} (for example {})",
                    skipped.rows,
                    skipped.examples.join(", ")
                ));
            }
            if !table.unknown_columns.is_empty() {
                lines.push(format!(
                    "  unknown columns: {}",
                    table.unknown_columns.join(", ")
                ));
            }
        }
        if !self.nothing_to_move.is_empty() {
            lines.push(format!(
                "nothing to move yet: {}",
                self.nothing_to_move.join(", ")
            ));
        }
        if !self.unknown_tables.is_empty() {
            lines.push(format!(
                "unknown tables: {}",
                self.unknown_tables.join(", ")
            ));
        }
        if self.dry_run {
            lines.push("Nothing was written.".to_owned());
        }
        lines.iter().map(|line| printable(line)).collect()
    }
}

/// Old data without what would move the cursor or change the colours of a terminal.
pub fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            clean.extend(c.escape_default());
        } else {
            clean.push(c);
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_ids_neither_steer_the_terminal_nor_fill_it() {
        let mut table = TableReport::default();
        table.skip("because", &format!("\u{1b}[31m\n{}", "x".repeat(1000)));
        let report = Report {
            organization: "a".to_owned(),
            dry_run: false,
            tables: vec![table],
            unknown_tables: vec!["مواعيد\u{7}".to_owned()],
            nothing_to_move: Vec::new(),
        };
        let lines = report.lines();
        assert!(
            lines.iter().all(|line| !line.contains(char::is_control)),
            "{lines:?}"
        );
        assert!(
            lines[1].contains(r"\u{1b}[31m\nxxx") && lines[1].len() < 200,
            "{lines:?}"
        );
        assert!(lines[2].contains("مواعيد"), "{lines:?}");
    }
}
