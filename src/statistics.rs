//! Statistics: figures that are sums over the log, each as of a position that it states.
//!
//! One follower folds every statistic (`projections/stats_*.sql`) over the same ranges, so that two figures read together
//! cannot disagree. A statistic that is new begins at the log's beginning by itself until it has come to where the others
//! are. Nothing here is a source of anything: what is wrong is folded anew.

pub mod ask;
pub mod cohorts;
pub mod facts;
mod follow;
mod members;
pub mod period;
pub mod uses;
mod visits;

pub use follow::{Statistics, StatisticsError, zone_counted};
