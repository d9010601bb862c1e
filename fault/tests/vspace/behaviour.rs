//! What is mapped is seen, what is taken down is gone, and what was locked up comes back once.

use pageless_fault::{
    FrameMemory, MapError, MaySleep, Protection, UnmapError, Untranslated, Vspace, WindowOffset,
    WindowRange,
};
use pageless_pfn::{FrameCount, Pfn, PfnRange};

use super::rig::{Host, LEN, Rig, Sim, run};

fn at(page: u64) -> WindowOffset {
    WindowOffset::new(page * 4096)
}

fn pages(first: u64, count: u64) -> WindowRange {
    WindowRange::try_new(at(first), count * 4096).unwrap()
}

fn scattered_frames_are_one_stretch_of_addresses<R: Rig>() {
    R::run(64, |memory, space| {
        for (page, frame) in [40, 3, 17].into_iter().enumerate() {
            let frames = run(memory, frame, 1);
            space
                .map(at(page as u64), frames, Protection::ReadWrite)
                .unwrap();
        }
        let text: Vec<u8> = (0..3 * 4096_u32).map(|n| (n * 7 / 5) as u8).collect();
        // Across both boundaries, and beginning and ending inside a word.
        space.write(WindowOffset::new(3), &text[3..12_285]).unwrap();
        for (page, frame) in [40, 3, 17].into_iter().enumerate() {
            let mut seen = vec![0; 4096];
            memory
                .read(run(memory, frame, 1).start().phys(), &mut seen)
                .unwrap();
            let (from, to) = (
                if page == 0 { 3 } else { 0 },
                if page == 2 { 4093 } else { 4096 },
            );
            assert_eq!(
                seen[from..to],
                text[page * 4096 + from..page * 4096 + to],
                "frame {frame}"
            );
        }
        // The other way round, and two places for one frame.
        space
            .map(at(100), run(memory, 3, 1), Protection::Read)
            .unwrap();
        memory
            .write(run(memory, 3, 1).start().phys(), b"both")
            .unwrap();
        let mut seen = [0; 4];
        space.read(at(1), &mut seen).unwrap();
        assert_eq!(&seen, b"both");
        space.read(at(100), &mut seen).unwrap();
        assert_eq!(&seen, b"both");
        #[expect(unsafe_code, reason = "what is shown could be written to by others")]
        // SAFETY: this thread alone knows of these frames.
        let viewed = unsafe { space.view(WindowOffset::new(4094), 6, |bytes| bytes.to_vec()) };
        assert_eq!(
            viewed.unwrap(),
            [text[4094], text[4095], b'b', b'o', b't', b'h']
        );
    });
}

fn the_page_table_says_which_frame<R: Rig>() {
    R::run(16, |memory, space| {
        let frames = run(memory, 4, 3);
        space.map(at(600), frames, Protection::Read).unwrap();
        assert_eq!(space.translate(at(599)), None);
        assert_eq!(
            space.translate(WindowOffset::new(601 * 4096 + 77)),
            frames.nth(1)
        );
        assert_eq!(space.translate(at(603)), None);
        assert_eq!(space.offset_of(space.address(at(601))), Some(at(601)));
        assert_eq!(space.offset_of(space.address(WindowOffset::new(LEN))), None);
    });
}

fn what_is_taken_down_comes_back_flushed_and_its_place_can_be_used_again<R: Rig>() {
    R::run(16, |memory, space| {
        let ctx = MaySleep::claim();
        space
            .map(at(0), run(memory, 0, 2), Protection::ReadWrite)
            .unwrap();
        space
            .map(at(5), run(memory, 7, 1), Protection::ReadWrite)
            .unwrap();
        space.write(at(5), b"before").unwrap();
        let batch = vec![
            space.take_down(pages(0, 2), "two").unwrap(),
            space.take_down(pages(5, 1), "one").unwrap(),
        ];
        assert_eq!(space.translate(at(5)), None);
        let debt = space.shoot_down(batch).unwrap();
        let owned = debt.settle(&ctx).unwrap().into_inner();
        assert_eq!(owned, ["two", "one"]);
        assert_eq!(
            space.read(at(5), &mut [0; 6]),
            Err(Untranslated {
                at: 5 * 4096,
                write: false
            })
        );
        space
            .map(at(5), run(memory, 8, 1), Protection::ReadWrite)
            .unwrap();
        let mut seen = *b"______";
        space.read(at(5), &mut seen).unwrap();
        assert_eq!(seen, [0; 6], "the frame of before");
    });
}

