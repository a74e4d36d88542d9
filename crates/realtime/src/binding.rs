//! `postgres_changes` bindings: as a client asked for them, and as the hub tries them on a change.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::catalog::Catalog;
use crate::change::{Change, ChangeOp};
use crate::filter::Filter;

/// Identifiers have 27 bits, as Supabase's.
const ID_BITS: u32 = 27;

/// A binding as asked for. The object is echoed verbatim: the client refuses a reply that differs.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub object: Map<String, Value>,
    pub id: u32,
    /// `None`: the binding does not speak of numbers. 0: it wants them told, from now on. Else: the last one seen.
    pub after: Option<i64>,
}

/// Ours: the member with the number of the last change seen.
const AFTER: &str = "after";

/// The same for all positions, so that they neither split groups nor change identifiers.
fn without_position(object: &Map<String, Value>) -> Map<String, Value> {
    let mut object = object.clone();
    if let Some(after) = object.get_mut(AFTER) {
        *after = Value::Null;
    }
    object
}

impl Asked {
    /// What sockets must have in common to share frames.
    pub fn key(&self) -> Map<String, Value> {
        without_position(&self.object)
    }

    /// The object of the join reply: what was asked, and the identifier.
    pub fn echo(&self) -> Value {
        let mut object = self.object.clone();
        object.insert("id".to_owned(), Value::from(self.id));
        Value::Object(object)
    }
}

/// Reads the `postgres_changes` list of a join. The error is shown to the client.
pub(crate) fn read(list: Option<&Value>) -> Result<Vec<Asked>, &'static str> {
    const NO_LIST: &str = "postgres_changes must be a list of objects";
    let list = match list {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(list) => list.as_array().ok_or(NO_LIST)?,
    };
    let mut asked: Vec<Asked> = Vec::with_capacity(list.len());
    for value in list {
        let object = value.as_object().ok_or(NO_LIST)?.clone();
        let after = read_after(&object)?;
        let key = without_position(&object);
        let mut id = stable_id(&key);
        // Equal objects share an identifier; different ones must not, however unlikely, nor those that may be at
        // different positions.
        while asked
            .iter()
            .any(|other| other.id == id && (after.is_some() || other.key() != key))
        {
            id = (id + 1) % (1 << ID_BITS);
        }
        asked.push(Asked { object, id, after });
    }
    Ok(asked)
}

/// The same list from a text that was made of the bindings' [`Asked::key`]s: the form in which groups keep them, for
/// a parsed list takes some ten times the memory.
pub(crate) fn read_keys(text: &str) -> Vec<Asked> {
    let list: Value = serde_json::from_str(text).unwrap_or_default();
    read(Some(&list)).unwrap_or_default()
}

fn read_after(object: &Map<String, Value>) -> Result<Option<i64>, &'static str> {
    const BAD: &str = "after must be the change_seq of the last row heard, 0 or null";
    match object.get(AFTER) {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(0)),
        Some(after) => match after.as_i64() {
            Some(after @ 0..) => Ok(Some(after)),
            _ => Err(BAD),
        },
    }
}

