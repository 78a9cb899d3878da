//! The steady state allocates nothing: counted with an allocator of this test's own, which is why it is alone
//! in its process.
#![allow(unsafe_code, clippy::unwrap_used, reason = "an allocator; and a test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

mod orders_risk;

use orders_risk::{KEYS, Last, amount, order, plan, process, task};
use streamapp_engine::row::decode_timestamped;
use streamapp_engine::{KeyRange, Store, StoreError, Task, Visit};
use topology::{Type, Value};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged; a counter is all that is added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; the pointer came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const RECORDS: usize = 10_000;
const COMMIT_EVERY: usize = 1_000;

/// A store whose values have room, so that only what the engine allocates is counted.
#[derive(Default)]
struct Roomy {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The task reads it, the commit writes it: as with RocksDB.
#[derive(Clone, Default)]
struct Shared(Rc<RefCell<Roomy>>);

impl Store for Shared {
    fn get(&self, key: &[u8], into: &mut Vec<u8>) -> Result<bool, StoreError> {
        into.clear();
        let store = self.0.borrow();
        let value = store.values.get(key);
        into.extend_from_slice(value.map_or(&[], Vec::as_slice));
        Ok(value.is_some())
    }

    fn scan(&self, _: KeyRange<'_>, _: &mut Visit<'_>) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Roomy {
    fn apply(&mut self, key: &[u8], value: &[u8]) {
        if !self.values.contains_key(key) {
            self.values.insert(key.to_vec(), Vec::with_capacity(64));
        }
        let slot = self.values.get_mut(key).unwrap();
        slot.clear();
        slot.extend_from_slice(value);
    }
}

/// As a worker commits: each change goes to the store, then the staging is dropped. Returns the number of
/// changes.
fn commit(task: &mut Task<Shared>, store: &Shared) -> usize {
    let mut changes = 0;
    for change in task.changes(0) {
        store.0.borrow_mut().apply(change.key, change.value.unwrap());
        changes += 1;
    }
    task.committed();
    changes
}

#[test]
fn ten_thousand_records_through_two_stages_allocate_nothing() {
    let plan = plan();
    let store = Shared::default();
    let mut first = task::<Shared>(&plan, 0, Vec::new());
    let mut second = task(&plan, 1, vec![store.clone()]);
    let (mut rows, mut decisions) = (Last::new(), Last::new());
    let orders: Vec<_> = (0..2 * RECORDS).map(|number| order(number, KEYS)).collect();
    let mut changes = 0;
    let mut run = |numbers: std::ops::Range<usize>| {
        for number in numbers {
            process(
                &mut first,
                number,
                b"order",
                orders[number].as_bytes(),
                7,
                &mut rows,
            );
            process(
                &mut second,
                number,
                &rows.key,
                &rows.value,
                rows.timestamp,
                &mut decisions,
            );
            if (number + 1) % COMMIT_EVERY == 0 {
                first.committed();
                changes += commit(&mut second, &store);
            }
        }
    };
    run(0..RECORDS);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    run(RECORDS..2 * RECORDS);
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert_eq!(
        allocations,
        0,
        "in {RECORDS} records through both stages, {} commits",
        RECORDS / COMMIT_EVERY
    );
    // What was counted was work.
    assert_eq!(
        (rows.count, changes),
        (2 * RECORDS, 2 * RECORDS / COMMIT_EVERY * KEYS)
    );
    assert!(decisions.count > RECORDS, "{}", decisions.count);
    let of_customer = |number: &usize| (number * 7919).is_multiple_of(KEYS);
    let exposure: i64 = (0..2 * RECORDS).filter(of_customer).map(amount).sum();
    let arena = bumpalo::Bump::new();
    let values = &store.0.borrow().values;
    let stored = decode_timestamped(&Type::Int, &values[&b"customer-000000"[..]], &arena);
    assert_eq!(stored.map(|(_, value)| value), Ok(Value::Int(exposure)));
}
