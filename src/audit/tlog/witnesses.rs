//! Asks witnesses for their cosignatures (c2sp.org/tlog-witness), each in the background and at its own pace.
//!
//! What they answer is added to the stored note, once their key has been seen to sign it. A witness that is slow, away or
//! refuses keeps nobody waiting; that it does is in the log and in /metrics.

use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use tokio::sync::watch;

use super::{consistency, latest};
use crate::audit::checkpoint::{MAX_NOTE_BYTES, Signed, VerifierKey, with_cosignatures};
use crate::audit::witness::request;
use crate::ledger::Ledger;
use crate::metrics::WitnessLabels;
use crate::outgoing::{Limits, Outgoing, Plain, Reach, Unanswered};
use crate::store::{BUCKET, Statement, Store, StoreError};

/// How long a witness may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Before one that failed is asked again.
const PAUSE: Duration = Duration::from_secs(5);

/// Someone who cosigns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Its submission prefix: `/add-checkpoint` goes behind it.
    pub url: String,
    /// Its key.
    pub key: VerifierKey,
}

impl Witness {
    /// `URL=VKEY`, as settings name one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let shape =
            "a witness is given as URL=VKEY, like http://10.0.0.7:8788=witness.example/1+0123abcd+BA…";
        let (url, key) = text.split_once('=').ok_or(shape)?;
        let key = VerifierKey::parse(key).map_err(|error| error.to_string())?;
        if !key.is_witness() {
            return Err(format!("{} is a log's key, not a witness's", key.text()));
        }
        let url = url.trim_end_matches('/');
        let parsed: hyper::Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
        if parsed.scheme_str() != Some("http") {
            return Err(format!(
                "{url}: witnesses are asked over http:// (nothing secret goes there, and what comes back is signed); put a \
                 tunnel or a proxy before one that is far away"
            ));
        }
        Ok(Self { url: url.to_owned(), key })
    }
}

/// Why there is no cosignature.
#[derive(Debug, thiserror::Error)]
enum Unwitnessed {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("no answer: {0}")]
    Unanswered(#[from] Unanswered),
    #[error("no answer: {0}")]
    Unaskable(#[from] hyper::http::Error),
    #[error("it answers {status}: {said}")]
    Refused { status: StatusCode, said: String },
    #[error("its answer holds no cosignature of the key that is pinned here")]
    OtherKey,
    #[error("it has cosigned {known}, and this ledger has signed {signed} only: was the ledger rolled back?")]
    RolledBack { known: u64, signed: u64 },
    #[error("it says {0}, and another size a moment ago: another server asks it")]
    Overtaken(u64),
}

/// Asks one witness about each checkpoint, or about the last where there were several meanwhile.
pub(super) async fn ask_witness(
    ledger: Ledger,
    witness: Witness,
    mut signed: watch::Receiver<Option<Signed>>,
) {
    let outgoing = Outgoing::new(Limits {
        patience: PATIENCE,
        max_answer_bytes: MAX_NOTE_BYTES,
        max_calls: 1,
        plain: Plain::Anywhere,
        reach: Reach::Anywhere,
    });
    let mut asking = Asking { store: ledger.store().clone(), witness, outgoing, known: 0 };
    let name = asking.witness.key.name().to_owned();
    let labels = WitnessLabels { witness: name.clone() };
    let failed = |fails: bool| {
        ledger.metrics().witness_failed.get_or_create(&labels).set(i64::from(fails));
    };
    let mut failing = false;
    while signed.changed().await.is_ok() {
        let Some(newest) = signed.borrow_and_update().clone() else { continue };
        match asking.ask(&newest).await {
            Ok(size) => {
                failed(false);
                ledger.metrics().witness_size.get_or_create(&labels).set(size as i64);
                if std::mem::take(&mut failing) {
                    tracing::info!(witness = name, "the witness cosigns again");
                }
            }
            Err(error) => {
                failed(true);
                if !std::mem::replace(&mut failing, true) {
                    tracing::error!(witness = name, %error, "the witness does not cosign");
                }
                tokio::time::sleep(PAUSE).await;
                // What was signed meanwhile, or the same again.
                signed.mark_changed();
            }
        }
    }
}

struct Asking {
    store: Store,
    witness: Witness,
    outgoing: Outgoing,
    /// What the witness last cosigned, as far as this server knows.
    known: u64,
}

impl Asking {
    /// Gets a cosignature and stores it; the size that the witness has cosigned.
    async fn ask(&mut self, signed: &Signed) -> Result<u64, Unwitnessed> {
        // Once with what it is believed to know, once with what it says that it knows.
        for _ in 0..2 {
            if self.known > signed.size {
                return self.ahead().await;
            }
            let (status, answer) = self.post(signed).await?;
            match (status, answer.trim().parse::<u64>()) {
                (StatusCode::OK, _) => {
                    self.add(signed.size, &answer).await?;
                    self.known = signed.size;
                    return Ok(signed.size);
                }
                (StatusCode::CONFLICT, Ok(size)) if size != self.known => self.known = size,
                _ => {
                    let said = answer.chars().take(200).collect();
                    return Err(Unwitnessed::Refused { status, said });
                }
            }
        }
        Err(Unwitnessed::Overtaken(self.known))
    }

    /// A witness that has cosigned more than it is asked for: another server has asked it about a later checkpoint, which is
    /// stored before anybody is asked about it; or the ledger has lost what it signed then.
    async fn ahead(&mut self) -> Result<u64, Unwitnessed> {
        let signed = latest(&self.store).await?.map_or(0, |latest| latest.size);
        if self.known <= signed {
            return Ok(self.known);
        }
        // The next time it is asked afresh what it knows.
        Err(Unwitnessed::RolledBack { known: std::mem::take(&mut self.known), signed })
    }

    async fn post(&self, signed: &Signed) -> Result<(StatusCode, String), Unwitnessed> {
        let proof = consistency(&self.store, self.known, signed.size).await?.unwrap_or_default();
        let body = request(self.known, &proof, signed);
        let request = hyper::Request::post(format!("{}/add-checkpoint", self.witness.url));
        let answer = self.outgoing.ask(request.body(Bytes::from(body))?).await?;
        Ok((answer.status(), String::from_utf8_lossy(answer.body()).into_owned()))
    }

    /// Adds a cosignature to the stored note; it may be gone by now, and others add theirs.
    async fn add(&self, size: u64, answer: &str) -> Result<(), Unwitnessed> {
        let size = size as i64;
        let read = "SELECT note FROM tlog_checkpoints WHERE bucket = $1 AND size = $2";
        let write = "UPDATE tlog_checkpoints SET note = $3 WHERE bucket = $1 AND size = $2 AND note = $4
                     RETURNING size";
        loop {
            let rows = self.store.query(Statement::new(read, [BUCKET.into(), size.into()])).await?;
            let Some(before) = rows.first().map(|row| row.text(0).to_owned()) else { return Ok(()) };
            let after = with_cosignatures(&before, answer, &self.witness.key).ok_or(Unwitnessed::OtherKey)?;
            let statement = Statement::new(write, [BUCKET.into(), size.into(), after.into(), before.into()]);
            let answers = self.store.write(vec![statement]).await?;
            if answers.first().is_some_and(|rows| !rows.is_empty()) {
                return Ok(());
            }
        }
    }
}
