//! What the planner knows of the database.

use std::collections::BTreeMap;

use crate::RestError;

/// A column of a table, a view or a function's rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// The type as Postgres writes it, fit to be put into a cast: `timestamp with time zone`, `text[]`.
    pub sql_type: String,
    pub nullable: bool,
    /// The default as SQL, where there is one.
    pub default: Option<String>,
}

impl Column {
    pub(crate) fn is_json(&self) -> bool {
        matches!(self.sql_type.as_str(), "json" | "jsonb")
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RelationKind {
    #[default]
    Table,
    View,
}

/// A table or view of schema `public`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relation {
    pub name: String,
    pub kind: RelationKind,
    pub columns: Vec<Column>,
    /// Nobody writes it here, whatever the caller's rights are.
    pub read_only: bool,
    /// Empty for a view, unless Postgres carries writes to it through to its table.
    pub primary_key: Vec<String>,
    /// Unique keys, the primary key among them. Partial ones and those over expressions do not count.
    pub unique_keys: Vec<Vec<String>>,
}

impl Relation {
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// That rows of `table` point to rows of `target`: a foreign key, or what amounts to one between views.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForeignKey {
    pub name: String,
    pub table: String,
    pub target: String,
    /// Pairs (column of `table`, column of `target`).
    pub columns: Vec<(String, String)>,
    /// At most one row of `table` points to a row of `target`.
    pub one_to_one: bool,
}

impl ForeignKey {
    /// The column a person means by the key: that beside the tenant's.
    pub(crate) fn column(&self) -> Option<&str> {
        let mut named = self
            .columns
            .iter()
            .filter(|(column, _)| column != TENANT || self.columns.len() == 1);
        match (named.next(), named.next()) {
            (Some((column, _)), None) => Some(column),
            _ => None,
        }
    }
}

/// Every key of a tenant's table starts with it.
pub(crate) const TENANT: &str = "org_id";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Argument {
    pub name: String,
    pub sql_type: String,
    /// It has a default.
    pub optional: bool,
    pub variadic: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Returns {
    Void,
    /// One value, or a set of them.
    Scalar {
        set: bool,
    },
    /// A row, or a set of rows; of `relation` where it is that of a table or view.
    Rows {
        set: bool,
        relation: Option<String>,
        columns: Vec<Column>,
    },
}

/// A function of schema `public` that can be called by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    pub arguments: Vec<Argument>,
    pub returns: Returns,
    /// It may write.
    pub volatile: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    pub relations: BTreeMap<String, Relation>,
    pub foreign_keys: Vec<ForeignKey>,
    pub functions: Vec<Function>,
}

impl Schema {
    pub(crate) fn relation(&self, name: &str) -> Result<&Relation, RestError> {
        self.relations.get(name).ok_or_else(|| {
            let nearest = self
                .relations
                .keys()
                .map(|known| (distance(known, name), known))
                .min()
                .filter(|(distance, _)| *distance <= 1 + name.len() / 4);
            RestError::unknown_table(name, nearest.map(|(_, known)| known.as_str()))
        })
    }

    /// How rows of `parent` relate to those of `target`, which may also be the name of a key or of its column.
    pub(crate) fn relationship(
        &self,
        parent: &str,
        target: &str,
        hint: Option<&str>,
    ) -> Result<Relationship<'_>, RestError> {
        let by_table = self.foreign_keys.iter().flat_map(|key| {
            let forward = (key.table == parent && key.target == target)
                .then_some(Relationship { key, forward: true });
            let backward = (key.table == target && key.target == parent).then_some(Relationship {
                key,
                forward: false,
            });
            forward.into_iter().chain(backward)
        });
        let mut found: Vec<_> = by_table.collect();
        if found.is_empty() {
            let by_key = self
                .foreign_keys
                .iter()
                .filter(|key| {
                    key.table == parent && (key.name == target || key.column() == Some(target))
                })
                .map(|key| Relationship { key, forward: true });
            found = by_key.collect();
        }
        if let Some(hint) = hint {
            found.retain(|relationship| relationship.is_meant_by(hint));
        }
        match found.as_slice() {
            [only] => Ok(*only),
            [] => Err(RestError::no_relation(parent, target, hint)),
            several => {
                let choices = several
                    .iter()
                    .map(|one| {
                        (
                            one.cardinality(),
                            one.key.name.clone(),
                            format!(
                                "{} using {}({}) and {}({})",
                                one.key.name,
                                one.key.table,
                                join(one.key.columns.iter().map(|(column, _)| column)),
                                one.key.target,
                                join(one.key.columns.iter().map(|(_, column)| column)),
                            ),
                        )
                    })
                    .collect();
                Err(RestError::ambiguous_relation(parent, target, choices))
            }
        }
    }
}

fn join<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// A foreign key seen from one of its ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Relationship<'a> {
    pub key: &'a ForeignKey,
    /// Seen from the table that holds the key.
    pub forward: bool,
}

impl Relationship<'_> {
    pub fn is_to_one(&self) -> bool {
        self.forward || self.key.one_to_one
    }

    pub fn target(&self) -> &str {
        if self.forward {
            &self.key.target
        } else {
            &self.key.table
        }
    }

    fn cardinality(&self) -> &'static str {
        match (self.key.one_to_one, self.forward) {
            (true, _) => "one-to-one",
            (false, true) => "many-to-one",
            (false, false) => "one-to-many",
        }
    }

    fn is_meant_by(&self, hint: &str) -> bool {
        self.key.name == hint || self.key.column() == Some(hint) || self.target() == hint
    }
}

/// Levenshtein's, for hints. Names longer than Postgres allows are as far away as can be.
fn distance(known: &str, asked: &str) -> usize {
    const LONGEST: usize = 63;
    if asked.len() > LONGEST {
        return usize::MAX;
    }
    let asked: Vec<char> = asked.chars().collect();
    let mut row: Vec<usize> = (0..=asked.len()).collect();
    for (i, a) in known.chars().enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, b) in asked.iter().enumerate() {
            let replaced = corner + usize::from(a != *b);
            corner = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[asked.len()]
}