/// FNV-1a over the members in the order of their names, folded to 27 bits: the same on every node and socket.
fn stable_id(object: &Map<String, Value>) -> u32 {
    let mut members: Vec<_> = object.iter().collect();
    members.sort_by_key(|(name, _)| *name);
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for (name, value) in members {
        for byte in name
            .bytes()
            .chain([0])
            .chain(value.to_string().bytes())
            .chain([0])
        {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    let folded = (hash ^ (hash >> ID_BITS) ^ (hash >> (2 * ID_BITS))) & ((1 << ID_BITS) - 1);
    u32::try_from(folded).unwrap_or_default()
}

/// A binding ready to be tried on changes.
#[derive(Debug)]
pub(crate) struct Binding {
    pub id: u32,
    /// Its place in the list that was asked for.
    pub index: usize,
    /// Rows are told with their number.
    pub tells_seq: bool,
    /// `None` listens to all tables of the catalog.
    pub table: Option<Arc<str>>,
    /// `None` takes every kind.
    op: Option<ChangeOp>,
    filter: Filter,
    /// Columns to send besides the key; `None` sends all.
    pub select: Option<Vec<String>>,
}

impl Binding {
    /// Checks what was asked against the catalog, for a role. The error is shown to the client.
    pub fn compile(
        index: usize,
        asked: &Asked,
        catalog: &Catalog,
        role: &str,
    ) -> Result<Self, String> {
        let text = |name: &str| match asked.object.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(format!("{name} must be a string")),
        };
        let schema = text("schema")?.unwrap_or("*");
        let table = text("table")?.unwrap_or("*");
        let filter = text("filter")?.unwrap_or("");
        // Any other word counts as `*`, and then matches nothing in the client.
        let op = match text("event")?.map(str::to_ascii_uppercase).as_deref() {
            Some("INSERT") => Some(ChangeOp::Insert),
            Some("UPDATE") => Some(ChangeOp::Update),
            Some("DELETE") => Some(ChangeOp::Delete),
            _ => None,
        };
        let select = match asked.object.get("select") {
            None | Some(Value::Null) => None,
            Some(select) => Some(read_select(select)?),
        };
        if !matches!(schema, "public" | "*") {
            return Err(format!("schema is not published: {schema}"));
        }
        if table == "*" {
            if !filter.trim().is_empty() {
                return Err("a filter needs a table".to_owned());
            }
            if select.is_some() {
                return Err("select needs a table".to_owned());
            }
            return Ok(Self {
                id: asked.id,
                index,
                tells_seq: asked.after.is_some(),
                table: None,
                op,
                filter: Filter::default(),
                select: None,
            });
        }
        let info = catalog
            .table(table)
            .filter(|info| info.is_readable_by(role))
            .ok_or_else(|| {
                format!(
                    "table does not exist, is not published or may not be read: {schema}.{table}"
                )
            })?;
        if let Some(missing) = select
            .iter()
            .flatten()
            .find(|name| info.column(name).is_none())
        {
            return Err(format!("column does not exist: {missing}"));
        }
        Ok(Self {
            id: asked.id,
            index,
            tells_seq: asked.after.is_some(),
            table: Some(Arc::from(table)),
            op,
            filter: Filter::parse(filter, info).map_err(|error| error.to_string())?,
            select,
        })
    }

    /// Whether the binding listens to this change of a table that the socket may read. `is_alias` as in
    /// [`crate::TableInfo::alias`].
    pub fn matches(&self, change: &Change, row: &Map<String, Value>, is_alias: bool) -> bool {
        let table_matches = match &self.table {
            Some(table) => **table == *change.name,
            None => !is_alias,
        };
        table_matches && self.op.is_none_or(|op| op == change.op) && self.filter.matches(row)
    }
}

fn read_select(select: &Value) -> Result<Vec<String>, String> {
    let problem = || "select must be a list of column names".to_owned();
    let mut names = select
        .as_array()
        .ok_or_else(problem)?
        .iter()
        .map(|name| name.as_str().map(str::to_owned).ok_or_else(problem))
        .collect::<Result<Vec<_>, _>>()?;
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_identifier_depends_on_the_object_and_not_on_the_order_of_its_members() {
        let a = read(Some(
            &json!([{"event": "*", "schema": "public", "table": "t"}]),
        ))
        .expect("list");
        let b = read(Some(
            &json!([{"table": "t", "schema": "public", "event": "*"}]),
        ))
        .expect("list");
        let c = read(Some(
            &json!([{"table": "u", "schema": "public", "event": "*"}]),
        ))
        .expect("list");
        assert_eq!(a[0].id, b[0].id);
        assert_ne!(a[0].id, c[0].id);
        assert!(a[0].id < 1 << ID_BITS);
    }

    #[test]
    fn the_identifier_of_a_binding_stays_the_same_between_releases() {
        let asked = read(Some(&json!([{"event": "*", "schema": "public"}]))).expect("list");
        assert_eq!(asked[0].id, 97_051_948);
    }

    #[test]
    fn a_list_that_holds_something_else_is_refused() {
        assert!(read(Some(&json!([1]))).is_err());
        assert!(read(Some(&json!({"event": "*"}))).is_err());
        assert!(read(None).expect("empty").is_empty());
    }

    #[test]
    fn a_position_is_read_and_changes_neither_key_nor_identifier() {
        let at = |after: Value| {
            let list = json!([{"event": "*", "table": "t", "after": after}]);
            read(Some(&list)).map(|mut asked| asked.remove(0))
        };
        let (new, old) = (at(Value::Null).expect("null"), at(json!(7)).expect("7"));
        assert_eq!((new.after, old.after), (Some(0), Some(7)));
        assert_eq!(new.id, old.id);
        assert_eq!(new.key(), old.key());
        assert_eq!(old.echo()["after"], 7, "echoed as it was");
        let plain = read(Some(&json!([{"event": "*", "table": "t"}]))).expect("list");
        assert_eq!(plain[0].after, None);
        assert_ne!(plain[0].id, new.id, "its rows come without numbers");
        for bad in [json!("7"), json!(-1), json!(1.5), json!([1])] {
            assert!(at(bad.clone()).is_err(), "{bad}");
        }
        let twice = json!([{"event": "*", "after": 1}, {"event": "*", "after": 2}]);
        let twice = read(Some(&twice)).expect("list");
        assert_ne!(
            twice[0].id, twice[1].id,
            "they may be at different positions"
        );
    }
}
