//! What can be listened to: published tables and views with their columns.

use std::collections::HashMap;

/// One column as the client is told about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Column name.
    pub name: String,
    /// Postgres type name (`udt_name`), such as `int8`, `text`, `timestamptz`, `_text` for an array.
    pub type_: String,
}

/// A published table or view.
#[derive(Clone, Debug, Default)]
pub struct TableInfo {
    /// Columns in table order.
    pub columns: Vec<Column>,
    /// Names of the key columns.
    pub primary_key: Vec<String>,
    /// Roles (as in [`crate::Claims::role`]) that may read it; `None` lets every role but `anon`. `service_role` may
    /// always. Must say what the RLS policies say.
    pub roles: Option<Vec<String>>,
    /// True for a second name of a table that is published under its own name as well. A binding to all tables does
    /// not listen to it, so that one row is not announced twice.
    pub alias: bool,
}

impl TableInfo {
    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Whether the role may see rows of this table at all.
    pub fn is_readable_by(&self, role: &str) -> bool {
        role == "service_role"
            || match &self.roles {
                Some(roles) => roles.iter().any(|allowed| allowed == role),
                None => role != "anon",
            }
    }
}

/// All published names of schema `public`; the same for as long as the process runs.
#[derive(Clone, Debug, Default)]
pub struct Catalog(pub HashMap<String, TableInfo>);

impl Catalog {
    /// The table or view published under that name.
    pub fn table(&self, name: &str) -> Option<&TableInfo> {
        self.0.get(name)
    }
}
