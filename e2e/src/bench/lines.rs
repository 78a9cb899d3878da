//! The lines of the bench: what runs, by whom, and what the design aims at.

use clap::ValueEnum;
use serde::Serialize;

use super::Bench;
use crate::generate::KeyedBy;

/// One comparison.
#[derive(Debug)]
pub(crate) struct Line {
    pub(super) name: &'static str,
    pub(super) topology: Topology,
    /// Keys of the store, where there is one.
    pub(super) customers: u64,
    pub(super) commit_interval_ms: u64,
    /// Its records are so many times `--records`: many for what is fast and commits seldom.
    pub(super) scale: u64,
    pub(super) load: Load,
    pub(super) subjects: &'static [Who],
    pub(super) aims: &'static [Aim],
}

/// How the input comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// All of it is there before the subject starts: how fast is it read?
    Backlog,
    /// At a set rate while the subject runs: how long do results take?
    Paced,
}

/// What a subject runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topology {
    /// Filter and map.
    Stateless,
    /// Repartition, aggregate, decide.
    OrdersRisk,
    /// The same on an input that has the store's keys: no repartition.
    KeyedAggregate,
}

/// Who runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Who {
    /// StreamApp
    Ours,
    /// StreamApp with the guarantee `at_least_once`
    AtLeastOnce,
    /// Kafka Streams
    Peer,
    /// The bare librdkafka loop
    Limit,
}

/// What the design wants of a ratio (docs: performance).
#[derive(Debug)]
pub(super) struct Aim {
    pub(super) ratio: Ratio,
    pub(super) bound: Bound,
}

/// Ours in relation to another subject: medians, steady.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ratio {
    /// Throughput, ours ÷ peer's.
    Peer,
    /// Throughput, ours ÷ the limit's.
    Limit,
    /// CPU for a record, ours ÷ peer's.
    CpuPeer,
    /// Peak resident memory, ours ÷ peer's.
    RssPeer,
    /// 99th percentile of the latency, ours ÷ peer's.
    P99Peer,
    /// Time for a record beyond the time that `at_least_once` takes, as a share of that.
    Overhead,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

const STATELESS: Line = Line {
    name: "stateless",
    topology: Topology::Stateless,
    customers: 100_000,
    commit_interval_ms: 100,
    scale: 1,
    load: Load::Backlog,
    subjects: &[Who::Ours, Who::Peer, Who::Limit],
    aims: &[
        at_least(Ratio::Peer, 2.2),
        at_least(Ratio::Limit, 0.8),
        at_most(Ratio::CpuPeer, 1.0 / 3.0),
    ],
};

const ORDERS_RISK: Line = Line {
    name: "orders-risk",
    topology: Topology::OrdersRisk,
    subjects: &[Who::Ours, Who::Peer],
    aims: &[
        at_least(Ratio::Peer, 4.0),
        at_most(Ratio::CpuPeer, 1.0 / 6.0),
        at_most(Ratio::RssPeer, 1.0 / 4.0),
    ],
    ..STATELESS
};

const AGGREGATE_100K: Line = Line {
    name: "aggregate-100k",
    topology: Topology::KeyedAggregate,
    aims: &[
        at_least(Ratio::Peer, 4.0),
        at_most(Ratio::CpuPeer, 1.0 / 5.0),
        at_most(Ratio::RssPeer, 1.0 / 4.0),
    ],
    ..ORDERS_RISK
};

const GUARANTEE_100MS: Line = Line {
    name: "guarantee-100ms",
    scale: 3,
    subjects: &[Who::Ours, Who::AtLeastOnce],
    aims: &[at_most(Ratio::Overhead, 0.2)],
    ..ORDERS_RISK
};

const LATENCY_STATELESS: Line = Line {
    name: "latency-stateless",
    load: Load::Paced,
    aims: &[at_most(Ratio::P99Peer, 0.9), at_most(Ratio::CpuPeer, 1.0 / 5.0)],
    ..STATELESS
};

