//! The life of an agent: it waits for a pool to be open, has its tasks done by workers of its own, and ends with the pool or when it is told.

use std::ffi::CStr;
use std::fs;
use std::process;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::pool::builder::Local;
use crate::pool::memory::lock;
use crate::pool::remote::desk::{Desk, LOOK};
use crate::pool::remote::hands::{Ending, Hands, LONG};
use crate::pool::remote::keys::{Keys, hex};
use crate::pool::remote::plan::{self, Place, Plan};
use crate::pool::remote::scripts::{self, KEPT};
use crate::server::command::Command;
use crate::server::group::{Group, Retry};
use crate::server::reply::Reply;
use crate::spawn::hook;
use crate::sys::clock::Wait;
use crate::sys::memory;
use crate::sys::process::processors;
use crate::sys::terminate::Termination;

/// How many workers an agent has, if not one for each processor.
const WORKERS: &str = "MULTIPROC_WORKERS";
/// How long an agent that ends tries to tell a server that does not answer.
const FAREWELL: Duration = Duration::from_secs(5);

/// Works for the pool at `url` until it is closed, or this process is told to end by SIGTERM.
pub(super) fn run(url: &str) -> Result<()> {
    hook::ensure_ready()?;
    let _agent = hook::become_agent()?;
    let place = Place::parse(url)?;
    let failed = |error| Error::os("an agent cannot listen to SIGTERM", error);
    let Some(termination) = Termination::listen().map_err(failed)? else {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "this process is an agent already; start another process for another pool",
        ));
    };
    let waiter = termination.waiter();
    let (told, terminated) = mpsc::channel::<()>();
    let listener = thread::Builder::new().name("multiproc-term".to_owned());
    let heard = waiter.clone();
    let listener = listener.spawn(move || {
        heard.wait();
        drop(told);
    });
    listener.map_err(|error| Error::os("cannot start a thread of an agent", error))?;
    let mut agent = Agent {
        name: place.name(),
        place,
        terminated,
    };
    let ended = agent.work();
    waiter.stir();
    drop(termination);
    ended
}

struct Agent {
    place: Place,
    name: String,
    /// Disconnects when this process is told to end.
    terminated: mpsc::Receiver<()>,
}

/// Whether an agent begins anew.
#[derive(PartialEq, Eq)]
enum Next {
    Again,
    End,
}

impl Agent {
    fn work(&mut self) -> Result<()> {
        let register = self.place.register(&self.name)?;
        while self.serve(&register)? == Next::Again {}
        Ok(())
    }

    /// Whether this process was told to end; waits for that as long as `time`.
    fn is_terminated(&self, time: Duration) -> bool {
        self.terminated.recv_timeout(time) == Err(mpsc::RecvTimeoutError::Disconnected)
    }

    /// One pool, from its beginning to its end.
    fn serve(&mut self, register: &Group) -> Result<Next> {
        let group = self.place.group(&self.name)?;
        let keys = Keys::of(&group);
        let Some((plan, turn)) = self.wait_open(&keys, register)? else {
            return Ok(Next::End);
        };
        let workers = workers()?;
        let core = Local {
            name: self.name.clone(),
            workers,
            slots: Hands::deepest(workers),
            retries: 0, // each task says its own
            workplace: plan.workplace.clone(),
            pins: Vec::new(),
            for_others: Some(self.place.address.secret().to_owned()),
        }
        .start()
        .inspect_err(|error| Self::refuse(register, &error.to_string()))?;
        let me = own_name()?;
        let desk = Arc::new(Desk::new(keys, self.name.clone(), me, plan, turn, core));
        let ended = self.sit(&desk);
        desk.core.close();
        desk.core.retire();
        ended
    }

    fn sit(&self, desk: &Arc<Desk>) -> Result<Next> {
        desk.live()?;
        let group = &desk.keys.group;
        let lease = desk.plan.lease;
        let weak = Arc::downgrade(desk);
        let _live = group.heart().beat(group, lease / 3, move |_| {
            if let Some(desk) = weak.upgrade()
                && let Err(error) = desk.live()
                && error.kind() == ErrorKind::StateLost
            {
                desk.recover(&error);
            }
        })?;
        let weak = Arc::downgrade(desk);
        let _look = group.heart().beat(group, lease / 2, move |_| {
            if let Some(desk) = weak.upgrade() {
                // the next look finds the same
                let _ = desk.look_for_lost();
            }
        })?;
        spawn("multiproc-take", desk, Desk::take)?;
        spawn("multiproc-hear", desk, hear)?;
        loop {
            let is_ahead = lock(&desk.hands).is_ahead(desk.workers);
            let limit = if is_ahead { LONG } else { LOOK };
            desk.core.wait(Wait::lasting(limit), || {
                !desk.arrivals.is_empty() || desk.stir.is_raised()
            });
            desk.stir.take();
            desk.settle(desk.finished());
            if self.is_terminated(Duration::ZERO) && !desk.is_ending() {
                desk.end(Ending::Terminated);
                desk.give_back();
            }
            if lock(&desk.hands).is_stalled(desk.workers) {
                desk.give_back(); // others may have nothing to do
            }
            let hands = lock(&desk.hands);
            let Some((since, ending)) = hands.ending.clone() else {
                continue;
            };
            let done = hands.taken_all && hands.tasks.is_empty();
            let silent = done && !hands.actions.is_empty() && since.elapsed() < FAREWELL.max(lease);
            drop(hands);
            if !done || silent {
                continue;
            }
            // who cannot say it is found missing when its lease ends
            let _ = desk.leave();
            return match ending {
                Ending::Closed | Ending::Terminated => Ok(Next::End),
                Ending::Changed => Ok(Next::Again),
                Ending::Failed(error) => Err(error),
            };
        }
    }

