//! What the judge found: counts, and the first examples of each fault.

use serde::Serialize;

/// How many examples are kept of one topic's faults.
const EXAMPLES: usize = 8;

/// Whether a record may appear more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Repeats {
    /// A repeat is a fault.
    Forbidden,
    /// A repeat is counted, and is no fault: sinks under `at_least_once`.
    Allowed,
}

/// The judgement of one topic against what it should hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Section {
    /// What the topic is for: `repartition`, `decisions`, `scored` or `store`; or `seen`, what a second reader saw meanwhile.
    pub(crate) name: &'static str,
    pub(crate) repeats: Repeats,
    /// Records (for a store: keys) that should be there.
    pub(crate) expected: u64,
    /// Records (for a store: keys) that are there.
    pub(crate) found: u64,
    pub(crate) duplicates: u64,
    pub(crate) missing: u64,
    pub(crate) wrong: u64,
    pub(crate) out_of_order: u64,
    /// Records that follow from a record whose transaction was aborted.
    pub(crate) aborted_reads: u64,
    /// Records that a reader saw which are not there at the end, or say something else.
    pub(crate) precommitted_reads: u64,
    /// Records that are there at the end, and that it did not see.
    pub(crate) unseen: u64,
    /// The first faults, in words.
    pub(crate) examples: Vec<String>,
}

impl Section {
    pub(crate) fn new(name: &'static str, repeats: Repeats) -> Self {
        Section {
            name,
            repeats,
            expected: 0,
            found: 0,
            duplicates: 0,
            missing: 0,
            wrong: 0,
            out_of_order: 0,
            aborted_reads: 0,
            precommitted_reads: 0,
            unseen: 0,
            examples: Vec::new(),
        }
    }

    pub(crate) fn duplicate(&mut self, what: impl FnOnce() -> String) {
        self.duplicates += 1;
        if self.repeats == Repeats::Forbidden {
            self.example("duplicate", what);
        }
    }

    pub(crate) fn missing(&mut self, what: impl FnOnce() -> String) {
        self.missing += 1;
        self.example("missing", what);
    }

    pub(crate) fn wrong(&mut self, what: impl FnOnce() -> String) {
        self.wrong += 1;
        self.example("wrong", what);
    }

    pub(crate) fn out_of_order(&mut self, what: impl FnOnce() -> String) {
        self.out_of_order += 1;
        self.example("out of order", what);
    }

    pub(crate) fn aborted_read(&mut self, what: impl FnOnce() -> String) {
        self.aborted_reads += 1;
        self.example("aborted read", what);
    }

    pub(crate) fn precommitted_read(&mut self, what: impl FnOnce() -> String) {
        self.precommitted_reads += 1;
        self.example("precommitted read", what);
    }

    pub(crate) fn unseen(&mut self, what: impl FnOnce() -> String) {
        self.unseen += 1;
        self.example("unseen", what);
    }

    fn example(&mut self, kind: &str, what: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(format!("{kind}: {}", what()));
        }
    }

    /// Whether nothing is wrong with this topic.
    pub(crate) fn passed(&self) -> bool {
        let repeats = match self.repeats {
            Repeats::Forbidden => self.duplicates,
            Repeats::Allowed => 0,
        };
        let read = self.aborted_reads + self.precommitted_reads + self.unseen;
        repeats + self.missing + self.wrong + self.out_of_order + read == 0
    }
}

/// The judgement of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Verdict {
    /// Well-formed input records.
    pub(crate) orders: u64,
    /// Malformed input records.
    pub(crate) malformed: u64,
    /// How many malformed input records there should be.
    pub(crate) malformed_expected: u64,
    pub(crate) sections: Vec<Section>,
}

impl Verdict {
    /// Whether the run was right.
    pub(crate) fn passed(&self) -> bool {
        self.malformed == self.malformed_expected && self.sections.iter().all(Section::passed)
    }

    /// The sum of one count over all topics.
    pub(crate) fn total(&self, count: impl Fn(&Section) -> u64) -> u64 {
        self.sections.iter().map(count).sum()
    }

    /// The section of the output topic.
    pub(crate) fn output(&self) -> Option<&Section> {
        self.sections
            .iter()
            .find(|section| matches!(section.name, "decisions" | "scored"))
    }
}
