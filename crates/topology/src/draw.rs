//! A plan as a picture: topics, steps and stores of each sub-topology, for Mermaid and for Graphviz.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::describe::label;
use crate::plan::{Node, Op, Plan, SinkIndex, StoreIndex, SubTopology, TopicName};

/// What a plan is drawn for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drawing {
    /// <https://mermaid.js.org/syntax/flowchart.html>
    Mermaid,
    /// <https://graphviz.org/doc/info/lang.html>
    Dot,
}

/// A box and its name in the picture.
struct Vertex {
    id: String,
    text: String,
    shape: Shape,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Topic,
    Step,
    Store,
}

struct Picture {
    topics: Vec<Vertex>,
    /// By sub-topology.
    parts: Vec<(String, Vec<Vertex>)>,
    /// From, to; between a step and its store there is no direction.
    edges: Vec<(String, String, Direction)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forth,
    None,
}

impl Plan {
    /// The plan as the text of a picture.
    #[must_use]
    pub fn draw(&self, drawing: Drawing) -> String {
        let picture = Picture::of(self);
        match drawing {
            Drawing::Mermaid => picture.mermaid(),
            Drawing::Dot => picture.dot(),
        }
    }
}

impl Picture {
    fn of(plan: &Plan) -> Self {
        let mut topics = BTreeMap::<&TopicName, String>::new();
        let (mut parts, mut edges) = (Vec::new(), Vec::new());
        for (at, sub) in plan.sub_topologies.iter().enumerate() {
            let step = |node: usize| format!("s{at}n{node}");
            let mut topic = |name| {
                let next = format!("t{}", topics.len());
                topics.entry(name).or_insert(next).clone()
            };
            let mut vertices = Vec::new();
            for source in &sub.sources {
                edges.push((topic(&source.topic), step(source.node), Direction::Forth));
            }
            for (index, node) in sub.nodes.iter().enumerate() {
                let text = sub.sources.iter().find(|source| source.node == index);
                let text = text.map_or_else(|| label(sub, node), |source| format!("source {}", source.name));
                // Drawn as its topics.
                if !written(sub, node).is_empty() {
                    continue;
                }
                vertices.push(Vertex {
                    id: step(index),
                    text,
                    shape: Shape::Step,
                });
                for child in &node.children {
                    let topics = sub
                        .nodes
                        .get(*child)
                        .map_or(Vec::new(), |child| written(sub, child));
                    if topics.is_empty() {
                        edges.push((step(index), step(*child), Direction::Forth));
                    }
                    for name in topics {
                        edges.push((step(index), topic(name), Direction::Forth));
                    }
                }
                for store in Uses::of(node).stores {
                    edges.push((step(index), format!("s{at}d{store}"), Direction::None));
                }
            }
            vertices.extend(sub.stores.iter().enumerate().map(|(index, store)| Vertex {
                id: format!("s{at}d{index}"),
                text: store.name.clone(),
                shape: Shape::Store,
            }));
            // Dead letters come from no step of their own.
            for source in &sub.sources {
                let letters = source.dead_letters.and_then(|sink| sub.sinks.get(sink));
                if let Some(letters) = letters {
                    edges.push((step(source.node), topic(&letters.topic), Direction::Forth));
                }
            }
            parts.push((sub.name.clone(), vertices));
        }
        let topics = topics.into_iter().map(|(name, id)| Vertex {
            id,
            text: name.to_string(),
            shape: Shape::Topic,
        });
        Self {
            topics: topics.collect(),
            parts,
            edges,
        }
    }

    fn mermaid(&self) -> String {
        // Quotes and angle brackets are HTML there.
        let text = |text: &str| {
            text.replace('"', "#quot;")
                .replace('<', "#lt;")
                .replace('>', "#gt;")
        };
        let vertex = |vertex: &Vertex| {
            let (open, close) = match vertex.shape {
                Shape::Topic => ("[/", "/]"),
                Shape::Step => ("[", "]"),
                Shape::Store => ("[(", ")]"),
            };
            format!("{}{open}\"{}\"{close}", vertex.id, text(&vertex.text))
        };
        let mut out = "flowchart TD\n".to_owned();
        for topic in &self.topics {
            let _ = writeln!(out, "  {}", vertex(topic));
        }
        for (at, (name, vertices)) in self.parts.iter().enumerate() {
            let _ = writeln!(out, "  subgraph s{at}[\"{}\"]", text(name));
            for inner in vertices {
                let _ = writeln!(out, "    {}", vertex(inner));
            }
            out.push_str("  end\n");
        }
        for (from, to, direction) in &self.edges {
            let arrow = match direction {
                Direction::Forth => "-->",
                Direction::None => "---",
            };
            let _ = writeln!(out, "  {from} {arrow} {to}");
        }
        out
    }