    /// Waits until the pool is open, and reads what it is. `None` if this process was told to end.
    fn wait_open(&self, keys: &Keys, register: &Group) -> Result<Option<(Plan, u64)>> {
        let mut last = "0".to_owned();
        while !self.is_terminated(Duration::ZERO) {
            let looked = self.look(keys, register, &mut last);
            match looked {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(error) => match error.kind() {
                    ErrorKind::StateLost => {
                        keys.group.rejoin()?;
                        register.rejoin()?;
                    }
                    ErrorKind::Disconnected => {}
                    _ => return Err(error),
                },
            }
        }
        Ok(None)
    }

    fn look(
        &self,
        keys: &Keys,
        register: &Group,
        last: &mut String,
    ) -> Result<Option<(Plan, u64)>> {
        let read = Command::new("HMGET")
            .key(&keys.plan)
            .args(["state", "plan", "build", "turn"]);
        let [state, plan, build, turn] = keys.group.call(read, Retry::Safe)?.parts()?;
        let own = plan::build()?;
        if state.maybe_bytes()?.as_deref() == Some(b"open") {
            if build.text()? != own {
                return Err(self.mismatch(register, &own));
            }
            let plan = Plan::from_bytes(&plan.bytes()?)?;
            return Ok(Some((plan, turn.count()? as u64)));
        }
        let call = scripts::BUILDS.call(&[register.key("builds")]);
        let builds = register.run(&scripts::BUILDS, call, Retry::Safe)?.array()?;
        let builds: Vec<String> = builds.into_iter().map(Reply::text).collect::<Result<_>>()?;
        if !builds.is_empty() && !builds.contains(&own) {
            return Err(self.mismatch(register, &own));
        }
        if let Some((id, _)) = keys.read(&keys.words, last, LOOK)?.pop() {
            *last = id;
        }
        Ok(None)
    }

    fn mismatch(&self, register: &Group, own: &str) -> Error {
        let message = format!(
            "cannot work for pool \"{}\" at {}: it is of another build of the program than this one, {own}; start the same file on all machines",
            self.name, self.place.address
        );
        Self::refuse(register, &format!("is of another build, {own}"));
        Error::new(ErrorKind::WorkerMismatch, message)
    }

    /// Leaves word why this agent does not work, for parents who wait in vain.
    fn refuse(register: &Group, why: &str) {
        let key = register.key("rejects");
        let who = format!("{}:{}", host(), process::id());
        let commands = vec![
            Command::new("HSET").key(&key).arg(who).arg(why),
            Command::new("PEXPIRE").key(&key).int(KEPT / 6),
        ];
        // it is only to explain
        let _ = register.pipeline(commands, Retry::Safe);
    }
}

fn spawn(name: &str, desk: &Arc<Desk>, run: fn(&Desk)) -> Result<()> {
    let desk = Arc::clone(desk);
    let thread = thread::Builder::new().name(name.to_owned());
    let started = thread.spawn(move || run(&desk));
    started
        .map(drop)
        .map_err(|error| Error::os("cannot start a thread of an agent", error))
}

/// The thread that hears what is said to all agents.
fn hear(desk: &Desk) {
    let mut last = "0".to_owned();
    while !desk.is_ending() {
        match desk.keys.read(&desk.keys.words, &last, LOOK) {
            Ok(words) => {
                if let Some((id, _)) = words.last() {
                    last.clone_from(id);
                }
                // one look is enough for many words to look
                let (looks, others): (Vec<_>, Vec<_>) =
                    words.into_iter().partition(|(_, word)| word == b"look");
                for (_, word) in others.iter().chain(looks.last()) {
                    desk.hear(word);
                }
            }
            Err(error) => desk.recover(&error),
        }
    }
}

fn workers() -> Result<usize> {
    match std::env::var(WORKERS) {
        Ok(text) => text.parse().ok().filter(|count| *count > 0).ok_or_else(|| {
            let message =
                format!("{WORKERS} is {text:?}, but must be a number of processes, 1 at least");
            Error::new(ErrorKind::InvalidInput, message)
        }),
        Err(_) => Ok(processors()),
    }
}

fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "unknown".to_owned(),
        name => name.to_owned(),
    }
}

fn own_name() -> Result<String> {
    let random = memory::random().map_err(|error| Error::os("cannot name an agent", error))?;
    let random = u64::from_le_bytes(random[..8].try_into().unwrap_or_default());
    Ok(format!(
        "{}:{}:{}",
        host(),
        process::id(),
        &hex(random)[8..]
    ))
}

/// Becomes an agent before `main`; never returns.
pub(crate) fn take_over(address: &CStr) -> ! {
    let ended = match address.to_str() {
        Ok(url) => run(url),
        Err(_) => Err(Error::new(
            ErrorKind::InvalidInput,
            "the address of a server is no text",
        )),
    };
    if let Err(error) = &ended {
        eprintln!("multiproc: the agent ends: {error}");
    }
    #[expect(
        clippy::exit,
        reason = "this is where the process ends; exit handlers of the program run"
    )]
    process::exit(i32::from(ended.is_err()))
}
