//! A pool of threads that take boxed closures from one crossbeam channel: what one writes in an afternoon.

use std::thread::{self, JoinHandle};

use crossbeam_channel::{Sender, unbounded};

type Job = Box<dyn FnOnce() + Send>;

pub struct ThreadPool {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl ThreadPool {
    pub fn new(count: usize) -> Self {
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

    pub fn submit(&self, job: impl FnOnce() + Send + 'static) {
        let jobs = self.jobs.as_ref().expect("there until dropped");
        jobs.send(Box::new(job)).expect("the threads run");
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
