//! Publishes events to a stream of NATS JetStream (feature `nats`): each once and in order, whatever is killed in the middle.
//!
//! What the stream holds says how far it is: its last message's id is the last event's position, and each message is
//! published under the stream's sequence that must come before it, so that the server refuses whatever comes twice, out of
//! order, or from a second server of ours. The checkpoint moves behind the acknowledgement and tells people how far it is; it
//! counts only where the stream's messages have aged away. Must never publish into a stream that holds others' messages.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, Info, Stream};
use async_nats::jetstream::{self, Context};
use async_nats::{ConnectOptions, ServerAddr};

use crate::audit::feed::line;
use crate::followers::frame::Follow;
use crate::followers::{self, Follower, NATS, events_after, move_checkpoint};
use crate::ledger::Ledger;
use crate::store::{StoreError, StoredEvent};

/// Events of one step: published one behind the other, acknowledged together.
const PAGE: i64 = 256;

/// How long a server may take to let us in, and to acknowledge.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where events are published.
#[derive(Clone)]
pub struct NatsOptions {
    /// `nats://host:4222` or `tls://host:4222`, several with a comma; a user and a password may stand in it.
    pub url: String,
    /// The stream's name; it is made where there is none.
    pub stream: String,
    /// What subjects begin with: `<prefix>.<kind>.<id>`.
    pub subject: String,
    /// A file with credentials (JWT and seed).
    pub creds_file: Option<PathBuf>,
    /// A file with the certificates that the server's is checked against, instead of the system's.
    pub ca_file: Option<PathBuf>,
}

impl NatsOptions {
    /// Checks what settings say; an error is a sentence, without what a URL holds.
    pub fn check(&self) -> Result<(), String> {
        addresses(&self.url)?;
        let is_word = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
        };
        if !is_word(&self.stream) {
            return Err("--nats-stream must be letters, digits, _ and -".to_owned());
        }
        if !self.subject.split('.').all(is_word) {
            return Err(
                "--nats-subject must be words of letters, digits, _ and -, with . between them".to_owned()
            );
        }
        Ok(())
    }
}

fn addresses(urls: &str) -> Result<Vec<ServerAddr>, String> {
    let read = |url: &str| url.trim().parse().ok().filter(|address: &ServerAddr| !address.host().is_empty());
    let addresses: Option<Vec<ServerAddr>> = urls.split(',').map(read).collect();
    addresses.ok_or_else(|| "--nats-url must be like nats://host:4222 or tls://host:4222".to_owned())
}

/// The user and the password in a URL; a user alone is a token.
fn credentials(address: &ServerAddr) -> Option<(String, Option<String>)> {
    let plain = |text: &str| {
        let pair = format!("p={}", text.replace('+', "%2B"));
        form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned())
    };
    let user = address.username().filter(|user| !user.is_empty()).and_then(plain)?;
    Some((user, address.password().and_then(plain)))
}

/// Why events are not published.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// The ledger.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server cannot be reached, or says no.
    #[error("NATS: {0}")]
    Server(String),
    /// The stream's last message is none of ours.
    #[error(
        "the stream {0} holds messages that are not this ledger's: give it one of its own with --nats-stream"
    )]
    Foreign(String),
    /// The stream has more than the ledger.
    #[error(
        "the stream {stream} is at position {published}, and the ledger ends at {head}: it was rolled back, or is another; \
         publish into a new stream"
    )]
    Ahead {
        /// Its name.
        stream: String,
        /// What was published last.
        published: i64,
        /// The ledger's last position.
        head: i64,
    },
}

fn failed(error: &(dyn Error + 'static)) -> NatsError {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    let said = causes.map(ToString::to_string).fold(String::new(), |said, cause| match said {
        said if said.is_empty() => cause,
        said if said.contains(&cause) => said,
        said => format!("{said}: {cause}"),
    });
    NatsError::Server(said)
}

/// A stream that is published into.
struct Link {
    context: Context,
    /// Its last sequence.
    sequence: u64,
    /// The last event that it holds; None = it holds none any more.
    position: Option<i64>,
}

/// Whoever publishes.
pub struct Publisher {
    options: NatsOptions,
    link: Option<Link>,
}

impl Publisher {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new(options: NatsOptions) -> Self {
        Self { options, link: None }
    }

