//! The block store against a naive oracle, on the heap.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ptr::NonNull;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

/// A store on the heap, and which of its pages have memory.
struct World {
    blocks: Blocks,
    bound: u64,
    pages: RefCell<BTreeSet<u64>>,
    used: BTreeMap<u32, u32>,
    held: BTreeMap<u32, Block>,
    /// Reservations that are still granted.
    grants: RefCell<u64>,
}

const AT: usize = PAGE as usize;

impl World {
    fn new(bound: u64, slots: u32) -> Self {
        let plan = Plan::new(bound, slots).unwrap();
        let len = AT + plan.len() as usize;
        let memory = memmap2::MmapMut::map_anon(len).unwrap();
        let base = NonNull::new(memory.as_ptr().cast_mut()).unwrap();
        // SAFETY: 1. the mapping is kept by the region. 2. it begins at a page. 3. it is writable.
        let region = unsafe { Region::new(base, len, Arc::new(memory)) };
        let blocks = Blocks::place(&region, AT, 0, plan).unwrap();
        Self {
            blocks,
            bound,
            pages: RefCell::default(),
            used: BTreeMap::new(),
            held: BTreeMap::new(),
            grants: RefCell::new(u64::MAX),
        }
    }

    fn with<R>(&self, call: impl FnOnce(&Blocks, InUse<'_>, Memory<'_>, Memory<'_>) -> R) -> R {
        let reserve = |bytes: Range<usize>| {
            let mut grants = self.grants.borrow_mut();
            let Some(left) = grants.checked_sub(1) else {
                return Err(io::ErrorKind::StorageFull.into());
            };
            *grants = left;
            let pages = bytes.start as u64 / PAGE..(bytes.end as u64).div_ceil(PAGE);
            self.pages.borrow_mut().extend(pages);
            Ok(())
        };
        let punch = |bytes: Range<usize>| {
            assert!(
                [bytes.start, bytes.end]
                    .iter()
                    .all(|at| (*at as u64).is_multiple_of(PAGE))
            );
            let pages = bytes.start as u64 / PAGE..bytes.end as u64 / PAGE;
            self.pages.borrow_mut().retain(|page| !pages.contains(page));
            Ok(())
        };
        let in_use = |owner: Owner| self.used.get(&owner.slot) == Some(&owner.generation);
        call(&self.blocks, &in_use, &reserve, &punch)
    }

    fn put(&mut self, slot: u32, generation: u32, len: u64) -> io::Result<bool> {
        let owner = Owner { slot, generation };
        self.used.insert(slot, generation);
        let found = self.with(|blocks, in_use, reserve, punch| {
            match blocks.take(owner, len, in_use, reserve)? {
                None => blocks.grow(owner, len, self.bound, in_use, reserve, punch),
                some => Ok(some),
            }
        });
        match found {
            Ok(Some(block)) => {
                assert!(block.size as u64 >= len);
                assert_eq!(block.at % BLOCK_ALIGN, 0);
                self.held.insert(slot, block);
                Ok(true)
            }
            Ok(None) => {
                self.used.remove(&slot);
                Ok(false)
            }
            Err(error) => {
                self.used.remove(&slot);
                Err(error)
            }
        }
    }

    fn free(&mut self, slot: u32) {
        self.used.remove(&slot);
        self.held.remove(&slot);
    }

    /// No two blocks overlap, all in use have memory and are found by name, and no more is there than the bound.
    fn check(&self) {
        let mut spans: Vec<_> = self
            .held
            .values()
            .map(|block| block.at..block.at + block.size)
            .collect();
        spans.sort_by_key(|span| span.start);
        assert!(spans.windows(2).all(|pair| pair[0].end <= pair[1].start));
        let pages = self.pages.borrow();
        for span in &spans {
            let mut touched = span.start as u64 / PAGE..(span.end as u64).div_ceil(PAGE);
            assert!(touched.all(|page| pages.contains(&page)), "{span:?}");
        }
        drop(pages);
        self.with(|blocks, _, reserve, punch| {
            for (slot, block) in &self.held {
                let owner = Owner {
                    slot: *slot,
                    generation: self.used[slot],
                };
                let found = blocks.find(block.name(), owner, reserve).unwrap();
                assert_eq!(found, Some(*block));
                let other = Owner {
                    generation: owner.generation ^ 1,
                    ..owner
                };
                assert_eq!(blocks.find(block.name(), other, reserve).unwrap(), None);
            }
            let there = blocks.there(reserve, punch).unwrap();
            assert!(there <= self.bound.next_multiple_of(PAGE), "{there}");
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn blocks_in_use_never_overlap_and_the_bound_holds(
        bound in 1_u64..600_000, slots in 1_u32..40,
        steps in proptest::collection::vec((0_u8..8, 0_u32..40, 0_u64..700_000), 1..150)
    ) {
        let mut world = World::new(bound, slots);
        let mut generations = vec![0_u32; slots as usize];
        for (what, slot, len) in steps {
            let slot = slot % slots;
            match what {
                0..=4 if !world.used.contains_key(&slot) => {
                    // small ones as well as large ones
                    let len = (len >> (len % 12)).max(1); // what has no bytes asks for no block
                    generations[slot as usize] += 1;
                    let had = world.put(slot, generations[slot as usize], len).unwrap();
                    prop_assert!(had || !world.held.is_empty() || len > bound);
                }
                5 | 6 => world.free(slot),
                7 => {
                    let kept = world.with(|blocks, in_use, reserve, punch| {
                        blocks.trim(len, in_use, reserve, punch).unwrap();
                        blocks.there(reserve, punch).unwrap()
                    });
                    let needed: u64 = world.held.values().map(|block| block.size as u64).sum();
                    prop_assert!(kept <= len.max(needed), "{kept} of {len}, {needed} in use");
                }
                _ => {}
            }
            world.check();
        }
    }

    #[test]
    fn a_length_has_the_first_class_that_is_large_enough(bytes in 1_u64..1 << 40, len in 0_u64..1 << 41, cut in 0..40) {
        let plan = Plan::new(bytes, 7).unwrap();
        let sizes = plan.classes.iter().map(|class| class.size);
        let power = 1_u64 << cut;
        for len in [len >> cut, power - 1, power, power + 1, bytes].into_iter().chain(sizes.clone()) {
            prop_assert_eq!(plan.class_for(len), sizes.clone().position(|size| size >= len), "{}", len);
        }
    }

    #[test]
    fn any_name_is_a_block_or_none(name: u64, slot: u32, generation: u32) {
        let world = World::new(100_000, 4);
        let owner = Owner { slot, generation };
        let found = world.with(|blocks, _, reserve, _| blocks.find(name, owner, reserve).unwrap());
        prop_assert_eq!(found, None);
    }
}

/// Otherwise a queue that once had many small messages would never take a large one again.
#[test]
fn memory_of_small_blocks_becomes_that_of_a_large_one() {
    let mut world = World::new(1 << 20, 4096);
    for slot in 0..4096 {
        assert!(world.put(slot, 1, 256).unwrap());
    }
    assert!(!world.put(5000, 1, 4096).unwrap(), "all bytes are in use");
    (0..4096).for_each(|slot| world.free(slot));
    assert!(world.put(0, 2, 1 << 20).unwrap());
    world.check();
    let pages = world.pages.borrow().len() as u64;
    assert!(pages * PAGE < (1 << 20) + (256 << 10), "{pages} pages");
}

#[test]
fn a_block_is_free_as_soon_as_its_slot_is_and_is_taken_again_without_a_call() {
    let mut world = World::new(8 << 20, 16);
    assert!(world.put(0, 1, 1 << 20).unwrap());
    assert!(world.put(1, 1, 1 << 20).unwrap());
    let first = world.held[&0];
    world.free(0);
    *world.grants.borrow_mut() = 0;
    assert!(world.put(2, 1, 1 << 20).unwrap());
    assert_eq!(world.held[&2], first);
}

#[test]
fn where_there_is_no_memory_nothing_is_taken() {
    let mut world = World::new(8 << 20, 16);
    *world.grants.borrow_mut() = 1; // that of the words
    let refused = world.put(0, 1, 1 << 20).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    let there = world.with(|blocks, _, reserve, punch| blocks.there(reserve, punch).unwrap());
    assert_eq!(there, 0);
    *world.grants.borrow_mut() = 9;
    assert!(world.put(0, 1, 1 << 20).unwrap());
}

#[test]
fn what_a_dead_owner_of_the_lock_left_pending_is_given_back() {
    let mut world = World::new(8 << 20, 16);
    assert!(world.put(0, 1, 1 << 20).unwrap());
    world.free(0);
    let class = world.blocks.plan.class_for(1 << 20).unwrap();
    let word = &world.blocks.known[class].get().unwrap().words[0];
    word.store(PENDING, Ordering::Relaxed);
    assert!(!world.pages.borrow().is_empty());
    let words = world.pages.borrow().len() - 256;
    let there = world.with(|blocks, _, reserve, punch| blocks.there(reserve, punch).unwrap());
    assert_eq!((there, world.pages.borrow().len()), (0, words));
    assert_eq!(word.load(Ordering::Relaxed), NONE);
}

#[test]
fn lengths_beyond_32_bits_have_their_blocks() {
    let plan = Plan::new(1 << 40, 1 << 20).unwrap();
    for len in [
        u64::from(u32::MAX),
        1 << 32,
        (1 << 32) + 1,
        6 << 30,
        1 << 40,
    ] {
        let class = &plan.classes[plan.class_for(len).unwrap()];
        assert!(
            class.size >= len && class.size <= len + len / 4,
            "{len}: {class:?}"
        );
        let last = class.bytes(class.count - 1..class.count);
        assert!(last.end <= plan.len() && last.end - last.start == class.size);
    }
    assert_eq!(plan.class_for((1 << 40) + 1), None);
    assert!(
        plan.classes
            .iter()
            .all(|class| class.size % BLOCK_ALIGN as u64 == 0)
    );
    let next = plan.classes.windows(2);
    assert!(next.clone().all(|pair| pair[0].size < pair[1].size));
    assert!(next.clone().all(
        |pair| pair[0].blocks_at + u64::from(pair[0].count) * pair[0].size <= pair[1].words_at
    ));
    assert_eq!(Plan::new((1 << 40) + 1, 1), None);
    assert_eq!(Plan::new(0, 1).unwrap().class_for(0), None);
}
