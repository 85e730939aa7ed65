//! Feeds out: what happens, told to whoever follows it, in order per stream, at least once, from any position.
//!
//! All of them hand out the same line of an event (`audit::feed::line`), byte for byte what `/v1/events` shows, and name
//! it by its position. Each goes by its own checkpoint and at its own pace: nothing here is on an append's path, and a slow
//! reader slows down nobody but himself. Must never answer a command, nor skip an event that it cannot read.

pub mod deliver;
#[cfg(feature = "nats")]
pub mod nats;
pub mod tail;
pub mod webhooks;
