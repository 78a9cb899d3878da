//! The parts of a topology while it is built: each becomes a sub-topology, unless it becomes part of another one.

use std::collections::BTreeSet;

use crate::declaration::SourceKind;
use crate::plan::{Node, NodeIndex, Op, Sink, SinkHeaders, Source, StoreIndex, SubTopology, TopicName};
use crate::{Env, Path};

/// Where the next node goes.
#[derive(Clone)]
pub(super) struct Place {
    /// The part that is being built, and the node in it that the next one goes behind.
    pub(super) at: usize,
    pub(super) last: NodeIndex,
    /// Of a table that is kept.
    pub(super) store: Option<StoreIndex>,
    /// The types of what is forwarded there.
    pub(super) env: Env,
}

/// All parts, in the order in which they were begun.
#[derive(Default)]
pub(super) struct Parts(Vec<Option<Part>>);

/// Reads at least one topic.
struct Part {
    sub: SubTopology,
    reads_only_tables: bool,
}

impl Parts {
    /// Begins a part with only its root, named after what it reads.
    pub(super) fn begin(&mut self, source: Source, sinks: Vec<Sink>, kind: SourceKind, path: &Path) -> usize {
        let root = Node {
            path: path.clone(),
            op: Op::Forward,
            children: Vec::new(),
        };
        let sub = SubTopology {
            name: source.name.clone(),
            sources: vec![source],
            nodes: vec![root],
            stores: Vec::new(),
            sinks,
        };
        let reads_only_tables = kind == SourceKind::Table;
        self.0.push(Some(Part {
            sub,
            reads_only_tables,
        }));
        self.0.len() - 1
    }

    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut SubTopology> {
        let part = self.0.get_mut(at)?.as_mut();
        part.map(|part| &mut part.sub)
    }

    /// Lets two parts be one, and corrects places in them. The one that was begun first stays; one that reads more than tables,
    /// before one that does not: a table that is joined in renames no task.
    pub(super) fn unite<'p>(
        &mut self,
        one: usize,
        other: usize,
        places: impl Iterator<Item = &'p mut Place>,
    ) {
        let rank = |at: usize| {
            let part = self.0.get(at).and_then(Option::as_ref);
            (part.is_some_and(|part| part.reads_only_tables), at)
        };
        let (into, from) = if rank(one) <= rank(other) {
            (one, other)
        } else {
            (other, one)
        };
        if into == from {
            return;
        }
        let part = self.0.get_mut(from).and_then(Option::take);
        let (Some(part), Some(whole)) = (part, self.get_mut(into)) else {
            return;
        };
        let (nodes, stores) = (whole.nodes.len(), whole.stores.len());
        whole.append(part.sub);
        for place in places.filter(|place| place.at == from) {
            place.at = into;
            place.last += nodes;
            place.store = place.store.map(|store| store + stores);
        }
    }

    /// Each sub-topology behind those that feed it; where they feed each other, in the order in which they were begun.
    pub(super) fn in_order(self) -> Vec<SubTopology> {
        let mut parts: Vec<_> = self.0.into_iter().flatten().map(|part| part.sub).collect();
        let mut ordered = Vec::<SubTopology>::with_capacity(parts.len());
        while !parts.is_empty() {
            // Those that feed each other are fed by as many, what is behind them by more.
            let next = (0..parts.len()).min_by_key(|part| feeding(&parts, *part));
            ordered.push(parts.remove(next.unwrap_or(0)));
        }
        ordered.iter_mut().for_each(order_children);
        forward_headers(&mut ordered);
        ordered
    }
}

/// Headers go as far as somebody reads them, and to dead letters.
fn forward_headers(parts: &mut [SubTopology]) {
    let mut reading: BTreeSet<_> = (0..parts.len())
        .filter(|part| parts[*part].reads_headers())
        .collect();
    let mut next: Vec<_> = reading.iter().copied().collect();
    let is_own = |sink: &Sink| matches!(sink.topic, TopicName::Repartition(_));
    while let Some(to) = next.pop() {
        let topics: Vec<_> = parts[to]
            .sources
            .iter()
            .map(|source| source.topic.clone())
            .collect();
        for (from, part) in parts.iter_mut().enumerate() {
            let sinks = part.sinks.iter_mut();
            for sink in sinks.filter(|sink| is_own(sink) && topics.contains(&sink.topic)) {
                sink.headers = SinkHeaders::Forwarded;
                if reading.insert(from) {
                    next.push(from);
                }
            }
        }
    }
    for (at, part) in parts.iter_mut().enumerate() {
        for source in &mut part.sources {
            source.headers = reading.contains(&at) || source.dead_letters.is_some();
        }
    }
}

