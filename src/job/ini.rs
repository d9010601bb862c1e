//! fio's job file syntax: sections, `key=value`, bare keys, comments and `${ENV}`.
//!
//! The reader knows nothing about options. It keeps, for each entry, the line it came from, so
//! that whoever interprets it can say where a mistake stands.

use std::path::Path;

use alloc::sync::Arc;

use super::error::{JobError, JobErrorKind, Place};

/// One `key=value` or bare `key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The option's name as written.
    pub key: String,
    /// The value behind `=`, environment variables replaced; `None` for a bare key.
    pub value: Option<String>,
    /// The line it stands on.
    pub place: Place,
}

/// A job section together with the `[global]` entries in force where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawSection {
    /// The name between the brackets.
    pub name: String,
    /// The line of the header.
    pub place: Place,
    /// What the `[global]` sections above it say, in order.
    pub inherited: Vec<Entry>,
    /// What stands in the section itself, in order.
    pub own: Vec<Entry>,
}

/// A job file, read but not yet understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IniFile {
    /// The file's name, for messages.
    pub name: Arc<str>,
    /// All `[global]` entries of the file, in order.
    pub global: Vec<Entry>,
    /// The job sections, in order.
    pub sections: Vec<RawSection>,
}

impl IniFile {
    /// Reads and splits the file at `path`.
    ///
    /// # Errors
    /// A [`JobError`] with file and line for whatever is not fio's syntax.
    pub fn read(path: &Path) -> Result<Self, JobError> {
        let name: Arc<str> = path.display().to_string().into();
        let bytes = std::fs::read(path)
            .map_err(|e| Place::new(name.clone(), 0).error(JobErrorKind::Unreadable(e)))?;
        let text = String::from_utf8(bytes).map_err(|e| {
            let good = e.utf8_error().valid_up_to();
            let line = e.as_bytes()[..good].iter().filter(|b| **b == b'\n').count() + 1;
            Place::new(name.clone(), u32::try_from(line).unwrap_or(u32::MAX))
                .error(JobErrorKind::NotText)
        })?;
        Self::parse(&name, &text, |var| std::env::var(var).ok())
    }

    /// Splits `text`; `variable` answers for `${NAME}`.
    ///
    /// A later `[global]` adds to the earlier ones and holds for the sections behind it, as in
    /// fio. `;` and `#` begin a comment wherever they stand, inside quotes too.
    ///
    /// # Errors
    /// A [`JobError`] with line for whatever is not fio's syntax.
    pub fn parse(
        name: &str,
        text: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, JobError> {
        let name: Arc<str> = name.into();
        let mut file = Self {
            name: name.clone(),
            global: Vec::new(),
            sections: Vec::new(),
        };
        let mut current = Current::Nothing;
        // Some editors begin UTF-8 with a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (number, line) in (1u32..).zip(text.lines()) {
            let place = Place::new(name.clone(), number);
            let line = line.split([';', '#']).next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            if line.starts_with('[') {
                let header = section_name(line).map_err(|kind| place.error(kind))?;
                if header.eq_ignore_ascii_case("global") {
                    current = Current::Global;
                } else {
                    current = Current::Section;
                    file.sections.push(RawSection {
                        name: header.to_owned(),
                        place,
                        inherited: file.global.clone(),
                        own: Vec::new(),
                    });
                }
                continue;
            }
            if line.split_whitespace().next() == Some("include") {
                return Err(place.error(JobErrorKind::Include));
            }
            let entry = entry(line, place, &variable)?;
            match current {
                Current::Nothing => {
                    let kind = JobErrorKind::OutsideSection(entry.key);
                    return Err(entry.place.error(kind));
                }
                Current::Global => file.global.push(entry),
                Current::Section => {
                    if let Some(section) = file.sections.last_mut() {
                        section.own.push(entry);
                    }
                }
            }
        }
        if file.sections.is_empty() {
            return Err(Place::new(name, 0).error(JobErrorKind::NoJob));
        }
        Ok(file)
    }
}

#[derive(Clone, Copy)]
enum Current {
    Nothing,
    Global,
    Section,
}

