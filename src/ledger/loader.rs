//! Loads streams in groups: while one read is under way, the next gathers, and one statement serves all that wait.

use tokio::sync::{mpsc, oneshot};

use super::ExecuteError;
use crate::store::{Store, StoredEvent, StreamId};

/// The most streams that one statement reads.
const MAX_GROUP: usize = 128;

struct Waiting {
    stream: StreamId,
    answer: oneshot::Sender<Result<Vec<StoredEvent>, ExecuteError>>,
}

/// Hands streams to whoever asks. Cheap to clone.
#[derive(Clone)]
pub struct Loader {
    waiting: mpsc::UnboundedSender<Waiting>,
}

impl Loader {
    /// Starts loading from a store; ends when the last handle is dropped.
    #[must_use]
    pub fn start(store: &Store) -> Self {
        let (waiting, gathered) = mpsc::unbounded_channel();
        let gathered = std::sync::Arc::new(tokio::sync::Mutex::new(gathered));
        // Two at a time: one reads while the other's rows are handed out.
        for _ in 0..2 {
            tokio::spawn(run(store.clone(), gathered.clone()));
        }
        Self { waiting }
    }

    /// The events of a stream, read after this call.
    pub async fn load(&self, stream: StreamId) -> Result<Vec<StoredEvent>, ExecuteError> {
        let (answer, answered) = oneshot::channel();
        self.waiting.send(Waiting { stream, answer }).map_err(|_| ExecuteError::ShuttingDown)?;
        answered.await.map_err(|_| ExecuteError::ShuttingDown)?
    }
}

async fn run(store: Store, gathered: std::sync::Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Waiting>>>) {
    let mut group = Vec::with_capacity(MAX_GROUP);
    loop {
        if gathered.lock().await.recv_many(&mut group, MAX_GROUP).await == 0 {
            return;
        }
        let streams: Vec<StreamId> = group.iter().map(|waiting| waiting.stream).collect();
        match store.load(&streams).await {
            Ok(loaded) => {
                for (waiting, events) in group.drain(..).zip(loaded) {
                    let _ = waiting.answer.send(Ok(events));
                }
            }
            Err(error) => {
                let error = std::sync::Arc::new(error);
                for waiting in group.drain(..) {
                    let _ = waiting.answer.send(Err(ExecuteError::Read(error.clone())));
                }
            }
        }
    }
}
