//! The twin of `src/primitive.rs`: atomics that ask the [`machine`](crate::machine) what it costs to touch their line.

pub(crate) use std::sync::atomic::Ordering;

use crate::machine::{Access, touch};

macro_rules! word {
    ($name:ident, $number:ty) => {
        /// As large as the original, so that it lies in the same line.
        #[derive(Debug, Default)]
        pub(crate) struct $name(std::sync::atomic::$name);

        #[allow(dead_code, reason = "not every word is changed in every way")]
        impl $name {
            pub(crate) fn new(value: $number) -> Self {
                Self(std::sync::atomic::$name::new(value))
            }

            pub(crate) fn load(&self, order: Ordering) -> $number {
                touch(self, Access::Load);
                self.0.load(order)
            }

            pub(crate) fn store(&self, value: $number, order: Ordering) {
                touch(self, Access::Store);
                self.0.store(value, order);
            }

            pub(crate) fn swap(&self, value: $number, order: Ordering) -> $number {
                touch(self, Access::Swap);
                self.0.swap(value, order)
            }

            pub(crate) fn compare_exchange(
                &self,
                old: $number,
                new: $number,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$number, $number> {
                touch(self, Access::Swap);
                self.0.compare_exchange(old, new, success, failure)
            }

            pub(crate) fn fetch_add(&self, more: $number, order: Ordering) -> $number {
                touch(self, Access::Swap);
                self.0.fetch_add(more, order)
            }

            pub(crate) fn fetch_max(&self, value: $number, order: Ordering) -> $number {
                touch(self, Access::Swap);
                self.0.fetch_max(value, order)
            }
        }
    };
}

word!(AtomicU64, u64);
word!(AtomicU32, u32);

/// See the original.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct Padded<T>(pub(crate) T);
