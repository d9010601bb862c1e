//! Text of job files in messages: of bounded length, and without power over the terminal.

use core::fmt::{self, Write as _};

/// The most characters of a text that are shown.
const MOST: usize = 80;

/// A text to show.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    text: &'a str,
    most: usize,
}

/// The text with control characters escaped; of more than 80 characters only the beginning.
///
/// ```
/// use pageless::job::shown;
/// assert_eq!(shown("a\u{1b}[2Jb").to_string(), "a\\u{1b}[2Jb");
/// assert_eq!(shown(&"x".repeat(100)).to_string(), "x".repeat(80) + "…");
/// ```
#[must_use]
pub const fn shown(text: &str) -> Shown<'_> {
    Shown { text, most: MOST }
}

/// The whole text with control characters escaped.
#[must_use]
pub const fn escaped(text: &str) -> Shown<'_> {
    Shown {
        text,
        most: usize::MAX,
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (count, character) in self.text.chars().enumerate() {
            if count == self.most {
                return f.write_char('…');
            }
            if character.is_control() || turns_direction(character) {
                write!(f, "{}", character.escape_default())?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

/// Marks that make text read otherwise than it stands.
const fn turns_direction(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
