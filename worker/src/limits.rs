//! What a topic takes: found before a record is sent, so that one that the broker would refuse stops its task, with the
//! record's coordinates, and costs no transaction.

use std::collections::BTreeMap;

use engine::Outgoing;
use kafka::Capacity;

/// What a record's own framing may take in a batch.
const FRAMING: usize = 512;

/// What a topic takes of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Most bytes that key, value and headers may have together (`max.message.bytes`).
    pub(crate) record_bytes: usize,
    /// How long before the broker's clock a timestamp may lie (`message.timestamp.before.max.ms`, KIP-937).
    before_ms: i64,
    /// How long after it (`message.timestamp.after.max.ms`).
    after_ms: i64,
    /// A compacted topic takes no record without a key.
    needs_key: bool,
}

impl Limits {
    /// From a topic's configuration; the brokers' defaults for what nobody may read.
    pub(crate) fn of(config: &BTreeMap<String, String>) -> Self {
        let number = |name: &str| config.get(name).and_then(|value| value.parse::<i64>().ok());
        let usual = i64::from(Capacity::default().record_bytes);
        let bytes = number("max.message.bytes").unwrap_or(usual);
        let is = |name: &str, part: &str| config.get(name).is_some_and(|value| value.contains(part));
        // The broker gives its own time then, whatever the record says.
        let own_time = is("message.timestamp.type", "LogAppendTime");
        let milliseconds = |name| match number(name) {
            Some(limit) if !own_time => limit,
            Some(_) | None => i64::MAX,
        };
        Self {
            record_bytes: usize::try_from(bytes)
                .unwrap_or(usize::MAX)
                .saturating_sub(FRAMING),
            before_ms: milliseconds("message.timestamp.before.max.ms"),
            after_ms: milliseconds("message.timestamp.after.max.ms"),
            needs_key: is("cleanup.policy", "compact"),
        }
    }

    /// Largest batch.
    pub(crate) fn batch_bytes(&self) -> usize {
        self.record_bytes + FRAMING
    }

    /// Why the topic would refuse the record, if it would. `now_ms`: this machine's clock, for want of the broker's.
    pub(crate) fn refusal(&self, record: &Outgoing<'_>, now_ms: i64) -> Option<String> {
        let (bytes, timestamp) = (record.bytes(), record.timestamp);
        let ahead = timestamp.saturating_sub(now_ms);
        let seconds = |ms: i64| ms / 1_000;
        if bytes > self.record_bytes {
            Some(format!(
                "the result has {bytes} bytes, the topic takes {} (max.message.bytes)",
                self.record_bytes
            ))
        } else if record.key.is_none() && self.needs_key {
            Some("the result has no key, the topic is compacted (cleanup.policy)".to_owned())
        } else if ahead > self.after_ms {
            Some(format!(
                "the result's timestamp {timestamp} is {} s after this machine's clock, the topic takes {} s (message.timestamp.after.max.ms)",
                seconds(ahead),
                seconds(self.after_ms)
            ))
        } else if ahead.saturating_neg() > self.before_ms {
            Some(format!(
                "the result's timestamp {timestamp} is {} s before this machine's clock, the topic takes {} s (message.timestamp.before.max.ms)",
                seconds(ahead.saturating_neg()),
                seconds(self.before_ms)
            ))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use engine::ChosenBy;

    use super::*;

    fn limits(config: &[(&str, &str)]) -> Limits {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Limits::of(&config.iter().map(own).collect())
    }

    fn record<'a>(key: Option<&'a [u8]>, value: Option<&'a [u8]>, timestamp: i64) -> Outgoing<'a> {
        Outgoing {
            sink: 0,
            key,
            to: ChosenBy::Key(None),
            value,
            headers: &[],
            timestamp,
        }
    }

    #[test]
    fn a_topic_takes_what_its_configuration_says() {
        const NOW: i64 = 1_000_000;
        let hour = [
            ("message.timestamp.after.max.ms", "3600"),
            ("message.timestamp.before.max.ms", "9223372036854775807"),
            ("max.message.bytes", "612"),
            ("cleanup.policy", "compact,delete"),
        ];
        let limits = limits(&hour);
        let refusal = |key, bytes, timestamp| {
            let value = vec![0; bytes];
            let record = record(key, Some(&value), timestamp);
            limits.refusal(&record, NOW).unwrap_or_default()
        };
        assert_eq!(refusal(Some(b"k"), 99, NOW + 3_600), "");
        assert_eq!(refusal(Some(b"k"), 99, i64::MIN), "");
        assert!(refusal(Some(b"k"), 100, NOW).contains("101 bytes, the topic takes 100"));
        assert!(refusal(None, 1, NOW).contains("compacted"));
        let headers = [("a", None); 10];
        let framed = Outgoing {
            headers: &headers,
            ..record(Some(b"k"), None, NOW)
        };
        assert!(
            limits
                .refusal(&framed, NOW)
                .unwrap_or_default()
                .contains("111 bytes"),
            "{framed:?}"
        );
        assert!(refusal(Some(b"k"), 1, NOW + 3_601).contains("3 s after this machine's clock"));
        assert!(refusal(Some(b"k"), 1, i64::MAX).contains("after this machine's clock"));
    }

    #[test]
    fn what_nobody_may_read_is_the_default_and_own_times_have_no_limit() {
        let usual = limits(&[]);
        assert_eq!(
            usual.batch_bytes(),
            usize::try_from(Capacity::default().record_bytes).unwrap()
        );
        let taken = usual.refusal(&record(None, Some(b"v"), i64::MAX), 0);
        assert_eq!(taken, None);
        let own_time = limits(&[
            ("message.timestamp.type", "LogAppendTime"),
            ("message.timestamp.after.max.ms", "0"),
        ]);
        assert_eq!(own_time.refusal(&record(None, None, i64::MAX), 0), None);
    }
}