fn nothing_is_mapped_where_it_cannot_be<R: Rig>() {
    R::run(16, |memory, space| {
        let two = run(memory, 0, 2);
        space.map(at(1), two, Protection::Read).unwrap();
        assert_eq!(
            space.map(at(0), two, Protection::Read),
            Err(MapError::Occupied { at: 4096 })
        );
        assert_eq!(space.translate(at(0)), None, "half of a map that failed");
        let end = LEN / 4096 - 1;
        assert!(matches!(
            space.map(at(end), two, Protection::Read),
            Err(MapError::Outside { .. })
        ));
        assert!(matches!(
            space.map(WindowOffset::new(12), two, Protection::Read),
            Err(MapError::Outside { at: 12, .. })
        ));
        let nowhere = Pfn::try_new(1 << 38).unwrap();
        let nowhere = PfnRange::try_new(nowhere, FrameCount::new(1)).unwrap();
        assert!(matches!(
            space.map(at(9), nowhere, Protection::Read),
            Err(MapError::NoSuchFrame { .. })
        ));
        assert!(matches!(
            space.clear(pages(end, 2)),
            Err(UnmapError::Refused { .. })
        ));
        assert!(matches!(
            space.shoot(&[pages(end, 2)]),
            Err(UnmapError::Refused { .. })
        ));
    });
}

fn what_is_mapped_for_reading_is_not_written<R: Rig>() {
    R::run(4, |memory, space| {
        space
            .map(at(0), run(memory, 0, 1), Protection::ReadWrite)
            .unwrap();
        space
            .map(at(1), run(memory, 1, 1), Protection::Read)
            .unwrap();
        let wrong = space.write(WindowOffset::new(4092), b"12345678");
        assert_eq!(
            wrong,
            Err(Untranslated {
                at: 4096,
                write: true
            })
        );
        let mut seen = [0; 8];
        space.read(WindowOffset::new(4092), &mut seen).unwrap();
        assert_eq!(&seen, b"1234\0\0\0\0");
    });
}

fn memory_is_bounded<R: Rig>() {
    R::run(4, |memory, _| {
        let end = run(memory, 3, 1).start().phys().get() + 4096;
        let near_the_end = pageless_pfn::PhysAddr::new(end - 4);
        assert!(memory.read(near_the_end, &mut [0; 4]).is_ok());
        let error = memory.read(near_the_end, &mut [0; 5]).unwrap_err();
        assert_eq!((error.at, error.len), (end - 4, 5));
        assert!(memory.write(near_the_end, &[0; 5]).is_err());
        let all = memory.frames();
        memory.write(near_the_end, b"last").unwrap();
        memory.zero(all).unwrap();
        let mut seen = [1; 4];
        memory.read(near_the_end, &mut seen).unwrap();
        assert_eq!(seen, [0; 4]);
        let rest = FrameCount::new((1 << 52) - all.start().get());
        for count in [FrameCount::new(5), rest] {
            let more = PfnRange::try_new(all.start(), count).unwrap();
            assert!(memory.zero(more).is_err());
        }
        for len in [5, usize::MAX] {
            #[expect(unsafe_code, reason = "what is shown could be written to by others")]
            // SAFETY: nobody else knows of this memory, and nothing is shown.
            let seen = unsafe { memory.view(near_the_end, len, |bytes| bytes.len()) };
            assert!(seen.is_err(), "{seen:?}");
        }
    });
}

fn nothing_is_seen_outside<R: Rig>() {
    R::run(1, |_, space| {
        for outside in [LEN, LEN + 1, u64::MAX - 4095, u64::MAX] {
            let at = WindowOffset::new(outside);
            let read = Untranslated {
                at: LEN,
                write: false,
            };
            assert_eq!(space.read(at, &mut [0; 16]), Err(read));
            let write = Untranslated {
                at: LEN,
                write: true,
            };
            assert_eq!(space.write(at, &[0; 16]), Err(write));
            assert_eq!(space.read(at, &mut []), Ok(()));
            assert_eq!(space.translate(at), None);
        }
        #[expect(unsafe_code, reason = "what is shown could be written to by others")]
        // SAFETY: nothing is mapped, so nothing is shown.
        let seen = unsafe { space.view(WindowOffset::new(0), usize::MAX, |bytes| bytes.len()) };
        assert!(seen.is_err(), "{seen:?}");
    });
}

macro_rules! on_each_machine {
    ($($test:ident)*) => {
        mod host {
            $(#[test] fn $test() { super::$test::<super::Host>(); })*
        }
        mod sim {
            $(#[test] fn $test() { super::$test::<super::Sim>(); })*
        }
    };
}

on_each_machine! {
    nothing_is_seen_outside
    scattered_frames_are_one_stretch_of_addresses
    the_page_table_says_which_frame
    what_is_taken_down_comes_back_flushed_and_its_place_can_be_used_again
    nothing_is_mapped_where_it_cannot_be
    what_is_mapped_for_reading_is_not_written
    memory_is_bounded
}
