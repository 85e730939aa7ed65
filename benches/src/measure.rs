/// One measured stretch of time.
pub struct Round {
    /// What was done and checked.
    pub done: u64,
    /// How long it took.
    pub seconds: f64,
    /// Each operation's time in microseconds, unsorted.
    pub micros: Vec<u32>,
}
