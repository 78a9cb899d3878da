//! Tokens of JSON (RFC 8259) and skipping of whole values. Knows nothing of fields and types.

use memchr::memchr;

use super::{JsonError, MAX_DEPTH};

/// A place in a document that is known to be UTF-8.
pub(super) struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    pub(super) at: usize,
}

/// The content of a string token, between its quotes; its escapes are valid.
#[derive(Clone, Copy)]
pub(super) struct Raw<'a> {
    pub(super) text: &'a str,
    pub(super) escaped: bool,
}

/// A number token.
pub(super) struct Number<'a> {
    pub(super) text: &'a str,
    /// Its value, if it has neither fraction nor exponent and fits.
    pub(super) int: Option<i64>,
}

/// Decimal digits that always fit 64 bits.
const SAFE_DIGITS: usize = 19;

impl<'a> Scanner<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, JsonError> {
        if bytes.starts_with(b"\xef\xbb\xbf") {
            return Err(JsonError::new(
                0,
                "starts with a byte order mark, which JSON does not allow",
            ));
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Self { text, bytes, at: 0 }),
            Err(error) => Err(JsonError::new(error.valid_up_to(), "not UTF-8")),
        }
    }

    #[cold]
    pub(super) fn error(&self, reason: impl Into<String>) -> JsonError {
        JsonError::new(self.at, reason)
    }

    /// What stands here, for a message.
    #[cold]
    pub(super) fn found(&self) -> String {
        let Some(rest) = self.text.get(self.at..) else {
            return "the middle of a character".to_owned();
        };
        match rest.chars().next() {
            None => "the end".to_owned(),
            Some('"') => "a string".to_owned(),
            Some(first) => {
                let is_of_word = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.');
                let word: String = rest.chars().take_while(is_of_word).take(24).collect();
                if word.is_empty() {
                    format!("`{}`", first.escape_debug())
                } else {
                    format!("`{word}`")
                }
            }
        }
    }

    #[cold]
    fn expected(&self, what: &str) -> JsonError {
        self.error(format!("expected {what}, found {}", self.found()))
    }

    /// The byte here; NUL, which begins no token, at the end.
    #[inline]
    pub(super) fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    #[inline]
    pub(super) fn space(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    /// Nothing but space may follow.
    pub(super) fn end(&mut self) -> Result<(), JsonError> {
        self.space();
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            Err(self.expected("the end after the object"))
        }
    }

    #[inline]
    pub(super) fn open_object(&mut self) -> Result<(), JsonError> {
        if self.peek() != b'{' {
            return Err(self.expected("an object"));
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    /// The array that begins here.
    pub(super) fn open_array(&mut self) {
        self.at += 1;
        self.space();
    }

    /// After `[` or a value: whether an item follows. The place is then at the item, or behind the bracket.
    pub(super) fn next_item(&mut self, is_first: bool) -> Result<bool, JsonError> {
        self.follows(is_first, b']', "`,` or `]`")
    }

    /// After `{` or a value: a field's name, or none at `}`. The place is then behind the colon, or behind
    /// the brace.
    #[inline]
    pub(super) fn next_field(&mut self, is_first: bool) -> Result<Option<Raw<'a>>, JsonError> {
        if self.follows(is_first, b'}', "`,` or `}`")? {
            self.name().map(Some)
        } else {
            Ok(None)
        }
    }

    /// Whether something stands before `end`: never at once behind a comma, `[1,]` is no JSON.
    #[inline]
    fn follows(&mut self, is_first: bool, end: u8, expected: &str) -> Result<bool, JsonError> {
        if !is_first {
            self.space();
        }
        match self.peek() {
            here if here == end => {
                self.at += 1;
                return Ok(false);
            }
            b',' if !is_first => {
                self.at += 1;
                self.space();
            }
            _ if is_first => {}
            _ => return Err(self.expected(expected)),
        }
        Ok(true)
    }

    #[inline]
    fn name(&mut self) -> Result<Raw<'a>, JsonError> {
        if self.peek() != b'"' {
            return Err(self.expected("a field name in quotes"));
        }
        let name = self.string()?;
        self.space();
        if self.peek() != b':' {
            return Err(self.expected("`:`"));
        }
        self.at += 1;
        self.space();
        Ok(name)
    }

    /// The string token that begins here with a quote.
    #[inline]
    pub(super) fn string(&mut self) -> Result<Raw<'a>, JsonError> {
        self.at += 1;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += plain_length(self.bytes.get(self.at..).unwrap_or_default());
            match self.peek() {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                _ if self.at == self.bytes.len() => return Err(self.error("the string does not end")),
                _ => return Err(self.error("a control character within a string; it must be escaped")),
            }
        }
        // Quotes are ASCII, so both ends are character borders.
        let text = self.text.get(start..self.at).unwrap_or_default();
        self.at += 1;
        Ok(Raw { text, escaped })
    }

    /// The escape that begins here; surrogates only in pairs.
    #[cold]
    fn escape(&mut self) -> Result<(), JsonError> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => match unicode_escape(&self.bytes[self.at..]) {
                Some((_, length)) => {
                    self.at += length;
                    Ok(())
                }
                None => Err(self.error("`\\u` needs four hexadecimal digits, and surrogates come in pairs")),
            },
            _ => Err(self.error("unknown escape in a string")),
        }
    }

    /// The number token that begins here.
    pub(super) fn number(&mut self) -> Result<Number<'a>, JsonError> {
        let start = self.at;
        let negative = self.peek() == b'-';
        self.at += usize::from(negative);
        let first = self.at;
        let mut magnitude = 0u64;
        while let digit @ b'0'..=b'9' = self.peek() {
            // Wraps only when there are more than `SAFE_DIGITS`, and then it is not used.
            magnitude = magnitude.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        let digits = self.at - first;
        if digits == 0 {
            return Err(self.expected("a digit"));
        }
        if digits > 1 && self.bytes.get(first) == Some(&b'0') {
            self.at = first;
            return Err(self.error("a number with a leading zero"));
        }
        let is_whole = !matches!(self.peek(), b'.' | b'e' | b'E');
        if !is_whole {
            self.fraction_and_exponent()?;
        }
        let int = if is_whole && digits <= SAFE_DIGITS {
            signed(negative, magnitude)
        } else {
            None
        };
        Ok(Number {
            text: self.text.get(start..self.at).unwrap_or_default(),
            int,
        })
    }

    fn fraction_and_exponent(&mut self) -> Result<(), JsonError> {
        if self.peek() == b'.' {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        if !self.peek().is_ascii_digit() {
            return Err(self.expected("a digit"));
        }
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        Ok(())
    }

    /// `true`, `false` or `null`.
    #[inline]
    pub(super) fn literal(&mut self, word: &str) -> Result<(), JsonError> {
        if self.bytes[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            return Ok(());
        }
        Err(self.expected(&format!("`{word}`")))
    }

    /// A value that nobody reads, within `depth` objects. Not recursive.
    #[inline]
    pub(super) fn skip(&mut self, depth: u32) -> Result<(), JsonError> {
        match self.peek() {
            b'{' | b'[' => self.skip_nested(depth),
            _ => self.skip_scalar(),
        }
    }

    #[inline]
    fn skip_scalar(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            b'"' => self.string().map(|_| ()),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            b'-' | b'0'..=b'9' => self.number().map(|_| ()),
            _ => Err(self.expected("a value")),
        }
    }

    fn skip_nested(&mut self, depth: u32) -> Result<(), JsonError> {
        // The last bit tells whether the innermost open value is an object; one bit per level above.
        let mut objects = 0u128;
        let mut open = 0;
        loop {
            // A value begins here.
            match self.peek() {
                first @ (b'{' | b'[') => {
                    open += 1;
                    if depth + open > MAX_DEPTH {
                        return Err(self.too_deep());
                    }
                    objects = objects << 1 | u128::from(first == b'{');
                    self.at += 1;
                    self.space();
                    if self.peek() != closing(objects) {
                        if first == b'{' {
                            self.name()?;
                        }
                        continue;
                    }
                    self.at += 1;
                    objects >>= 1;
                    open -= 1;
                }
                _ => self.skip_scalar()?,
            }
            // A value has ended here: close what ends with it.
            loop {
                if open == 0 {
                    return Ok(());
                }
                self.space();
                match self.peek() {
                    b',' => break,
                    byte if byte == closing(objects) => {
                        self.at += 1;
                        objects >>= 1;
                        open -= 1;
                    }
                    _ => return Err(self.expected(&format!("`,` or `{}`", char::from(closing(objects))))),
                }
            }
            self.at += 1;
            self.space();
            if objects & 1 == 1 {
                self.name()?;
            }
        }
    }

    #[cold]
    pub(super) fn too_deep(&self) -> JsonError {
        self.error(format!("nested deeper than {MAX_DEPTH} levels"))
    }
}

