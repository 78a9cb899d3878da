//! Waiting for a condition with a deadline: the one place that pauses between two looks.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The pause between two looks: short beside anything waited for here, long beside the cost of a look.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until `probe` gives a value, and fails, saying what it waited for, when `deadline` has passed.
///
/// `probe` answers `Err` with what is still missing; an error that waiting cannot mend goes into `Ok(Err(…))`.
pub(crate) fn until<T>(
    what: &str,
    deadline: Duration,
    mut probe: impl FnMut() -> Result<Result<T>, String>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        let missing = match probe() {
            Ok(found) => return found,
            Err(missing) => missing,
        };
        if start.elapsed() >= deadline {
            bail!("waited {} s for {what}: {missing}", deadline.as_secs());
        }
        pause();
    }
}

/// One pause between two looks, for loops that keep their own deadline.
#[allow(clippy::disallowed_methods)] // the place that the ban points to
pub(crate) fn pause() {
    std::thread::sleep(PAUSE);
}
