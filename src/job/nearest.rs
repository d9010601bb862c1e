//! The known name that looks most like an unknown one.

/// Returns the candidate that is closest to `name`: by edits where it looks like a typo, else by its
/// beginning. `None` only if there is no candidate.
#[must_use]
pub fn nearest<'a>(
    name: &str,
    candidates: impl Iterator<Item = &'a str> + Clone,
) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    let typo = (name.chars().count() / 3).clamp(1, 3);
    candidates
        .clone()
        .map(|c| (strsim::damerau_levenshtein(&name, c), c))
        .filter(|(distance, _)| *distance <= typo)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, c)| c)
        .or_else(|| {
            candidates
                .map(|c| (strsim::jaro_winkler(&name, c), c))
                .max_by(|(one, _), (other, _)| one.total_cmp(other))
                .map(|(_, c)| c)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_its_name_and_anything_else_the_most_alike() {
        let known = ["rwmixread", "iodepth", "bs", "size"];
        let find = |name| nearest(name, known.into_iter());
        assert_eq!(find("rwmixred"), Some("rwmixread"));
        assert_eq!(find("io_depth"), Some("iodepth"));
        assert_eq!(find("bssz"), Some("bs"));
        assert_eq!(find("sz"), Some("size"));
        assert_eq!(nearest("x", core::iter::empty()), None);
    }
}
