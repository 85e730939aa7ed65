//! The auditor's side: what happened, what was shown when, whether every figure follows from the events, and whether
//! anything was changed afterwards.
//!
//! A library that `cli` and `http` are thin over. It reads while the server runs, and reads the log for itself: it must
//! never take an answer from a live row where the question is what the events say.

pub mod as_of;
pub mod at;
pub mod check;
pub mod checkpoint;
pub mod export;
pub mod feed;
pub mod history;
pub mod kinds;
pub mod leaf;
pub mod merkle;
pub mod rebuild;
pub mod receipt;
pub mod rows;
pub mod takeover;
pub mod tlog;
pub mod verify;
pub mod walk;
pub mod witness;
pub mod words;
