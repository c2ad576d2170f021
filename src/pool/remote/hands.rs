//! The tasks that an agent has taken and not settled, and what is to be said of those that are over.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::pool::remote::frame::{Head, with_parent};
use crate::pool::result::Job;

/// Tasks that nobody wants any more, and that may still come: as many are remembered.
const UNWANTED_MAX: usize = 1 << 16;
/// Tasks that an agent takes for each of its workers at most, where they are short.
const DEEPEST: usize = 64;
/// A task that is back so soon is short.
const SHORT: Duration = Duration::from_millis(5);
/// One that takes so long is not, and others need not wait behind it here.
pub(super) const LONG: Duration = Duration::from_millis(100);

/// Who has a task done: the parent's random number, whichever of its names it uses, and its number of the task.
pub(super) type Chunk = (u64, u64);

/// What stays of a parent's name when it begins anew.
fn origin(parent: u64) -> u64 {
    parent & !0xffff
}

pub(super) fn chunk_of(head: &Head) -> Chunk {
    (origin(head.parent), head.chunk)
}

/// One task.
pub(super) struct Hand {
    /// Its entry in the stream.
    pub(super) id: String,
    pub(super) head: Head,
    pub(super) frame: Vec<u8>,
    /// The blob of its arguments.
    pub(super) blob: Option<String>,
    pub(super) job: Arc<Job>,
    pub(super) taken: Instant,
    /// Nobody wants its result.
    pub(super) unwanted: bool,
    /// It goes back to the stream if it was not begun.
    pub(super) returned: bool,
}

/// What becomes of an entry of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// The frame is its result.
    Result,
    /// The frame is queued in its stead.
    Queue,
    Drop,
}

#[derive(Debug)]
pub(super) struct Action {
    pub(super) id: String,
    pub(super) what: What,
    pub(super) parent: u64,
    pub(super) frame: Arc<[u8]>,
    pub(super) blob: Option<String>,
    /// The chunk, if the frame is what this agent's workers made of it.
    pub(super) own: Option<Chunk>,
}

/// Why an agent takes no more.
#[derive(Clone, Debug)]
pub(super) enum Ending {
    /// The pool was closed.
    Closed,
    /// The pool has other settings now.
    Changed,
    /// This process was told to end.
    Terminated,
    Failed(Error),
}

#[derive(Default)]
pub(super) struct Hands {
    next: u64,
    pub(super) tasks: HashMap<u64, Hand>,
    by_chunk: HashMap<Chunk, u64>,
    /// Entries of the stream that are in hand, or about to be settled.
    ids: HashSet<String>,
    /// While the server is asked what is here: entries that were settled since. Its answer may name them.
    settled: Option<HashSet<String>>,
    pub(super) actions: Vec<Action>,
    unwanted: (VecDeque<Chunk>, HashSet<Chunk>),
    /// Parents that live, as of the last look.
    pub(super) live: HashSet<u64>,
    /// Results until the server has them, and a while longer where it did not want them: the parent may ask for them again.
    kept: HashMap<Chunk, (Instant, Arc<[u8]>)>,
    /// How many tasks may be in hand.
    depth: usize,
    /// When the last one was over.
    moved: Option<Instant>,
    pub(super) ending: Option<(Instant, Ending)>,
    /// Nothing is taken any more.
    pub(super) taken_all: bool,
}

/// What to do with an entry that was taken.
pub(super) enum Fate {
    /// It is here already, or settled without more ado.
    Known,
    /// It is to be done.
    New,
}

