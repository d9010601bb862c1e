//! On the host, an instruction of the program's own that runs beyond what is mapped ends the process: nothing is read that is not there.

use std::process::Command;

use pageless_fault::{Protection, Vspace, WindowOffset};

use super::rig::{Host, Rig, run};

const ROLE: &str = "PAGELESS_OVERRUN";

/// The child: reads the last byte of what is mapped, says so, and reads on.
fn run_over() {
    Host::run(2, |memory, space| {
        space
            .map(WindowOffset::new(0), run(memory, 0, 2), Protection::Read)
            .unwrap();
        let start = space.base().get() as usize;
        for at in [start + 8191, start + 8192] {
            let at = core::ptr::with_exposed_provenance::<u8>(at);
            #[expect(unsafe_code, reason = "the overrun itself")]
            // SAFETY: the first byte is mapped; the second one ends the process, which is what is looked at.
            let byte = unsafe { at.read_volatile() };
            println!("read {byte}");
        }
    });
}

#[test]
fn reading_on_behind_the_last_page_ends_the_process_by_sigsegv() {
    use std::os::unix::process::ExitStatusExt;

    if std::env::var_os(ROLE).is_some() {
        return run_over();
    }
    let me = std::env::current_exe().unwrap();
    let name = "overrun::reading_on_behind_the_last_page_ends_the_process_by_sigsegv";
    let child = Command::new(me)
        .args([name, "--exact", "--nocapture"])
        .env(ROLE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert_eq!(said.matches("read 0").count(), 1, "{said}");
    assert_eq!(child.status.signal(), Some(11), "{:?}", child.status);
}
