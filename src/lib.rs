//! An event-sourced ledger for the coupons (電子券) that a merchant gives its members.
//!
//! Everything that ever happened to a coupon is one stream of immutable events; every list, page and figure is
//! computed from those streams. Imports go one way:
//!
//! ```text
//! value, durable, clock, refusal, webhook_signature ← secrets, person_keys ← account, coupon, definition, shop, allotment, job, approval, grant, rule, order, member, office, machine, partner_key, reading, refusals, provenance, webhook, facts
//!   ← identity ← access, config, outgoing
//!   ← store ← read_model, directory ← entity ← metrics ← ledger
//!   ← lease, followers, messages, bulk, import, oidc, sign_in, statistics, sweep, runner, approving, rulebook, granting, ordering, erasure, wechat, machine_keys, signed_request, watch, replay, backup, demo ← audit ← exports, feeds ← http ← cli ← main
//! ```

// It panics where nothing more can be written: `cli` has a way to say so instead.
#![warn(clippy::print_stdout)]

pub mod access;
pub mod account;
pub mod allotment;
pub mod approval;
pub mod approving;
pub mod audit;
pub mod backup;
pub mod bulk;
pub mod cli;
pub mod clock;
pub mod config;
pub mod coupon;
pub mod definition;
pub mod demo;
pub mod directory;
pub mod durable;
pub mod entity;
pub mod erasure;
pub mod exports;
pub mod facts;
pub mod feeds;
pub mod followers;
pub mod grant;
pub mod granting;
pub mod http;
pub mod identity;
pub mod import;
pub mod job;
pub mod lease;
pub mod ledger;
pub mod machine;
pub mod machine_keys;
pub mod member;
pub mod messages;
pub mod metrics;
pub mod office;
pub mod oidc;
pub mod order;
pub mod ordering;
pub mod outgoing;
pub mod partner_key;
pub mod person_keys;
pub mod provenance;
pub mod read_model;
pub mod reading;
pub mod refusal;
pub mod refusals;
pub mod replay;
pub mod rule;
pub mod rulebook;
pub mod runner;
pub mod secrets;
pub mod shop;
pub mod sign_in;
pub mod signed_request;
pub mod statistics;
pub mod store;
pub mod sweep;
pub mod value;
pub mod watch;
pub mod webhook;
pub mod webhook_signature;
pub mod wechat;
