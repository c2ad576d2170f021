//! Storms in which everything is mixed: every kind of call, of task, of setting and of end.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use multiproc::{Array, AsyncResult, ErrorKind, Pool, Result, Value};

use super::help::{
    Damage, Dice, Footprint, HANG, Progress, Rage, Stormed, alone, first_seed, lock, rage, read,
    rounds, take, watch,
};
use super::work::{Fruit, Order, What, add, change, is_right, work};

/// Tasks submitted one by one, items of a lazy call, items of a `map`.
const TASKS: usize = 120;
const ITEMS: usize = 160;
const MAPPED: usize = 60;

/// How a pool comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Joined,
    Terminated,
    Dropped,
    /// Terminated by another thread, under a call without end.
    TerminatedElsewhere,
}

/// The settings of one round.
#[derive(Debug)]
struct Plan {
    workers: usize,
    retries: u32,
    max_tasks: Option<usize>,
    limit: Option<Duration>,
    depth: usize,
    chunk: usize,
    ordered: bool,
    deadly: bool,
    /// Longest pause between two blows, in milliseconds. What takes long, as a panic does that looks for its backtrace, needs some calm.
    calm: u64,
    ending: Ending,
}

impl Plan {
    fn roll(dice: &mut Dice) -> Self {
        const ENDINGS: [Ending; 4] = [
            Ending::Joined,
            Ending::Terminated,
            Ending::Dropped,
            Ending::TerminatedElsewhere,
        ];
        Self {
            workers: 2 + dice.below(3) as usize,
            retries: dice.below(3) as u32,
            max_tasks: dice.one_in(2).then(|| 1 + dice.below(20) as usize),
            limit: dice.one_in(2).then_some(Duration::from_millis(250)),
            depth: [16, 64, 4096][dice.below(3) as usize],
            chunk: 1 + dice.below(12) as usize,
            ordered: dice.one_in(2),
            deadly: !dice.one_in(4),
            calm: [8, 12, 80][dice.below(3) as usize],
            ending: ENDINGS[dice.below(4) as usize],
        }
    }

    fn pool(&self) -> Pool {
        let mut builder = Pool::builder()
            .workers(self.workers)
            .retries(self.retries)
            .queue_depth(self.depth);
        if let Some(items) = self.max_tasks {
            builder = builder.max_tasks_per_worker(items);
        }
        if let Some(limit) = self.limit {
            builder = builder.task_timeout(limit);
        }
        builder.build().unwrap()
    }

    fn rage<'a>(&self, finished: &'a Value<u64>) -> Rage<'a> {
        Rage {
            finished,
            deadly: self.deadly,
            calm: self.calm,
        }
    }

    fn what(&self, dice: &mut Dice, endless: bool) -> What {
        match dice.below(60) {
            0 if self.deadly => What::Abort,
            1 if self.deadly => What::Exit,
            2 => What::Panic,
            3 | 4 if endless => What::Forever,
            5..=10 => What::Make,
            11..=18 => What::Bytes(dice.below(600_000) as usize),
            19..=24 => What::Pause(dice.below(6)),
            25..=38 => What::Add,
            _ => What::Spin(dice.below(3000)),
        }
    }
}

/// How things ended, each counted once.
#[derive(Default)]
struct Tally {
    delivered: u64,
    panicked: u64,
    lost: u64,
    cancelled: u64,
    overdue: u64,
    gone: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            delivered,
            panicked,
            lost,
            cancelled,
            overdue,
            gone,
        } = self;
        write!(
            f,
            "{delivered} delivered, {panicked} panicked, {lost} lost, {cancelled} cancelled, {overdue} overdue, {gone} with a handle gone"
        )
    }
}

/// What may become of a task.
#[derive(Clone, Copy)]
struct May {
    be_cancelled: bool,
    be_overdue: bool,
    /// Its results travel with others', whose worker may die before it has told of the handles.
    lose_handles: bool,
}

