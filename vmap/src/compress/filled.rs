//! Pages that are one word over and over: they need no memory but the word.

use super::{PAGE, Page};

const WORD: usize = size_of::<u64>();
const _: () = assert!(PAGE.is_multiple_of(WORD));

/// The word that `page` is full of, if it is.
///
/// ```
/// use pageless_vmap::compress::{PAGE, filled_with};
/// assert_eq!(filled_with(&[0; PAGE]), Some(0));
/// assert_eq!(filled_with(&[0xAB; PAGE]), Some(0xABAB_ABAB_ABAB_ABAB));
/// ```
#[must_use]
pub fn filled_with(page: &Page) -> Option<u64> {
    let (words, _) = page.as_chunks::<WORD>();
    let (first, last) = (words.first()?, words.last()?);
    // Most pages that begin like that do not end like that.
    (first == last && words.iter().all(|word| word == first)).then(|| u64::from_ne_bytes(*first))
}

/// Fills `page` with `word`.
pub fn fill(page: &mut Page, word: u64) {
    let (words, _) = page.as_chunks_mut::<WORD>();
    words.fill(word.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_one_word_is_that_word_again() {
        for word in [0, 1, u64::MAX, 0x0102_0304_0506_0708] {
            let mut page = [0x55; PAGE];
            fill(&mut page, word);
            assert_eq!(filled_with(&page), Some(word));
        }
    }

    #[test]
    fn one_byte_that_differs_anywhere_is_seen() {
        for at in 0..PAGE {
            let mut page = [7; PAGE];
            page[at] = 8;
            assert_eq!(filled_with(&page), None, "byte {at}");
        }
    }

    #[test]
    fn a_pattern_longer_than_a_word_is_no_word() {
        let mut page = [1; PAGE];
        for word in page.as_chunks_mut::<WORD>().0.iter_mut().step_by(2) {
            word.fill(2);
        }
        page[PAGE - WORD..].fill(2);
        assert_eq!(filled_with(&page), None);
    }
}
