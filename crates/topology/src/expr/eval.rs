//! Evaluation. Nothing here wraps or panics, nothing runs longer than its steps, and only errors and sorting of long lists
//! allocate outside of the arena.

use std::cell::Cell;

use bumpalo::collections::{String as ArenaString, Vec as ArenaVec};

use super::EvalError;
use super::node::{Const, Coordinate, Loop, LoopKind, Need, Node, Operands, Place, Root, Slots, Variables};
use super::operators::{self, equal};
use super::text;
use crate::{Scope, Value};

/// Most steps of one evaluation: iterations of macros, items made, and every 64 bytes of text made. Kubernetes'
/// limit for one call is of the same size. <https://kubernetes.io/docs/reference/using-api/cel/#resource-constraints>
pub(crate) const MAX_STEPS: u32 = 1_000_000;
/// Bytes of text for one step.
const BYTES_PER_STEP: usize = 64;

/// One evaluation.
#[derive(Clone, Copy)]
pub(crate) struct Context<'c, 'a> {
    pub(crate) scope: &'c Scope<'a>,
    steps: &'c Cell<u32>,
    locals: Option<&'c Local<'c, 'a>>,
}

/// A variable of a macro, and those around it.
pub(crate) struct Local<'c, 'a> {
    pub(crate) value: Value<'a>,
    pub(crate) outer: Option<&'c Local<'c, 'a>>,
}

type Evaluated<'a> = Result<Value<'a>, EvalError>;

/// Runs one evaluation, for one record.
#[inline]
pub(crate) fn evaluate<'a, T>(
    scope: &Scope<'a>,
    locals: Option<&Local<'_, 'a>>,
    run: impl FnOnce(&Context<'_, 'a>) -> T,
) -> T {
    let steps = Cell::new(MAX_STEPS);
    run(&Context {
        scope,
        steps: &steps,
        locals,
    })
}

impl<'a> Context<'_, 'a> {
    /// Pays for `count` iterations or items.
    pub(crate) fn steps(&self, count: usize) -> Result<(), EvalError> {
        let left = u32::try_from(count)
            .ok()
            .and_then(|count| self.steps.get().checked_sub(count));
        self.steps.set(left.ok_or(EvalError::Steps)?);
        Ok(())
    }

    /// Pays for `bytes` of text.
    pub(crate) fn text(&self, bytes: usize) -> Result<(), EvalError> {
        self.steps(bytes / BYTES_PER_STEP)
    }

    /// A string made by an expression.
    pub(crate) fn string(&self, text: ArenaString<'a>) -> Evaluated<'a> {
        self.text(text.len())?;
        Ok(Value::String(text.into_bump_str()))
    }

    pub(crate) fn new_string(&self, capacity: usize) -> ArenaString<'a> {
        ArenaString::with_capacity_in(capacity, self.scope.arena)
    }

    /// A list made by an expression.
    pub(crate) fn list(&self, items: ArenaVec<'a, Value<'a>>) -> Evaluated<'a> {
        self.steps(items.len())?;
        Ok(Value::List(items.into_bump_slice()))
    }

    pub(crate) fn new_list(&self, capacity: usize) -> ArenaVec<'a, Value<'a>> {
        ArenaVec::with_capacity_in(capacity, self.scope.arena)
    }

    /// A map made by an expression.
    fn map(&self, mut entries: ArenaVec<'a, (Value<'a>, Value<'a>)>) -> Evaluated<'a> {
        self.steps(entries.len())?;
        entries.sort_by(|a, b| operators::key_order(&a.0, &b.0));
        let again = entries.windows(2).find(|pair| match pair {
            [a, b] => operators::key_order(&a.0, &b.0).is_eq(),
            _ => false,
        });
        match again {
            Some([entry, ..]) => Err(EvalError::RepeatedKey(text::show(&entry.0))),
            Some(_) | None => Ok(Value::Map(entries.into_bump_slice())),
        }
    }

    /// The record's headers: the last of each name, without those that are null.
    fn headers(&self) -> Evaluated<'a> {
        let headers = self.scope.headers;
        self.steps(headers.len())?;
        let mut entries = ArenaVec::with_capacity_in(headers.len(), self.scope.arena);
        entries.extend(headers.iter().enumerate());
        // The last one first.
        entries.sort_by(|(x, (a, _)), (y, (b, _))| a.cmp(b).then(y.cmp(x)));
        entries.dedup_by(|(_, (a, _)), (_, (b, _))| a == b);
        let entries = entries.iter().filter_map(|(_, (name, value))| {
            let value = Value::Bytes((*value)?);
            Some((Value::String(name), value))
        });
        let map = ArenaVec::from_iter_in(entries, self.scope.arena);
        Ok(Value::Map(map.into_bump_slice()))
    }

    fn with<T>(&self, value: Value<'a>, run: impl FnOnce(&Context<'_, 'a>) -> T) -> T {
        let local = Local {
            value,
            outer: self.locals,
        };
        run(&Context {
            locals: Some(&local),
            ..*self
        })
    }

    fn local(&self, outwards: usize) -> Evaluated<'a> {
        let mut local = self.locals;
        for _ in 0..outwards {
            local = local.and_then(|local| local.outer);
        }
        local
            .map(|local| local.value)
            .ok_or(EvalError::Layout("variable"))
    }
}

