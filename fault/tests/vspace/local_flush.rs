//! A local flush is a proof for a range that its CPU alone uses, and for no other.

use pageless_fault::host::{HostFrames, HostVspace};
use pageless_fault::shootdown::CpuId;
use pageless_fault::sim::{SimConfig, SimMachine};
use pageless_fault::{
    FrameMemory, MaySleep, OwnRange, Protection, UnmapError, Vspace, WindowLen, WindowOffset,
    WindowRange,
};
use pageless_pfn::FrameCount;

use super::rig::{Host, Rig, Sim, run};

fn range(first: u64, count: u64) -> WindowRange {
    WindowRange::try_new(WindowOffset::new(first * 4096), count * 4096).unwrap()
}

fn flushed_here<R: Rig>() {
    R::run(4, |memory, space| {
        let own = OwnRange::claim(space, range(8, 2));
        for frame in 0..4 {
            space
                .map(
                    range(9, 1).start(),
                    run(memory, frame, 1),
                    Protection::ReadWrite,
                )
                .unwrap();
            space
                .write(range(9, 1).start(), &[frame as u8 + 1])
                .unwrap();
            let down = space.take_down(range(9, 1), frame).unwrap();
            assert_eq!(
                space.shoot_down_here(&own, down).unwrap().into_inner(),
                frame
            );
        }
        for frame in 0..4 {
            let mut seen = [0];
            memory
                .read(run(memory, frame, 1).start().phys(), &mut seen)
                .unwrap();
            assert_eq!(seen, [frame as u8 + 1]);
        }
        // One page of it is not its own.
        let down = space.take_down(range(9, 2), ()).unwrap();
        let (down, error) = space.shoot_down_here(&own, down).unwrap_err();
        assert!(matches!(error, UnmapError::NotOwn { .. }));
        assert_eq!(down.range(), range(9, 2));
    });
}

#[test]
fn on_the_host_the_owner_gets_back_what_it_took_down() {
    flushed_here::<Host>();
}

#[test]
fn in_the_model_the_owner_gets_back_what_it_took_down() {
    flushed_here::<Sim>();
}

#[test]
fn another_cpu_cannot_flush_for_itself_what_one_has_claimed() {
    let machine = SimMachine::new(SimConfig::default()).unwrap();
    let ram = machine.ram(FrameCount::new(2)).unwrap();
    let space = machine
        .reserve_vspace(WindowLen::covering(1).unwrap())
        .unwrap();
    let own = machine
        .run_on(CpuId::new(0), |_| OwnRange::claim(&space, range(0, 1)))
        .unwrap();
    machine
        .run_on(CpuId::new(1), |_| {
            space
                .map(range(0, 1).start(), run(&ram, 0, 1), Protection::Read)
                .unwrap();
            let down = space.take_down(range(0, 1), ()).unwrap();
            let (_, error) = space.shoot_down_here(&own, down).unwrap_err();
            assert_eq!(
                error,
                UnmapError::NotOwn {
                    owner: CpuId::new(0),
                    caller: CpuId::new(1)
                }
            );
        })
        .unwrap();
}

#[test]
fn a_shootdown_of_another_space_proves_nothing() {
    Host::run(2, |memory, space| {
        let frames = HostFrames::of_ram(memory).unwrap();
        let other = HostVspace::reserve(frames, WindowLen::covering(1).unwrap()).unwrap();
        let wrong = UnmapError::OtherSpace {
            theirs: space.base(),
            ours: other.base(),
        };
        let own = OwnRange::claim(&other, range(0, 1));
        space
            .map(range(0, 1).start(), run(memory, 0, 1), Protection::Read)
            .unwrap();
        let down = space.take_down(range(0, 1), ()).unwrap();
        let (down, error) = other.shoot_down_here(&own, down).unwrap_err();
        assert_eq!(error, wrong);
        let (batch, error) = other.shoot_down(vec![down]).unwrap_err();
        assert_eq!(error, wrong);
        let debt = space.shoot_down(batch).unwrap();
        debt.settle(&MaySleep::claim()).unwrap();
        // Nor does a claim of the same pages there.
        let down = space.take_down(range(0, 1), ()).unwrap();
        let (_, error) = space.shoot_down_here(&own, down).unwrap_err();
        let (theirs, ours) = (other.base(), space.base());
        assert_eq!(error, UnmapError::OtherSpace { theirs, ours });
    });
}

/// What the detector is for: a flush on one CPU of a range that two have used leaves the other one a stale translation.
#[test]
fn a_local_flush_of_what_two_cpus_use_is_seen() {
    let machine = SimMachine::new(SimConfig::default()).unwrap();
    let ram = machine.ram(FrameCount::new(2)).unwrap();
    let space = machine
        .reserve_vspace(WindowLen::covering(1).unwrap())
        .unwrap();
    let at = range(0, 1).start();
    let on = |cpu, f: &dyn Fn()| machine.run_on(CpuId::new(cpu), |_| f()).unwrap();
    on(0, &|| {
        space
            .map(at, run(&ram, 0, 1), Protection::ReadWrite)
            .unwrap();
    });
    on(1, &|| space.read(at, &mut [0; 8]).unwrap());
    on(0, &|| {
        // Claimed, although CPU 1 has the address as well: a lie.
        let own = OwnRange::claim(&space, range(0, 1));
        let down = space.take_down(range(0, 1), ()).unwrap();
        space.shoot_down_here(&own, down).unwrap();
        ram.retire(run(&ram, 0, 1));
    });
    assert_eq!(machine.stale_hits(), 0);
    on(1, &|| space.read(at, &mut [0; 8]).unwrap());
    assert_eq!(machine.stale_hits(), 1, "{:?}", machine.incidents());
}
