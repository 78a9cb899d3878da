//! What a task does must not depend on where its transactions end, nor on how.

use super::*;

/// What may end a transaction.
#[derive(Clone, Copy, Debug)]
pub(super) enum Break {
    Commit,
    /// Committed, and a new task on the same stores.
    Restart,
    /// Not committed, and a new task on the same stores: back to the last commit.
    Crash,
    /// Not committed, and the same task goes on.
    Abort,
}

/// What comes after each of a task's steps.
pub(super) fn breaks() -> impl Strategy<Value = Vec<Option<Break>>> {
    let how = prop_oneof![
        Just(Break::Commit),
        Just(Break::Restart),
        Just(Break::Crash),
        Just(Break::Abort),
    ];
    proptest::collection::vec(proptest::option::of(how), 0..60)
}

/// A record of a source.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) source: usize,
    pub(super) key: String,
    pub(super) value: Option<String>,
    pub(super) timestamp: i64,
}

/// The committed results and the stores. After each of its steps (a record, or a closed window) the task may be broken.
pub(super) fn drive(
    plan: &Arc<Plan>,
    records: &[Given],
    breaks: &[Option<Break>],
) -> (Vec<Sent>, Vec<MemoryStore>) {
    let mut breaks = breaks.iter().copied();
    let mut task = task(plan, 0);
    let mut committed = Vec::new();
    // Of the open transaction: results, and the next record.
    let (mut open, mut at, mut committed_at) = (Collected::default(), 0, 0);
    loop {
        let closed = task.close_next(&mut open).unwrap();
        if closed.is_none() {
            let Some(given) = records.get(at) else { break };
            let record = InputRecord {
                timestamp: given.timestamp,
                ..record(at as i64, Some(&given.key), given.value.as_deref())
            };
            task.process(given.source, &record, &mut open).unwrap();
            at += 1;
        }
        let restarted = |task: &Task<MemoryStore>| Task::new(Arc::clone(plan), 0, 0, task.stores().to_vec());
        match breaks.next().flatten() {
            Some(how @ (Break::Commit | Break::Restart)) => {
                task.commit_in_memory();
                committed.append(&mut open.sent);
                committed_at = at;
                if let Break::Restart = how {
                    task = restarted(&task);
                }
            }
            Some(how @ (Break::Crash | Break::Abort)) => {
                if let Break::Crash = how {
                    task = restarted(&task);
                } else {
                    task.discard();
                }
                open.sent.clear();
                at = committed_at;
            }
            None => {}
        }
    }
    task.commit_in_memory();
    committed.append(&mut open.sent);
    let stores = task.stores_mut().iter_mut().map(std::mem::take);
    (committed, stores.collect())
}

/// Results for people: key, value and time of each.
pub(super) fn lines(sent: Vec<Sent>) -> Vec<String> {
    let text =
        |bytes: Option<Vec<u8>>| bytes.map_or("null".to_owned(), |bytes| String::from_utf8(bytes).unwrap());
    let line = |(_, key, value, timestamp): Sent| format!("{}={} at {timestamp}", text(key), text(value));
    sent.into_iter().map(line).collect()
}
