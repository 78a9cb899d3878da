//! Parts of timestamps and of durations.

use super::{Entry, Evaluated};
use crate::Value;
use crate::expr::EvalError;
use crate::expr::time::Part;

pub(super) const FUNCTIONS: &[Entry] = &[
    (
        &[
            "timestamp.getFullYear() -> int",
            "timestamp.getFullYear(string) -> int",
        ],
        |_, of| part(Part::FullYear, of),
    ),
    (
        &["timestamp.getMonth() -> int", "timestamp.getMonth(string) -> int"],
        |_, of| part(Part::Month, of),
    ),
    (
        &["timestamp.getDate() -> int", "timestamp.getDate(string) -> int"],
        |_, of| part(Part::Date, of),
    ),
    (
        &[
            "timestamp.getDayOfMonth() -> int",
            "timestamp.getDayOfMonth(string) -> int",
        ],
        |_, of| part(Part::DayOfMonth, of),
    ),
    (
        &[
            "timestamp.getDayOfWeek() -> int",
            "timestamp.getDayOfWeek(string) -> int",
        ],
        |_, of| part(Part::DayOfWeek, of),
    ),
    (
        &[
            "timestamp.getDayOfYear() -> int",
            "timestamp.getDayOfYear(string) -> int",
        ],
        |_, of| part(Part::DayOfYear, of),
    ),
    (
        &[
            "timestamp.getHours() -> int",
            "timestamp.getHours(string) -> int",
            "duration.getHours() -> int",
        ],
        |_, of| part(Part::Hours, of),
    ),
    (
        &[
            "timestamp.getMinutes() -> int",
            "timestamp.getMinutes(string) -> int",
            "duration.getMinutes() -> int",
        ],
        |_, of| part(Part::Minutes, of),
    ),
    (
        &[
            "timestamp.getSeconds() -> int",
            "timestamp.getSeconds(string) -> int",
            "duration.getSeconds() -> int",
        ],
        |_, of| part(Part::Seconds, of),
    ),
    (
        &[
            "timestamp.getMilliseconds() -> int",
            "timestamp.getMilliseconds(string) -> int",
            "duration.getMilliseconds() -> int",
        ],
        |_, of| part(Part::Milliseconds, of),
    ),
];

fn part<'a>(part: Part, arguments: &[Value<'a>]) -> Evaluated<'a> {
    match arguments {
        [Value::Timestamp(millis)] => part.of_timestamp(*millis, "UTC").map(Value::Int),
        [Value::Timestamp(millis), Value::String(zone)] => part.of_timestamp(*millis, zone).map(Value::Int),
        [Value::Duration(nanos)] => {
            let value = part.of_duration(*nanos).map(Value::Int);
            value.ok_or(EvalError::NoOverload("a part of a duration"))
        }
        _ => Err(EvalError::NoOverload("a part of a time")),
    }
}
