//! Every test of the ledger as its users meet it, on both engines. `tests/run` sets up what they need.

#![allow(missing_docs, reason = "tests are named as rules; their names are their documentation")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "a test that meets what it does not expect should end there"
)]

#[macro_use]
mod harness;
mod access;
mod accounts;
mod analytics;
mod approvals;
mod archive;
mod as_of;
mod audit_history;
mod backup;
mod bulk;
mod check;
mod cli;
mod commit;
mod concurrency;
mod counter;
mod crash;
mod decisions;
mod described;
mod directory;
mod docs;
mod erasure;
mod everything;
mod export;
mod figures;
mod followers;
mod full_disk;
mod gate;
mod guessing;
mod import;
mod jobs;
mod keys;
mod leaks;
mod log;
mod machines;
mod matrix;
mod message_webhook;
mod messages;
mod model;
mod moving;
#[cfg(feature = "nats")]
mod nats;
mod offices;
mod oidc;
mod orders;
mod outside;
mod own_sql;
mod partners;
mod precedence;
mod proxy;
mod readings;
mod rebuild;
mod refused;
mod replay;
mod requests;
mod rewritten;
mod roles;
mod routes;
mod rules;
mod safety;
mod samples;
mod server;
mod sheet_jobs;
mod sheet_pages;
mod sheet_types;
mod sheets;
mod signatures;
mod simulation;
mod statements;
mod statistics;
mod statistics_pages;
mod stream;
mod sweep;
mod tamper;
mod tidy;
mod time;
mod tlog;
mod tlog_crash;
mod tls;
mod v1;
mod verify;
mod webhooks;
mod wechat;
mod witness;
