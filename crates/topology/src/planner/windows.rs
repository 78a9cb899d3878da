//! `windowedBy`.

use super::PlanError;
use crate::declaration::{Hopping, WindowedBy};
use crate::plan::{JoinWindows, SessionWindows, SlidingWindows, TimeWindows, Windows};
use crate::{Duration, Path};

/// Most windows that a record may be in: each is a read and a write.
const MOST: i64 = 1_000;

/// The windows that are declared.
///
/// # Errors
/// None or several kinds; windows that leave gaps, or of which a record would be in too many.
pub(super) fn resolve(declared: &WindowedBy, path: &Path) -> Result<Windows, PlanError> {
    let WindowedBy {
        tumbling,
        hopping: hops,
        sliding,
        session,
    } = declared;
    match (tumbling, hops, sliding, session) {
        (Some(tumbling), None, None, None) => Ok(Windows::Time(TimeWindows {
            size_ms: millis(tumbling.size),
            advance_ms: millis(tumbling.size),
            grace_ms: millis(tumbling.grace),
        })),
        (None, Some(windows), None, None) => hopping(windows, &path.field("hopping").field("advance")),
        (None, None, Some(sliding), None) => Ok(Windows::Sliding(SlidingWindows {
            difference_ms: millis(sliding.time_difference),
            grace_ms: millis(sliding.grace),
        })),
        (None, None, None, Some(session)) => Ok(Windows::Session(SessionWindows {
            gap_ms: millis(session.gap),
            grace_ms: millis(session.grace),
        })),
        _ => {
            let message = "`windowedBy` needs exactly one of `tumbling`, `hopping`, `sliding` and `session`";
            Err(PlanError::new(path, message))
        }
    }
}

fn hopping(declared: &Hopping, path: &Path) -> Result<Windows, PlanError> {
    let (size, advance) = (declared.size, declared.advance);
    if advance > size {
        let message = format!(
            "windows of {size} that start {advance} apart leave gaps: records between them would be lost"
        );
        let error = PlanError::new(path, message);
        return Err(error.suggest("make it at most `size`, or filter those records out before"));
    }
    let (size_ms, advance_ms) = (millis(size), millis(advance));
    let most = (size_ms - 1) / advance_ms + 1;
    if most > MOST {
        let message = format!("each record would be in {most} windows, at most {MOST} are allowed");
        return Err(PlanError::new(path, message).suggest("make `advance` longer"));
    }
    Ok(Windows::Time(TimeWindows {
        size_ms,
        advance_ms,
        grace_ms: millis(declared.grace),
    }))
}

/// Those of a table that keeps what was before.
pub(super) fn of_versions(retention: Option<Duration>) -> Option<Windows> {
    let retention_ms = retention.map(millis)?;
    Some(Windows::Versions { retention_ms })
}

/// Those that `deduplicate` keeps records in: each has one of its own.
pub(super) fn of_duplicates(within: Duration) -> Windows {
    Windows::Session(SessionWindows {
        gap_ms: millis(within),
        grace_ms: 0,
    })
}

/// For the fingerprint of a store: with a longer grace, a window that was closed would be begun anew.
pub(crate) fn canonical(windows: Windows) -> String {
    match windows {
        Windows::Time(TimeWindows {
            size_ms,
            advance_ms,
            grace_ms,
        }) => format!("windows of {size_ms} every {advance_ms}, grace {grace_ms}"),
        Windows::Session(SessionWindows { gap_ms, grace_ms }) => {
            format!("sessions, gap {gap_ms}, grace {grace_ms}")
        }
        Windows::Sliding(SlidingWindows {
            difference_ms,
            grace_ms,
        }) => format!("sliding windows of {difference_ms}, grace {grace_ms}"),
        Windows::Join(JoinWindows {
            before_ms,
            after_ms,
            grace_ms,
        }) => format!("joined from {before_ms} before to {after_ms} after, grace {grace_ms}"),
        Windows::Suppress { limit_ms } => format!("suppressed for {limit_ms}"),
        Windows::Versions { retention_ms } => format!("versions, kept for {retention_ms}"),
        Windows::Held { grace_ms } => format!("held for {grace_ms}"),
    }
}

/// A duration has a bound that is far below.
pub(super) fn millis<const LEAST: u64>(duration: Duration<LEAST>) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
