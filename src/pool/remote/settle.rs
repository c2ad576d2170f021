//! What an agent says to the server: what became of its tasks, and of those that others have left behind.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::pool::batch::{End, Part};
use crate::pool::memory::lock;
use crate::pool::remote::desk::Desk;
use crate::pool::remote::frame::{self, HEAD, Head, Kind, Task, encode_parts};
use crate::pool::remote::hands::{Action, What};
use crate::pool::remote::keys::{INLINE_MAX, PAYLOAD_MAX, hex};
use crate::pool::remote::scripts::{self, KEPT};
use crate::pool::result::Job;
use crate::server::command::Command;
use crate::server::group::Retry;
use crate::server::reply::Reply;

/// Lost tasks that are looked after in one step.
const LOST: i64 = 100;

/// Items of a lost chunk that have an error of their own each.
const LOST_EACH: usize = 1024;

impl Desk {
    /// What is to be said now: of tasks that are over, and what others have decided.
    pub(super) fn finished(&self) -> Vec<Action> {
        let mut over = Vec::new();
        let hands = lock(&self.hands);
        while let Some(number) = self.arrivals.next() {
            let hand = hands.tasks.get(&number);
            over.extend(hand.map(|hand| {
                (
                    number,
                    hand.head,
                    Arc::clone(&hand.job),
                    hand.taken,
                    hand.returned || hand.unwanted,
                )
            }));
        }
        drop(hands);
        let answers: Vec<(u64, Option<Vec<u8>>)> = over
            .iter()
            .map(|(number, head, job, _, withdrawn)| {
                let withdrawn = *withdrawn && job.with_parts(is_cancelled);
                (*number, (!withdrawn).then(|| Self::answer(head, job)))
            })
            .collect();
        let times: Vec<Duration> = over.iter().map(|(.., taken, _)| taken.elapsed()).collect();
        // until here the same task, submitted again, is found in hand; from here on its result is
        let mut hands = lock(&self.hands);
        let mut actions = std::mem::take(&mut hands.actions);
        for (number, answer) in answers {
            actions.extend(hands.take(number, answer));
        }
        hands.learn(&times, self.workers);
        drop(hands);
        self.room.notify_all();
        actions
    }

    /// What is said of a task in place of its results, where a worker gave some.
    fn answer(head: &Head, job: &Job) -> Vec<u8> {
        let parts = job.with_parts(encode_parts);
        let head = head.answer(Kind::Result, false);
        if parts.len() <= PAYLOAD_MAX {
            return head.with(&[&parts]);
        }
        let message = format!(
            "the results of a chunk have {} bytes, and at most {PAYLOAD_MAX} can be sent; use smaller chunks",
            parts.len()
        );
        let error = Error::new(ErrorKind::TooLarge, message);
        let first = job.with_parts(|parts| parts.first().map_or(0, |part| part.first));
        let end = End::Failed(error);
        let part = Part {
            first,
            items: head.items as usize,
            end,
        };
        head.with(&[&encode_parts(&[&part])])
    }

    /// A frame as it goes; what is large goes ahead.
    fn small(&self, frame: &Arc<[u8]>) -> Result<Arc<[u8]>> {
        let large = frame.len() > HEAD + INLINE_MAX;
        match Head::read(frame).filter(|(head, _)| large && head.kind == Kind::Result) {
            None => Ok(Arc::clone(frame)),
            Some((head, parts)) => {
                let name = format!("d.{}.{}", self.me, self.blobs.next());
                let call = scripts::PUT
                    .call(&[self.keys.group.key(&name)])
                    .arg(parts)
                    .int(KEPT);
                self.keys.group.run(&scripts::PUT, call, Retry::Safe)?;
                Ok(head
                    .answer(Kind::Result, true)
                    .with(&[name.as_bytes()])
                    .into())
            }
        }
    }

    /// Tells the server what became of tasks; on an error it is to be told again.
    pub(super) fn settle(&self, actions: Vec<Action>) {
        if actions.is_empty() {
            return;
        }
        match self.say(&actions) {
            Ok(ended) => lock(&self.hands).settled(&actions, &ended),
            Err(error) => {
                let mut hands = lock(&self.hands);
                match error.kind() {
                    ErrorKind::StateLost => hands.settled(&actions, &[]),
                    _ => hands.actions.extend(actions),
                }
                drop(hands);
                self.recover(&error);
                self.stir.raise();
            }
        }
    }