    fn dot(&self) -> String {
        let vertex = |vertex: &Vertex| {
            let shape = match vertex.shape {
                Shape::Topic => "parallelogram",
                Shape::Step => "box",
                Shape::Store => "cylinder",
            };
            format!("{} [label={:?}, shape={shape}];", vertex.id, vertex.text)
        };
        let mut out = "digraph topology {\n".to_owned();
        for topic in &self.topics {
            let _ = writeln!(out, "  {}", vertex(topic));
        }
        for (at, (name, vertices)) in self.parts.iter().enumerate() {
            let _ = writeln!(out, "  subgraph cluster_{at} {{\n    label={name:?};");
            for inner in vertices {
                let _ = writeln!(out, "    {}", vertex(inner));
            }
            out.push_str("  }\n");
        }
        for (from, to, direction) in &self.edges {
            let how = match direction {
                Direction::Forth => "",
                Direction::None => " [dir=none, style=dashed]",
            };
            let _ = writeln!(out, "  {from} -> {to}{how};");
        }
        out.push_str("}\n");
        out
    }
}

/// What a node has to do with beside other nodes.
#[derive(Default)]
struct Uses {
    /// It reads or writes them.
    stores: Vec<StoreIndex>,
    /// It writes them.
    sinks: Vec<SinkIndex>,
}

impl Uses {
    fn of(node: &Node) -> Self {
        let (stores, sinks) = match &node.op {
            Op::Aggregate { store, .. }
            | Op::Deduplicate { store, .. }
            | Op::Table { store }
            | Op::Suppress { store }
            | Op::JoinTables { other: store, .. }
            | Op::JoinStreams { store, .. }
            | Op::Notify { store } => (vec![*store], Vec::new()),
            Op::Register { store, table } | Op::JoinForeignKey { store, table, .. } => {
                (vec![*store, *table], Vec::new())
            }
            Op::JoinTable { store, held, .. } => ([*store].into_iter().chain(*held).collect(), Vec::new()),
            Op::Sink(sink) => (Vec::new(), vec![*sink]),
            Op::Route { sinks, .. } => (Vec::new(), sinks.iter().map(|(_, sink)| *sink).collect()),
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
            | Op::FlatMapValues(_) => return Self::default(),
        };
        Self { stores, sinks }
    }
}

/// The topics that a node writes.
fn written<'p>(sub: &'p SubTopology, node: &Node) -> Vec<&'p TopicName> {
    let sinks = Uses::of(node).sinks.into_iter();
    sinks
        .filter_map(|sink| Some(&sub.sinks.get(sink)?.topic))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let declared = serde_json::json!({
            "language": "v1",
            "streams": [{"name": "in", "topic": "in.v1", "key": {"serde": "String"}, "value": {"serde": "Long"}}],
            "pipelines": [{
                "name": "p", "from": "in", "to": {"topic": "out.v1", "value": {"serde": "Long"}},
                "steps": [
                    {"selectKey": "key + '\"'"},
                    {"groupByKey": {}},
                    {"sum": {"store": "sums", "of": "value"}},
                    {"toStream": {}},
                ],
            }],
        });
        crate::plan(&serde_json::from_value(declared).unwrap()).unwrap()
    }

    #[test]
    fn a_picture_has_topics_steps_and_stores() {
        let wanted = r##"flowchart TD
  t0[/"in.v1"/]
  t2[/"out.v1"/]
  t1[/"#lt;application.id#gt;-sums-repartition"/]
  subgraph s0["in"]
    s0n0["source in"]
    s0n1["selectKey -#gt; string"]
  end
  subgraph s1["sums"]
    s1n0["source sums"]
    s1n1["aggregate in sums -#gt; int"]
    s1n2["forward"]
    s1d0[("sums")]
  end
  t0 --> s0n0
  s0n0 --> s0n1
  s0n1 --> t1
  t1 --> s1n0
  s1n0 --> s1n1
  s1n1 --> s1n2
  s1n1 --- s1d0
  s1n2 --> t2
"##;
        assert_eq!(plan().draw(Drawing::Mermaid), wanted);
        let wanted = r##"digraph topology {
  t0 [label="in.v1", shape=parallelogram];
  t2 [label="out.v1", shape=parallelogram];
  t1 [label="<application.id>-sums-repartition", shape=parallelogram];
  subgraph cluster_0 {
    label="in";
    s0n0 [label="source in", shape=box];
    s0n1 [label="selectKey -> string", shape=box];
  }
  subgraph cluster_1 {
    label="sums";
    s1n0 [label="source sums", shape=box];
    s1n1 [label="aggregate in sums -> int", shape=box];
    s1n2 [label="forward", shape=box];
    s1d0 [label="sums", shape=cylinder];
  }
  t0 -> s0n0;
  s0n0 -> s0n1;
  s0n1 -> t1;
  t1 -> s1n0;
  s1n0 -> s1n1;
  s1n1 -> s1n2;
  s1n1 -> s1d0 [dir=none, style=dashed];
  s1n2 -> t2;
}
"##;
        assert_eq!(plan().draw(Drawing::Dot), wanted);
    }
}
