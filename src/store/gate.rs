//! Who is inside the store: the threads of this process that have a transaction, and the moments in which nobody may.

use std::any::Any;
use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use crate::error::{Error, ErrorKind, Result};
use crate::primitive::{Counter, Padded};
use crate::sys::{fork, thread_end};

/// What LMDB has open of a store.
pub(super) type Env = heed::Env<heed::WithTls>;

const SHARDS: usize = 16;

/// Open for transactions, or closed for a change of the map, which LMDB wants to be alone for.
///
/// One lock for each few threads, so that readers do not fight over one line of the cache.
#[derive(Debug, Default)]
pub(super) struct Gate([Padded<RwLock<()>>; SHARDS]);

impl Gate {
    #[inline]
    pub(super) fn enter(&self, here: &Inside) -> RwLockReadGuard<'_, ()> {
        let shard = &self.0[here.shard % SHARDS].0;
        shard.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all transactions of this process are over. New ones wait until what is returned has gone.
    pub(super) fn close(&self) -> Vec<RwLockWriteGuard<'_, ()>> {
        let shards = self.0.iter();
        shards
            .map(|shard| shard.0.write().unwrap_or_else(PoisonError::into_inner))
            .collect()
    }
}

/// Keeps LMDB's environment from being closed while a thread that has read in it is about to end.
///
/// The C library's destructor of such a thread writes to the reader's place in the mapped lock file. Closing unmaps that file, and does not
/// wait for a destructor that runs just then. So a thread takes a copy of the environment when its end begins, and drops it after that
/// destructor. `None` once the store has been closed, which is done under this lock.
pub(super) type Keeper = Mutex<Option<Env>>;

struct Here {
    /// Which shard of all gates is this thread's.
    shard: usize,
    born: u64,
    /// The stores in which this thread has a transaction.
    inside: Vec<u64>,
    /// Those in which it has had one.
    used: Vec<(u64, Arc<Keeper>)>,
}

thread_local! {
    static HERE: RefCell<Here> = RefCell::new(Here::new());
}

impl Here {
    fn new() -> Self {
        static THREADS: Counter = Counter::new(0);
        Self {
            shard: THREADS.next() as usize,
            born: fork::generation(),
            inside: Vec::new(),
            used: Vec::new(),
        }
    }

    #[cold]
    fn remember(&mut self, store: u64, keeper: &Arc<Keeper>) -> Result<()> {
        thread_end::prepare().map_err(|error| Error::os("cannot enter a store", error))?;
        self.used.retain(|(_, keeper)| is_open(keeper));
        self.used.push((store, Arc::clone(keeper)));
        Ok(())
    }
}

fn is_open(keeper: &Keeper) -> bool {
    match keeper.try_lock() {
        Ok(env) => env.is_some(),
        Err(TryLockError::Poisoned(env)) => env.into_inner().is_some(),
        // it is being closed, or looked at by a thread that ends
        Err(TryLockError::WouldBlock) => true,
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        // the one thread of a forked child has the locks as they were
        if self.born != fork::generation() {
            return;
        }
        let open = self.used.drain(..).filter_map(|(_, keeper)| {
            let env = keeper.lock().unwrap_or_else(PoisonError::into_inner);
            let env = env.clone()?;
            Some(Box::new(env) as Box<dyn Any + Send>)
        });
        let open: Vec<_> = open.collect();
        if !open.is_empty() {
            // it does not fail: `remember` has prepared it
            let _ = thread_end::keep(open);
        }
    }
}

/// That this thread is inside a store, until it is dropped.
#[derive(Debug)]
pub(super) struct Inside {
    store: u64,
    shard: usize,
}

impl Inside {
    /// # Errors
    ///
    /// `Deadlock` if it is inside already: LMDB has one transaction for each thread. `Closed` in the destructor of a thread-local variable
    /// that comes after ours.
    #[inline]
    pub(super) fn enter(store: u64, keeper: &Arc<Keeper>) -> Result<Self> {
        let entered = HERE.try_with(|here| {
            let mut here = here.borrow_mut();
            if here.inside.contains(&store) {
                return Err(Error::new(
                    ErrorKind::Deadlock,
                    "cannot begin a transaction: this thread is inside one of the same manager; use what the closure was given",
                ));
            }
            if !here.used.iter().rev().any(|(used, _)| *used == store) {
                here.remember(store, keeper)?;
            }
            here.inside.push(store);
            Ok(Self {
                store,
                shard: here.shard,
            })
        });
        entered.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Closed,
                "cannot begin a transaction: this thread is ending",
            ))
        })
    }
}

impl Drop for Inside {
    #[inline]
    fn drop(&mut self) {
        let _ = HERE.try_with(|here| {
            let mut here = here.borrow_mut();
            if let Some(at) = here.inside.iter().rposition(|inside| *inside == self.store) {
                here.inside.swap_remove(at);
            }
        });
    }
}
