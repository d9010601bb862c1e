//! What the books say, number for number.

use pageless_vmap::zsmalloc::Zsmalloc;

use super::on_each_machine;
use super::rig::{Frames, Rig, store};

fn groups_are_by_tens_of_percent<R: Rig>() {
    R::run(64, |memory, _| {
        let frames = Frames::new(memory);
        let pool = Zsmalloc::new(&frames);
        // Class 32: one frame, 128 objects.
        let index = pool.class_table().index_of(24).unwrap();
        let mut handles = Vec::new();
        for used in 1..=128_u64 {
            handles.push(store(&pool, &[1; 24]));
            let class = pool.stats().classes[index];
            let group = if used == 128 {
                11
            } else {
                (used * 100 / 128 / 10 + 1) as usize
            };
            let mut groups = [0; 12];
            groups[group] = 1;
            assert_eq!(class.groups, groups, "{used} of 128");
            assert_eq!((class.objects_used, class.objects_allocated), (used, 128));
            assert_eq!(class.bytes_stored.get(), used * 24);
            assert_eq!((class.pages_used.get(), class.freeable.get()), (1, 0));
        }
        handles.push(store(&pool, &[1; 24]));
        assert_eq!(pool.stats().classes[index].pages_used.get(), 2);
        for handle in handles {
            pool.free(handle).unwrap();
        }
        let stats = pool.stats();
        assert_eq!((stats.pages_used.get(), stats.objects_used), (0, 0));
        assert_eq!(stats.classes[index].groups, [0; 12]);
    });
}

fn the_table_is_as_linux_prints_it<R: Rig>() {
    R::run(64, |memory, _| {
        let frames = Frames::new(memory);
        let pool = Zsmalloc::new(&frames);
        let kept = [store(&pool, &[1; 24]), store(&pool, &[1; 4096])];
        let table = pool.stats().to_string();
        let fields = |line: usize| -> Vec<String> {
            let line = table.lines().nth(line).unwrap();
            line.split_whitespace().map(str::to_owned).collect()
        };
        assert_eq!(table.lines().count(), 4);
        assert_eq!(
            fields(0).join(" "),
            "class size 10% 20% 30% 40% 50% 60% 70% 80% 90% 99% 100% obj_allocated obj_used pages_used \
             pages_per_zspage freeable"
        );
        assert_eq!(
            fields(1).join(" "),
            "0 32 1 0 0 0 0 0 0 0 0 0 0 128 1 1 1 0"
        );
        assert_eq!(
            fields(2).join(" "),
            "254 4096 0 0 0 0 0 0 0 0 0 0 1 1 1 1 1 0"
        );
        assert_eq!(fields(3).join(" "), "total 1 0 0 0 0 0 0 0 0 0 1 129 2 2 0");
        drop(kept);
    });
}

/// The books count as memory: 1 % of what is stored at the sizes of compressed pages, in pools of a few megabytes.
fn the_books_take_little<R: Rig>() {
    R::run(1600, |memory, _| {
        let frames = Frames::new(memory);
        let pool = Zsmalloc::new(&frames);
        let mut rng = fastrand::Rng::with_seed(1);
        let mut handles = Vec::new();
        while frames.out() < 1500 {
            let size = rng.usize(600..3000);
            handles.push(store(&pool, &vec![0; size]));
        }
        let stats = pool.stats();
        let frames = stats.pages_used.get() * 4096;
        let percent = stats.metadata.get() as f64 * 100.0 / frames as f64;
        println!("{percent:.2} % of {frames} bytes in frames");
        assert!(percent < 1.6, "{percent:.2} %");
        assert_eq!(stats.memory_used().get(), frames + stats.metadata.get());
        for handle in handles {
            pool.free(handle).unwrap();
        }
    });
}

on_each_machine! {
    groups_are_by_tens_of_percent
    the_table_is_as_linux_prints_it
    the_books_take_little
}
