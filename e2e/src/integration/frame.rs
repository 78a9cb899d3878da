//! Kafka's encodings in requests and answers that a proxy sees.

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
