//! Nanoseconds per record through the two tasks of the orders-risk example, in memory: `cargo run --release -p
//! streamapp-engine --example record_path`.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measuring program")]

use std::sync::Arc;
use std::time::Instant;

use streamapp_engine::{InputRecord, Outgoing, Output, OutputError, Task};

struct Last(Vec<u8>, Vec<u8>);

impl Output for Last {
    fn check(&self, _: &Outgoing<'_>) -> Result<(), OutputError> {
        Ok(())
    }

    fn send(&mut self, record: &Outgoing<'_>) -> Result<(), OutputError> {
        self.0.clear();
        self.0.extend_from_slice(record.key.unwrap_or_default());
        self.1.clear();
        self.1.extend_from_slice(record.value.unwrap_or_default());
        Ok(())
    }
}

fn main() {
    const RECORDS: u32 = 1_000_000;
    let declared = r#"{"language":"v1",
      "types":[{"name":"Order","fields":{"orderId":"string","customerId":"string","amountInCents":"int","submittedAt":"timestampMillis"}}],
      "streams":[{"name":"orders","topic":"orders","key":{"serde":"String"},"value":{"serde":"Json","type":"Order"},"timestamp":"value.submittedAt"}],
      "pipelines":[{"name":"exposure","from":"orders","to":{"topic":"decisions","value":{"serde":"Json"}},"steps":[
        {"selectKey":"value.customerId"},{"groupByKey":{}},
        {"aggregate":{"store":"by-customer","initial":"0","add":"aggregate + value.amountInCents"}},{"toStream":{}},
        {"filter":"value >= 1000000"},{"mapValues":{"fields":{"id":"'risk:' + key + ':' + string(value)","exposure":"value"}}}]}]}"#;
    let plan = Arc::new(topology::plan(&serde_json::from_str(declared).unwrap()).unwrap());
    let mut first = Task::in_memory(Arc::clone(&plan), 0);
    let mut second = Task::in_memory(plan, 1);
    let inputs: Vec<String> = (0..1000)
        .map(|n| {
            let note = "0123456789abcdef".repeat(6);
            format!(r#"{{"orderId":"o-{n:010}","customerId":"c-{n:08}","amountInCents":{n},"note":"{note}","submittedAt":1760000000000}}"#)
        })
        .collect();

    let bytes: usize = inputs.iter().map(String::len).sum();
    let (mut between, mut last) = (Last(Vec::new(), Vec::new()), Last(Vec::new(), Vec::new()));
    let started = Instant::now();
    for n in 0..RECORDS {
        let value = Some(inputs[(n % 1000) as usize].as_bytes());
        let record = InputRecord {
            topic: "orders",
            partition: 0,
            offset: i64::from(n),
            timestamp: 0,
            key: Some(b"k"),
            value,
        };
        first.process(&record, &mut between).unwrap();
    }
    let one = started.elapsed() / RECORDS;
    let started = Instant::now();
    for n in 0..RECORDS {
        let key = format!("c-{:08}", n % 100_000);
        let record = InputRecord {
            topic: "repartition",
            partition: 0,
            offset: i64::from(n),
            timestamp: 0,
            key: Some(key.as_bytes()),
            value: Some(&between.1),
        };
        second.process(&record, &mut last).unwrap();
        if n % 50_000 == 0 {
            second.committed();
        }
    }
    let two = started.elapsed() / RECORDS;
    println!(
        "JSON of {} bytes -> selectKey -> repartition: {one:?} per record",
        bytes / inputs.len()
    );
    println!("repartition -> aggregate -> filter -> mapValues: {two:?} per record");
}
