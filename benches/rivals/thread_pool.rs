//! A pool of threads that take boxed closures from one crossbeam channel: what one writes in an afternoon.

use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

type Job = Box<dyn FnOnce() + Send>;

pub(crate) struct ThreadPool {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl ThreadPool {
    pub(crate) fn new(count: usize) -> Self {
        let (jobs, inbox) = unbounded::<Job>();
        let work = |_| {
            let inbox = inbox.clone();
            thread::spawn(move || inbox.iter().for_each(|job| job()))
        };
        Self {
            jobs: Some(jobs),
            threads: (0..count).map(work).collect(),
        }
    }

    /// A handle that gets the result.
    pub(crate) fn submit<R: Send + 'static>(
        &self,
        job: impl FnOnce() -> R + Send + 'static,
    ) -> Receiver<R> {
        let (sender, receiver) = bounded(1);
        let jobs = self.jobs.as_ref().expect("there until dropped");
        let job = move || {
            let _ = sender.send(job());
        };
        jobs.send(Box::new(job)).expect("the threads run");
        receiver
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
