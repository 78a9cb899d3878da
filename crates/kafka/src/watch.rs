//! Calls of librdkafka that are not trusted to come back.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use rdkafka::bindings as sys;

/// How often a call that waits for an answer looks after its connections.
const LOOK: Duration = Duration::from_millis(20);

/// Why a call is not waited for any more.
#[derive(Debug)]
pub(crate) enum GivenUp {
    NoThread(std::io::Error),
    Broken,
    NoAnswer,
}

impl GivenUp {
    /// For an error: its code, and words.
    pub(crate) fn reason(&self) -> (sys::rd_kafka_resp_err_t, String) {
        match self {
            Self::NoThread(error) => (
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__FAIL,
                format!("no thread: {error}"),
            ),
            Self::Broken => (
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__TRANSPORT,
                "a connection broke with a request under way; the producer is given up".to_owned(),
            ),
            Self::NoAnswer => (
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__TIMED_OUT,
                "no answer; the producer is given up".to_owned(),
            ),
        }
    }
}

/// Makes a call on a thread of its own, and waits so long for it at most, or until the connection is broken.
pub(crate) fn watch<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
    patience: Duration,
    is_broken: impl Fn() -> bool,
) -> Result<T, GivenUp> {
    let (sender, answer) = sync_channel(1);
    let thread = std::thread::Builder::new().name("transaction".to_owned());
    let spawned = thread.spawn(move || {
        // Nobody waits any more for one that was given up.
        let _ = sender.send(call());
    });
    spawned.map_err(GivenUp::NoThread)?;
    let deadline = Instant::now() + patience;
    loop {
        match answer.recv_timeout(LOOK) {
            Ok(result) => return Ok(result),
            Err(RecvTimeoutError::Timeout) if is_broken() => return Err(GivenUp::Broken),
            Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return Err(GivenUp::NoAnswer);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// A call that comes back when the sender is gone.
    pub(crate) fn blocking() -> (Sender<()>, impl FnOnce() + Send + 'static) {
        let (hold, held) = channel::<()>();
        (hold, move || assert!(held.recv().is_err()))
    }

    #[test]
    fn a_call_that_answers_is_waited_for() {
        let call = || {
            let (hold, block) = blocking();
            drop(hold);
            block();
            7
        };
        assert_eq!(watch(call, LONG, || false).unwrap(), 7);
    }

    #[test]
    fn a_call_that_blocks_is_given_up_when_time_is_over() {
        const PATIENCE: Duration = Duration::from_millis(150);
        let (_hold, call) = blocking();
        let began = Instant::now();
        let given_up = watch(call, PATIENCE, || false).unwrap_err();
        assert!(matches!(given_up, GivenUp::NoAnswer), "{given_up:?}");
        assert!(
            (PATIENCE..LONG / 2).contains(&began.elapsed()),
            "{:?}",
            began.elapsed()
        );
    }

    #[test]
    fn a_call_that_blocks_is_given_up_as_soon_as_the_connection_is_broken() {
        let (_hold, call) = blocking();
        let began = Instant::now();
        let given_up = watch(call, LONG, || began.elapsed() > LOOK * 3).unwrap_err();
        assert!(matches!(given_up, GivenUp::Broken), "{given_up:?}");
        assert!(began.elapsed() < LONG / 2, "{:?}", began.elapsed());
    }
}
