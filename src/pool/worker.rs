//! The loop of a worker: claim, run, publish, sleep.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::CUT_OFF;
use crate::handle::Pin;
#[cfg(feature = "manager")]
use crate::handle::stores;
use crate::handle::travel::FromParent;
use crate::pool::board::{Board, KEEP_WARM};
use crate::pool::call::Call;
use crate::pool::message::{Said, Setup, Told};
use crate::pool::wire::Status;
use crate::primitive::spin_loop;
use crate::ring::claim::{Claimed, Claimer};
use crate::ring::record::Writer;
#[cfg(feature = "redis")]
use crate::server::url::Address;
use crate::spawn::function::{Reference, Resolved};
use crate::spawn::panics::{catch_panics_of_this_thread, decode_panic, encode_panic_for_message};
use crate::spawn::worker::Arrival;
use crate::sync::bell::Ringer;
use crate::sync::current::Current;
use crate::sync::park;
use crate::sync::words::{Bits, Switch};
use crate::sys::socket::MESSAGE_MAX;
use crate::sys::{entry, process};

/// Polls before a worker sleeps, where there is a processor for everybody: about as long as a wake across processors takes.
const SPINS: u32 = 4_000;
/// The same where workers take processors from each other or from the parent.
const SPINS_CROWDED: u32 = 200;
/// A worker does not poll on the processor that its parent waits on: the parent could not go on. But who is called again within so short a
/// sleep, so many times in a row, polls there for once: of two that are busy on one processor the system moves one to another, if that has
/// nothing to do.
const SHORT_NAP: Duration = Duration::from_micros(100);
const SHORT_NAPS: u32 = 64;
/// First sleep. Who is not called in that time gives the memory back that it keeps for the next results.
const NAP: Duration = Duration::from_secs(1);
/// How long a worker sleeps before it looks again whether the parent has read a record.
const FULL_NAP: Duration = Duration::from_millis(2);
/// Longest sleep, should a wake ever be lost.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// What a worker of a pool does; the entry function that the parent names.
pub(super) fn serve(arrival: Arrival) {
    let Arrival {
        control,
        bytes,
        descriptors,
    } = arrival;
    control.announce_overflow_of_this_thread(Said::OVERFLOW);
    let refused = |why: &str| control.send(&Said::InitRefused(why.to_owned()).to_bytes(), &[]);
    let Some(setup) = Setup::from_bytes(&bytes) else {
        return refused("its setup makes no sense");
    };
    #[cfg(feature = "redis")]
    if let Some(address) = &setup.for_others {
        entry::let_terminations_pass();
        // from now on handles that come without the password find it
        let _ = Address::parse(address);
    }
    let current = Arc::new(Current::new(setup.item_limit));
    let running = Arc::clone(&current);
    let parent = FromParent::new(&control, true, move |message| {
        if let Some(Told::End(slot, generation)) = Told::from_bytes(&message.bytes) {
            running.end_task((slot, generation));
        }
    });
    let (running, last) = (Arc::clone(&current), Arc::clone(&control));
    catch_panics_of_this_thread(false, move |panic| {
        let (slot, generation) = running.task();
        let panic = encode_panic_for_message(panic.clone());
        last.send(&Said::LastPanic(slot, generation, panic).to_bytes(), &[]);
    });
    let Some(fd) = descriptors.into_iter().next() else {
        return refused("no shared memory came with its setup");
    };
    let board = match Board::open(fd, setup.shape) {
        Ok(board) => Arc::new(board),
        Err(error) => return refused(&error.to_string()),
    };
    let mut worker = match Worker::new(&board, &setup, &parent, &current) {
        Ok(worker) => worker,
        Err(why) => return refused(&why),
    };
    std::thread::sleep(setup.pause);
    match worker.initialise(&setup) {
        Ok(()) => control.send(&Said::Ready.to_bytes(), &[]),
        Err(said) => return control.send(&said.to_bytes(), &[]),
    }
    if setup.item_limit.is_some() {
        let (current, last) = (Arc::clone(&current), Arc::clone(&control));
        control
            .set_alarm(move || current.check_time(|_| last.send(&Said::Overdue.to_bytes(), &[])));
    }
    worker.work();
}

