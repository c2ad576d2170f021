//! Shared dictionaries, lists and their kin: on one machine, and with the same code beyond it. Begin at [`Manager`].
//!
//! # Engines
//!
//! | made by | where the data is | who sees it | what survives |
//! |---|---|---|---|
//! | [`Manager::new`] | in memory | this process, and those that get a handle | nothing: it goes with its last process |
//! | [`Manager::at`] | in a directory | every process of the machine that opens it | everything: each change is on the disk when its call returns |
//! | `Manager::connect`, feature `redis` | on a Redis or Valkey server | every program that may use the server | what the server keeps |
//!
//! On one machine there is no server: every process reads and writes the data itself, in transactions of
//! [LMDB](https://www.symas.com/mdb). A reader waits for nobody. One writer works at a time; a process killed anywhere has changed nothing, or
//! all that its call was to change.
//!
//! On a server each call is one command or script, one round trip. What is promised there and here, side by side, how to run and how to secure it:
//! `_documentation::several_machines`.
//!
//! # What is promised
//!
//! Every call of an object is whole or not at all, and sees all calls that returned before it began. [`Manager::batch`] makes several calls one.
//! What a call has reported done stays done when its process dies.
//!
//! # Errors
//!
//! Besides what each call says: `OutOfMemory` if there is no room, and nothing is changed; `Gone` if the object was deleted, or the manager's data has gone
//! with its last process; `Forked` in a forked child; `Deadlock` for a call inside of a closure that the same manager runs in a
//! transaction, such as that of `update`; `Corrupted` if the data was damaged from outside. On a server also `Disconnected` if it does not answer:
//! [`Error::maybe_applied`](crate::Error::maybe_applied) says whether the call may have been done all the same; `StateLost` if it has lost the manager's data;
//! `PermissionDenied`; `Protocol` if it speaks another protocol.
#![forbid(unsafe_code)]

mod array;
mod barrier;
mod batch;
#[cfg(feature = "redis")]
mod builder;
mod condition;
mod dict;
mod engine;
mod event;
mod list;
mod local;
mod lock;
mod means;
mod namespace;
pub(crate) mod object;
mod ops;
mod queue;
#[cfg(feature = "redis")]
mod remote;
mod semaphore;
mod set;
mod value;

use std::fmt;
use std::path::Path;

use bytemuck::Pod;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use self::engine::Engine;
use self::local::Local;
use crate::error::Result;
use crate::handle::travel::Travels;

pub use self::array::{Array, ArrayTx};
pub use self::barrier::Barrier;
pub use self::batch::Batch;
#[cfg(feature = "redis")]
pub use self::builder::Builder;
pub use self::condition::{Condition, ConditionGuard};
pub use self::dict::{Dict, DictTx};
pub use self::event::Event;
pub use self::list::{List, ListTx};
pub use self::lock::{Lock, LockGuard, RLock, RLockGuard};
pub use self::namespace::{Namespace, NamespaceTx};
pub use self::queue::Queue;
pub use self::semaphore::Semaphore;
pub use self::set::{Set, SetTx};
pub use self::value::{Counter, CounterTx, Value, ValueTx};

/// Messages that can wait in a queue, if nothing else is said.
const QUEUE_CAPACITY: usize = 4096;

/// Makes and finds shared dictionaries, lists, locks and queues, as Python's `multiprocessing.Manager`, without a server process.
///
/// It is a handle, as all that it makes: clones of it, and what other processes make of it, are the same manager. Objects are found by
/// name, 1 to 64 of `A-Z a-z 0-9 . _ -`: the first call makes the object, later ones open it, and a name stands for one object of one type. Those without a
/// name, by `new_dict` and its like, are found by the handle alone, which travels as an argument, as a result, in a message, and as a value of
/// another object. All objects live until they are deleted, or as long as the manager's data.
///
/// # Examples
///
/// ```
/// use multiproc::{Manager, Pool};
///
/// # fn main() -> multiproc::Result<()> {
/// let manager = Manager::new()?;
/// let scores = manager.dict::<String, u64>("scores")?;
/// let log = manager.list::<String>("log")?;
///
/// let pool = Pool::with_workers(2)?;
/// let play = |(manager, player): (Manager, String)| {
///     let scores = manager.dict::<String, u64>("scores")?;
///     scores.update(&player, |score| Some(score.unwrap_or(0) + 10))?;
///     manager.list::<String>("log")?.push(format!("{player} has played"))
/// };
/// for played in pool.map(play, ["ann", "bob", "ann"].map(|who| (manager.clone(), who.to_owned())))? {
///     played?;
/// }
/// assert_eq!(scores.get("ann")?, Some(20));
/// assert_eq!(log.len()?, 3);
///
/// manager.batch(|tx| {
///     let all = tx.dict(&scores)?.remove("bob")?.unwrap_or(0);
///     tx.dict(&scores)?.update("ann", |score| Some(score.unwrap_or(0) + all))?;
///     tx.list(&log)?.push("ann has won".into())
/// })?; // both, or none
/// # Ok(())
/// # }
/// ```
pub struct Manager {
    engine: Engine,
}

