//! All cases and their sources, as a table.

/// One case, as its doc comment tells it.
struct Case {
    subject: &'static str,
    name: &'static str,
    /// Where it is written.
    source: String,
    /// What is written there, and where the model does less or other.
    text: String,
}

const SUBJECTS: &[(&str, &str)] = &[
    ("not_present", include_str!("not_present.rs")),
    ("canonical", include_str!("canonical.rs")),
    ("permission", include_str!("permission.rs")),
    ("reserved", include_str!("reserved.rs")),
    ("accessed_dirty", include_str!("accessed_dirty.rs")),
    ("global", include_str!("global.rs")),
    ("pcid", include_str!("pcid.rs")),
    ("structures", include_str!("structures.rs")),
    ("large_pages", include_str!("large_pages.rs")),
    ("speculation", include_str!("speculation.rs")),
    ("interrupts", include_str!("interrupts.rs")),
];

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (subject, code) in SUBJECTS {
        let mut doc = String::new();
        let mut is_test = false;
        for line in code.lines() {
            if let Some(text) = line.strip_prefix("///") {
                doc.push_str(text);
            } else if line == "#[test]" {
                is_test = true;
            } else if let Some(name) = line.strip_prefix("fn ").filter(|_| is_test) {
                let doc = core::mem::take(&mut doc);
                let doc = doc.trim();
                let at = doc.find(": ").into_iter().chain(doc.find(". ")).min();
                let (source, text) = doc.split_at(at.unwrap_or(0));
                cases.push(Case {
                    subject,
                    name: name.split('(').next().unwrap_or(name),
                    source: source.to_owned(),
                    text: text.get(2..).unwrap_or("").to_owned(),
                });
                is_test = false;
            } else {
                doc.clear();
            }
        }
    }
    cases
}

/// Whether the text tells of something that the model does less or otherwise.
fn deviates(text: &str) -> bool {
    let marks = [
        "odel",
        "Narrower",
        "Other than",
        "ere it is",
        "this one does not",
    ];
    marks.iter().any(|mark| text.contains(mark))
}

#[test]
fn every_case_names_its_source() {
    let cases = cases();
    for Case {
        subject,
        name,
        source,
        text,
    } in &cases
    {
        println!("{subject:15} {name:62} {source}");
        let named = source.starts_with("SDM ") || source.starts_with("APM ");
        let numbered = source.contains(|c: char| c.is_ascii_digit());
        assert!(
            named && numbered || source.starts_with("Not the manual's"),
            "{subject}::{name} names no source: {source:?}"
        );
        assert!(!text.is_empty(), "{subject}::{name} says nothing");
    }
    println!("\nwhere the model does less than a manual allows, or other than it says:");
    for case in cases.iter().filter(|case| deviates(&case.text)) {
        println!("{}::{}: {}", case.subject, case.name, case.text);
    }
    assert!(
        cases.len() >= 40,
        "{} cases: some were not found",
        cases.len()
    );
}

#[test]
fn every_subject_is_in_the_table() {
    let files = include_str!("main.rs").lines().filter_map(|line| {
        let name = line.strip_prefix("mod ")?.strip_suffix(';')?;
        let is_subject = !["rig", "table", "walker_oracle"].contains(&name);
        is_subject.then_some(name)
    });
    let mut listed: Vec<_> = SUBJECTS.iter().map(|(name, _)| *name).collect();
    listed.sort_unstable();
    assert_eq!(files.collect::<Vec<_>>(), listed);
}