fn section_name(line: &str) -> Result<&str, JobErrorKind> {
    let bad = || JobErrorKind::BadHeader(line.to_owned());
    let (name, behind) = line[1..].split_once(']').ok_or_else(bad)?;
    if !behind.trim().is_empty() {
        return Err(bad());
    }
    let name = name.trim();
    if name.is_empty() {
        Err(JobErrorKind::NamelessSection)
    } else {
        Ok(name)
    }
}

fn entry(
    line: &str,
    place: Place,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<Entry, JobError> {
    let Some((key, value)) = line.split_once('=') else {
        return Ok(Entry {
            key: line.to_owned(),
            value: None,
            place,
        });
    };
    if key.is_empty() {
        return Err(place.error(JobErrorKind::NoName(line.to_owned())));
    }
    if key.ends_with(char::is_whitespace) || value.starts_with(char::is_whitespace) {
        return Err(place.error(JobErrorKind::BlankAroundEquals(line.to_owned())));
    }
    let value = expand(value, variable).map_err(|kind| place.error(kind))?;
    Ok(Entry {
        key: key.to_owned(),
        value: Some(value),
        place,
    })
}

fn expand(value: &str, variable: &impl Fn(&str) -> Option<String>) -> Result<String, JobErrorKind> {
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some((before, behind)) = rest.split_once("${") {
        let (name, after) = behind
            .split_once('}')
            .ok_or_else(|| JobErrorKind::OpenVariable(value.to_owned()))?;
        out.push_str(before);
        let found = variable(name).ok_or_else(|| JobErrorKind::UnsetVariable(name.to_owned()))?;
        out.push_str(&found);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<IniFile, String> {
        IniFile::parse("j.fio", text, |v| (v == "SIZE").then(|| "10m".to_owned()))
            .map_err(|e| e.to_string())
    }

    #[test]
    fn a_later_global_holds_for_the_sections_behind_it() {
        let file = parse("[global]\nbs=1m\n[a]\nsize=10m\n[global]\nrw=randread\n[b]\nsize=5m\n");
        let file = file.expect("parses");
        let keys = |es: &[Entry]| es.iter().map(|e| e.key.clone()).collect::<Vec<_>>();
        assert_eq!(keys(&file.sections[0].inherited), ["bs"]);
        assert_eq!(keys(&file.sections[1].inherited), ["bs", "rw"]);
        assert_eq!(keys(&file.global), ["bs", "rw"]);
    }

    #[test]
    fn comments_end_a_line_wherever_they_stand() {
        let file = parse("; head\n[a] # name\nsize=1m ; one\n  # all\nbs=4k#x\ntime_based;y\n");
        let own = file.expect("parses").sections[0].own.clone();
        let got: Vec<_> = own
            .iter()
            .map(|e| (e.key.as_str(), e.value.as_deref()))
            .collect();
        assert_eq!(
            got,
            [
                ("size", Some("1m")),
                ("bs", Some("4k")),
                ("time_based", None)
            ]
        );
        assert_eq!(own[1].place.line(), 5);
    }

    #[test]
    fn environment_variables_are_replaced() {
        let file = parse("[a]\nsize=${SIZE}\nname=x-${SIZE}-y\n").expect("parses");
        assert_eq!(file.sections[0].own[0].value.as_deref(), Some("10m"));
        assert_eq!(file.sections[0].own[1].value.as_deref(), Some("x-10m-y"));
    }

    #[test]
    fn every_malformed_line_is_named_with_its_number() {
        for (text, start) in [
            ("size=1m\n[a]\n", "j.fio:1: option `size` stands before"),
            ("[a]\n[b\n", "j.fio:2: `[b` is not a section header"),
            ("[a] x\n", "j.fio:1: `[a] x` is not a section header"),
            ("\n[]\n", "j.fio:2: a section needs a name"),
            ("[global]\nbs=4k\n", "j.fio: no job"),
            ("", "j.fio: no job"),
            ("[a]\n=4\n", "j.fio:2: `=4` has no option name"),
            (
                "\u{feff}[a]\nrw=read\ninclude other.fio\n",
                "j.fio:3: fio's `include` is not supported",
            ),
            ("[a]\nrw = read\n", "j.fio:2: blanks around `=`"),
            (
                "[a]\nsize=${NOPE}\n",
                "j.fio:2: environment variable `NOPE`",
            ),
            ("[a]\nsize=${NOPE\n", "j.fio:2: `${NOPE` opens `${`"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with(start), "{text:?}: {error}");
        }
    }
}
