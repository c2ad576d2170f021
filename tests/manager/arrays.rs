//! Arrays.

use multiproc::{ErrorKind, Pod, Zeroable};

use crate::kind;

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
struct Point {
    x: f32,
    y: i16,
    z: i16,
}

on_each_engine! {
    /// CPython: `TestSyncManagerTypes.array`.
    fn an_array_is_read_and_written_item_by_item_and_in_slices(manager) {
        let init: Vec<i32> = (0..1000).collect();
        let array = manager.new_array(&init).unwrap();
        assert_eq!(array.len().unwrap(), 1000);
        assert_eq!(array.to_vec().unwrap(), init);
        assert_eq!(array.get(999).unwrap(), 999);
        array.set(0, -5).unwrap();
        assert_eq!(array.update(0, |n| n * 2).unwrap(), -10);
        array.write(250, &[7; 500]).unwrap();
        let mut slice = [0; 502];
        array.read(249, &mut slice).unwrap();
        assert_eq!((slice[0], slice[1], slice[500], slice[501]), (249, 7, 7, 750));
        assert_eq!(array.get(0).unwrap(), -10);
        array.write(1000, &[]).unwrap();
    }

    fn what_does_not_fit_is_refused_as_a_whole(manager) {
        let array = manager.array("few", &[1_u8, 2, 3]).unwrap();
        assert_eq!(kind(array.get(3)), Some(ErrorKind::OutOfBounds));
        assert_eq!(kind(array.set(3, 0)), Some(ErrorKind::OutOfBounds));
        assert_eq!(kind(array.write(2, &[0, 0])), Some(ErrorKind::OutOfBounds));
        assert_eq!(kind(array.update(usize::MAX, |n| n)), Some(ErrorKind::OutOfBounds));
        assert_eq!(kind(array.read(usize::MAX, &mut [0; 2])), Some(ErrorKind::OutOfBounds));
        assert_eq!(array.to_vec().unwrap(), [1, 2, 3]);
        let wide = manager.new_array(&[0_u64; 2]).unwrap();
        assert_eq!(kind(wide.get(usize::MAX / 4)), Some(ErrorKind::OutOfBounds));
    }

    fn structs_come_back_as_they_were(manager) {
        let points = [Point { x: 1.5, y: -1, z: 2 }, Point { x: -0.0, y: 300, z: 0 }];
        let array = manager.new_array(&points).unwrap();
        assert_eq!(array.to_vec().unwrap(), points);
        array.update(1, |point| Point { y: point.y + 1, ..point }).unwrap();
        assert_eq!(array.get(1).unwrap().y, 301);
    }

    fn an_array_may_be_empty(manager) {
        let array = manager.new_array::<f64>(&[]).unwrap();
        assert!(array.is_empty().unwrap());
        assert_eq!(array.to_vec().unwrap(), []);
    }

    fn changes_of_one_item_by_many_threads_all_count(manager) {
        let array = manager.new_array(&[0_u64; 600]).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50).for_each(|_| assert!(array.update(300, |n| n + 1).unwrap() > 0)));
            }
        });
        assert_eq!(array.to_vec().unwrap().iter().sum::<u64>(), 200);
    }
}
