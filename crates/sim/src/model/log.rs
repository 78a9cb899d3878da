//! Every control log that can come about, as a tree: a log is a node, a shorter read of it an ancestor.

use std::rc::Rc;

use protocol::{Record, World};

use crate::as_decided_now;

/// A control log with everything before its last record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Log(u32);

#[derive(Debug)]
struct Node {
    length: i64,
    before: Log,
    record: Option<Record>,
    world: Rc<World>,
    longer: Vec<Log>,
}

/// All logs seen so far, with what each folds to.
#[derive(Debug)]
pub(crate) struct Logs {
    nodes: Vec<Node>,
    /// What operators write counts, whatever it was decided on.
    folds_whatever: bool,
}

impl Logs {
    pub(crate) const EMPTY: Log = Log(0);

    pub(crate) fn new(folds_whatever: bool) -> Self {
        let empty = Node {
            length: 0,
            before: Self::EMPTY,
            record: None,
            world: Rc::default(),
            longer: Vec::new(),
        };
        Self {
            nodes: vec![empty],
            folds_whatever,
        }
    }

    fn node(&self, log: Log) -> &Node {
        &self.nodes[log.0 as usize]
    }

    pub(crate) fn world(&self, log: Log) -> Rc<World> {
        Rc::clone(&self.node(log).world)
    }

    pub(crate) fn length(&self, log: Log) -> i64 {
        self.node(log).length
    }

    pub(crate) fn record(&self, log: Log) -> Option<&Record> {
        self.node(log).record.as_ref()
    }

    /// The log with one more record; its offset is the length before.
    pub(crate) fn append(&mut self, log: Log, record: Record) -> Log {
        let known = self.node(log).longer.iter().copied();
        if let Some(found) = known.into_iter().find(|next| self.record(*next) == Some(&record)) {
            return found;
        }
        let length = self.length(log);
        let mut world = World::clone(&self.node(log).world);
        if self.folds_whatever {
            world.apply(length, &as_decided_now(&record, &world));
        } else {
            world.apply(length, &record);
        }
        let next = Log(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        self.nodes.push(Node {
            length: length + 1,
            before: log,
            record: Some(record),
            world: Rc::new(world),
            longer: Vec::new(),
        });
        self.nodes[log.0 as usize].longer.push(next);
        next
    }

    /// The log up to and including the record at `offset`.
    pub(crate) fn through(&self, mut log: Log, offset: i64) -> Log {
        while self.length(log) > offset + 1 {
            log = self.node(log).before;
        }
        log
    }
}