    async fn connect(&self) -> Result<Link, NatsError> {
        // Named, because the default is whichever the whole program has, and none where it has two; once is enough.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut connect = ConnectOptions::new().name("coupon-ledger").connection_timeout(PATIENCE);
        if let Some(file) = &self.options.creds_file {
            connect = connect.credentials_file(file).await.map_err(|error| failed(&error))?;
        }
        if let Some(file) = &self.options.ca_file {
            connect = connect.add_root_certificates(file.clone());
        }
        let addresses = addresses(&self.options.url).map_err(NatsError::Server)?;
        // The client does not look for them there itself.
        if let Some((user, password)) = addresses.iter().find_map(credentials) {
            connect = match password {
                Some(password) => connect.user_and_password(user, password),
                None => connect.token(user),
            };
        }
        let client = connect.connect(addresses).await.map_err(|error| failed(&error))?;
        let mut context = jetstream::new(client);
        context.set_timeout(PATIENCE);
        let config = Config {
            name: self.options.stream.clone(),
            subjects: vec![format!("{}.>", self.options.subject)],
            ..Config::default()
        };
        let stream = context.get_or_create_stream(config).await.map_err(|error| failed(&error))?;
        let (sequence, position) = self.last(&stream).await?;
        Ok(Link { context, sequence, position })
    }

    /// The stream's last sequence, and the event that lies there.
    async fn last(&self, stream: &Stream<Info>) -> Result<(u64, Option<i64>), NatsError> {
        let state = &stream.cached_info().state;
        if state.last_sequence == 0 {
            return Ok((0, Some(0)));
        }
        if state.messages == 0 {
            return Ok((state.last_sequence, None));
        }
        let message = stream.get_raw_message(state.last_sequence).await.map_err(|error| failed(&error))?;
        let id = message.headers.get(NATS_MESSAGE_ID).and_then(|id| id.as_str().parse().ok());
        let is_ours = message
            .subject
            .strip_prefix(self.options.subject.as_str())
            .is_some_and(|rest| rest.starts_with('.'));
        match id.filter(|_| is_ours) {
            Some(position) => Ok((state.last_sequence, Some(position))),
            None => Err(NatsError::Foreign(self.options.stream.clone())),
        }
    }

    /// Publishes events behind a position; how far that went, and what stopped it.
    async fn publish(&self, link: &Link, events: &[StoredEvent]) -> (u64, Result<(), NatsError>) {
        let mut acknowledged = 0;
        let mut waiting = Vec::new();
        let mut outcome = Ok(());
        for (event, before) in events.iter().zip(link.sequence..) {
            let body = match line(event) {
                Ok(body) => body,
                Err(error) => {
                    outcome = Err(error.into());
                    break;
                }
            };
            let message = PublishMessage::build()
                .payload(body.into())
                .message_id(event.position.to_string())
                .expected_stream(&self.options.stream)
                .expected_last_sequence(before);
            let subject = format!("{}.{}.{}", self.options.subject, event.aggregate_type, event.aggregate_id);
            match link.context.send_publish(subject, message).await {
                Ok(published) => waiting.push(published),
                Err(error) => {
                    outcome = Err(failed(&error));
                    break;
                }
            }
        }
        for published in waiting {
            match published.await {
                Ok(_) => acknowledged += 1,
                // What was published before a connection was lost has come after all: what the stream holds says so.
                Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => {
                    return (
                        acknowledged,
                        Err(NatsError::Server("the stream has moved meanwhile".to_owned())),
                    );
                }
                Err(error) => return (acknowledged, Err(failed(&error))),
            }
        }
        (acknowledged, outcome)
    }
}

impl Follow for Publisher {
    type Error = NatsError;

    fn follower(&self) -> &'static Follower {
        &NATS
    }

    async fn step(&mut self, ledger: &Ledger) -> Result<bool, NatsError> {
        let from = followers::checkpoint(ledger.store(), &NATS).await?;
        let mut link = match self.link.take() {
            Some(link) => link,
            None => self.connect().await?,
        };
        let after = link.position.unwrap_or(from);
        let head = ledger.store().head().await?;
        if after > head {
            let stream = self.options.stream.clone();
            return Err(NatsError::Ahead { stream, published: after, head });
        }
        let events = events_after(ledger.store(), after, PAGE).await?;
        let (acknowledged, outcome) = self.publish(&link, &events).await;
        let to = after + acknowledged as i64;
        if to != from {
            move_checkpoint(ledger, &NATS, from, to).await?;
        }
        outcome?;
        link.sequence += acknowledged;
        link.position = Some(to);
        self.link = Some(link);
        Ok(events.len() as i64 == PAGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_signs_in_is_read_from_the_address() {
        let read = |url: &str| credentials(&url.parse().unwrap());
        let text = |text: &str| text.to_owned();
        assert_eq!(read("nats://a%40b:c%2Bd+%25@host"), Some((text("a@b"), Some(text("c+d+%")))));
        assert_eq!(read("tls://token@host:4222"), Some((text("token"), None)));
        assert_eq!(read("nats://host:4222"), None);
    }
}