impl Place {
    #[inline]
    fn eval<'a>(&self, scope: &Scope<'a>) -> Evaluated<'a> {
        self.find(scope).copied().ok_or_else(|| self.error(scope))
    }

    /// Where in the record the value is, if there is one: no copy, since most of them are only compared.
    #[inline]
    fn find<'s, 'a>(&self, scope: &'s Scope<'a>) -> Option<&'s Value<'a>> {
        let root = match self.root {
            Root::Key => &scope.key,
            Root::Value | Root::Left => &scope.value,
            Root::Aggregate | Root::Right => &scope.aggregate,
        };
        let value = match &self.slots {
            Slots::None => root,
            Slots::One(at) => slot(root, *at)?,
            Slots::Several(slots) => slots.iter().try_fold(root, |value, at| slot(value, *at))?,
        };
        (self.need == Need::Maybe || !matches!(value, Value::Null)).then_some(value)
    }

    /// Why [`Self::find`] finds nothing.
    #[cold]
    fn error(&self, scope: &Scope<'_>) -> EvalError {
        let of_any = Self {
            need: Need::Maybe,
            ..self.clone()
        };
        match of_any.find(scope) {
            Some(_) => EvalError::Null(self.root.name()),
            None => EvalError::Layout(self.root.name()),
        }
    }
}

/// A field of a record; null of null.
#[inline]
fn slot<'s, 'a>(value: &'s Value<'a>, at: usize) -> Option<&'s Value<'a>> {
    match value {
        Value::Struct(fields) => fields.get(at),
        Value::Null => Some(value),
        Value::Bool(_)
        | Value::Int(_)
        | Value::Double(_)
        | Value::String(_)
        | Value::Bytes(_)
        | Value::Timestamp(_)
        | Value::Uint(_)
        | Value::Duration(_)
        | Value::List(_)
        | Value::Map(_)
        | Value::Type(_) => None,
    }
}

#[inline]
fn int(value: &Value<'_>) -> Result<i64, EvalError> {
    match value {
        Value::Int(value) | Value::Timestamp(value) => Ok(*value),
        _ => Err(EvalError::Layout("int")),
    }
}

#[inline]
fn string<'a>(value: &Value<'a>) -> Result<&'a str, EvalError> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(EvalError::Layout("string")),
    }
}

impl Const {
    fn value<'a>(&'a self, context: &Context<'_, 'a>) -> Value<'a> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::Int(*value),
            Self::Uint(value) => Value::Uint(*value),
            Self::Double(value) => Value::Double(*value),
            Self::String(text) => Value::String(text),
            Self::Bytes(bytes) => Value::Bytes(bytes),
            Self::Type(name) => Value::Type(name),
            Self::List(items) => {
                let mut list = context.new_list(items.len());
                list.extend(items.iter().map(|item| item.value(context)));
                Value::List(list.into_bump_slice())
            }
        }
    }
}

