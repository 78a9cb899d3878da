//! Kafka's partitioning of keys: `Utils.murmur2` and `Utils.toPositive` of kafka-clients, so that records
//! land where Kafka's own producers put them.

use crate::ChosenBy;

/// 32-bit murmur2 with Kafka's seed, as `org.apache.kafka.common.utils.Utils.murmur2`.
#[must_use]
pub fn murmur2(data: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let mut hash = SEED ^ u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k = (k ^ (k >> R)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    (hash ^ (hash >> 15)).cast_signed()
}

/// The partition of a key among `count`, as Kafka's built-in partitioner; 0 when `count` is below 1.
#[must_use]
pub fn partition_for(key: &[u8], count: i32) -> i32 {
    (murmur2(key) & 0x7fff_ffff) % count.max(1)
}

/// The partition of a task's result among `count`. Kafka spreads null keys at random; here they follow their input, so
/// that replay gives the same result.
#[must_use]
pub fn of_result(chosen_by: ChosenBy<'_>, input: i32, count: i32) -> i32 {
    match chosen_by {
        ChosenBy::Value(partition) => partition,
        ChosenBy::Key(None) => input % count.max(1),
        ChosenBy::Key(Some(key)) => partition_for(key, count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by running `org.apache.kafka.common.utils.Utils` of kafka-clients 4.4.0: key, `murmur2`, and the
    /// partition among twelve and among seven.
    #[test]
    fn hashes_and_partitions_are_those_of_kafka_clients() {
        for (key, hash, of_twelve, of_seven) in [
            ("", 275_646_681, 9, 2),
            ("a", -1_563_381_124, 4, 5),
            ("ab", 316_155_434, 2, 0),
            ("abc", 479_470_107, 3, 4),
            ("abcd", -1_323_649_548, 8, 5),
            ("abcde", 461_995_741, 1, 4),
            ("21", -973_932_308, 0, 3),
            ("foobar", -790_332_482, 6, 0),
            ("a-little-bit-long-string", -985_981_536, 8, 1),
            ("a-little-bit-longer-string", -1_486_304_829, 11, 0),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
                5,
                3,
            ),
            ("customer-000042", -1_051_259_143, 1, 5),
            ("Grüße", 1_190_824_359, 3, 4),
            ("日本語", 1_431_860_170, 10, 6),
        ] {
            let key = key.as_bytes();
            assert_eq!(
                (murmur2(key), partition_for(key, 12), partition_for(key, 7)),
                (hash, of_twelve, of_seven)
            );
        }
        for (key, hash, of_twelve) in [
            (&[0][..], 375_494_588, 8),
            (&[0xff; 5], -363_838_622, 6),
            (&[0x80, 127, 0, 1, 2, 3, 4, 5], -123_005_286, 2),
            (&[0x80], 857_690_492, 8),
            (&1i64.to_be_bytes(), 2_100_486_060, 0),
        ] {
            assert_eq!(
                (murmur2(key), partition_for(key, 12)),
                (hash, of_twelve),
                "{key:?}"
            );
        }
    }

    #[test]
    fn a_result_follows_its_key_or_else_its_input() {
        assert_eq!(of_result(ChosenBy::Key(Some(b"customer-000042")), 3, 12), 1);
        assert_eq!(of_result(ChosenBy::Key(None), 5, 12), 5);
        // A topic with fewer partitions than the input.
        assert_eq!(of_result(ChosenBy::Key(None), 5, 3), 2);
    }
}