/// How many of the parts feed one, directly or through others, itself included.
fn feeding(parts: &[SubTopology], part: usize) -> usize {
    let feeds = |from: usize, to: usize| {
        let mut sinks = parts[from].sinks.iter();
        sinks.any(|sink| parts[to].sources.iter().any(|source| source.topic == sink.topic))
    };
    let mut found = vec![part];
    let mut next = 0;
    while let Some(to) = found.get(next).copied() {
        let new = (0..parts.len()).filter(|from| feeds(*from, to) && !found.contains(from));
        let new: Vec<_> = new.collect();
        found.extend(new);
        next += 1;
    }
    found.len()
}

/// Lets a join of tables see an update of one side before what that update changes on its other side: such a join comes before
/// other children of a node that lead to where the other side is kept. So each side finds the other one as the join has seen it,
/// and what is there no more is taken back. All else stays in declared order.
fn order_children(sub: &mut SubTopology) {
    for at in 0..sub.nodes.len() {
        let mut children = sub.nodes[at].children.clone();
        let mut ordered = Vec::with_capacity(children.len());
        while !children.is_empty() {
            let waits = |child: NodeIndex| {
                let mut others = children.iter().filter(|other| **other != child);
                others.any(|other| is_seen_before(sub, *other, child))
            };
            let next = children.iter().position(|child| !waits(*child)).unwrap_or(0);
            ordered.push(children.remove(next));
        }
        sub.nodes[at].children = ordered;
    }
}

/// Whether a node looks up what another one leads to.
fn is_seen_before(sub: &SubTopology, node: NodeIndex, other: NodeIndex) -> bool {
    let Op::JoinTables { other: looked_up, .. } = sub.nodes[node].op else {
        return false;
    };
    let keeps = |op: &Op| {
        matches!(op, Op::Table { store } | Op::Aggregate { store, .. } | Op::JoinForeignKey { store, .. }
            if *store == looked_up)
    };
    let mut nodes = sub.nodes.iter().enumerate();
    nodes.any(|(at, node)| keeps(&node.op) && sub.leads(other, at))
}

impl SubTopology {
    /// Takes over another one.
    fn append(&mut self, other: Self) {
        let Self {
            sources,
            nodes,
            stores,
            sinks,
            ..
        } = other;
        let (node_offset, store_offset) = (self.nodes.len(), self.stores.len());
        let sink_offset = self.sinks.len();
        self.sources.extend(sources.into_iter().map(|source| Source {
            node: source.node + node_offset,
            dead_letters: source.dead_letters.map(|sink| sink + sink_offset),
            ..source
        }));
        self.nodes.extend(nodes.into_iter().map(|mut node| {
            node.children.iter_mut().for_each(|child| *child += node_offset);
            match &mut node.op {
                Op::JoinTable { store, held, .. } => {
                    *store += store_offset;
                    held.iter_mut().for_each(|store| *store += store_offset);
                }
                Op::Aggregate { store, .. }
                | Op::Deduplicate { store, .. }
                | Op::Table { store }
                | Op::Suppress { store }
                | Op::JoinTables { other: store, .. }
                | Op::JoinStreams { store, .. }
                | Op::Notify { store } => *store += store_offset,
                Op::Register { store, table } | Op::JoinForeignKey { store, table, .. } => {
                    *store += store_offset;
                    *table += store_offset;
                }
                Op::Sink(sink) => *sink += sink_offset,
                Op::Route { sinks, .. } => sinks.iter_mut().for_each(|(_, sink)| *sink += sink_offset),
                Op::Forward
                | Op::Filter(_)
                | Op::FilterNot(_)
                | Op::FilterTable { .. }
                | Op::MapTable(_)
                | Op::GroupTable { .. }
                | Op::Subscribe { .. }
                | Op::SelectKey(_)
                | Op::MapValues(_)
                | Op::Map { .. }
                | Op::FlatMapValues(_) => {}
            }
            node
        }));
        self.stores.extend(stores);
        self.sinks.extend(sinks);
    }
}
