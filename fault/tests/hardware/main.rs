//! The modelled CPU against the manuals: what is cached, what is not, what takes it away again.
//!
//! A file for each subject. Every case names the section it comes from: "SDM" is the Intel 64 and IA-32 Architectures Software
//! Developer's Manual, volume 3A unless another one is named, chapter "Paging" with its section numbers when it was chapter 4; "APM" is the AMD64
//! Architecture Programmer's Manual, volume 2. Where the model does less than a manual allows, or other than it says, the case says so.
//! [`table`] holds all of them in one list, prints it, and insists that it is complete:
//!
//! ```text
//! cargo test -p pageless-fault --test hardware -- --nocapture --exact table::every_case_names_its_source
//! ```
#![cfg(all(feature = "std", not(loom), not(miri)))]

extern crate alloc;

mod accessed_dirty;
mod canonical;
mod global;
mod interrupts;
mod large_pages;
mod not_present;
mod pcid;
mod permission;
mod reserved;
mod rig;
mod speculation;
mod structures;
mod table;
mod walker_oracle;
