//! Kafka's encodings in requests and answers that a proxy sees, and in the files of a broker.

/// Bytes that are taken from the front.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, left) = self.0.split_at_checked(count)?;
        self.0 = left;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn i16(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    /// A text that may be null; that is told as an empty one.
    pub(super) fn text(&mut self) -> Option<String> {
        let length = self.i16()?.max(0);
        self.utf8(usize::try_from(length).ok()?)
    }

    /// The same behind a length of one byte, which is enough for the ids of tests.
    pub(super) fn compact_text(&mut self) -> Option<String> {
        let length = *self.take(1)?.first()?;
        if length >= 0x80 {
            return None;
        }
        self.utf8(usize::from(length).saturating_sub(1))
    }

    fn utf8(&mut self, length: usize) -> Option<String> {
        String::from_utf8(self.take(length)?.to_vec()).ok()
    }
}

/// The batches of records in a file: the first offset of each, and where it begins. Nothing when the last one is not whole.
pub(super) fn batches(file: &[u8]) -> Option<Vec<(i64, u64)>> {
    let (mut bytes, mut found) = (Bytes(file), Vec::new());
    while !bytes.0.is_empty() {
        let begins = file.len() - bytes.0.len();
        found.push((bytes.i64()?, u64::try_from(begins).ok()?));
        let length = bytes.i32()?;
        bytes.take(usize::try_from(length).ok()?)?;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_begins_where_the_one_before_it_ends() {
        let batch = |offset: i64, content: &[u8]| {
            let length = i32::try_from(content.len()).unwrap();
            [&offset.to_be_bytes()[..], &length.to_be_bytes(), content].concat()
        };
        let file = [batch(0, b"abc"), batch(4, b""), batch(5, b"de")].concat();
        assert_eq!(batches(&file), Some(vec![(0, 0), (4, 15), (5, 27)]));
        assert_eq!(batches(&file[..file.len() - 1]), None);
        assert_eq!(batches(b""), Some(Vec::new()));
    }
}
