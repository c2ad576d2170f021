//! The twin of `src/primitive.rs`: the checker's atomics under the crate's names.
//!
//! Every operation first asks the [`fuse`](crate::fuse) whether its thread dies here, and the [`mutation`](crate::mutation) which ordering it
//! is to have.

pub(crate) use std::sync::atomic::Ordering;

use std::panic::Location;

use crate::fuse;
use crate::mem::Bytes;
use crate::mutation;
use crate::sys::futex::Queue;

macro_rules! word {
    ($name:ident, $number:ty, $extra:ty) => {
        #[derive(Debug, Default)]
        pub(crate) struct $name {
            word: loom::sync::atomic::$name,
            /// See `in_turn`.
            in_turn: bool,
            /// What a futex needs besides the word; for a word of payload, what holds that one thread at a time touches it.
            pub(crate) extra: $extra,
        }

        #[allow(dead_code, reason = "not every word is changed in every way")]
        impl $name {
            pub(crate) fn new(value: $number) -> Self {
                Self {
                    word: loom::sync::atomic::$name::new(value),
                    in_turn: false,
                    extra: <$extra>::default(),
                }
            }

            #[track_caller]
            pub(crate) fn load(&self, order: Ordering) -> $number {
                fuse::step();
                if is_payload(Location::caller(), order) {
                    self.extra.touch(false);
                }
                self.word.load(mutation::load(Location::caller(), order))
            }

            #[track_caller]
            pub(crate) fn store(&self, value: $number, order: Ordering) {
                fuse::step();
                if is_payload(Location::caller(), order) {
                    self.extra.touch(true);
                }
                let order = mutation::store(Location::caller(), order);
                if self.in_turn {
                    self.word.swap(value, order);
                } else {
                    self.word.store(value, order);
                }
            }

            #[track_caller]
            pub(crate) fn swap(&self, value: $number, order: Ordering) -> $number {
                fuse::step();
                self.word
                    .swap(value, mutation::both(Location::caller(), order))
            }

            #[track_caller]
            pub(crate) fn compare_exchange(
                &self,
                old: $number,
                new: $number,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$number, $number> {
                fuse::step();
                if mutation::is_left_out(Location::caller()) {
                    return Err(old);
                }
                if mutation::tears(Location::caller()) {
                    let found = self.word.load(failure);
                    if found == old {
                        self.word.store(new, Ordering::Release);
                        return Ok(found);
                    }
                    return Err(found);
                }
                let success = mutation::both(Location::caller(), success);
                self.word.compare_exchange(old, new, success, failure)
            }

            #[track_caller]
            pub(crate) fn fetch_add(&self, more: $number, order: Ordering) -> $number {
                fuse::step();
                self.word
                    .fetch_add(more, mutation::both(Location::caller(), order))
            }

            #[track_caller]
            pub(crate) fn fetch_or(&self, bits: $number, order: Ordering) -> $number {
                fuse::step();
                self.word
                    .fetch_or(bits, mutation::both(Location::caller(), order))
            }

            #[track_caller]
            pub(crate) fn fetch_and(&self, bits: $number, order: Ordering) -> $number {
                fuse::step();
                self.word
                    .fetch_and(bits, mutation::both(Location::caller(), order))
            }

            #[track_caller]
            pub(crate) fn fetch_max(&self, value: $number, order: Ordering) -> $number {
                fuse::step();
                self.word
                    .fetch_max(value, mutation::both(Location::caller(), order))
            }
        }
    };
}

word!(AtomicU64, u64, Bytes);
word!(AtomicU32, u32, Queue);

/// Whether the operation is on the payload of a slot or record: those are the Relaxed ones of that file. They are atomic for the sake of
/// processes that write wild; by protocol a payload is in one hand at a time, so each access must happen before the next, as for plain bytes.
fn is_payload(place: &Location<'_>, order: Ordering) -> bool {
    let files = ["src/ring/slot.rs", "src/ring/payload.rs"];
    order == Ordering::Relaxed && files.iter().any(|file| place.file().ends_with(file))
}

trait Touch {
    fn touch(&self, writes: bool);
}

impl Touch for Bytes {
    fn touch(&self, writes: bool) {
        if writes {
            self.write(0);
        } else {
            self.read();
        }
    }
}

impl Touch for Queue {
    fn touch(&self, _: bool) {}
}

impl AtomicU32 {
    /// A word whose stores stand in one order with each other and with its swaps.
    ///
    /// They do in the language. loom orders two of them only where one thread has seen the other, so that it does not know that a store after
    /// a value which another thread has swapped away comes after that swap, too: it would report deadlocks that cannot be.
    pub(crate) fn in_turn(value: u32) -> Self {
        Self {
            in_turn: true,
            ..Self::new(value)
        }
    }

    /// The word as the kernel reads it: no step of the thread that asked.
    pub(crate) fn seen_by_kernel(&self) -> u32 {
        self.word.load(Ordering::Relaxed)
    }
}

/// More looks in vain would only make more executions of the same.
pub(crate) const SPINS: u32 = 1;
pub(crate) const SETTLES: u32 = 1;

pub(crate) fn spin_loop() {}

#[track_caller]
pub(crate) fn fence(order: Ordering) {
    if !mutation::drops_fence(Location::caller()) {
        loom::sync::atomic::fence(order);
    }
}

/// See the original: nothing lies in lines here.
#[derive(Debug, Default)]
pub(crate) struct Padded<T>(pub(crate) T);

/// See the original, which is a bool.
#[derive(Debug)]
pub(crate) struct Signal(AtomicU32);

impl Signal {
    pub(crate) fn new() -> Self {
        Self(AtomicU32::in_turn(0))
    }

    pub(crate) fn raise(&self) {
        self.0.store(1, Ordering::SeqCst);
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.0.load(Ordering::SeqCst) != 0
    }

    pub(crate) fn take(&self) -> bool {
        self.0.swap(0, Ordering::AcqRel) != 0
    }
}
