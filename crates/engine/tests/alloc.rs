//! Counts heap allocations: in the steady state there are none per record.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use streamapp_engine::{InputRecord, MemoryStore, Output, OutputError, Task};
use topology::Plan;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The last result, as the next sub-topology's input.
#[derive(Default)]
struct Last {
    key: Vec<u8>,
    value: Vec<u8>,
    timestamp: i64,
    sent: u64,
}

impl Output for Last {
    fn check(&self, _: usize, _: usize, _: usize) -> Result<(), OutputError> {
        Ok(())
    }

    fn send(
        &mut self,
        _: usize,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp: i64,
    ) -> Result<(), OutputError> {
        self.key.clear();
        self.key.extend_from_slice(key.unwrap_or_default());
        self.value.clear();
        self.value.extend_from_slice(value.unwrap_or_default());
        self.timestamp = timestamp;
        self.sent += 1;
        Ok(())
    }
}

fn plan() -> Plan {
    let declared = r#"{
      "language": "v1",
      "types": [{"name": "Order", "fields": {"orderId": "string", "customerId": "string", "amountInCents": "int",
                                              "note": "string?", "submittedAt": "timestampMillis"}}],
      "streams": [{"name": "orders", "topic": "orders", "key": {"serde": "String"},
                   "value": {"serde": "Json", "type": "Order"}, "timestamp": "value.submittedAt"}],
      "pipelines": [{"name": "exposure", "from": "orders", "to": {"topic": "decisions", "value": {"serde": "Json"}},
        "steps": [
          {"selectKey": "value.customerId"}, {"groupByKey": {}},
          {"aggregate": {"store": "by-customer", "initial": "0", "add": "aggregate + value.amountInCents"}},
          {"toStream": {}}, {"filter": "value >= 1000"},
          {"mapValues": {"fields": {"id": "'risk:' + key + ':' + string(value)", "customer": "key", "exposure": "value"}}}
        ]}]}"#;
    topology::plan(&serde_json::from_str(declared).unwrap()).unwrap()
}

#[test]
fn the_steady_state_allocates_nothing_per_record() {
    const RECORDS: u64 = 10_000;
    let plan = Arc::new(plan());
    let mut first: Task<MemoryStore> = Task::new(Arc::clone(&plan), 0, Vec::new());
    let mut second = Task::new(Arc::clone(&plan), 1, vec![MemoryStore::default()]);
    let inputs: Vec<String> = (0..100)
        .map(|n| {
            format!(
                r#"{{"orderId":"o-{n}","customerId":"c-{}","amountInCents":{n},"note":"a \"quoted\" é","submittedAt":{n}}}"#,
                n % 10
            )
        })
        .collect();
    let (mut between, mut last) = (Last::default(), Last::default());
    let mut run = |records: u64| {
        for n in 0..records {
            let value = &inputs[(n % 100) as usize];
            let record = InputRecord {
                topic: "orders",
                partition: 0,
                offset: n as i64,
                timestamp: 5,
                key: Some(b"k"),
                value: Some(value.as_bytes()),
            };
            first.process(&record, &mut between).unwrap();
            let record = InputRecord {
                topic: "repartition",
                timestamp: between.timestamp,
                key: Some(&between.key),
                value: Some(&between.value),
                ..record
            };
            second.process(&record, &mut last).unwrap();
            if n % 1_000 == 999 {
                // What the owner does after a commit; the memory store's own writes reuse their values.
                let changes: Vec<_> = second
                    .changes(0)
                    .map(|change| (change.key.to_vec(), change.value.map(<[u8]>::to_vec)))
                    .collect();
                for (key, value) in changes {
                    second.stores_mut()[0].apply(&key, value.as_deref());
                }
                first.committed();
                second.committed();
            }
        }
    };
    run(RECORDS);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    run(RECORDS);
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    // 10 commits of 10 keys are copied out by this test: two allocations per key and the growth of a list.
    assert!(
        allocations <= 10 * (10 * 2 + 4),
        "{allocations} allocations for {RECORDS} records through two tasks"
    );
    assert!(
        last.sent > RECORDS,
        "the filter let nothing through: {}",
        last.sent
    );
}
