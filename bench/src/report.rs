//! Collecting figures over the rounds and printing their medians, one a line.

use std::fs;
use std::time::Duration;

use crate::cpu::Used;
use crate::load::Sent;
use crate::print;

/// All figures, in the order in which they first came.
#[derive(Default)]
pub struct Figures(Vec<Figure>);

struct Figure {
    name: String,
    unit: &'static str,
    values: Vec<f64>,
}

impl Figures {
    pub fn note(&mut self, name: String, value: f64, unit: &'static str) {
        match self.0.iter_mut().find(|figure| figure.name == name) {
            Some(figure) => figure.values.push(value),
            None => self.0.push(Figure {
                name,
                unit,
                values: vec![value],
            }),
        }
    }

    /// One case of one round. `window` is the time over which `used` was counted.
    pub fn note_case(&mut self, case: &str, sent: &Sent, used: Used, window: Duration) {
        let answers = sent.answers().max(1) as f64;
        self.note(format!("{case}_rate"), sent.per_second(), "messages/s");
        self.note(format!("{case}_p50"), sent.percentile(0.5), "ms");
        self.note(format!("{case}_p99"), sent.percentile(0.99), "ms");
        self.note(format!("{case}_max"), sent.percentile(1.0), "ms");
        if used.server > 0 {
            self.note(
                format!("{case}_server_cpu"),
                used.server as f64 / answers,
                "us/message",
            );
        }
        self.note(
            format!("{case}_postgres_cpu"),
            used.postgres as f64 / answers,
            "us/message",
        );
        self.note(
            format!("{case}_load_cpu"),
            used.load as f64 / answers,
            "us/message",
        );
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let capacity = window.as_micros() as f64 * cores;
        self.note(
            format!("{case}_foreign_cpu"),
            100.0 * used.foreign() as f64 / capacity,
            "%",
        );
    }

    /// The median over the rounds.
    pub fn median(&self, name: &str) -> f64 {
        self.0
            .iter()
            .find(|figure| figure.name == name)
            .map_or(f64::NAN, |figure| median(&figure.values))
    }

    pub fn highest(&self, name: &str) -> f64 {
        self.0
            .iter()
            .find(|figure| figure.name == name)
            .map_or(f64::NAN, |figure| {
                figure.values.iter().copied().fold(f64::NAN, f64::max)
            })
    }

    pub fn print(&self) {
        for figure in &self.0 {
            print(&format!(
                "{} {} {}",
                figure.name,
                rounded(median(&figure.values)),
                figure.unit
            ));
        }
    }

    /// Prints whether `value` keeps to a bar.
    pub fn print_bar(name: &str, value: f64, unit: &str, bar: Bar) {
        let (met, word, limit) = match bar {
            Bar::AtLeast(limit) => (value >= limit, "at least", limit),
            Bar::AtMost(limit) => (value <= limit, "at most", limit),
        };
        let verdict = if met { "met" } else { "MISSED" };
        print(&format!(
            "bar {name} {verdict}: {} {unit}, {word} {limit}",
            rounded(value)
        ));
    }
}

#[derive(Clone, Copy)]
pub enum Bar {
    AtLeast(f64),
    AtMost(f64),
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// Three digits are more than such figures are worth.
pub fn rounded(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Processor, memory and load, for the first line.
pub fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default();
        line.split_once(':')
            .map_or_else(String::new, |(_, value)| value.trim().to_owned())
    };
    let memory_kb: f64 = field(&read("/proc/meminfo"), "MemTotal")
        .trim_end_matches(" kB")
        .parse()
        .unwrap_or(0.0);
    format!(
        "{}, {} cores, {:.0} GB, Linux {}, load before {}",
        field(&read("/proc/cpuinfo"), "model name"),
        std::thread::available_parallelism().map_or(0, usize::from),
        memory_kb / 1_048_576.0,
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").split(' ').next().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn percentiles_take_the_worst_of_the_share() {
        let sent = Sent {
            latencies: (1..=100).map(|n| n * 1000).collect(),
            ..Sent::default()
        };
        assert_eq!(sent.percentile(0.5), 50.0);
        assert_eq!(sent.percentile(0.99), 99.0);
        assert_eq!(sent.percentile(1.0), 100.0);
    }
}