fn closing(objects: u128) -> u8 {
    if objects & 1 == 1 { b'}' } else { b']' }
}

fn signed(negative: bool, magnitude: u64) -> Option<i64> {
    if negative {
        0i64.checked_sub_unsigned(magnitude)
    } else {
        i64::try_from(magnitude).ok()
    }
}

/// Bytes before the first quote, backslash or control character; all when there is none.
#[inline]
pub(super) fn plain_length(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some((chunk, behind)) = rest.split_first_chunk::<8>() {
        let found = special_bytes(u64::from_le_bytes(*chunk));
        if found != 0 {
            return bytes.len() - rest.len() + (found.trailing_zeros() / 8) as usize;
        }
        rest = behind;
    }
    let is_special = |byte: &u8| *byte < 0x20 || matches!(*byte, b'"' | b'\\');
    let tail = rest.iter().position(is_special).unwrap_or(rest.len());
    bytes.len() - rest.len() + tail
}

/// The high bit of each byte that is a quote, a backslash or a control character; exact for the lowest such
/// byte, which is the first in the text. <https://graphics.stanford.edu/~seander/bithacks.html#HasLessInWord>
#[inline]
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    let is_quote = quote.wrapping_sub(ONES) & !quote;
    let is_backslash = backslash.wrapping_sub(ONES) & !backslash;
    let is_control = word.wrapping_sub(ONES * 0x20) & !word;
    (is_quote | is_backslash | is_control) & HIGH
}

