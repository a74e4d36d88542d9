//! Which tables are listened to, over all tenants.

use std::collections::HashMap;
use std::sync::Arc;

use crate::binding::Binding;

/// Counts of the bindings of all groups.
#[derive(Debug, Default)]
pub(super) struct Interest {
    tables: HashMap<Arc<str>, usize>,
    all_tables: usize,
}

impl Interest {
    pub fn add(&mut self, bindings: &[Binding]) {
        for binding in bindings {
            match &binding.table {
                Some(table) => *self.tables.entry(table.clone()).or_default() += 1,
                None => self.all_tables += 1,
            }
        }
    }

    pub fn remove(&mut self, bindings: &[Binding]) {
        for binding in bindings {
            let Some(table) = &binding.table else {
                self.all_tables = self.all_tables.saturating_sub(1);
                continue;
            };
            if let Some(count) = self.tables.get_mut(table) {
                *count -= 1;
                if *count == 0 {
                    self.tables.remove(table);
                }
            }
        }
    }

    pub fn in_table(&self, name: &str) -> bool {
        self.tables.contains_key(name)
    }

    pub fn in_all_tables(&self) -> bool {
        self.all_tables > 0
    }

    pub fn tables(&self) -> impl Iterator<Item = Arc<str>> {
        self.tables.keys().cloned()
    }
}
