//! Nanoseconds per record through the two tasks of the orders-risk example, and through aggregations with windows, in memory:
//! `cargo run --release -p streamapp-engine --example record_path`.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measuring program")]

use std::sync::Arc;
use std::time::{Duration, Instant};

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
    let mut first = Task::in_memory(Arc::clone(&plan), 0, 0);
    let mut second = Task::in_memory(plan, 1, 0);
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
            headers: &[],
        };
        first.process(0, &record, &mut between).unwrap();
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
            headers: &[],
        };
        second.process(0, &record, &mut last).unwrap();
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
    for (windows, declared) in [
        ("tumbling", r#"{"tumbling":{"size":"10s","grace":"1s"}}"#),
        (
            "hopping, five windows for each record",
            r#"{"hopping":{"size":"10s","advance":"2s","grace":"1s"}}"#,
        ),
        (
            "session of 20 records",
            r#"{"session":{"gap":"500ms","grace":"0s"}}"#,
        ),
    ] {
        println!(
            "sum of windows, {windows}: {:?} per record",
            with_windows(declared)
        );
    }
    for (what, declared) in [
        (
            "two streams",
            r#""streams":[LEFT,RIGHT],"pipelines":[{"name":"p","from":"left","steps":[
              {"join":{"with":"right","name":"j","within":"1s","grace":"1s","expression":"left + right"}}],OUT}]"#,
        ),
        (
            "stream and table",
            r#""streams":[LEFT],"tables":[RIGHT],"pipelines":[{"name":"p","from":"left","steps":[
              {"join":{"with":"right","expression":"left + right"}}],OUT}]"#,
        ),
    ] {
        println!("join, {what}: {:?} per record", with_join(declared));
    }
}

/// Left and right records in turn, a thousand a second; each left one meets one of the right side.
fn with_join(declared: &str) -> Duration {
    let source = |name: &str| {
        format!(
            r#"{{"name":"{name}","topic":"{name}","key":{{"serde":"String"}},"value":{{"serde":"Long"}}}}"#
        )
    };
    let declared = declared
        .replace("LEFT", &source("left"))
        .replace("RIGHT", &source("right"))
        .replace("OUT", r#""to":{"topic":"out","value":{"serde":"Long"}}"#);
    run(&format!(r#"{{"language":"v1",{declared}}}"#), |n| {
        ((n + 1) as usize % 2, format!("k-{:08}", n / 2 % 50_000))
    })
}

/// Sums that are sent when a window closes, of a thousand records a second: fifty keys a second have twenty each.
fn with_windows(windows: &str) -> Duration {
    let declared = format!(
        r#"{{"language":"v1",
      "streams":[{{"name":"in","topic":"in","key":{{"serde":"String"}},"value":{{"serde":"Long"}}}}],
      "pipelines":[{{"name":"sums","from":"in","to":{{"topic":"out","value":{{"serde":"Long"}}}},"steps":[
        {{"groupByKey":{{}}}},{{"windowedBy":{windows}}},
        {{"sum":{{"store":"sums","of":"value","emit":"OnWindowClose"}}}},{{"toStream":{{}}}}]}}]}}"#
    );
    run(&declared, |n| (0, format!("k-{:08}", n / 1_000 * 50 + n % 50)))
}

/// Time for a record, whose source and key are made of its number.
fn run(declared: &str, made: impl Fn(u32) -> (usize, String)) -> Duration {
    const RECORDS: u32 = 500_000;
    let plan = topology::plan(&serde_json::from_str(declared).unwrap()).unwrap();
    let mut task = Task::in_memory(Arc::new(plan), 0, 0);
    let (mut last, value) = (Last(Vec::new(), Vec::new()), 7_i64.to_be_bytes());
    let started = Instant::now();
    for n in 0..RECORDS {
        let (source, key) = made(n);
        let record = InputRecord {
            topic: "in",
            partition: 0,
            offset: i64::from(n),
            timestamp: i64::from(n),
            key: Some(key.as_bytes()),
            value: Some(&value),
            headers: &[],
        };
        task.process(source, &record, &mut last).unwrap();
        while task.close_next(&mut last).unwrap().is_some() {}
        if n % 20_000 == 0 {
            task.commit_in_memory();
        }
    }
    started.elapsed() / RECORDS
}
