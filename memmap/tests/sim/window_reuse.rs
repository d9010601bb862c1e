//! Hazard: addresses are given out again while some CPU still has translations of their last owner.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use std::sync::Mutex;

use pageless_fault::shootdown::PolicyKind;
use pageless_fault::sim::schedule::Program;
use pageless_fault::sim::{ScheduledBody, SimMachine};
use pageless_fault::{Machine, MaySleep, Window, WindowLen, WindowOffset, WindowRange, Word};

use crate::world::{Stage, assert_clean, attach, config, over_seeds, pin, program, safe};

fn a_window_after_another(policy: PolicyKind) -> Program<'static> {
    let machine = SimMachine::new(config(2, policy)).unwrap();
    let before = machine.memory().free_frames();
    let page = WindowRange::try_new(WindowOffset::new(0), 4096).unwrap();
    let reserve = {
        let machine = machine.clone();
        move || {
            let window = machine.reserve(WindowLen::covering(4096).unwrap(), 4096);
            Arc::new(window.unwrap())
        }
    };
    let first = reserve();
    let base = first.base();
    let (stage, second) = (Stage::default(), Arc::new(Mutex::new(None)));
    let bodies: Vec<ScheduledBody<'static>> = vec![
        {
            let (stage, second) = (stage.clone(), Arc::clone(&second));
            let first = Arc::clone(&first);
            Box::new(move |cpu| {
                first.populate(page, &MaySleep::claim()).unwrap();
                stage.reach(1);
                stage.wait(cpu, 2);
                assert_eq!(Arc::strong_count(&first), 1);
                drop(first);
                let window = reserve();
                assert_eq!(window.base(), base, "other addresses: nothing is shown");
                window.populate(page, &MaySleep::claim()).unwrap();
                *second.lock().unwrap() = Some(window);
                stage.reach(3);
            })
        },
        {
            let (stage, second) = (stage.clone(), Arc::clone(&second));
            Box::new(move |cpu| {
                stage.wait(cpu, 1);
                first
                    .word(WindowOffset::new(64))
                    .unwrap()
                    .store(0xdead, Ordering::Release);
                drop(first);
                stage.reach(2);
                // It does not sleep meanwhile: waking would flush.
                stage.wait(cpu, 3);
                let window = second.lock().unwrap().take().unwrap();
                let word = window.word(WindowOffset::new(64)).unwrap();
                assert_eq!(
                    word.load(Ordering::Acquire),
                    0,
                    "the memory of the window before"
                );
            })
        },
    ];
    let checked = machine.clone();
    program(&machine, bodies, move || {
        assert_clean(&checked);
        assert_eq!(checked.memory().free_frames(), before);
    })
}

/// The same one floor up: a memmap that goes with everything in it.
fn a_memmap_after_another(policy: PolicyKind) -> Program<'static> {
    let machine = SimMachine::new(config(2, policy)).unwrap();
    let before = machine.memory().free_frames();
    let first = attach(&machine, 4, 1);
    let (stage, second) = (Stage::default(), Arc::new(Mutex::new(None)));
    let bodies: Vec<ScheduledBody<'static>> = vec![
        {
            let (stage, second, machine) = (stage.clone(), Arc::clone(&second), machine.clone());
            let first = Arc::clone(&first);
            Box::new(move |cpu| {
                stage.wait(cpu, 1);
                drop(first);
                *second.lock().unwrap() = Some(attach(&machine, 4, 1));
                stage.reach(2);
            })
        },
        {
            let (stage, second) = (stage.clone(), Arc::clone(&second));
            Box::new(move |cpu| {
                let ctx = MaySleep::claim();
                pin(&first, &ctx, 0).set_private(0, 0xdead);
                drop(first);
                stage.reach(1);
                stage.wait(cpu, 2);
                let memmap = second.lock().unwrap().take().unwrap();
                let page = pin(&memmap, &ctx, 0);
                assert_eq!(page.private(0), 0, "a descriptor of the memmap before");
                assert_eq!(
                    memmap.counters().chunks_populated,
                    1,
                    "nobody has filled what was found"
                );
            })
        },
    ];
    let checked = machine.clone();
    program(&machine, bodies, move || {
        assert_clean(&checked);
        assert_eq!(checked.memory().free_frames(), before);
    })
}

#[test]
fn what_a_cpu_still_knows_of_a_window_says_nothing_about_the_next_one_there() {
    for policy in safe() {
        over_seeds(policy.name(), 50, || a_window_after_another(policy));
    }
}

#[test]
fn what_a_cpu_still_knows_of_a_memmap_says_nothing_about_the_next_one_there() {
    for policy in safe() {
        over_seeds(policy.name(), 50, || a_memmap_after_another(policy));
    }
}
