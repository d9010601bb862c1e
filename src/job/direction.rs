//! Data directions and what belongs to each.

use super::error::ValueError;

/// The direction of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Direction {
    /// From the device.
    Read = 0,
    /// To the device.
    Write = 1,
    /// A discard.
    Trim = 2,
}

impl Direction {
    /// All three, in fio's order.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Trim];

    /// fio's name for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Trim => "trim",
        }
    }
}

/// One value for each direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PerDirection<T>([T; 3]);

impl<T> PerDirection<T> {
    /// The values for reads, writes and trims.
    pub const fn new(read: T, write: T, trim: T) -> Self {
        Self([read, write, trim])
    }

    /// The same value for all.
    pub fn all(value: T) -> Self
    where
        T: Clone,
    {
        Self([value.clone(), value.clone(), value])
    }

    /// Makes each direction's value.
    pub fn from_fn(make: impl FnMut(Direction) -> T) -> Self {
        Self(Direction::ALL.map(make))
    }

    /// The three values in fio's order.
    pub fn iter(&self) -> core::slice::Iter<'_, T> {
        self.0.iter()
    }

    /// Reads fio's comma syntax: `a` is for all, `a,b` for reads and for the other two, `a,b,c`
    /// for each; an empty part leaves `default`.
    ///
    /// # Errors
    /// The first error of `part`, or more than three parts.
    pub fn parse(
        text: &str,
        default: &T,
        mut part: impl FnMut(&str) -> Result<T, ValueError>,
    ) -> Result<Self, ValueError>
    where
        T: Clone,
    {
        if text.is_empty() {
            return Err(ValueError::Empty);
        }
        let mut read = |text: &str| {
            if text.is_empty() {
                Ok(default.clone())
            } else {
                part(text)
            }
        };
        let parts: Vec<&str> = text.split(',').collect();
        match *parts.as_slice() {
            [all] => Ok(Self::all(read(all)?)),
            [first, others] => {
                let others = read(others)?;
                Ok(Self([read(first)?, others.clone(), others]))
            }
            [r, w, t] => Ok(Self([read(r)?, read(w)?, read(t)?])),
            _ => Err(ValueError::TooManyParts),
        }
    }
}

impl<'a, T> IntoIterator for &'a PerDirection<T> {
    type Item = &'a T;
    type IntoIter = core::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T> core::ops::Index<Direction> for PerDirection<T> {
    type Output = T;

    fn index(&self, direction: Direction) -> &T {
        &self.0[direction as usize]
    }
}

impl<T> core::ops::IndexMut<Direction> for PerDirection<T> {
    fn index_mut(&mut self, direction: Direction) -> &mut T {
        &mut self.0[direction as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_have_fios_meaning() {
        let read = |text| {
            PerDirection::parse(text, &4096u64, |t| {
                super::super::size::job_size(t, super::super::KbBase::Binary).map(|b| b.get())
            })
        };
        for (text, expected) in [
            ("1k", [1024, 1024, 1024]),
            ("1k,2k", [1024, 2048, 2048]),
            ("1k,2k,", [1024, 2048, 4096]),
            (",8k", [4096, 8192, 8192]),
            (",8k,", [4096, 8192, 4096]),
            ("8k,", [8192, 4096, 4096]),
            (",,1k", [4096, 4096, 1024]),
        ] {
            assert_eq!(read(text), Ok(PerDirection(expected)), "{text}");
        }
        assert_eq!(read("1,2,3,4"), Err(ValueError::TooManyParts));
        assert_eq!(read(""), Err(ValueError::Empty));
    }
}