impl Tally {
    /// Counts `result` of a task that does `what`, if that may come of it.
    fn count(&mut self, result: &Result<Fruit>, what: Option<What>, may: May) {
        let error = match result {
            Ok(fruit) => {
                let what = what.unwrap();
                assert!(is_right(fruit, fruit.id, what), "{what:?} gave {fruit:?}");
                self.delivered += 1;
                return;
            }
            Err(error) => error,
        };
        let is = |kinds: &[What]| what.is_none_or(|what| kinds.contains(&what));
        match error.kind() {
            ErrorKind::TaskPanicked => {
                assert!(is(&[What::Panic]), "{what:?}: {error}");
                self.panicked += 1;
            }
            ErrorKind::WorkerDied => {
                let death = error.death().unwrap();
                let by_us = death.signal == Some(9);
                let by_itself = death.signal == Some(6) && is(&[What::Abort])
                    || death.exit_code == Some(3) && is(&[What::Exit]);
                assert!(by_us || by_itself, "{what:?}: {error}");
                self.lost += 1;
            }
            ErrorKind::Cancelled => {
                assert!(may.be_cancelled, "{what:?}: {error}");
                self.cancelled += 1;
            }
            ErrorKind::TaskTimeout => {
                assert!(may.be_overdue, "{what:?}: {error}");
                self.overdue += 1;
            }
            ErrorKind::Gone => {
                assert!(may.lose_handles && is(&[What::Make]), "{what:?}: {error}");
                self.gone += 1;
            }
            other => panic!("{what:?}: {other:?}: {error}"),
        }
    }

    fn add(&mut self, other: &Tally) {
        self.delivered += other.delivered;
        self.panicked += other.panicked;
        self.lost += other.lost;
        self.cancelled += other.cancelled;
        self.overdue += other.overdue;
        self.gone += other.gone;
    }
}

/// Raises a flag at the end of its life, however that comes.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Task {
    what: What,
    result: AsyncResult<Fruit>,
    /// Somebody asked for its end.
    asked: AtomicBool,
}

/// What was told of each task by its callback: nothing is its success.
type Told = Arc<Mutex<Vec<(usize, Option<ErrorKind>)>>>;

/// Tasks submitted so far.
type Tasks = Mutex<Vec<Arc<Task>>>;

struct Round {
    seed: u64,
    plan: Plan,
    orders: Vec<Order>,
    progress: Arc<Progress>,
    told: Told,
}

impl Round {
    fn new(seed: u64, dice: &mut Dice) -> Self {
        let plan = Plan::roll(dice);
        let all = TASKS + ITEMS + MAPPED;
        let (entered, sum) = (Array::new(all).unwrap(), Value::new(0).unwrap());
        let finished = Value::new(0).unwrap();
        let orders = (0..all).map(|id| Order {
            id,
            what: plan.what(dice, id < TASKS),
            entered: entered.clone(),
            sum: sum.clone(),
            finished: finished.clone(),
        });
        Self {
            seed,
            orders: orders.collect(),
            plan,
            progress: Arc::new(Progress::new()),
            told: Told::default(),
        }
    }

    fn submit(&self, pool: &Pool, tasks: &Tasks) {
        for order in &self.orders[..TASKS] {
            let result = pool.apply_async(work, order.clone()).unwrap();
            let (told, progress) = (Arc::clone(&self.told), Arc::clone(&self.progress));
            let id = order.id;
            result.on_done(move |result| {
                progress.settled();
                lock(&told).push((id, result.as_ref().err().map(multiproc::Error::kind)));
            });
            lock(tasks).push(Arc::new(Task {
                what: order.what,
                result,
                asked: AtomicBool::new(false),
            }));
        }
    }

    /// Cancels tasks at random until `over`, then those that do not end by themselves. An endless one sooner: they take all workers.
    fn cancel_some(&self, tasks: &Tasks, over: &AtomicBool, dice: &mut Dice) {
        let cancel = |task: &Arc<Task>| {
            task.asked.store(true, Ordering::Relaxed);
            task.result.cancel();
        };
        while !over.load(Ordering::Relaxed) {
            dice.pause(30);
            let mut some = lock(tasks).clone();
            if dice.one_in(3) {
                some.retain(|task| task.what == What::Forever && !task.result.ready());
            }
            if !some.is_empty() {
                cancel(&some[dice.below(some.len() as u64) as usize]);
            }
        }
        if self.plan.ending == Ending::Joined {
            let tasks = lock(tasks).clone();
            let endless = tasks.iter().filter(|task| task.what == What::Forever);
            endless
                .filter(|_| self.plan.limit.is_none() || dice.one_in(2))
                .for_each(cancel);
        }
    }

