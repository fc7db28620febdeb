//! What every writer knew: each version with all versions that its writer had seen.
//!
//! A version is what one statement left under one key, a delete too. The oracle tells versions by their
//! content, which is unique unless the schedule wants two writers to write the same, and by the change
//! keys under which they travel.

use std::collections::{BTreeMap, BTreeSet};

pub type Id = usize;

/// A table's name and a key in canonical text.
pub type Cell = (String, String);

#[derive(Debug, Clone)]
pub struct Version {
    pub cell: Cell,
    /// The content's mark; `None` for a delete.
    pub mark: Option<String>,
    /// All that its writer had seen under this key.
    pub seen: BTreeSet<Id>,
    /// The file that it was written to; `None` for the server.
    pub file: Option<usize>,
    /// Whether it may be missing at the end: its transaction rolled back, or a backup without it was put
    /// in the place of the only copy.
    pub excused: bool,
}

#[derive(Debug, Default)]
pub struct Ghost {
    pub versions: Vec<Version>,
    by_tail: BTreeMap<String, Id>,
    by_mark: BTreeMap<(Cell, String), Id>,
    marks: u64,
}

impl Ghost {
    /// A mark that no other content has.
    pub fn mark(&mut self) -> String {
        self.marks += 1;
        format!("v{}", self.marks)
    }

    pub fn is_shared(mark: &str) -> bool {
        mark.starts_with('s')
    }

    pub fn write(
        &mut self,
        cell: Cell,
        mark: Option<String>,
        over: Option<Id>,
        file: Option<usize>,
    ) -> Id {
        let mut seen = BTreeSet::new();
        if let Some(over) = over {
            seen.extend(&self.versions[over].seen);
            seen.insert(over);
        }
        let id = self.versions.len();
        if let Some(mark) = &mark {
            self.by_mark.insert((cell.clone(), mark.clone()), id);
        }
        self.versions.push(Version {
            cell,
            mark,
            seen,
            file,
            excused: false,
        });
        id
    }

    /// A version travels under a change.
    pub fn travels(&mut self, tail: &str, id: Id) {
        self.by_tail.entry(tail.to_owned()).or_insert(id);
    }

    pub fn of_tail(&self, tail: &str) -> Option<Id> {
        self.by_tail.get(tail).copied()
    }

    /// The changes under which a version travels.
    pub fn tails(&self, id: Id) -> Vec<&str> {
        let of = self.by_tail.iter().filter(|(_, i)| **i == id);
        of.map(|(t, _)| t.as_str()).collect()
    }

    pub fn of_mark(&self, cell: &Cell, mark: &str) -> Option<Id> {
        self.by_mark.get(&(cell.clone(), mark.to_owned())).copied()
    }

    /// All versions under a key with a content.
    pub fn like(&self, cell: &Cell, mark: Option<&str>) -> Vec<Id> {
        (0..self.versions.len())
            .filter(|i| {
                let v = &self.versions[*i];
                v.cell == *cell && v.mark.as_deref() == mark
            })
            .collect()
    }
}