impl Node {
    /// What most expressions consist of; the rest is apart, so that this stays small.
    #[inline]
    pub(crate) fn eval<'a>(&'a self, context: &Context<'_, 'a>) -> Evaluated<'a> {
        match self {
            Self::Place(place) => place.eval(context.scope),
            Self::Const(Const::Int(value)) => Ok(Value::Int(*value)),
            Self::Const(Const::String(text)) => Ok(Value::String(text)),
            Self::Compare(..) | Self::And(_) | Self::Or(_) | Self::Not(_) => {
                self.eval_bool(context).map(Value::Bool)
            }
            Self::Arithmetic(how, Operands::Ints, sides) => how
                .ints(sides.0.int(context)?, sides.1.int(context)?)
                .map(Value::Int),
            other => other.eval_other(context),
        }
    }

    /// Of an expression that is known to be an `int` or a timestamp.
    #[inline]
    fn int<'a>(&'a self, context: &Context<'_, 'a>) -> Result<i64, EvalError> {
        match self.ready_int(context.scope) {
            Some(value) => Ok(value),
            None => int(&self.eval(context)?),
        }
    }

    /// The same, where nothing is to be computed.
    #[inline]
    fn ready_int(&self, scope: &Scope<'_>) -> Option<i64> {
        match self {
            Self::Const(Const::Int(value)) => Some(*value),
            Self::Place(place) => match place.find(scope)? {
                Value::Int(value) | Value::Timestamp(value) => Some(*value),
                _ => None,
            },
            _ => None,
        }
    }

    /// Of an expression that is known to be a `string`.
    #[inline]
    fn string<'a>(&'a self, context: &Context<'_, 'a>) -> Result<&'a str, EvalError> {
        match self {
            Self::Const(Const::String(text)) => Ok(text),
            other => string(&other.eval(context)?),
        }
    }

    /// What most conditions are; the rest is apart, so that this stays small.
    #[inline]
    pub(crate) fn eval_bool<'a>(&'a self, context: &Context<'_, 'a>) -> Result<bool, EvalError> {
        if let Self::Compare(how, Operands::Ints, sides) = self
            && let Some(left) = sides.0.ready_int(context.scope)
            && let Some(right) = sides.1.ready_int(context.scope)
        {
            return Ok(how.of(left.cmp(&right)));
        }
        self.eval_other_bool(context)
    }

    #[inline(never)]
    fn eval_other_bool<'a>(&'a self, context: &Context<'_, 'a>) -> Result<bool, EvalError> {
        match self {
            Self::Compare(how, Operands::Ints, sides) => {
                Ok(how.of(sides.0.int(context)?.cmp(&sides.1.int(context)?)))
            }
            Self::Compare(how, Operands::Strings, sides) => {
                Ok(how.of_strings(sides.0.string(context)?, sides.1.string(context)?))
            }
            Self::Compare(how, Operands::Any, sides) => {
                let (left, right) = (sides.0.eval(context)?, sides.1.eval(context)?);
                how.holds(&left, &right)
            }
            Self::Not(node) => Ok(!node.eval_bool(context)?),
            Self::And(sides) => decide(false, sides, context),
            Self::Or(sides) => decide(true, sides, context),
            other => match other.eval(context)? {
                Value::Bool(value) => Ok(value),
                _ => Err(EvalError::NoOverload("bool")),
            },
        }
    }

    #[inline(never)]
    fn eval_other<'a>(&'a self, context: &Context<'_, 'a>) -> Evaluated<'a> {
        match self {
            Self::Refused => Err(EvalError::Layout("expression")),
            Self::Const(constant) => Ok(constant.value(context)),
            Self::Place(_) | Self::Compare(..) | Self::And(_) | Self::Or(_) | Self::Not(_) => {
                self.eval(context)
            }
            Self::Coordinate(coordinate) => Ok(match coordinate {
                Coordinate::Timestamp => Value::Timestamp(context.scope.ts),
                Coordinate::Topic => Value::String(context.scope.topic),
                Coordinate::Partition => Value::Int(i64::from(context.scope.partition)),
                Coordinate::Offset => Value::Int(context.scope.offset),
                Coordinate::Headers => return context.headers(),
            }),
            Self::Local(outwards) => context.local(*outwards),
            Self::Field(node, at, need) => {
                let record = node.eval(context)?;
                let value = *slot(&record, *at).ok_or(EvalError::Layout("field"))?;
                needed(value, *need, "field")
            }
            Self::Conditional(parts) => if parts.0.eval_bool(context)? {
                &parts.1
            } else {
                &parts.2
            }
            .eval(context),
            Self::Arithmetic(how, _, sides) => {
                let (left, right) = (sides.0.eval(context)?, sides.1.eval(context)?);
                how.apply(context, left, right)
            }
            Self::Negate(node) => operators::negate(node.eval(context)?),
            Self::Concat(_) | Self::Text(_) => {
                let mut out = context.new_string(self.expected_bytes());
                self.write(context, &mut out)?;
                context.string(out)
            }
            Self::In(sides) => {
                let needle = sides.0.eval(context)?;
                let found = match &sides.1 {
                    // Without making the list.
                    Self::Const(Const::List(items)) => {
                        items.iter().any(|item| equal(&item.value(context), &needle))
                    }
                    range => operators::is_in(&needle, &range.eval(context)?)?,
                };
                Ok(Value::Bool(found))
            }
            Self::Index(sides, need) => {
                let (operand, index) = (sides.0.eval(context)?, sides.1.eval(context)?);
                match need {
                    Need::Value => operators::index(operand, &index),
                    Need::Maybe => Ok(operators::lookup(operand, &index)?.unwrap_or(Value::Null)),
                }
            }
            Self::IsPresent(node) => Ok(Value::Bool(!matches!(node.eval(context)?, Value::Null))),
            Self::HasKey(sides) => {
                let (map, key) = (sides.0.eval(context)?, sides.1.eval(context)?);
                Ok(Value::Bool(match map {
                    // A list has no fields.
                    Value::List(_) => operators::index(map, &key).map(|_| true)?,
                    other => operators::lookup(other, &key)?.is_some(),
                }))
            }
            Self::OrElse(sides) => match sides.0.eval(context)? {
                Value::Null => sides.1.eval(context),
                value => Ok(value),
            },
            Self::Unwrap(node) => needed(node.eval(context)?, Need::Value, "value()"),
            Self::List(nodes) => {
                let mut items = context.new_list(nodes.len());
                for node in nodes {
                    items.push(node.eval(context)?);
                }
                context.list(items)
            }
            Self::Map(nodes) => {
                let mut entries = ArenaVec::with_capacity_in(nodes.len(), context.scope.arena);
                for (key, value) in nodes {
                    entries.push((operators::key(key.eval(context)?)?, value.eval(context)?));
                }
                context.map(entries)
            }
            Self::Struct(nodes) => {
                let slots = context
                    .scope
                    .arena
                    .alloc_slice_fill_copy(nodes.len(), Value::Null);
                for (slot, node) in slots.iter_mut().zip(nodes) {
                    *slot = node.eval(context)?;
                }
                Ok(Value::Struct(slots))
            }
            Self::Call(function, nodes) => {
                let arguments = context
                    .scope
                    .arena
                    .alloc_slice_fill_copy(nodes.len(), Value::Null);
                for (argument, node) in arguments.iter_mut().zip(nodes) {
                    *argument = node.eval(context)?;
                }
                (function.call)(context, arguments)
            }
            Self::Matches(pattern, node) => match node.eval(context)? {
                Value::String(text) => {
                    context.text(text.len())?;
                    Ok(Value::Bool(pattern.is_match(text)))
                }
                _ => Err(EvalError::NoOverload("matches")),
            },
            Self::Bind(parts, need) => match (parts.0.eval(context)?, need) {
                (Value::Null, Need::Maybe) => Ok(Value::Null),
                (value, _) => context.with(value, |context| parts.1.eval(context)),
            },
            Self::Loop(looped) => looped.eval(context),
        }
    }

    /// Room to start with.
    fn expected_bytes(&self) -> usize {
        match self {
            Self::Const(Const::String(text)) => text.len(),
            Self::Concat(parts) => parts.iter().map(Self::expected_bytes).sum(),
            _ => 20,
        }
    }

    /// Appends a string.
    fn write<'a>(&'a self, context: &Context<'_, 'a>, out: &mut ArenaString<'a>) -> Result<(), EvalError> {
        match self {
            Self::Concat(parts) => parts.iter().try_for_each(|part| part.write(context, out)),
            Self::Text(node) => text::write(node.eval(context)?, out),
            other => match other.eval(context)? {
                Value::String(part) => {
                    out.push_str(part);
                    Ok(())
                }
                _ => Err(EvalError::NoOverload("+")),
            },
        }
    }
}

