//! Where a table keeps what.

use std::collections::HashMap;

use csv::StringRecord;

use super::clean;
use crate::cli::import::shapes::{Field, Shape};

/// Where each field of a table is.
#[derive(Clone, Debug)]
pub struct Layout {
    pub shape: &'static Shape,
    /// The columns to read, in order.
    pub columns: Vec<String>,
    /// Columns we do not know.
    pub unknown: Vec<String>,
    /// The places of the columns that may hold a field, the best first.
    places: HashMap<Field, Vec<usize>>,
    own: HashMap<String, usize>,
    kept: Vec<(usize, String)>,
    /// What a row without an id is told by.
    lasting: Vec<usize>,
}

impl Layout {
    pub fn new(shape: &'static Shape, columns: &[String]) -> Self {
        let mut layout = Self {
            shape,
            columns: Vec::new(),
            unknown: Vec::new(),
            places: HashMap::new(),
            own: HashMap::new(),
            kept: Vec::new(),
            lasting: Vec::new(),
        };
        let mut ranks: Vec<usize> = Vec::new();
        for column in columns {
            let place = layout.columns.len();
            let known = shape.field(column);
            match known {
                Some((_, Field::Never)) => continue,
                Some((_, Field::Own)) => drop(layout.own.insert(column.clone(), place)),
                Some((_, Field::Keep)) => layout.kept.push((place, column.clone())),
                Some((_, field)) => layout.places.entry(field).or_default().push(place),
                None => {
                    layout.unknown.push(column.clone());
                    layout.kept.push((place, clean(column)));
                }
            }
            if known.is_some_and(|(_, field)| !field.changes()) {
                layout.lasting.push(place);
            }
            ranks.push(known.map_or(usize::MAX, |(rank, _)| rank));
            layout.columns.push(column.clone());
        }
        // The order of our list, not the one in which the old table happened to get its columns.
        for places in layout.places.values_mut() {
            places.sort_by_key(|place| ranks[*place]);
        }
        layout.lasting.sort_by_key(|place| ranks[*place]);
        layout
    }

    /// The first column with this field, if there is one.
    pub fn column(&self, field: Field) -> Option<&str> {
        let place = self.places.get(&field)?.first()?;
        Some(&self.columns[*place])
    }

    /// Column and value of each column with this field that is not empty, the best first.
    pub fn all<'a>(
        &'a self,
        record: &'a StringRecord,
        field: Field,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        let places = self.places.get(&field).map_or(&[][..], Vec::as_slice);
        self.filled(record, places)
    }

    pub fn get<'a>(&'a self, record: &'a StringRecord, field: Field) -> Option<&'a str> {
        self.all(record, field).next().map(|(_, value)| value)
    }

    pub fn own<'a>(&self, record: &'a StringRecord, column: &str) -> Option<&'a str> {
        record
            .get(*self.own.get(column)?)
            .filter(|value| !value.is_empty())
    }

    /// Column and value of what has no column here.
    pub fn kept<'a>(
        &'a self,
        record: &'a StringRecord,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.kept.iter().filter_map(|(place, column)| {
            let value = record.get(*place).filter(|value| !value.is_empty())?;
            Some((column.as_str(), value))
        })
    }

    /// Column and value of what stays as it is while a row lives: what a row without an id is told by. Columns we do
    /// not know are left out, so one that is added later changes nothing.
    pub fn lasting<'a>(
        &'a self,
        record: &'a StringRecord,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.filled(record, &self.lasting)
    }

    fn filled<'a>(
        &'a self,
        record: &'a StringRecord,
        places: &'a [usize],
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        places.iter().filter_map(|place| {
            let value = record.get(*place).filter(|value| !value.is_empty())?;
            Some((self.columns[*place].as_str(), value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(table: &str, columns: &[&str]) -> Layout {
        let columns: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
        Layout::new(Shape::recognise(table, &columns).unwrap(), &columns)
    }

    #[test]
    fn the_order_of_the_old_columns_does_not_matter() {
        let layout = layout(
            "messages",
            &[
                "sender",
                "body",
                "content",
                "direction",
                "message_type",
                "conversation_id",
            ],
        );
        let record = StringRecord::from(vec!["Ahmad", "b", "c", "inbound", "text", "1"]);
        let words: Vec<&str> = layout
            .all(&record, Field::Direction)
            .map(|(column, _)| column)
            .collect();
        assert_eq!(words, ["direction", "sender"]);
        assert_eq!(layout.get(&record, Field::Body), Some("c"));
    }
}
