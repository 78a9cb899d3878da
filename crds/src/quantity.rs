//! Kubernetes' quantities, as people write them: a number and a unit. Its exponents (`1e3`) are not known here.

const UNITS: [(&str, f64); 15] = [
    ("", 1.0),
    ("u", 1e-6),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("E", 1e18),
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("Ei", 1_152_921_504_606_846_976.0),
];

/// What the quantity says; `None` when it is none.
pub(crate) fn parse(text: &str) -> Option<f64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let is_number = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    let number: f64 = digits.parse().ok().filter(|value| is_number && *value > 0.0)?;
    let (_, factor) = UNITS
        .into_iter()
        .find(|(unit, _)| *unit == &text[digits.len()..])?;
    Some(number * factor)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn units_are_those_of_kubernetes() {
        let read = ["1Gi", "512Mi", "1.5G", "500m", "128974848"].map(parse);
        let wanted = [1_073_741_824.0, 536_870_912.0, 1.5e9, 0.5, 128_974_848.0].map(Some);
        assert_eq!(read, wanted);
        for wrong in ["", "Gi", "1 Gi", "-1Gi", "0", "1GB", "+1", "1..2", "1e3"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