fn needed<'a>(value: Value<'a>, need: Need, what: &'static str) -> Evaluated<'a> {
    if need == Need::Value && matches!(value, Value::Null) {
        return Err(EvalError::Null(what));
    }
    Ok(value)
}

/// `&&` (`deciding` is false) and `||` (true): one side with the deciding value decides, even when the other has
/// an error. <https://github.com/google/cel-spec/blob/master/doc/langdef.md#logical-operators>
#[inline]
fn decide<'a>(deciding: bool, sides: &'a (Node, Node), context: &Context<'_, 'a>) -> Result<bool, EvalError> {
    match sides.0.eval_bool(context) {
        Ok(value) if value == deciding => Ok(deciding),
        Ok(_) => sides.1.eval_bool(context),
        Err(error) => match sides.1.eval_bool(context) {
            Ok(value) if value == deciding => Ok(deciding),
            Ok(_) | Err(_) => Err(error),
        },
    }
}

impl Loop {
    fn eval<'a>(&'a self, context: &Context<'_, 'a>) -> Evaluated<'a> {
        let range = self.range.eval(context)?;
        match &self.kind {
            LoopKind::All(test) => self.until(false, test, &range, context),
            LoopKind::Exists(test) => self.until(true, test, &range, context),
            LoopKind::ExistsOne(test) => {
                let mut found = 0_usize;
                self.each(&range, context, |context| {
                    found += usize::from(test.eval_bool(context)?);
                    Ok(true)
                })?;
                Ok(Value::Bool(found == 1))
            }
            LoopKind::Items(condition, result) => {
                let mut items = context.new_list(0);
                self.each(&range, context, |context| {
                    if holds(condition.as_ref(), context)? {
                        items.push(result.eval(context)?);
                    }
                    Ok(true)
                })?;
                context.list(items)
            }
            LoopKind::Entries(condition, entry) => {
                let mut entries = ArenaVec::new_in(context.scope.arena);
                self.each(&range, context, |context| {
                    if holds(condition.as_ref(), context)? {
                        entries.push((operators::key(entry.0.eval(context)?)?, entry.1.eval(context)?));
                    }
                    Ok(true)
                })?;
                context.map(entries)
            }
            LoopKind::SortBy(by) => {
                let mut items = ArenaVec::new_in(context.scope.arena);
                self.each(&range, context, |context| {
                    items.push((by.eval(context)?, context.local(0)?));
                    Ok(true)
                })?;
                operators::sort(&mut items)?;
                let mut sorted = context.new_list(items.len());
                sorted.extend(items.iter().map(|(_, item)| *item));
                context.list(sorted)
            }
        }
    }

    /// `all` and `exists`: an item that decides absorbs the errors of others.
    fn until<'a>(
        &'a self,
        deciding: bool,
        test: &'a Node,
        range: &Value<'a>,
        context: &Context<'_, 'a>,
    ) -> Evaluated<'a> {
        let mut result = Ok(!deciding);
        self.each(range, context, |context| {
            match test.eval_bool(context) {
                Ok(value) if value == deciding => result = Ok(deciding),
                Ok(_) => {}
                // What took too long is not absorbed.
                Err(EvalError::Steps) => return Err(EvalError::Steps),
                Err(error) if result.is_ok() => result = Err(error),
                Err(_) => {}
            }
            Ok(result != Ok(deciding))
        })?;
        result.map(Value::Bool)
    }

    /// Calls `body` where it sees the variables of each item, until it says no.
    fn each<'a>(
        &'a self,
        range: &Value<'a>,
        context: &Context<'_, 'a>,
        mut body: impl FnMut(&Context<'_, 'a>) -> Result<bool, EvalError>,
    ) -> Result<(), EvalError> {
        let mut run = |first: Value<'a>, second: Value<'a>| {
            context.steps(1)?;
            context.with(first, |context| match self.variables {
                Variables::One => body(context),
                Variables::Two => context.with(second, &mut body),
            })
        };
        match *range {
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    let index = Value::Int(operators::length(index));
                    let (first, second) = match self.variables {
                        Variables::One => (*item, index),
                        Variables::Two => (index, *item),
                    };
                    if !run(first, second)? {
                        break;
                    }
                }
            }
            Value::Map(entries) => {
                for (key, value) in entries {
                    if !run(*key, *value)? {
                        break;
                    }
                }
            }
            _ => return Err(EvalError::NoOverload("a macro over items")),
        }
        Ok(())
    }
}

fn holds<'a>(condition: Option<&'a Node>, context: &Context<'_, 'a>) -> Result<bool, EvalError> {
    condition.map_or(Ok(true), |node| node.eval_bool(context))
}

/// Whether an item is in a list.
pub(crate) fn contains(items: &[Value<'_>], needle: &Value<'_>) -> bool {
    items.iter().any(|item| equal(item, needle))
}