/// All of them, in the order in which they run.
pub(super) static LINES: [Line; 8] = [
    STATELESS,
    ORDERS_RISK,
    AGGREGATE_100K,
    Line {
        name: "aggregate-1m",
        customers: 1_000_000,
        ..AGGREGATE_100K
    },
    GUARANTEE_100MS,
    Line {
        name: "guarantee-1000ms",
        commit_interval_ms: 1_000,
        aims: &[at_most(Ratio::Overhead, 0.1)],
        ..GUARANTEE_100MS
    },
    LATENCY_STATELESS,
    Line {
        name: "latency-orders-risk",
        topology: Topology::OrdersRisk,
        // Few enough for nearly every order of the second half to be followed by a decision.
        customers: 10_000,
        subjects: &[Who::Ours, Who::Peer],
        ..LATENCY_STATELESS
    },
];

const fn at_least(ratio: Ratio, least: f64) -> Aim {
    Aim {
        ratio,
        bound: Bound::AtLeast(least),
    }
}

const fn at_most(ratio: Ratio, most: f64) -> Aim {
    Aim {
        ratio,
        bound: Bound::AtMost(most),
    }
}

impl Line {
    /// The line of that name.
    pub(super) fn named(name: &str) -> Result<&'static Line, String> {
        let found = LINES.iter().find(|line| line.name == name);
        found.ok_or_else(|| "no such line; --list names them".to_owned())
    }

    /// How many records its subjects process.
    pub(super) fn records(&self, bench: &Bench) -> u64 {
        match self.load {
            Load::Backlog => bench.records * self.scale,
            Load::Paced => bench.rate * bench.seconds,
        }
    }
}

impl Topology {
    /// As the peer names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Topology::Stateless => "stateless",
            Topology::OrdersRisk => "orders-risk",
            Topology::KeyedAggregate => "keyed-aggregate",
        }
    }

    /// Our declaration, in the directory of the examples.
    pub(super) fn file(self) -> &'static str {
        match self {
            Topology::Stateless => "stateless.yaml",
            Topology::OrdersRisk => "app.yaml",
            Topology::KeyedAggregate => "keyed.yaml",
        }
    }

    /// The topics in that declaration: input and output.
    pub(super) fn topics(self) -> (&'static str, &'static str) {
        match self {
            Topology::Stateless => ("orders.submitted.v1", "orders.scored.v1"),
            Topology::OrdersRisk => ("orders.submitted.v1", "risk.decisions.v1"),
            Topology::KeyedAggregate => ("orders.by-customer.v1", "risk.decisions.v1"),
        }
    }

    /// The keys of its input.
    pub(super) fn keyed_by(self) -> KeyedBy {
        match self {
            Topology::Stateless | Topology::OrdersRisk => KeyedBy::Order,
            Topology::KeyedAggregate => KeyedBy::Customer,
        }
    }

    /// The repartition topic that ends its way, if it has one.
    pub(super) fn repartition(self, application_id: &str) -> Option<String> {
        match self {
            Topology::Stateless | Topology::KeyedAggregate => None,
            Topology::OrdersRisk => Some(format!("{application_id}-exposure-by-customer-repartition")),
        }
    }
}

impl Who {
    pub(super) fn name(self) -> &'static str {
        match self {
            Who::Ours => "ours",
            Who::AtLeastOnce => "at-least-once",
            Who::Peer => "peer",
            Who::Limit => "limit",
        }
    }

    pub(super) fn guarantee(self) -> &'static str {
        match self {
            Who::AtLeastOnce => "at_least_once",
            Who::Ours | Who::Peer | Who::Limit => "exactly_once_v2",
        }
    }
}

impl Ratio {
    pub(super) const ALL: [Ratio; 6] = [
        Ratio::Peer,
        Ratio::Limit,
        Ratio::CpuPeer,
        Ratio::RssPeer,
        Ratio::P99Peer,
        Ratio::Overhead,
    ];

    /// As the report names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Ratio::Peer => "ratio_peer",
            Ratio::Limit => "ratio_limit",
            Ratio::CpuPeer => "cpu_ratio_peer",
            Ratio::RssPeer => "rss_ratio_peer",
            Ratio::P99Peer => "p99_ratio_peer",
            Ratio::Overhead => "overhead",
        }
    }
}

impl Bound {
    pub(super) fn holds(self, measured: f64) -> bool {
        match self {
            Bound::AtLeast(least) => measured >= least,
            Bound::AtMost(most) => measured <= most,
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Bound::AtLeast(least) => write!(f, "≥ {least:.2}"),
            Bound::AtMost(most) => write!(f, "≤ {most:.2}"),
        }
    }
}
