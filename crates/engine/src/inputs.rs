//! Which of a task's inputs is read next.

/// What is known of the next record of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// It is there, with this event time in milliseconds since the Unix epoch.
    Record(i64),
    /// There is none.
    AtEnd,
    /// There may be one.
    Unknown,
}

/// The input with the earliest record; of several with the same time the first. `None` where no input has one, or where one may
/// have an earlier one.
pub fn earliest(heads: impl IntoIterator<Item = Head>) -> Option<usize> {
    let mut first = None;
    for (at, head) in heads.into_iter().enumerate() {
        match head {
            Head::Record(time) if first.is_none_or(|(earliest, _)| time < earliest) => {
                first = Some((time, at))
            }
            Head::Record(_) | Head::AtEnd => {}
            Head::Unknown => return None,
        }
    }
    first.map(|(_, at)| at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Head::{AtEnd, Record, Unknown};

    #[test]
    fn the_earliest_record_comes_first_and_waits_for_what_may_be_earlier() {
        assert_eq!(earliest([Record(5), Record(3), Record(4)]), Some(1));
        assert_eq!(earliest([Record(5), Record(5)]), Some(0));
        assert_eq!(earliest([AtEnd, Record(5), AtEnd]), Some(1));
        assert_eq!(earliest([Record(5), Unknown]), None);
        assert_eq!(earliest([Unknown]), None);
        assert_eq!(earliest([AtEnd, AtEnd]), None);
    }
}
