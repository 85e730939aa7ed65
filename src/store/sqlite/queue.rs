//! Jobs for the threads that hold the connections.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::super::StoreError;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// Jobs that wait for a thread, the urgent ones first.
#[derive(Default)]
pub(super) struct Queue {
    jobs: Mutex<Jobs>,
    arrived: Condvar,
}

#[derive(Default)]
struct Jobs {
    urgent: VecDeque<Job>,
    other: VecDeque<Job>,
    closed: bool,
}

/// What there is to do.
pub(super) enum Next {
    Job(Job),
    Idle,
    Closed,
}

impl Queue {
    /// Runs a job on a thread of this queue and waits for its answer.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        urgent: bool,
        job: impl FnOnce(&mut Connection) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // Whoever asked may have gone away; what was asked is done all the same.
            let _ = answer.send(job(connection));
        });
        {
            let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
            if jobs.closed {
                return Err(StoreError::Closed);
            }
            let queue = if urgent { &mut jobs.urgent } else { &mut jobs.other };
            queue.push_back(job);
        }
        self.arrived.notify_one();
        answered.await.map_err(|_| StoreError::Closed)
    }

    pub(super) fn next(&self, idle_after: Duration) -> Next {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(job) = jobs.urgent.pop_front().or_else(|| jobs.other.pop_front()) {
                return Next::Job(job);
            }
            if jobs.closed {
                return Next::Closed;
            }
            let (woken, waited) =
                self.arrived.wait_timeout(jobs, idle_after).unwrap_or_else(PoisonError::into_inner);
            jobs = woken;
            if waited.timed_out() && jobs.urgent.is_empty() && jobs.other.is_empty() && !jobs.closed {
                return Next::Idle;
            }
        }
    }

    /// No further jobs; those that wait are still done.
    pub(super) fn close(&self) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.arrived.notify_all();
    }
}
