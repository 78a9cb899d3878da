//! The orders that the generator writes: a pure function of the seed and the order's number.

use std::fmt::Write as _;

/// `submittedAt` of order 0; order `i` was submitted `i` milliseconds later, so that the field is unique.
pub(crate) const BASE_MS: i64 = 1_760_000_000_000;

/// Orders from here on are written in transactions that are aborted.
pub(crate) const ABORTED: u64 = 10_000_000_000;

/// The smallest amount: positive, so that each order changes its customer's exposure.
const MIN_AMOUNT_CENTS: u64 = 100;

/// Pieces of notes as they stand in JSON text: plain, escaped and not ASCII.
const NOTE_PIECES: [&str; 12] = [
    "leave at the door ",
    "call before delivery ",
    "gift wrapping, please ",
    r#"\"fragile\" "#,
    r"shelf C:\\A\/7 ",
    r"two lines\n\tand a tab ",
    r"caf\u00e9 \ud83d\ude80 ",
    "Grüße aus Zürich ",
    "東京都千代田区 ",
    "naïve façade — no “quotes” ",
    "0123456789abcdef ",
    "second floor, left ",
];

/// What the generated orders look like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Orders {
    /// Same seed, same orders.
    pub(crate) seed: u64,
    /// How many customers share the orders, evenly.
    pub(crate) customers: u64,
    /// Amounts are spread evenly from 1.00 up to this.
    pub(crate) max_amount_cents: u64,
}

impl Orders {
    /// The record key of order `index`.
    pub(crate) fn write_key(index: u64, key: &mut String) {
        key.clear();
        let _ = write!(key, "o-{index:010}");
    }

    /// The name of the customer whose order `index` is, as a record key.
    pub(crate) fn write_customer(&self, index: u64, key: &mut String) {
        key.clear();
        let _ = write!(key, "c-{:08}", self.customer(index));
    }

    /// Whose order `index` is.
    pub(crate) fn customer(&self, index: u64) -> u64 {
        SplitMix::of(self.seed, index).below(self.customers)
    }

    /// The JSON value of order `index`: about 220 bytes on average.
    pub(crate) fn write_value(&self, index: u64, value: &mut String) {
        let customer = self.customer(index);
        let mut random = SplitMix::of(self.seed, index);
        // The customer was drawn.
        random.next();
        let amount = MIN_AMOUNT_CENTS
            + random.below(
                self.max_amount_cents
                    .saturating_sub(MIN_AMOUNT_CENTS)
                    .saturating_add(1),
            );
        value.clear();
        let _ = write!(
            value,
            r#"{{"orderId":"o-{index:010}","customerId":"c-{customer:08}","amountInCents":{amount},"#
        );
        match random.below(16) {
            0..8 => write_note(&mut random, value),
            8 => value.push_str(r#""note":null,"#),
            _ => {}
        }
        let submitted_at = BASE_MS.saturating_add_unsigned(index);
        let _ = write!(value, r#""submittedAt":{submitted_at}}}"#);
    }
}

/// A note of 190 to 250 bytes.
fn write_note(random: &mut SplitMix, value: &mut String) {
    let length = 190 + random.below(40) as usize;
    value.push_str(r#""note":""#);
    let end = value.len() + length;
    while value.len() < end {
        value.push_str(NOTE_PIECES[random.below(NOTE_PIECES.len() as u64) as usize]);
    }
    value.push_str(r#"","#);
}

/// Sebastiano Vigna's splitmix64, started anew for each order.
pub(crate) struct SplitMix(u64);

impl SplitMix {
    pub(crate) fn of(seed: u64, index: u64) -> Self {
        let mut mixed = SplitMix(seed);
        let start = mixed.next() ^ index.wrapping_mul(0xd129_0ea7_8d3c_4b61);
        SplitMix(start)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 up to, not including, `bound`; the bias of the modulo is of no concern here.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDERS: Orders = Orders {
        seed: 7,
        customers: 2000,
        max_amount_cents: 100_000,
    };

    #[test]
    fn the_same_seed_gives_the_same_orders_and_another_seed_others() {
        let (mut a, mut b, mut c) = (String::new(), String::new(), String::new());
        ORDERS.write_value(41, &mut a);
        ORDERS.write_value(41, &mut b);
        Orders { seed: 8, ..ORDERS }.write_value(41, &mut c);
        assert_eq!(a, b);
        assert_ne!(a, c);
    }

    #[test]
    fn values_are_json_of_about_220_bytes_and_half_of_them_have_a_note() {
        let (mut value, mut bytes, mut notes) = (String::new(), 0, 0);
        for index in 0..10_000 {
            ORDERS.write_value(index, &mut value);
            bytes += value.len();
            let parsed: serde_json::Value = serde_json::from_str(&value).unwrap();
            notes += u32::from(parsed["note"].is_string());
            assert_eq!(parsed["submittedAt"], BASE_MS + index as i64);
        }
        assert!((200..240).contains(&(bytes / 10_000)), "{}", bytes / 10_000);
        assert!((4_500..5_500).contains(&notes), "{notes}");
    }
}