    /// See [`scripts::SETTLE`].
    fn say(&self, actions: &[Action]) -> Result<Vec<bool>> {
        let keys = &self.keys;
        let mut names = vec![keys.tasks.clone(), keys.parents.clone()];
        let mut place = |name: String| {
            let known = names.iter().position(|known| *known == name);
            let at = known.unwrap_or_else(|| {
                names.push(name);
                names.len() - 1
            });
            at.cast_signed() as i64 + 1
        };
        let places = actions.iter().map(|action| {
            let results = place(keys.results(action.parent));
            let blob = action
                .blob
                .as_ref()
                .map_or(0, |name| place(keys.group.key(name)));
            (results, blob)
        });
        let places: Vec<(i64, i64)> = places.collect();
        let mut call = scripts::SETTLE.call(&names).int(KEPT);
        for (action, (results, blob)) in actions.iter().zip(places) {
            let what = match action.what {
                What::Result => "r",
                What::Queue => "q",
                What::Drop => "d",
            };
            call = call
                .arg(&action.id)
                .arg(what)
                .arg(hex(action.parent))
                .arg(self.small(&action.frame)?)
                .int(results)
                .int(blob);
        }
        let reply = keys.group.run(&scripts::SETTLE, call, Retry::Safe)?;
        reply.array()?.into_iter().map(Reply::flag).collect()
    }

    /// Looks for what agents left behind that gave no sign of life any more, and parents.
    pub(super) fn look_for_lost(&self) -> Result<()> {
        self.missing.raise();
        if Instant::now() < *lock(&self.judges_from) {
            return Ok(());
        }
        let keys = &self.keys;
        let call = scripts::LOST
            .call(&[&keys.tasks, &keys.beats, &keys.parents, &keys.last])
            .int(LOST);
        let [tasks, parents] = keys.group.run(&scripts::LOST, call, Retry::Safe)?.parts()?;
        let mut tasks = tasks.array()?.into_iter();
        while let (Some(id), Some(bytes), Some(agent)) = (tasks.next(), tasks.next(), tasks.next())
        {
            let (id, bytes, agent) = (id.text()?, bytes.bytes()?, agent.text()?);
            let Some((head, task)) =
                Head::read(&bytes).and_then(|(head, rest)| Some((head, Task::read(rest)?)))
            else {
                continue;
            };
            let blob = head
                .blob
                .then(|| String::from_utf8_lossy(task.arguments).into_owned());
            let mut hands = lock(&self.hands);
            if hands.has(&id) {
                continue; // it is being settled
            }
            if u32::from(head.attempt) < task.retries {
                hands.act(id, What::Queue, head.parent, frame::again(&bytes), blob);
            } else {
                let result = self.lost(&head, &task, &agent);
                hands.act(id, What::Result, head.parent, result, blob);
            }
        }
        for parent in parents.array()? {
            let parent = u64::from_str_radix(&parent.text()?, 16).unwrap_or(0);
            keys.group.call(
                Command::new("UNLINK").key(keys.results(parent)),
                Retry::Safe,
            )?;
        }
        self.rouse();
        Ok(())
    }

    fn lost(&self, head: &Head, task: &Task<'_>, agent: &str) -> Vec<u8> {
        let (first, items) = (task.first as usize, head.items as usize);
        // many items of a chunk share one error, which names the first
        let each = if items <= LOST_EACH { 1 } else { items };
        let parts: Vec<Part> = (first..first + items)
            .step_by(each)
            .map(|item| Part {
                first: item,
                items: each,
                end: End::Failed(Error::agent_lost(&self.name, agent, item)),
            })
            .collect();
        let parts: Vec<&Part> = parts.iter().collect();
        head.answer(Kind::Result, false)
            .with(&[&encode_parts(&parts)])
    }
}

/// Whether nothing of a job was begun, or all of it was ended.
fn is_cancelled(parts: &[&Part]) -> bool {
    let cancelled = |part: &&Part| matches!(&part.end, End::Failed(error) if error.kind() == ErrorKind::Cancelled);
    !parts.is_empty() && parts.iter().all(cancelled)
}
