//! The known name that looks most like an unknown one.

/// Returns the candidate closest to `name`, if it is close enough to be a typo.
#[must_use]
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    let allowed = (name.chars().count() / 3).clamp(1, 3);
    candidates
        .map(|c| (strsim::damerau_levenshtein(&name, c), c))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_its_name_and_noise_finds_none() {
        let known = ["rwmixread", "iodepth", "bs", "size"];
        let find = |name| nearest(name, known.into_iter());
        assert_eq!(find("rwmixred"), Some("rwmixread"));
        assert_eq!(find("io_depth"), Some("iodepth"));
        assert_eq!(find("sz"), None);
        assert_eq!(find("unrelated"), None);
    }
}
