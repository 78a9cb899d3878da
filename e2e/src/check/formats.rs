//! The bytes of internal topics: StreamApp's, from the published description (docs/reference/formats.md), and those of
//! the Kafka Streams peer, so that the same judge can be tried on an application that is not ours.

use clap::ValueEnum;
use serde::Serialize;

/// The only format version known here.
const VERSION: u8 = 1;

/// Whose internal topics are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Formats {
    /// StreamApp's
    Streamapp,
    /// The Kafka Streams peer's: `Serdes.Long()`, the changelog's record timestamp is the entry's
    KafkaStreams,
}

impl Formats {
    /// The value of a repartition record of `orders-risk`: the one field read downstream, `amountInCents`.
    pub(crate) fn repartition_amount(self, value: &[u8]) -> Result<i64, String> {
        match self {
            Formats::Streamapp => repartition_amount(value),
            Formats::KafkaStreams => long(value),
        }
    }

    /// A store's entry from a record of its changelog: (timestamp in milliseconds, the aggregate).
    pub(crate) fn store_entry(self, value: &[u8], timestamp: i64) -> Result<(i64, i64), String> {
        match self {
            Formats::Streamapp => store_entry(value),
            Formats::KafkaStreams => Ok((timestamp, long(value)?)),
        }
    }
}

fn long(value: &[u8]) -> Result<i64, String> {
    let bytes = value
        .try_into()
        .map_err(|_| format!("{} bytes are no Long", value.len()))?;
    Ok(i64::from_be_bytes(bytes))
}

fn repartition_amount(value: &[u8]) -> Result<i64, String> {
    let mut bytes = versioned(value)?;
    let amount = int(&mut bytes)?;
    finished(bytes)?;
    Ok(amount)
}

fn store_entry(value: &[u8]) -> Result<(i64, i64), String> {
    let bytes = versioned(value)?;
    let (timestamp, mut bytes) = bytes
        .split_first_chunk::<8>()
        .ok_or_else(|| format!("too short for a timestamp: {value:02x?}"))?;
    let aggregate = int(&mut bytes)?;
    finished(bytes)?;
    Ok((i64::from_be_bytes(*timestamp), aggregate))
}

fn versioned(value: &[u8]) -> Result<&[u8], String> {
    match value.split_first() {
        Some((&VERSION, rest)) => Ok(rest),
        Some((version, _)) => Err(format!("format version {version} is not {VERSION}")),
        None => Err("empty value".to_owned()),
    }
}

/// An `int`: zigzag, then LEB128 with at most ten bytes.
fn int(bytes: &mut &[u8]) -> Result<i64, String> {
    let mut zigzag: u64 = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes
            .split_first()
            .ok_or_else(|| "the value ends within an int".to_owned())?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err("an int has more than 64 bits".to_owned());
        }
        zigzag |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64));
        }
    }
    Err("an int is longer than ten bytes".to_owned())
}

fn finished(rest: &[u8]) -> Result<(), String> {
    if rest.is_empty() {
        Ok(())
    } else {
        Err(format!("{} bytes after the value's end", rest.len()))
    }
}

#[cfg(test)]
pub(crate) mod encode {
    //! The writing side, for tests of the checker only.

    pub(crate) fn repartition(amount: i64) -> Box<[u8]> {
        let mut bytes = vec![super::VERSION];
        int(amount, &mut bytes);
        bytes.into()
    }

    pub(crate) fn store(timestamp: i64, aggregate: i64) -> Box<[u8]> {
        let mut bytes = vec![super::VERSION];
        bytes.extend(timestamp.to_be_bytes());
        int(aggregate, &mut bytes);
        bytes.into()
    }

    fn int(value: i64, bytes: &mut Vec<u8>) {
        let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
        while zigzag > 0x7f {
            bytes.push(zigzag as u8 | 0x80);
            zigzag >>= 7;
        }
        bytes.push(zigzag as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ints_are_read_back() {
        for amount in [0, 1, -1, 63, 64, -64, -65, 1_000_000, i64::MAX, i64::MIN] {
            assert_eq!(repartition_amount(&encode::repartition(amount)), Ok(amount));
            assert_eq!(
                store_entry(&encode::store(1_760_000_000_000, amount)),
                Ok((1_760_000_000_000, amount))
            );
        }
        assert_eq!(repartition_amount(&[1, 0xd0, 0x0f]), Ok(1_000));
    }

    #[test]
    fn other_bytes_are_refused() {
        for bytes in [&[][..], &[2, 0], &[1], &[1, 0x80], &[1, 0, 0], &[1; 9]] {
            assert!(
                repartition_amount(bytes).is_err() && store_entry(bytes).is_err(),
                "{bytes:02x?}"
            );
        }
        let too_long = [1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2];
        assert!(repartition_amount(&too_long).is_err());
    }
}
