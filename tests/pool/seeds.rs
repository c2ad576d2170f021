//! What the whole crate was begun for.

use multiproc::{Array, Pod, Pool, Value, Zeroable};

#[derive(Clone, Copy, Pod, Zeroable)]
#[bytemuck(crate = "multiproc::bytemuck")]
#[repr(C)]
struct Presence {
    now: u32,
    most: u32,
    total: u32,
}

#[test]
fn nine_slow_tasks_over_three_workers_are_never_more_than_three_at_once() {
    let pool = Pool::with_workers(3).unwrap();
    let presence = Value::new(Presence {
        now: 0,
        most: 0,
        total: 0,
    })
    .unwrap();
    let be_there = |presence: &Value<Presence>, (): ()| {
        presence
            .update(|there| {
                there.now += 1;
                there.total += 1;
                there.most = there.most.max(there.now);
            })
            .unwrap();
        // the first do not leave before three are there
        while presence.get().unwrap().most < 3 {
            std::thread::yield_now();
        }
        presence.update(|there| there.now -= 1).unwrap();
    };
    pool.chunk_size(1)
        .map_with(&presence, be_there, [(); 9])
        .unwrap();
    let seen = presence.get().unwrap();
    assert_eq!((seen.now, seen.most, seen.total), (0, 3, 9));
}

#[test]
fn a_million_random_numbers_are_summed_in_slices() {
    const LEN: usize = 1_000_000;
    let mut seed = 1_u64;
    let mut random = || {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        f64::from((seed >> 40) as u32) / f64::from(1 << 24)
    };
    let numbers: Vec<f64> = (0..LEN).map(|_| random()).collect();
    let pool = Pool::with_workers(2).unwrap();
    // by value: each slice is copied there
    let slices: Vec<Vec<f64>> = numbers.chunks(LEN / 10).map(<[f64]>::to_vec).collect();
    let expected: Vec<u64> = slices
        .iter()
        .map(|slice| slice.iter().sum::<f64>().to_bits())
        .collect();
    let sums = pool
        .map(|slice: Vec<f64>| slice.iter().sum::<f64>(), slices)
        .unwrap();
    assert_eq!(
        sums.iter().map(|sum| sum.to_bits()).collect::<Vec<_>>(),
        expected
    );
    // by handle: nothing is copied
    let shared = Array::from_slice(&numbers).unwrap().freeze().unwrap();
    let ranges = (0..10).map(|at| (at * LEN / 10, (at + 1) * LEN / 10));
    let sums = pool
        .map_with(
            &shared,
            |all, (from, to): (usize, usize)| all[from..to].iter().sum::<f64>(),
            ranges,
        )
        .unwrap();
    assert_eq!(
        sums.iter().map(|sum| sum.to_bits()).collect::<Vec<_>>(),
        expected
    );
}
