//! How far an import is: a bar on a terminal, a line every few seconds elsewhere. Always on standard error.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

const LINE_EVERY: Duration = Duration::from_secs(5);

pub struct Progress {
    bar: Option<ProgressBar>,
    table: String,
    total: u64,
    done: u64,
    begun: Instant,
    last_line: Instant,
}

impl Progress {
    pub fn new(table: &str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total);
            if let Ok(style) = ProgressStyle::with_template(
                "{prefix} {wide_bar} {human_pos}/{human_len}, {per_sec}, {eta} left",
            ) {
                bar.set_style(style);
            }
            bar.set_prefix(table.to_owned());
            bar
        });
        Self {
            bar,
            table: table.to_owned(),
            total,
            done: 0,
            begun: Instant::now(),
            last_line: Instant::now(),
        }
    }

    pub fn advance(&mut self, rows: u64) {
        self.done += rows;
        match &self.bar {
            Some(bar) => bar.inc(rows),
            None if self.last_line.elapsed() >= LINE_EVERY => {
                self.last_line = Instant::now();
                self.line();
            }
            None => {}
        }
    }

    pub fn finish(mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        } else {
            self.line();
        }
    }

    fn line(&self) {
        let rate = self.done as f64 / self.begun.elapsed().as_secs_f64().max(0.001);
        let left = self.total.saturating_sub(self.done) as f64 / rate.max(1.0);
        // Whoever does not read it misses nothing else.
        let _ = writeln!(
            std::io::stderr(),
            "{}: {} of {} rows, {rate:.0} rows/s, {left:.0} s left",
            self.table,
            self.done,
            self.total
        );
    }
}