struct Worker {
    board: Arc<Board>,
    me: u16,
    claimer: Claimer,
    records: Writer,
    call: Call,
    current: Arc<Current>,
    /// The function of the last task: most tasks name the same.
    function: Option<(Reference, Resolved<Call>)>,
    /// What handles in published results stand for, until the parent has read so many records and holds it itself.
    on_their_way: VecDeque<(u64, Vec<Pin>)>,
    /// Items until it ends.
    left: Option<u64>,
    spins: u32,
    /// Sleeps in a row that were short.
    short_naps: u32,
    ringer: Ringer,
}

impl Worker {
    fn new(
        board: &Arc<Board>,
        setup: &Setup,
        parent: &Arc<FromParent>,
        current: &Arc<Current>,
    ) -> Result<Self, String> {
        let me = setup.worker as usize;
        if me >= board.workers() {
            return Err("its number is larger than the pool".to_owned());
        }
        Ok(Self {
            me: me as u16,
            claimer: Claimer::new(board.tasks(), me as u16),
            records: Writer::new(setup.record),
            call: Call::new(board, me, parent, current, setup.for_others.is_some())
                .map_err(|error| error.to_string())?,
            current: Arc::clone(current),
            function: None,
            on_their_way: VecDeque::new(),
            left: setup.max_tasks,
            spins: if setup.may_spin { SPINS } else { SPINS_CROWDED },
            short_naps: 0,
            ringer: Ringer::default(),
            board: Arc::clone(board),
        })
    }

    fn initialise(&mut self, setup: &Setup) -> Result<(), Said> {
        let Some(init) = setup.init else {
            return Ok(());
        };
        let function = init
            .function
            .resolve::<Call>()
            .map_err(|why| Said::InitRefused(why.to_owned()))?;
        self.call.begin_task(init.task());
        function.call(&mut self.call);
        match self.call.output.take_refusal() {
            None => Ok(()),
            Some((Status::Panicked, bytes)) => Err(Said::InitPanicked(encode_panic_for_message(
                decode_panic(&bytes, 0, 0),
            ))),
            Some((_, bytes)) => {
                let mut why = String::from_utf8_lossy(&bytes).into_owned();
                why.truncate(why.floor_char_boundary(MESSAGE_MAX / 2));
                Err(Said::InitRefused(why))
            }
        }
    }

    fn work(&mut self) {
        let board = Arc::clone(&self.board);
        let line = board.line(usize::from(self.me));
        let (mut polls, mut rested) = (None, false);
        line.clear();
        while self.left != Some(0) {
            // looked at before the claim: whatever was published earlier is found, in any shard, before this worker ends
            let stops = Switch(board.stop()).is_on();
            if stops {
                self.claimer.look_everywhere();
            }
            if let Some(claimed) = self.claimer.claim(board.tasks()) {
                self.run(claimed);
                line.clear();
                (polls, rested) = (None, false);
                continue;
            }
            if stops {
                break;
            }
            match &mut polls {
                Some(0) => {}
                Some(left) => {
                    *left -= 1;
                    spin_loop();
                    continue;
                }
                None => {
                    board.bell().ring_for_the_rest(&mut self.ringer);
                    polls = Some(self.patience());
                    continue;
                }
            }
            // a task has closed what is not its own: another worker is better off, and nothing is lost by it now
            if !board.has_its_file() {
                break;
            }
            self.call.rest(if rested { 0 } else { KEEP_WARM });
            #[cfg(feature = "manager")]
            if rested {
                stores::let_go();
            }
            self.let_go();
            let has_news = || self.claimer.has_news(board.tasks()) || Switch(board.stop()).is_on();
            let limit = if rested { SLEEP_MAX } else { NAP };
            let start = Instant::now();
            park::park(
                board.idle(),
                usize::from(self.me),
                &line.park,
                Some(limit),
                has_news,
            );
            let slept = start.elapsed();
            self.short_naps = if slept < SHORT_NAP {
                self.short_naps.saturating_add(1)
            } else {
                0
            };
            // after a sleep without a task it goes straight back to sleep; one that was woken to give memory back keeps what is warm
            (polls, rested) = (Some(1), slept >= NAP);
        }
        board.bell().ring_for_the_rest(&mut self.ringer);
        while !self.on_their_way.is_empty() {
            let read = || {
                self.on_their_way
                    .front()
                    .is_none_or(|(until, _)| line.records_read() >= *until)
            };
            park::park(
                board.idle(),
                usize::from(self.me),
                &line.park,
                Some(SLEEP_MAX),
                read,
            );
            self.let_go();
        }
        if !board.has_its_file() {
            entry::quit(CUT_OFF); // nothing that holds descriptors can be dropped any more
        }
    }

