//! What every store owes the engine, wherever it keeps its rows: one suite for the store in memory, which tests, simulation and
//! `streamapp test` use, and for the one on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use engine::{KeyRange, MemoryStore, Store, StoreError};
use proptest::prelude::*;

use super::{FlushWait, TaskDb, open, positions};
use crate::shared::lock;

/// A key and its new value, or none.
type Change = (Vec<u8>, Option<Vec<u8>>);

/// A store and who writes it.
trait Owned {
    fn apply(&mut self, changes: &[Change]);
    /// What a task reads.
    fn store(&self) -> Box<dyn Store + '_>;
    /// Data may go to disk.
    fn flush(&mut self);
    /// The process ends, another one begins.
    fn reopen(&mut self);
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<Change>),
    Flush,
    Reopen,
    /// From and until, and how many rows are wanted.
    Scan(Vec<u8>, Option<Vec<u8>>, usize),
}

/// Few keys, of which some begin with others, and one is empty.
fn key() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(proptest::sample::select(&[0, 1, u8::MAX][..]), 0..3)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let value = any::<Option<u8>>().prop_map(|value| value.map(|value| vec![value; usize::from(value)]));
    let step = prop_oneof![
        6 => proptest::collection::vec((key(), value), 0..15).prop_map(Step::Apply),
        1 => Just(Step::Flush),
        1 => Just(Step::Reopen),
        3 => (key(), proptest::option::of(key()), 1..6_usize)
            .prop_map(|(from, until, most)| Step::Scan(from, until, most)),
    ];
    proptest::collection::vec(step, 0..30)
}

/// Reads as what was applied, after each step.
fn reads_as_applied(owned: &mut dyn Owned, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut held = BTreeMap::<Vec<u8>, Vec<u8>>::new();
    // One of them was never written.
    let mut known = BTreeSet::from([vec![7]]);
    for step in steps {
        match step {
            Step::Apply(changes) => {
                owned.apply(&changes);
                for (key, value) in changes {
                    known.insert(key.clone());
                    match value {
                        Some(value) => held.insert(key, value),
                        None => held.remove(&key),
                    };
                }
            }
            Step::Flush => owned.flush(),
            Step::Reopen => owned.reopen(),
            Step::Scan(from, until, most) => {
                let is_within =
                    |key: &Vec<u8>| *key >= from && until.as_ref().is_none_or(|until| key < until);
                let wanted = held.iter().filter(|(key, _)| is_within(key)).take(most);
                let wanted: Vec<_> = wanted.map(|(key, value)| (key.clone(), value.clone())).collect();
                let range = KeyRange {
                    from: &from,
                    until: until.as_deref(),
                };
                let found = rows(&*owned.store(), range, most);
                prop_assert_eq!(found, Ok(wanted), "{:?}..{:?}", from, until);
            }
        }
        let everything = KeyRange {
            from: &[],
            until: None,
        };
        let all: Vec<_> = held.clone().into_iter().collect();
        let store = owned.store();
        prop_assert_eq!(rows(&*store, everything, usize::MAX), Ok(all));
        for key in &known {
            // What was there before is no part of the answer.
            let mut value = vec![7; 3];
            let found = store.get(key, &mut value);
            let wanted = held.get(key);
            prop_assert_eq!(found, Ok(wanted.is_some()));
            prop_assert_eq!(value, wanted.cloned().unwrap_or_default());
        }
    }
    Ok(())
}

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

fn rows(store: &dyn Store, range: KeyRange<'_>, most: usize) -> Result<Rows, StoreError> {
    let mut rows = Rows::new();
    store.scan(range, &mut |key, value| {
        rows.push((key.to_vec(), value.to_vec()));
        if rows.len() < most {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    Ok(rows)
}

impl Owned for MemoryStore {
    fn apply(&mut self, changes: &[Change]) {
        for (key, value) in changes {
            MemoryStore::apply(self, key, value.as_deref());
        }
    }

    fn store(&self) -> Box<dyn Store + '_> {
        Box::new(self.clone())
    }

    /// It lives with its process.
    fn flush(&mut self) {}

    fn reopen(&mut self) {}
}

/// A task's database, of which so many bytes may wait.
struct OnDisk {
    directory: tempfile::TempDir,
    db: Option<TaskDb>,
    limit: usize,
    applied: i64,
}

impl OnDisk {
    fn new(limit: usize) -> Self {
        let mut new = Self {
            directory: tempfile::tempdir().unwrap(),
            db: None,
            limit,
            applied: 0,
        };
        new.reopen();
        new
    }

    fn db(&mut self) -> &mut TaskDb {
        self.db.as_mut().unwrap()
    }
}

impl Owned for OnDisk {
    fn apply(&mut self, changes: &[Change]) {
        self.applied += 1;
        let (limit, positions) = (self.limit, positions(self.applied));
        let changes = changes.iter().map(|(key, value)| (0, &key[..], value.as_deref()));
        let db = self.db();
        db.apply(changes, positions).unwrap();
        assert!(lock(&db.opened.applied).unwritten.bytes() <= limit);
    }

    fn store(&self) -> Box<dyn Store + '_> {
        Box::new(self.db.as_ref().unwrap().reader(0, 100))
    }

    fn flush(&mut self) {
        self.db().flush(FlushWait::No).unwrap();
    }

    fn reopen(&mut self) {
        let before = self.db.take().map(|db| db.positions());
        let mut db = open(&self.directory.path().join("t-0"), "a").unwrap();
        assert!(before.is_none_or(|before| before == db.positions()));
        db.set_unwritten_bytes(self.limit);
        self.db = Some(db);
    }
}

proptest! {
    #[test]
    fn a_store_in_memory_reads_as_what_was_applied(steps in steps()) {
        reads_as_applied(&mut MemoryStore::default(), steps)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn a_store_on_disk_reads_as_what_was_applied_whatever_waits(steps in steps(), limit in 0..4_000_usize) {
        reads_as_applied(&mut OnDisk::new(limit), steps)?;
    }
}
