//! A checked expression: names are places and slots, overloads are chosen where types tell them, constants are made.

use crate::Value;

/// A part of a checked expression.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    /// Stands where the checker found an error; never evaluated but by tests.
    Refused,
    Const(Const),
    Place(Place),
    Coordinate(Coordinate),
    /// A variable of a macro, counted from the innermost.
    Local(usize),
    /// A field of a record that is no [`Place`].
    Field(Box<Node>, usize, Need),
    Not(Box<Node>),
    And(Box<(Node, Node)>),
    Or(Box<(Node, Node)>),
    Conditional(Box<(Node, Node, Node)>),
    Compare(Comparison, Operands, Box<(Node, Node)>),
    Arithmetic(Arithmetic, Operands, Box<(Node, Node)>),
    Negate(Box<Node>),
    /// Strings, written one behind the other.
    Concat(Box<[Node]>),
    /// `string(…)`
    Text(Box<Node>),
    In(Box<(Node, Node)>),
    /// `operand[index]`, and `operand.key` of a map.
    Index(Box<(Node, Node)>, Need),
    /// Whether an optional value is there.
    IsPresent(Box<Node>),
    /// `has(map.key)`
    HasKey(Box<(Node, Node)>),
    /// The first, or the second where the first is absent.
    OrElse(Box<(Node, Node)>),
    /// `optional.value()`
    Unwrap(Box<Node>),
    List(Box<[Node]>),
    Map(Box<[(Node, Node)]>),
    /// One node per slot.
    Struct(Box<[Node]>),
    Call(Function, Box<[Node]>),
    /// `matches` with a constant pattern.
    Matches(Box<regex::Regex>, Box<Node>),
    /// `cel.bind`, and `optMap` with [`Need::Maybe`]: the second where the first is the innermost variable.
    Bind(Box<(Node, Node)>, Need),
    Loop(Box<Loop>),
}

/// What is known of both sides of an operator: the usual types have a short way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operands {
    /// `int` or timestamps.
    Ints,
    Strings,
    Any,
}

/// Whether there has to be a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Null and absent are errors.
    Value,
    /// Null and absent are null.
    Maybe,
}

/// A value that does not depend on the record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Const {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Box<str>),
    Bytes(Box<[u8]>),
    Type(&'static str),
    List(Box<[Const]>),
}

/// A record's coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coordinate {
    Timestamp,
    Topic,
    Partition,
    Offset,
    Headers,
}

/// What a [`Place`] starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    Key,
    Value,
    Aggregate,
    /// The value, and the aggregate, as they are called in a join.
    Left,
    Right,
}

impl Root {
    pub(crate) const ALL: [Self; 5] = [Self::Key, Self::Value, Self::Aggregate, Self::Left, Self::Right];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Value => "value",
            Self::Aggregate => "aggregate",
            Self::Left => "left",
            Self::Right => "right",
        }
    }
}

/// A root, or a field in there.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) root: Root,
    pub(crate) slots: Slots,
    pub(crate) need: Need,
}

#[derive(Clone, Debug)]
pub(crate) enum Slots {
    None,
    One(usize),
    Several(Box<[usize]>),
}

impl Slots {
    /// The slots of a field of this place.
    pub(crate) fn and(&self, slot: usize) -> Self {
        match self {
            Self::None => Self::One(slot),
            Self::One(first) => Self::Several([*first, slot].into()),
            Self::Several(slots) => Self::Several(slots.iter().copied().chain([slot]).collect()),
        }
    }

    pub(crate) fn first(&self) -> Option<usize> {
        match self {
            Self::None => None,
            Self::One(slot) => Some(*slot),
            Self::Several(slots) => slots.first().copied(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

/// A function of the library: its name for errors, and what it does with its arguments.
#[derive(Clone, Copy)]
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) call: Call,
}

pub(crate) type Call =
    for<'c, 'a> fn(&super::eval::Context<'c, 'a>, &[Value<'a>]) -> Result<Value<'a>, super::EvalError>;

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// A macro over the items of a list, or the entries of a map.
#[derive(Clone, Debug)]
pub(crate) struct Loop {
    pub(crate) range: Node,
    pub(crate) variables: Variables,
    pub(crate) kind: LoopKind,
}

/// What the variables of a [`Loop`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variables {
    /// The item of a list, the key of a map.
    One,
    /// Index and item of a list, key and value of a map.
    Two,
}

/// What a [`Loop`] makes; conditions and results see its variables.
#[derive(Clone, Debug)]
pub(crate) enum LoopKind {
    All(Node),
    Exists(Node),
    ExistsOne(Node),
    /// One result per item, or per item for which the condition holds.
    Items(Option<Node>, Node),
    /// A map with one entry per item, or per item for which the condition holds.
    Entries(Option<Node>, Box<(Node, Node)>),
    /// The list, in the order of the result.
    SortBy(Node),
}

impl Node {
    /// Calls `visit` with each part that has no parts.
    pub(crate) fn leaves(&self, visit: &mut impl FnMut(&Node)) {
        match self {
            Self::Refused | Self::Place(_) | Self::Const(_) | Self::Coordinate(_) | Self::Local(_) => {
                visit(self)
            }
            Self::Field(node, ..)
            | Self::Not(node)
            | Self::Negate(node)
            | Self::Text(node)
            | Self::IsPresent(node)
            | Self::Unwrap(node)
            | Self::Matches(_, node) => node.leaves(visit),
            Self::And(nodes)
            | Self::Or(nodes)
            | Self::Compare(_, _, nodes)
            | Self::Arithmetic(_, _, nodes)
            | Self::In(nodes)
            | Self::Index(nodes, _)
            | Self::HasKey(nodes)
            | Self::OrElse(nodes)
            | Self::Bind(nodes, _) => {
                nodes.0.leaves(visit);
                nodes.1.leaves(visit);
            }
            Self::Conditional(nodes) => {
                nodes.0.leaves(visit);
                nodes.1.leaves(visit);
                nodes.2.leaves(visit);
            }
            Self::Concat(nodes) | Self::List(nodes) | Self::Struct(nodes) | Self::Call(_, nodes) => {
                nodes.iter().for_each(|node| node.leaves(visit));
            }
            Self::Map(entries) => {
                for (key, value) in entries {
                    key.leaves(visit);
                    value.leaves(visit);
                }
            }
            Self::Loop(looped) => {
                looped.range.leaves(visit);
                match &looped.kind {
                    LoopKind::All(node)
                    | LoopKind::Exists(node)
                    | LoopKind::ExistsOne(node)
                    | LoopKind::SortBy(node) => node.leaves(visit),
                    LoopKind::Items(condition, node) => {
                        condition.iter().for_each(|node| node.leaves(visit));
                        node.leaves(visit);
                    }
                    LoopKind::Entries(condition, entry) => {
                        condition.iter().for_each(|node| node.leaves(visit));
                        entry.0.leaves(visit);
                        entry.1.leaves(visit);
                    }
                }
            }
        }
    }
}