    /// Takes the items of a lazy call, all of them or some.
    fn take_items(&self, pool: &Pool, most: usize) -> Tally {
        let orders = &self.orders[TASKS..TASKS + ITEMS];
        let may = May {
            be_cancelled: false,
            be_overdue: self.plan.limit.is_some(),
            lose_handles: self.plan.chunk > 1,
        };
        let (mut tally, mut seen, mut nameless) = (Tally::default(), HashSet::new(), 0);
        let job = pool.chunk_size(self.plan.chunk);
        let items = orders.iter().cloned();
        let mut results: Box<dyn Iterator<Item = Result<Fruit>>> = if self.plan.ordered {
            Box::new(job.imap(work, items))
        } else {
            Box::new(job.imap_unordered(work, items))
        };
        for (index, result) in results.by_ref().take(most).enumerate() {
            self.progress.settled();
            let index = if self.plan.ordered {
                Some(index)
            } else {
                match &result {
                    Ok(fruit) => Some(fruit.id - TASKS),
                    Err(error) => error
                        .death()
                        .map(|death| death.item)
                        .or_else(|| error.panic().map(|panic| panic.index)),
                }
            };
            match index {
                Some(index) => assert!(seen.insert(index), "item {index} was told of twice"),
                None => nameless += 1,
            }
            tally.count(&result, index.map(|index| orders[index].what), may);
        }
        drop(results);
        assert!(seen.len() + nameless == ITEMS.min(most));
        tally
    }

    /// An endless call until somebody terminates the pool.
    fn outlast(&self, pool: &Pool) {
        let mut seen = HashSet::new();
        let count = |(x, finished): (u64, Value<u64>)| {
            add(&finished, 1);
            x
        };
        let items = (0..).map(|x| (x, self.orders[0].finished.clone()));
        for result in pool.imap_unordered(count, items) {
            self.progress.settled();
            match result {
                Ok(x) => assert!(seen.insert(x), "{x} came twice"),
                Err(error) => assert!(
                    matches!(
                        error.kind(),
                        ErrorKind::WorkerDied
                            | ErrorKind::TaskTimeout
                            | ErrorKind::Cancelled
                            | ErrorKind::Closed
                    ),
                    "{error}"
                ),
            }
        }
    }

    /// All that became of the tasks, each of which is over or soon will be.
    fn settle(&self, tasks: &[Arc<Task>]) -> Tally {
        let mut tally = Tally::default();
        let mut kinds = Vec::new();
        for (id, task) in tasks.iter().enumerate() {
            let result = task.result.get_timeout(HANG);
            let ended = self.plan.ending != Ending::Joined;
            let may = May {
                be_cancelled: ended || task.asked.load(Ordering::Relaxed),
                be_overdue: self.plan.limit.is_some(),
                lose_handles: false,
            };
            tally.count(&result, Some(task.what), may);
            kinds.push((id, result.err().map(|error| error.kind())));
        }
        // callbacks run on a thread of their own, which the end of the pool may not wait for
        let start = Instant::now();
        while lock(&self.told).len() < TASKS {
            assert!(start.elapsed() < HANG, "a callback did not come");
            std::thread::yield_now();
        }
        let mut told = lock(&self.told).clone();
        told.sort_by_key(|(id, _)| *id);
        assert_eq!(told, kinds, "callbacks were told otherwise");
        tally
    }

    /// Holds what came of the items against how often they were entered, and what was done to their workers.
    fn check(&self, tasks: &[Arc<Task>], tally: &Tally, damage: &Damage) {
        let mut entered = Vec::new();
        change(&self.orders[0].entered, |counts| entered = counts.to_vec());
        let most = self.plan.retries + 1;
        assert!(
            entered.iter().all(|count| *count <= most),
            "entered more than {most} times: {entered:?}"
        );
        for (id, task) in tasks.iter().enumerate() {
            let told = lock(&self.told).iter().find(|told| told.0 == id).copied();
            assert!(
                entered[id] > 0 || !matches!(told, Some((_, None))),
                "task {id}, {:?}, was never entered, and has a result",
                task.what
            );
        }
        let begun = |order: &&Order| entered[order.id] > 0;
        let own = self
            .orders
            .iter()
            .filter(|order| order.what.ends_its_worker());
        let own = own.filter(begun).count() as u64;
        assert!(
            tally.lost <= damage.kills + own,
            "{tally}, but {} kills and {own} that ended by themselves",
            damage.kills
        );
        let adders = self.orders.iter().filter(|order| order.what == What::Add);
        let most: u64 = adders.map(|order| u64::from(entered[order.id])).sum();
        assert!(add(&self.orders[0].sum, 0) <= most);
    }

