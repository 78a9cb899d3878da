//! Windows, and when they are closed.

use super::Side;

/// How event time is divided for an aggregation. With the meaning that each kind has in Kafka Streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Windows {
    /// Windows of one size.
    Time(TimeWindows),
    /// Windows of a key's records that are near to each other.
    Session(SessionWindows),
    /// Windows of one length, one for each set of a key's records that are near to each other.
    Sliding(SlidingWindows),
    /// Windows around each record, in which it is joined.
    Join(JoinWindows),
    /// From a table's first update of a key until its last one is forwarded.
    Suppress {
        /// How long that is, in milliseconds.
        limit_ms: i64,
    },
    /// From one value of a table's key to the next (KIP-889).
    Versions {
        /// How long after its end it can still be found, in milliseconds.
        retention_ms: i64,
    },
    /// From a record's time until it is joined with a table (KIP-923).
    Held {
        /// How long that is, in milliseconds.
        grace_ms: i64,
    },
}

impl Windows {
    /// The time up to which rows are closed at a stream time: of the starts of time windows, of the ends of sessions, sliding windows and versions,
    /// of the last partners of records that are joined, of the first updates and of the records that wait.
    #[must_use]
    pub fn last_closed(self, stream_time: i64) -> i64 {
        match self {
            Self::Time(windows) => windows.last_closed(stream_time),
            Self::Session(windows) => windows.last_closed(stream_time),
            Self::Sliding(windows) => windows.last_closed(stream_time),
            Self::Join(windows) => windows.last_closed(stream_time),
            Self::Suppress { limit_ms: wait }
            | Self::Versions { retention_ms: wait }
            | Self::Held { grace_ms: wait } => stream_time.saturating_sub(wait),
        }
    }
}

/// Windows of one size, whose starts are a fixed time apart, from the Unix epoch on; in milliseconds (`TimeWindows`,
/// `KStreamWindowAggregate`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeWindows {
    /// From start, which belongs to a window, to end, which does not. Above zero.
    pub size_ms: i64,
    /// From one start to the next: above zero, at most the size.
    pub advance_ms: i64,
    /// How long after its end a window takes records.
    pub grace_ms: i64,
}

/// Windows from a key's first to its last record, both inside; records further apart than the gap are in different ones; in
/// milliseconds (`SessionWindows`, `KStreamSessionWindowAggregate`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionWindows {
    /// Most time between two records of one window that have none between them. Above zero.
    pub gap_ms: i64,
    /// How long after its end and the gap a window takes records.
    pub grace_ms: i64,
}

/// Windows from a time to another one that is this much later, both inside, that end with a record or begin just behind one; in
/// milliseconds (KIP-450, `SlidingWindows`, `KStreamSlidingWindowAggregate`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlidingWindows {
    /// Most time between two records of one window.
    pub difference_ms: i64,
    /// How long after its end a window takes records.
    pub grace_ms: i64,
}

impl SlidingWindows {
    /// Windows that end at or before this are closed at a stream time.
    #[must_use]
    pub fn last_closed(self, stream_time: i64) -> i64 {
        stream_time.saturating_sub(self.grace_ms).saturating_sub(1)
    }

    /// The time of the row in the order of ends with which a window of this start is forgotten. A record that is as late as may be
    /// reads windows that ended up to twice the difference before it.
    #[must_use]
    pub fn forgotten(self, start: i64) -> i64 {
        start
            .saturating_add(self.difference_ms.saturating_mul(3))
            .saturating_add(2)
    }
}

/// How near in time records are that are joined; in milliseconds (`JoinWindows`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinWindows {
    /// How much earlier than a record of the left stream one of the right stream may be.
    pub before_ms: i64,
    /// How much later it may be.
    pub after_ms: i64,
    /// How long after that others may come.
    pub grace_ms: i64,
}

impl JoinWindows {
    /// How much later than a record of this side one of the other side may be.
    #[must_use]
    pub fn reach(self, side: Side) -> i64 {
        match side {
            Side::Left => self.after_ms,
            Side::Right => self.before_ms,
        }
    }

    /// First and last timestamp of records of the other side that one of this side is joined with.
    #[must_use]
    pub fn around(self, side: Side, timestamp: i64) -> (i64, i64) {
        let (earlier, later) = (self.reach(side.other()), self.reach(side));
        let first = timestamp.saturating_sub(earlier).max(0);
        (first, timestamp.saturating_add(later))
    }

    /// Records are not joined any more whose last partner could be of this time or before.
    #[must_use]
    pub fn last_closed(self, stream_time: i64) -> i64 {
        stream_time.saturating_sub(self.grace_ms).saturating_sub(1)
    }
}

impl TimeWindows {
    /// Starts of the windows that a timestamp is in, the earliest first. Timestamps are not negative.
    pub fn starts(self, timestamp: i64) -> impl Iterator<Item = i64> {
        let last = timestamp - timestamp.rem_euclid(self.advance_ms);
        let earlier = (self.size_ms - 1 - (timestamp - last)).max(0) / self.advance_ms;
        let first = last
            .saturating_sub(earlier.saturating_mul(self.advance_ms))
            .max(0);
        (0..=(last - first) / self.advance_ms).map(move |nth| first + nth * self.advance_ms)
    }

    /// Windows that start at or before this are closed at a stream time: their end and grace are not after it.
    #[must_use]
    pub fn last_closed(self, stream_time: i64) -> i64 {
        stream_time
            .saturating_sub(self.size_ms)
            .saturating_sub(self.grace_ms)
    }
}

impl SessionWindows {
    /// Windows that end at or before this are closed at a stream time: gap and grace behind their end are over.
    #[must_use]
    pub fn last_closed(self, stream_time: i64) -> i64 {
        let open = stream_time
            .saturating_sub(self.gap_ms)
            .saturating_sub(self.grace_ms);
        open.saturating_sub(1)
    }
}
