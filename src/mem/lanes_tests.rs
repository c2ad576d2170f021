//! The protocol of slabs under real threads, each of which plays a process with a lane of its own. Cells are few, so that all of it
//! happens at once: handing out, passing on, dropping, dying, sweeping.

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use super::*;

const CELLS: usize = 64;

#[repr(align(4096))]
struct Memory(
    #[expect(dead_code, reason = "reached by address")] std::cell::UnsafeCell<[u8; 1 << 18]>,
);

// SAFETY: reached through atomics only.
unsafe impl Sync for Memory {}

fn lanes() -> Lanes {
    assert!(len_for(CELLS) <= 1 << 18);
    // SAFETY: all zeros is a valid array of bytes.
    let memory: Arc<Memory> = unsafe { Arc::<Memory>::new_zeroed().assume_init() };
    let base = NonNull::from(&*memory).cast();
    // SAFETY: alive while the Arc is, aligned to 4096, reached through this region alone.
    let region = unsafe { Region::new(base, 1 << 18, memory) };
    Lanes::place(&region, 0, CELLS).unwrap()
}

fn name(pid: u32) -> Name {
    Name::new(pid, 1).unwrap()
}

#[test]
fn a_lane_has_one_owner_and_comes_back_from_the_dead() {
    let lanes = lanes();
    let everyone = |_: Name| true;
    for pid in 1..=256 {
        assert_eq!(lanes.claim(name(pid), everyone), Some(pid as usize - 1));
    }
    assert_eq!(lanes.claim(name(300), everyone), None);
    lanes.hold(6, 3);
    assert!(lanes.is_held(3));
    assert_eq!(lanes.claim(name(300), |name| name.pid() != 7), Some(6));
    assert!(!lanes.is_held(3));
    lanes.hold(0, 5);
    assert_eq!(lanes.try_renew(5), None);
    lanes.clean(name(300), |name| name.pid() != 1);
    assert_eq!(lanes.try_renew(5), Some(1));
    assert_eq!(lanes.claim(name(301), everyone), Some(0));
}

#[test]
fn a_name_that_does_not_fit_is_refused() {
    assert!(Name::new(0, 1).is_none());
    assert!(Name::new(1 << 22, 1).is_none());
    assert!(Name::new(1, 0).is_none());
    let name = Name::new((1 << 22) - 1, (1 << 41) - 1).unwrap();
    assert_eq!((name.pid(), name.started()), ((1 << 22) - 1, (1 << 41) - 1));
}

/// A handle on its way.
struct Letter {
    cell: u32,
    generation: u32,
    /// Set by the receiver; the sender holds the cell until then. `None`: the sender died.
    attached: Option<Arc<AtomicUsize>>,
    /// How often it is yet passed on.
    hops: u32,
}

/// What the holders of a cell see in it: the generation it was handed out with.
type Cells = [AtomicUsize; CELLS];

/// A process that takes letters, looks at their cells while it holds them, and passes some on.
struct Holder<'a> {
    lanes: &'a Lanes,
    lane: usize,
    cells: &'a Cells,
    way: &'a Mutex<VecDeque<Letter>>,
    /// Passed on, but not attached there yet: held here until then.
    outstanding: Vec<(u32, Arc<AtomicUsize>)>,
}