    fn run(self, mut dice: Dice) -> (Tally, Damage, Duration) {
        let stormed: Stormed = RwLock::new(Some(self.plan.pool()));
        let (over, quiet, enough) = <(AtomicBool, AtomicBool, AtomicBool)>::default();
        let (mut killers_dice, mut cancellers_dice) = (dice.clone(), Dice::new(self.seed + 77));
        self.progress.settled();
        let tasks = Tasks::default();
        let (tally, damage) = std::thread::scope(|scope| {
            let ends = (AtEnd(&over), AtEnd(&quiet), AtEnd(&enough));
            let killer = scope.spawn(|| {
                rage(
                    &stormed,
                    &over,
                    &mut killers_dice,
                    &self.plan.rage(&self.orders[0].finished),
                )
            });
            scope.spawn(|| watch(&stormed, &self.progress, &quiet, self.seed));
            let guard = read(&stormed);
            let pool = guard.as_ref().unwrap();
            let canceller = scope.spawn(|| self.cancel_some(&tasks, &enough, &mut cancellers_dice));
            let (most, late) = match self.plan.ending {
                Ending::Joined => (ITEMS, false),
                _ => (dice.below(ITEMS as u64) as usize, dice.one_in(2)),
            };
            let mut tally = Tally::default();
            if late {
                tally.add(&self.take_items(pool, most));
            }
            self.submit(pool, &tasks);
            if !late {
                tally.add(&self.take_items(pool, most));
            }
            let mapped = self.orders[TASKS + ITEMS..].iter().cloned();
            let mapped = pool.map_async(work, mapped).unwrap();
            match self.plan.ending {
                Ending::Joined => {
                    drop(ends.2);
                    canceller.join().unwrap();
                    pool.close();
                    pool.join().unwrap();
                    drop(guard);
                }
                Ending::Terminated => {
                    pool.terminate();
                    pool.join().unwrap();
                    drop(guard);
                }
                Ending::TerminatedElsewhere => {
                    scope.spawn(|| {
                        dice.pause(60);
                        read(&stormed).as_ref().unwrap().terminate();
                    });
                    self.outlast(pool);
                    drop(guard);
                }
                Ending::Dropped => {
                    drop(guard);
                    drop(take(&stormed));
                }
            }
            // whatever it is, it is there by now
            if let Err(error) = mapped.get_timeout(HANG) {
                assert_ne!(error.kind(), ErrorKind::Timeout, "{error}");
            }
            tally.add(&self.settle(&lock(&tasks)));
            drop(ends.0);
            (tally, killer.join().unwrap())
        });
        self.check(&lock(&tasks), &tally, &damage);
        (tally, damage, self.progress.longest())
    }
}

#[test]
fn every_task_ends_once_whatever_is_asked_of_the_pool_and_done_to_its_workers() {
    let _alone = alone();
    let (mut tally, mut kills, mut stops, mut replaced) = (Tally::default(), 0, 0, 0);
    let (mut longest, mut before) = (Duration::ZERO, None);
    let (first, rounds) = (first_seed(), rounds(8));
    for seed in first..first + rounds {
        let mut dice = Dice::new(seed);
        let round = Round::new(seed, &mut dice);
        println!("seed {seed}: {:?}", round.plan);
        let workers = round.plan.workers;
        let (of_round, damage, gap) = round.run(dice);
        let others = damage.pids.len().saturating_sub(workers);
        println!(
            "  {} kills, {} stops, {others} replaced: {of_round}; longest gap {gap:?}",
            damage.kills, damage.stops
        );
        tally.add(&of_round);
        (kills, stops) = (kills + damage.kills, stops + damage.stops);
        (replaced, longest) = (replaced + others, longest.max(gap));
        // the first round starts what stays: the thread that watches workers, and its descriptors
        before.get_or_insert_with(Footprint::now).comes_back();
    }
    println!(
        "{rounds} rounds from seed {first}: {kills} kills, {stops} stops, {replaced} replaced: {tally}; longest gap without any task settled {longest:?}"
    );
}
