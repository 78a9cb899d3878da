//! Steps on tables: what becomes of an update's value becomes of the one before, too.

use topology::plan::{Node, NodeIndex};
use topology::{EvalError, Expr, Scope, Value};

use super::walk::{Forward, Moving, Walk};
use crate::error::Failure;
use crate::{ErrorCategory, Store};

/// An update of values that were joined or left out: nothing where there is no value and was none.
pub(super) fn changed<'a>(moving: Moving<'a>) -> Forward<'a> {
    match (moving.before, moving.value) {
        (Value::Null, Value::Null) => Forward::Nothing,
        _ => Forward::One(moving),
    }
}

/// A value's successor; none where it is deleted.
pub(super) fn mapped<'a>(by: &'a Expr, scope: &Scope<'a>) -> Result<Value<'a>, EvalError> {
    if scope.value.is_null() {
        return Ok(Value::Null);
    }
    by.eval(scope)
}

impl<'a, S: Store> Walk<'_, 'a, S> {
    /// The update with both of its values computed anew.
    pub(super) fn evaluated(
        &self,
        moving: Moving<'a>,
        compute: impl Fn(&Scope<'a>) -> Result<Value<'a>, EvalError>,
    ) -> Result<Moving<'a>, EvalError> {
        let mut scope = self.scope(&moving);
        let value = compute(&scope)?;
        scope.value = moving.before;
        let before = compute(&scope)?;
        Ok(Moving {
            value,
            before,
            ..moving
        })
    }

    /// Sends what is there no more, and what is new, to where their keys are: together where these are one key.
    pub(super) fn group_table(
        &mut self,
        (index, node): (NodeIndex, &'a Node),
        key: &'a Expr,
        value: &'a Expr,
        moving: Moving<'a>,
    ) -> Result<Forward<'a>, Failure> {
        let failed = |error| Failure::new(ErrorCategory::Expression, index, error);
        let keys = self
            .evaluated(moving, |scope| mapped(key, scope))
            .map_err(failed)?;
        let values = self
            .evaluated(moving, |scope| mapped(value, scope))
            .map_err(failed)?;
        let change = |before, after| Value::Struct(self.arena.alloc([before, after]));
        let forward = |key, value| Moving {
            key,
            value,
            before: Value::Null,
            ..moving
        };
        let (before, after) = (values.before, values.value);
        Ok(match (keys.before, keys.value) {
            (Value::Null, Value::Null) => Forward::Nothing,
            (old, new) if old == new => Forward::One(forward(new, change(before, after))),
            (Value::Null, new) => Forward::One(forward(new, change(Value::Null, after))),
            (old, Value::Null) => Forward::One(forward(old, change(before, Value::Null))),
            (old, new) => {
                let gone = forward(old, change(before, Value::Null));
                let come = forward(new, change(Value::Null, after));
                self.run_children(node, gone)?;
                Forward::One(come)
            }
        })
    }
}