/// The character of a `\u…` escape at the start, and how many bytes the escape has (twelve for a surrogate
/// pair).
fn unicode_escape(escape: &[u8]) -> Option<(char, usize)> {
    let unit = |at: usize| {
        let digits = escape.get(at..at + 6)?.strip_prefix(b"\\u")?;
        let digit = |value, digit: &u8| Some(value * 16 + char::from(*digit).to_digit(16)?);
        digits.iter().try_fold(0u32, digit)
    };
    match unit(0)? {
        high @ 0xd800..=0xdbff => {
            let low = unit(6).filter(|low| (0xdc00..=0xdfff).contains(low))?;
            char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)).map(|found| (found, 12))
        }
        unit => char::from_u32(unit).map(|found| (found, 6)),
    }
}

/// Writes the text of a string token with its escapes replaced.
pub(super) fn unescape(raw: &str, mut push: impl FnMut(&str)) {
    let mut rest = raw;
    while let Some(next) = memchr(b'\\', rest.as_bytes()) {
        push(rest.get(..next).unwrap_or_default());
        let escape = &rest.as_bytes()[next..];
        let (found, length) = match escape.get(1) {
            Some(b'b') => ('\u{8}', 2),
            Some(b'f') => ('\u{c}', 2),
            Some(b'n') => ('\n', 2),
            Some(b'r') => ('\r', 2),
            Some(b't') => ('\t', 2),
            Some(b'u') => unicode_escape(escape).unwrap_or((char::REPLACEMENT_CHARACTER, 2)),
            Some(other) => (char::from(*other), 2),
            None => return,
        };
        push(found.encode_utf8(&mut [0; 4]));
        rest = rest.get(next + length..).unwrap_or_default();
    }
    push(rest);
}