/// A call that finds or makes an object by name, and one for an object without.
macro_rules! objects {
    ($(
        $(#[$doc:meta])*
        $name:ident, $new:ident => $face:ident $(<$($type:ident: $bound:path),+>)? ($($arg:ident: $of:ty),*);
    )*) => {
        impl Manager { $(
            $(#[$doc])*
            ///
            /// # Errors
            ///
            /// `TypeMismatch` if the name stands for something else; `InvalidInput` for a name that is none; those of the
            /// [engine](crate::manager#errors).
            pub fn $name$(<$($type: $bound),+>)?(&self, name: &str, $($arg: $of),*) -> Result<$face$(<$($type),+>)?> {
                $face::open(&self.engine, Some(name), $($arg),*)
            }

            #[doc = concat!("As [`", stringify!($name), "`](Self::", stringify!($name), "), without a name.")]
            ///
            /// # Errors
            ///
            /// Those of the [engine](crate::manager#errors).
            pub fn $new$(<$($type: $bound),+>)?(&self, $($arg: $of),*) -> Result<$face$(<$($type),+>)?> {
                $face::open(&self.engine, None, $($arg),*)
            }
        )* }
    };
}

objects! {
    /// The dictionary of that name, or a new one.
    dict, new_dict => Dict<K: Travels, V: Travels>();

    /// The list of that name, or a new one.
    list, new_list => List<T: Travels>();

    /// The set of that name, or a new one.
    set, new_set => Set<T: Travels>();

    /// The namespace of that name, or a new one.
    namespace, new_namespace => Namespace();

    /// The counter of that name, or a new one, which begins at 0.
    counter, new_counter => Counter();

    /// The array of that name, or a new one, which begins as `init`.
    array, new_array => Array<T: Pod>(init: &[T]);

    /// The lock of that name, or a new one.
    lock, new_lock => Lock();

    /// The re-entrant lock of that name, or a new one.
    rlock, new_rlock => RLock();

    /// The event of that name, or a new one, which is not set.
    event, new_event => Event();

    /// The condition of that name, or a new one.
    condition, new_condition => Condition();

    /// The barrier of that name, or a new one for `parties`.
    barrier, new_barrier => Barrier(parties: usize);
}

impl Manager {
    /// A manager of this machine, in memory. Costs some hundred microseconds, and three mapped files.
    ///
    /// Its data lies in a directory in `/dev/shm`, of mode 0700, and goes with the last process that has a handle. A directory whose
    /// processes were all killed is removed by the next program that calls this, and by [`sweep`](crate::sweep).
    ///
    /// # Errors
    ///
    /// `OutOfMemory` if `/dev/shm` has no room.
    pub fn new() -> Result<Self> {
        Local::temporary().map(Self::local)
    }

    /// The manager of this machine whose data lies in the directory `path`, which is made if there is none.
    ///
    /// Any number of processes use it at a time, and it survives them all: a change is on the disk when its call returns, which costs a wait for
    /// the disk; [`batch`](Self::batch) makes many changes with one. Locks, queues and their like live in memory, and
    /// begin anew when no process has the manager any more. The
    /// file system must be a local one.
    ///
    /// # Errors
    ///
    /// `PermissionDenied`; `Corrupted` if what lies there is not a manager's.
    pub fn at(path: impl AsRef<Path>) -> Result<Self> {
        Local::at(path.as_ref()).map(Self::local)
    }

    /// The manager `default` on a Redis or Valkey server, for programs on several machines: see [`Builder::connect`] for addresses and errors.
    ///
    /// # Errors
    ///
    /// As [`Builder::connect`].
    #[cfg(feature = "redis")]
    pub fn connect(url: &str) -> Result<Self> {
        Self::builder().connect(url)
    }

    /// Chooses name and times of a manager on a server.
    #[cfg(feature = "redis")]
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Removes the manager from its server, with all its objects. Calls of its handles, here and elsewhere, find nothing any more, or are an
    /// error of kind `StateLost`. Nothing is done to a manager of one machine, whose data goes with its last process or its directory.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    #[cfg(feature = "redis")]
    pub fn shutdown(&self) -> Result<()> {
        match &self.engine {
            Engine::Local(_) => Ok(()),
            Engine::Remote(remote) => remote.shutdown(),
        }
    }

    fn local(local: std::sync::Arc<Local>) -> Self {
        Self {
            engine: Engine::Local(local),
        }
    }

    /// The value of that name, or a new one, which begins as `init`.
    ///
    /// # Errors
    ///
    /// `TypeMismatch` if the name stands for something else; `InvalidInput` for a name that is none; those of the [engine](crate::manager#errors).
    pub fn value<T: Travels>(&self, name: &str, init: T) -> Result<Value<T>> {
        Value::open(&self.engine, Some(name), &init)
    }

    /// As [`value`](Self::value), without a name.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn new_value<T: Travels>(&self, init: T) -> Result<Value<T>> {
        Value::open(&self.engine, None, &init)
    }

    /// The queue of that name, or a new one, in which 4096 messages can wait. On one machine that takes some 600 KiB of `/dev/shm`.
    ///
    /// # Errors
    ///
    /// `TypeMismatch` if the name stands for something else; `InvalidInput` for a name that is none; those of the [engine](crate::manager#errors).
    pub fn queue<T: Travels>(&self, name: &str) -> Result<Queue<T>> {
        self.queue_with_capacity(name, QUEUE_CAPACITY)
    }

    /// As [`queue`](Self::queue), without a name.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn new_queue<T: Travels>(&self) -> Result<Queue<T>> {
        Queue::open(&self.engine, None, QUEUE_CAPACITY)
    }

    /// The queue of that name, or a new one, in which `capacity` messages can wait.
    ///
    /// # Errors
    ///
    /// As [`queue`](Self::queue); `InvalidInput` for a capacity of 0.
    pub fn queue_with_capacity<T: Travels>(&self, name: &str, capacity: usize) -> Result<Queue<T>> {
        Queue::open(&self.engine, Some(name), capacity)
    }

    /// The semaphore of that name, or a new one with so many permits, of which there may be more later.
    ///
    /// # Errors
    ///
    /// `TypeMismatch` if the name stands for something else; `InvalidInput` for a name that is none; those of the [engine](crate::manager#errors).
    pub fn semaphore(&self, name: &str, permits: usize) -> Result<Semaphore> {
        Semaphore::open(&self.engine, Some(name), permits, false)
    }

    /// As [`semaphore`](Self::semaphore), without a name.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn new_semaphore(&self, permits: usize) -> Result<Semaphore> {
        Semaphore::open(&self.engine, None, permits, false)
    }

    /// The semaphore of that name, or a new one with so many permits, of which there are never more.
    ///
    /// # Errors
    ///
    /// As [`semaphore`](Self::semaphore).
    pub fn bounded_semaphore(&self, name: &str, permits: usize) -> Result<Semaphore> {
        Semaphore::open(&self.engine, Some(name), permits, true)
    }

    /// As [`bounded_semaphore`](Self::bounded_semaphore), without a name.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn new_bounded_semaphore(&self, permits: usize) -> Result<Semaphore> {
        Semaphore::open(&self.engine, None, permits, true)
    }

    /// Makes several changes one: others see all of them or none, and so it stays if this process dies. Nothing is changed if `change` returns an
    /// error or panics.
    ///
    /// `change` may be called again: on one machine when its data needed more room, on a server when another changed what it has read. What it does
    /// besides must be right to do twice. On one machine others wait with their changes meanwhile: keep it short. It uses the manager's objects by `tx` alone;
    /// their own calls are an error of kind `Deadlock` in it, on one machine.
    ///
    /// # Errors
    ///
    /// What `change` returns; those of the [engine](crate::manager#errors).
    ///
    /// # Panics
    ///
    /// If `change` does.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> multiproc::Result<()> {
    /// let manager = multiproc::Manager::new()?;
    /// let accounts = manager.dict::<String, i64>("accounts")?;
    /// accounts.extend([("ann".into(), 10), ("bob".into(), 0)])?;
    /// manager.batch(|tx| {
    ///     let mut accounts = tx.dict(&accounts)?;
    ///     accounts.update("ann", |n| Some(n.unwrap_or(0) - 5))?;
    ///     accounts.update("bob", |n| Some(n.unwrap_or(0) + 5))
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn batch<R>(&self, mut change: impl FnMut(&mut Batch<'_>) -> Result<R>) -> Result<R> {
        let engine = &self.engine;
        engine.batch(None, |ops| change(&mut Batch::new(ops, engine)))
    }

    /// The names of all objects, with what each is: `dict`, `list` and so on.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn names(&self) -> Result<Vec<(String, &'static str)>> {
        let names = self.engine.names()?.into_iter();
        Ok(names.map(|(name, kind)| (name, kind.word())).collect())
    }
}

impl Clone for Manager {
    fn clone(&self) -> Self {
        Self {
            engine: self.engine.clone(),
        }
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Manager({})", self.engine)
    }
}

/// Anywhere that its data can be reached from; the receiver has the same manager.
impl Serialize for Manager {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.engine.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Manager {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let engine = Deserialize::deserialize(deserializer)?;
        Ok(Self { engine })
    }
}