impl Holder<'_> {
    /// Whether the letter, if it was kept for us, was good; `None` if there was none for us.
    fn take_one(&mut self) -> Option<(bool, bool)> {
        self.outstanding.retain(|(cell, attached)| {
            let there = attached.load(Ordering::SeqCst) == 1;
            if there {
                self.lanes.let_go(self.lane, *cell);
            }
            !there
        });
        let letter = self.way.lock().unwrap().pop_front()?;
        if self
            .outstanding
            .iter()
            .any(|(cell, _)| *cell == letter.cell)
        {
            // not to ourselves: a process has one hold of a cell
            self.way.lock().unwrap().push_back(letter);
            return None;
        }
        let kept = letter.attached.is_some();
        let good = self.lanes.attach(self.lane, letter.cell, letter.generation);
        if good {
            self.look(&letter);
            if kept && letter.hops > 0 {
                let attached = Arc::new(AtomicUsize::new(0));
                self.outstanding.push((letter.cell, attached.clone()));
                self.way.lock().unwrap().push_back(Letter {
                    attached: Some(attached),
                    hops: letter.hops - 1,
                    ..letter
                });
            }
        }
        if let Some(attached) = letter.attached {
            attached.store(1, Ordering::SeqCst);
            self.look_again(letter.cell, letter.generation);
        }
        if good
            && !self
                .outstanding
                .iter()
                .any(|(cell, _)| *cell == letter.cell)
        {
            self.lanes.let_go(self.lane, letter.cell);
        }
        Some((kept, good))
    }

    fn look(&self, letter: &Letter) {
        self.look_again(letter.cell, letter.generation);
    }

    fn look_again(&self, cell: u32, generation: u32) {
        for _ in 0..20 {
            let seen = self.cells[cell as usize].load(Ordering::SeqCst);
            let lane = self.lane;
            assert_eq!(
                seen, generation as usize,
                "cell {cell} was handed out while lane {lane} held it"
            );
            std::hint::spin_loop();
        }
    }
}

/// Tells the others to stop waiting when its thread fails.
struct Alarm<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::SeqCst);
        }
    }
}

#[test]
fn no_held_cell_is_handed_out() {
    let lanes = lanes();
    let cells: Arc<Cells> = Arc::new(std::array::from_fn(|_| AtomicUsize::new(0)));
    let way: Mutex<VecDeque<Letter>> = Mutex::default();
    let done = std::sync::atomic::AtomicBool::new(false);
    let failed = std::sync::atomic::AtomicBool::new(false);
    let wait_for = |attached: &AtomicUsize| {
        while attached.load(Ordering::SeqCst) == 0 && !failed.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    };
    let creator = lanes.claim(name(1), |_| true).unwrap();
    let (kept, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for pid in 2..5 {
            let (lanes, cells, way, done) = (&lanes, &cells, &way, &done);
            let (kept, refused) = (&kept, &refused);
            let alarm = &failed;
            scope.spawn(move || {
                let _alarm = Alarm(alarm);
                let lane = lanes.claim(name(pid), |_| true).unwrap();
                let mut holder = Holder {
                    lanes,
                    lane,
                    cells,
                    way,
                    outstanding: Vec::new(),
                };
                while !done.load(Ordering::SeqCst) {
                    match holder.take_one() {
                        Some((true, good)) => {
                            assert!(good, "a handle whose sender held the cell was refused");
                            kept.fetch_add(1, Ordering::SeqCst);
                        }
                        Some((false, false)) => drop(refused.fetch_add(1, Ordering::SeqCst)),
                        Some((false, true)) => {}
                        None => std::thread::yield_now(),
                    }
                }
            });
        }
        let mut pinned: VecDeque<(u32, Arc<AtomicUsize>)> = VecDeque::new();
        for round in 0..200_000_u32 {
            if failed.load(Ordering::SeqCst) {
                break;
            }
            let cell = round % CELLS as u32;
            while pinned.len() > 40 || pinned.iter().any(|(pin, _)| *pin == cell) {
                let Some((pin, attached)) = pinned.pop_front() else {
                    break;
                };
                wait_for(&attached);
                lanes.let_go(creator, pin);
            }
            let Some(generation) = lanes.try_renew(cell) else {
                continue;
            };
            lanes.hold(creator, cell);
            cells[cell as usize].store(generation as usize, Ordering::SeqCst);
            let attached = (round % 3 == 0).then(|| Arc::new(AtomicUsize::new(0)));
            let letter = Letter {
                cell,
                generation,
                attached: attached.clone(),
                hops: round % 4,
            };
            way.lock().unwrap().push_back(letter);
            match attached {
                Some(attached) => pinned.push_back((cell, attached)),
                // as if the sender had died at once
                None => lanes.let_go(creator, cell),
            }
        }
        for (_, attached) in pinned {
            wait_for(&attached);
        }
        done.store(true, Ordering::SeqCst);
    });
    assert!(kept.into_inner() > 0);
    assert!(refused.into_inner() > 0, "no race was run");
}
