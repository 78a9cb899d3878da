//! "Did you mean …?"

/// The candidate that `name` is most likely a misspelling of, if any is near enough (about a third of its
/// letters may differ; case does not count).
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = name.to_lowercase();
    let limit = (wanted.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| {
            (
                strsim::osa_distance(&wanted, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// "did you mean `x`?" for the nearest candidate, else the list of all of them (at most ten).
#[must_use]
pub fn did_you_mean(name: &str, what: &str, candidates: &[&str]) -> Option<String> {
    if let Some(found) = nearest(name, candidates.iter().copied()) {
        return Some(format!("did you mean `{found}`?"));
    }
    if candidates.is_empty() || candidates.len() > 10 {
        return None;
    }
    let list: Vec<_> = candidates
        .iter()
        .map(|candidate| format!("`{candidate}`"))
        .collect();
    Some(format!("{what}: {}", list.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_far_names_are_not() {
        let names = ["amountInCents", "customerId", "note"];
        assert_eq!(nearest("amountInCent", names), Some("amountInCents"));
        assert_eq!(nearest("CustomerID", names), Some("customerId"));
        assert_eq!(nearest("ntoe", names), Some("note"));
        assert_eq!(nearest("quantity", names), None);
    }
}
