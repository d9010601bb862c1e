//! Hazard: memory that can only be copied is written back as it was when the copy was made, over what somebody else has written since.

use pageless::block::FrameAccess;
use pageless::fault::FrameMemory;
use pageless::vmap::frames::Order;

use crate::rig::{Rig, on_each_machine};

fn what_is_only_read_is_not_written<R: Rig>() {
    R::run(|mm| {
        let block = mm.pages.alloc(&mm.gfp(), Order::ZERO).unwrap();
        let (segment, at) = (block.segments().next().unwrap(), block.head().phys());
        let memory = mm.memory().0;
        block.write(0, &[1; 4096]).unwrap();
        let mut copied = [0; 4096];
        memory
            .with(segment, |span| {
                mm.ram().write(at, b"somebody else").unwrap();
                span.read_into(&mut copied)
            })
            .unwrap();
        // A copy that was made before or after, as with any device.
        assert!(copied[..13] == [1; 13] || copied[..13] == *b"somebody else");
        assert_eq!(copied[13..], [1; 4083]);
        let mut found = [0; 14];
        block.read(0, &mut found).unwrap();
        assert_eq!(&found, b"somebody else\x01");
        drop(block);
        mm.nothing_remains();
    });
}

fn what_is_written_ends_where_it_ends<R: Rig>() {
    R::run(|mm| {
        let block = mm.pages.alloc(&mm.gfp(), Order::ZERO).unwrap();
        let (segment, at) = (block.segments().next().unwrap(), block.head().phys());
        let memory = mm.memory().0;
        block.write(0, &[1; 4096]).unwrap();
        memory
            .with(segment, |span| {
                let behind = pageless::pfn::ByteLen::new(100);
                let behind = at.checked_add(behind).unwrap();
                mm.ram().write(behind, &[2; 3996]).unwrap();
                // Of which the first and the last are what they were.
                span.write_from(&[[1; 10], [3; 10], [1; 10]].concat())
            })
            .unwrap();
        let mut found = [0; 4096];
        block.read(0, &mut found).unwrap();
        assert_eq!(found[..10], [1; 10]);
        assert_eq!(found[10..20], [3; 10]);
        assert_eq!(found[20..100], [1; 80]);
        assert_eq!(found[100..], [2; 3996]);
        drop(block);
        mm.nothing_remains();
    });
}

on_each_machine! {
    what_is_only_read_is_not_written
    what_is_written_ends_where_it_ends
}