impl Hands {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            depth: workers + 1,
            ..Self::default()
        }
    }

    /// The most tasks there can be in hand.
    pub(super) fn deepest(workers: usize) -> usize {
        workers * DEEPEST
    }

    /// How many more may be taken.
    pub(super) fn free(&self) -> usize {
        self.depth.saturating_sub(self.tasks.len())
    }

    /// An entry is to be settled, which is not that of a task in hand.
    pub(super) fn act(
        &mut self,
        id: String,
        what: What,
        parent: u64,
        frame: impl Into<Arc<[u8]>>,
        blob: Option<String>,
    ) {
        self.ids.insert(id.clone());
        self.actions.push(Action {
            id,
            what,
            parent,
            frame: frame.into(),
            blob,
            own: None,
        });
    }

    /// Whether the entry is in hand or being settled.
    pub(super) fn has(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// The server is to be asked what is here.
    pub(super) fn ask(&mut self) {
        self.settled = Some(HashSet::new());
    }

    /// Of what it answers, those that are not.
    pub(super) fn not_here(&mut self, mut tasks: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
        let settled = self.settled.take().unwrap_or_default();
        tasks.retain(|(id, _)| !self.has(id) && !settled.contains(id));
        tasks
    }

    /// Looks at an entry that was taken; one that is to be done is in hand from now on as far as `has` is concerned.
    pub(super) fn look(
        &mut self,
        id: &str,
        head: &Head,
        frame: &[u8],
        blob: Option<&String>,
    ) -> Fate {
        if !self.ids.insert(id.to_owned()) {
            return Fate::Known;
        }
        let chunk = chunk_of(head);
        if self.ending.is_some() {
            self.act(
                id.to_owned(),
                What::Queue,
                head.parent,
                frame,
                blob.cloned(),
            );
        } else if self.unwanted.1.contains(&chunk) || !self.live.contains(&head.parent) {
            self.act(
                id.to_owned(),
                What::Drop,
                head.parent,
                Vec::new(),
                blob.cloned(),
            );
        } else if let Some((_, result)) = self.kept.get(&chunk) {
            let result = with_parent(result.to_vec(), head.parent);
            self.act(
                id.to_owned(),
                What::Result,
                head.parent,
                result,
                blob.cloned(),
            );
        } else if let Some(hand) = self
            .by_chunk
            .get(&chunk)
            .and_then(|number| self.tasks.get_mut(number))
            .filter(|hand| !hand.unwanted)
        {
            // submitted again after the server lost the first: it is one task all the same
            self.ids.remove(&hand.id);
            (hand.id, hand.head, hand.blob) = (id.to_owned(), *head, blob.cloned());
            hand.frame = frame.to_vec();
        } else {
            return Fate::New;
        }
        Fate::Known
    }

    /// A number for a task to be done.
    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn put(&mut self, number: u64, hand: Hand) {
        self.by_chunk.insert(chunk_of(&hand.head), number);
        self.tasks.insert(number, hand);
    }

    /// A task that is over, with `answer` unless it was withdrawn, becomes what is to be said of it.
    pub(super) fn take(&mut self, number: u64, answer: Option<Vec<u8>>) -> Option<Action> {
        let Hand {
            id,
            head,
            frame,
            blob,
            unwanted,
            ..
        } = self.tasks.remove(&number)?;
        let chunk = chunk_of(&head);
        // one that came again when nobody wanted this has its own number
        if self.by_chunk.get(&chunk) == Some(&number) {
            self.by_chunk.remove(&chunk);
        }
        let own = answer.is_some().then_some(chunk);
        let (what, frame) = match answer {
            Some(answer) => (What::Result, with_parent(answer, head.parent)),
            None if unwanted => (What::Drop, Vec::new()),
            None => (What::Queue, frame),
        };
        let frame: Arc<[u8]> = frame.into();
        if own.is_some() {
            self.kept
                .insert(chunk, (Instant::now(), Arc::clone(&frame)));
        }
        Some(Action {
            id,
            what,
            parent: head.parent,
            frame,
            blob,
            own,
        })
    }

    /// These entries are settled, as far as `ended` says by this agent. Where it was not, the server may have lost them, or others have
    /// them: a result of ours is kept in case somebody asks for it again.
    pub(super) fn settled(&mut self, actions: &[Action], ended: &[bool]) {
        let ended = ended.iter().chain(std::iter::repeat(&false));
        for (action, ended) in actions.iter().zip(ended) {
            self.ids.remove(&action.id);
            if let Some(settled) = &mut self.settled {
                settled.insert(action.id.clone());
            }
            if let Some(chunk) = action.own.filter(|_| *ended) {
                self.kept.remove(&chunk);
            }
        }
    }

    /// Forgets results that nobody has asked for again since `then`.
    pub(super) fn keep_since(&mut self, then: Duration) {
        self.kept.retain(|_, (since, _)| since.elapsed() < then);
    }

    /// Nobody wants these chunks of `parent`. Returns the jobs of those that are in hand.
    pub(super) fn unwant(
        &mut self,
        parent: u64,
        chunks: impl IntoIterator<Item = u64>,
    ) -> Vec<Arc<Job>> {
        let mut jobs = Vec::new();
        for chunk in chunks {
            let chunk = (origin(parent), chunk);
            if let Some(hand) = self
                .by_chunk
                .get(&chunk)
                .and_then(|number| self.tasks.get_mut(number))
            {
                hand.unwanted = true;
                jobs.push(Arc::clone(&hand.job));
            } else if self.unwanted.1.insert(chunk) {
                self.unwanted.0.push_back(chunk);
            }
        }
        while self.unwanted.0.len() > UNWANTED_MAX {
            if let Some(oldest) = self.unwanted.0.pop_front() {
                self.unwanted.1.remove(&oldest);
            }
        }
        jobs
    }

    /// Nobody wants what was taken before `then` for parents that do not live, under whichever name. Returns its jobs.
    pub(super) fn unwant_dead(&mut self, then: Instant) -> Vec<Arc<Job>> {
        let live: HashSet<u64> = self.live.iter().map(|parent| origin(*parent)).collect();
        let dead = self
            .tasks
            .values_mut()
            .filter(|hand| hand.taken < then && !live.contains(&origin(hand.head.parent)));
        dead.map(|hand| {
            hand.unwanted = true;
            Arc::clone(&hand.job)
        })
        .collect()
    }

    /// Whether more is in hand than without taking ahead.
    pub(super) fn is_ahead(&self, workers: usize) -> bool {
        self.tasks.len() > workers + 1
    }

    /// Whether tasks wait here behind long ones that were expected to be short.
    pub(super) fn is_stalled(&self, workers: usize) -> bool {
        let oldest = self.tasks.values().map(|hand| hand.taken).min();
        let since = oldest.max(self.moved);
        self.is_ahead(workers) && since.is_some_and(|since| since.elapsed() >= LONG)
    }

    /// Whatever was not begun is to go back, and no more is taken ahead for now. Returns the jobs.
    pub(super) fn give_back(&mut self, workers: usize) -> Vec<Arc<Job>> {
        self.depth = workers + 1;
        let hands = self.tasks.values_mut();
        hands
            .map(|hand| {
                hand.returned = true;
                Arc::clone(&hand.job)
            })
            .collect()
    }

    /// Learns from tasks that are over how many to have in hand: where they are short more, so that workers do not wait for the server.
    pub(super) fn learn(&mut self, times: &[Duration], workers: usize) {
        let Some(longest) = times.iter().max() else {
            return;
        };
        self.moved = Some(Instant::now());
        if *longest > LONG {
            self.depth = (self.depth / 2).max(workers + 1);
        } else if *longest < SHORT && self.tasks.len() <= workers {
            self.depth = (self.depth * 2).min(Self::deepest(workers));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::remote::frame::Kind;

    const PARENT: u64 = 0x7_0000;

    fn head(parent: u64, chunk: u64) -> Head {
        Head {
            kind: Kind::Task,
            plain: false,
            blob: false,
            attempt: 0,
            parent,
            chunk,
            function: [0; 2],
            items: 1,
        }
    }

    /// Hands that know the parent, under each of its names.
    fn hands() -> Hands {
        let mut hands = Hands::new(2);
        hands.live.extend([PARENT, PARENT + 1]);
        hands
    }

    fn is_new(hands: &mut Hands, id: &str, head: &Head) -> bool {
        matches!(hands.look(id, head, b"task", None), Fate::New)
    }

    /// Takes a task in hand; its number.
    fn begin(hands: &mut Hands, id: &str, head: Head) -> u64 {
        assert!(is_new(hands, id, &head));
        let number = hands.number();
        let hand = Hand {
            id: id.to_owned(),
            head,
            frame: b"task".to_vec(),
            blob: None,
            job: Job::new(1, None),
            taken: Instant::now(),
            unwanted: false,
            returned: false,
        };
        hands.put(number, hand);
        number
    }

    fn result(head: &Head) -> Vec<u8> {
        head.answer(Kind::Result, false).with(&[b"parts"])
    }

    #[test]
    fn a_task_that_comes_again_is_answered_by_the_one_in_hand() {
        let mut hands = hands();
        let (old, new) = (head(PARENT, 3), head(PARENT + 1, 3));
        let number = begin(&mut hands, "1-0", old);
        assert!(!is_new(&mut hands, "1-0", &old), "an entry is taken once");
        assert!(!is_new(&mut hands, "2-0", &new));
        assert!(!hands.has("1-0") && hands.has("2-0"));
        let action = hands.take(number, Some(result(&old))).unwrap();
        assert_eq!((action.id.as_str(), action.parent), ("2-0", PARENT + 1));
        let (head, _) = Head::read(&action.frame).unwrap();
        assert_eq!((head.parent, head.chunk), (PARENT + 1, 3));
    }

    #[test]
    fn a_result_is_kept_until_the_server_has_it() {
        let mut hands = hands();
        let (old, new) = (head(PARENT, 3), head(PARENT + 1, 3));
        let number = begin(&mut hands, "1-0", old);
        let action = hands.take(number, Some(result(&old))).unwrap();
        hands.settled(&[action], &[false]);
        assert!(!is_new(&mut hands, "2-0", &new), "the result answers");
        let again = std::mem::take(&mut hands.actions);
        assert_eq!((again[0].id.as_str(), again[0].what), ("2-0", What::Result));
        assert_eq!(Head::read(&again[0].frame).unwrap().0.parent, PARENT + 1);
        hands.keep_since(Duration::ZERO);
        assert!(is_new(&mut hands, "3-0", &new), "not for good");

        let number = begin(&mut hands, "4-0", head(PARENT, 4));
        let action = hands.take(number, Some(result(&old))).unwrap();
        hands.settled(&[action], &[true]);
        assert!(is_new(&mut hands, "5-0", &head(PARENT, 4)));
    }

    #[test]
    fn what_nobody_wants_is_dropped_and_does_not_answer_for_what_comes_again() {
        let mut hands = hands();
        let number = begin(&mut hands, "1-0", head(PARENT, 3));
        assert_eq!(hands.unwant(PARENT, [3, 4]).len(), 1);
        assert!(
            !is_new(&mut hands, "2-0", &head(PARENT, 4)),
            "it was cancelled before it came"
        );
        assert_eq!(hands.actions.pop().unwrap().what, What::Drop);
        let again = begin(&mut hands, "3-0", head(PARENT + 1, 3));
        assert_eq!(hands.take(number, None).unwrap().what, What::Drop);
        assert!(!is_new(&mut hands, "4-0", &head(PARENT + 1, 3)));
        assert_eq!(hands.take(again, None).unwrap().id, "4-0");
    }

    #[test]
    fn a_parent_is_dead_when_no_name_of_it_lives() {
        let mut hands = hands();
        begin(&mut hands, "1-0", head(PARENT, 3));
        hands.live = HashSet::from([PARENT + 1]);
        assert!(hands.unwant_dead(Instant::now()).is_empty());
        hands.live.clear();
        let before = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        assert!(
            hands.unwant_dead(before).is_empty(),
            "it may have come after the look"
        );
        assert_eq!(hands.unwant_dead(Instant::now()).len(), 1);
        assert!(
            !is_new(&mut hands, "2-0", &head(PARENT, 5)),
            "and nothing of it is begun"
        );
        assert_eq!(hands.actions[0].what, What::Drop);
    }

    #[test]
    fn an_agent_that_ends_gives_back_what_it_takes() {
        let mut hands = hands();
        let number = begin(&mut hands, "1-0", head(PARENT, 3));
        hands.ending = Some((Instant::now(), Ending::Terminated));
        assert!(!is_new(&mut hands, "2-0", &head(PARENT, 4)));
        assert_eq!(hands.actions[0].what, What::Queue);
        assert_eq!(hands.give_back(2).len(), 1);
        let action = hands.take(number, None).unwrap();
        assert_eq!((action.what, &*action.frame), (What::Queue, &b"task"[..]));
    }

    /// The server had answered before it settled, so its answer named a task that was over by the time it came: it ran a second time.
    #[test]
    fn what_is_settled_while_the_server_is_asked_is_not_taken_again() {
        let mut hands = hands();
        let own = head(PARENT, 3);
        let number = begin(&mut hands, "1-0", own);
        hands.ask();
        let action = hands.take(number, Some(result(&own))).unwrap();
        hands.settled(&[action], &[true]);
        let answer = vec![
            ("1-0".to_owned(), Vec::new()),
            ("2-0".to_owned(), Vec::new()),
        ];
        let not_here = hands.not_here(answer);
        assert_eq!(not_here.len(), 1);
        assert_eq!(not_here[0].0, "2-0");
    }

    #[test]
    fn short_tasks_are_taken_ahead_and_long_ones_are_not() {
        let mut hands = hands();
        assert_eq!(hands.free(), 3);
        for _ in 0..20 {
            hands.learn(&[Duration::from_millis(1)], 2);
        }
        assert_eq!(hands.free(), Hands::deepest(2));
        for _ in 0..20 {
            hands.learn(&[Duration::from_millis(1), Duration::from_secs(1)], 2);
        }
        assert_eq!(hands.free(), 3);
    }
}