    /// How often to poll before a sleep, now that there is nothing to do.
    fn patience(&mut self) -> u32 {
        let core = process::core();
        self.board.line(usize::from(self.me)).sleep_on(core);
        if self.board.bell().is_on(core) {
            if self.short_naps < SHORT_NAPS {
                return 0;
            }
            self.short_naps = 0;
        }
        self.spins
    }

    /// Lets go of what the parent holds by now.
    fn let_go(&mut self) {
        let read = self.board.line(usize::from(self.me)).records_read();
        while self
            .on_their_way
            .pop_front_if(|(until, _)| *until <= read)
            .is_some()
        {}
    }

    fn run(&mut self, claimed: Claimed) {
        let board = Arc::clone(&self.board);
        let slot = &board.tasks().slots[claimed.slot as usize];
        self.call.begin(slot);
        self.current.begin((claimed.slot, claimed.generation));
        let reference = self.call.task.function;
        if !matches!(&self.function, Some((known, _)) if *known == reference) {
            match reference.resolve::<Call>() {
                Ok(resolved) => self.function = Some((reference, resolved)),
                Err(why) => self
                    .call
                    .refuse(Status::Refused, &format!("cannot run the function: {why}")),
            }
        }
        if let Some((known, function)) = &self.function
            && *known == reference
        {
            function.call(&mut self.call);
        }
        if let Some(left) = &mut self.left {
            let items = self.call.task.items - self.call.task.skip.min(self.call.task.items);
            *left = left.saturating_sub(u64::from(items));
        }
        self.current.finish();
        self.publish(&board, claimed);
        board.bell().ring(&mut self.ringer);
    }

    fn publish(&mut self, board: &Board, claimed: Claimed) {
        let me = usize::from(self.me);
        let (records, line) = (board.records(me), board.line(me));
        let pins = std::mem::take(&mut self.call.output.pins);
        self.let_go();
        // who reads a record tells us; who reads a slot does not, so a result with handles waits for a record
        while !pins.is_empty() && self.records.next(records, line.read()).is_err() {
            park::nap(&line.park, FULL_NAP);
        }
        let (outcome, inline) = self.call.output.take(&pins);
        match self.records.next(records, line.read()) {
            Ok(record) => {
                outcome.write(record, inline);
                self.records
                    .publish(records, claimed.slot, claimed.generation);
            }
            Err(_) => {
                // all records are unread: the slot itself has room, and is this worker's until it says DONE
                let slot = &board.tasks().slots[claimed.slot as usize];
                outcome.write(slot, inline);
                slot.finish(claimed.generation, self.me);
                Bits(board.overflow()).set(me);
            }
        }
        if !pins.is_empty() {
            self.on_their_way.push_back((self.records.tail(), pins));
        }
    }
}
