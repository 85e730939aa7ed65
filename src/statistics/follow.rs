//! Folds the log into every statistic, range by range.

use std::collections::{BTreeSet, HashMap};
use std::panic::resume_unwind;

use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;

use super::facts::{COLUMNS, Fact, Life};
use super::visits;
use crate::allotment::{Allotment, AllotmentEvent};
use crate::clock::Zone;
use crate::coupon::{Coupon, CouponEvent, Source};
use crate::entity::{CorruptEvent, decode, id_of};
use crate::followers::frame::Follow;
use crate::followers::{Follower, STATISTICS, gapless};
use crate::ledger::Ledger;
use crate::store::statistics::{BadStatistic, Statistic, fold, statistics};
use crate::store::{BUCKET, Cell, Row, Statement, Store, StoreError, StoredEvent, StreamId};

/// Events of one transaction: what they add is written within the time that a command may wait for.
const RANGE: i64 = 2_000;

/// How many they become, twice as many each time, where no command waits for it and there is more to do: rows that every range
/// touches are then written less often.
const RANGE_BESIDE: i64 = 4_000;

/// Streams of one read.
const STREAMS: usize = 500;

/// Coupons of a generation: what was met of late is not read again.
const REMEMBERED: usize = 50_000;

/// Rows that one transaction removes where a statistic begins anew.
const CLEARED: i64 = 500;

/// The checkpoint that says in which zone days are counted: counted in two they would be neither's.
const ZONE: &str = "statistics zone";

/// Why the statistics stand still.
#[derive(Debug, thiserror::Error)]
pub enum StatisticsError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An event cannot be understood.
    #[error("corrupt event: {0}")]
    Corrupt(#[from] Box<CorruptEvent>),
    /// An event is not where it must be.
    #[error("position {0} is missing")]
    Missing(i64),
    /// A file makes no statistic.
    #[error(transparent)]
    File(#[from] BadStatistic),
    /// The merchant's zone is another than that of the days counted so far.
    #[error(
        "days were counted in {counted} so far, and the time zone is {zone}: `coupon-ledger followers reset statistics` counts them anew"
    )]
    Zone {
        /// In which they were counted.
        counted: String,
        /// Which it is.
        zone: String,
    },
    /// The work was ended.
    #[error("the work of folding was ended")]
    Ended,
}

/// Folds the log into the statistics.
pub struct Statistics {
    folded: Vec<&'static Statistic>,
    zone: Zone,
    /// Events of one transaction.
    range: i64,
    /// What they become where commands do not wait for it.
    range_beside: i64,
    known: Known,
}

/// What is remembered of the log up to a position.
#[derive(Default)]
struct Known {
    position: i64,
    lives: HashMap<i64, Life>,
    /// The generation before: what is met of it again is taken over, the rest forgotten.
    older: HashMap<i64, Life>,
    partners: HashMap<i64, i64>,
    visits: visits::Remembered,
}

/// How far each table is.
struct Reached {
    /// The follower's own checkpoint; None = it has not begun, or is to begin anew.
    follower: Option<i64>,
    tables: HashMap<String, i64>,
    head: i64,
}

impl Statistics {
    /// Every statistic, its days counted in this zone.
    pub fn new(zone: Zone) -> Result<Self, BadStatistic> {
        Ok(Self::of(statistics()?.iter().collect(), zone))
    }

    /// These only.
    #[must_use]
    pub fn of(statistics: Vec<&'static Statistic>, zone: Zone) -> Self {
        Self { folded: statistics, zone, range: RANGE, range_beside: RANGE_BESIDE, known: Known::default() }
    }

    /// The same, so many events at a time.
    #[must_use]
    pub fn with_range(self, range: i64) -> Self {
        Self { range, range_beside: range, ..self }
    }

    /// Folds the next range, in one transaction; whether there may be more at once.
    pub async fn step(&mut self, store: &Store) -> Result<bool, StatisticsError> {
        self.step_until(store, store, i64::MAX).await
    }

    /// Folds a log into the tables of another ledger, which are nobody else's, up to a position.
    pub async fn count_until(
        &mut self,
        log: &Store,
        tables: &Store,
        until: i64,
    ) -> Result<(), StatisticsError> {
        while self.step_until(log, tables, until).await? {}
        Ok(())
    }

    /// Folds the next range of a log into some tables, as far as a position; whether there may be more at once.
    async fn step_until(&mut self, log: &Store, store: &Store, until: i64) -> Result<bool, StatisticsError> {
        let reached = reached(log, store, until).await?;
        if reached.follower.is_none() && !reached.tables.is_empty() {
            // Told to begin anew.
            let sql = "DELETE FROM checkpoints WHERE bucket = $1 AND name LIKE 'stats\\_%' ESCAPE '\\'";
            store.write(vec![Statement::new(sql, [BUCKET.into()])]).await?;
            return Ok(true);
        }
        let at = |statistic: &&Statistic| reached.tables.get(statistic.table).copied();
        if let Some(new) = self.folded.iter().find(|statistic| at(statistic).is_none()) {
            return begin(store, new).await;
        }
        let at = |statistic: &&'static Statistic| at(statistic).unwrap_or_default();
        let Some(from) = self.folded.iter().map(at).min() else { return Ok(false) };
        let counted = self.folded.iter().map(at).max().unwrap_or_default();
        self.keep_zone(store, counted).await?;
        // Those that are further wait for the ones behind.
        let ahead = self.folded.iter().map(at).filter(|position| *position > from).min();
        let until = ahead.unwrap_or(i64::MAX).min(from.saturating_add(self.range)).min(reached.head);
        let group: Vec<&'static Statistic> =
            self.folded.iter().copied().filter(|one| at(one) == from).collect();
        if reached.head <= from {
            return Ok(false);
        }
        let events = log.bare_events_after(from, until - from).await?;
        let events = gapless(from, reached.head, events).ok_or(StatisticsError::Missing(from + 1))?;
        let to = from + events.len() as i64;
        // What it knows is further than the tables from here on, and is kept only where they come along.
        let mut known = std::mem::take(&mut self.known);
        let added = added(&mut known, (log, store), (from, self.zone), &group, events).await?;
        let checkpoints = group.iter().map(|one| {
            let sql = "UPDATE checkpoints SET value = $3 WHERE bucket = $1 AND name = $2 AND value = $4
                       RETURNING value";
            let cells = [BUCKET.into(), one.table.into(), to.into(), from.into()];
            Statement::new(sql, cells).must_return()
        });
        let rows = group.iter().zip(&added).flat_map(|(one, rows)| one.add(rows));
        // None is behind those that were folded here. Told to begin anew meanwhile, it has no checkpoint.
        let follower = Statement::new(
            "UPDATE checkpoints SET value = $3 WHERE bucket = $1 AND name = $2 RETURNING value",
            [BUCKET.into(), STATISTICS.name.into(), to.into()],
        );
        let moved = std::iter::once(follower.must_return()).chain(checkpoints);
        let answers = store.write(moved.chain(rows).collect()).await?;
        // Where another process was faster, or it was told to begin anew, nothing was written.
        let moved = 1 + group.len();
        let done = answers.len() >= moved && answers.iter().take(moved).all(|rows| !rows.is_empty());
        if done {
            self.known = Known { position: to, ..known };
            if store.is_shared() && to - from == self.range {
                self.range = (self.range * 2).min(self.range_beside);
            }
        } else {
            // Who takes so long that another has his turn takes less of it.
            self.range = self.range.min(RANGE);
        }
        Ok(!done || to < reached.head)
    }

    /// Days are counted in one zone: the one of those that were counted as far as this.
    async fn keep_zone(&self, store: &Store, counted_to: i64) -> Result<(), StatisticsError> {
        let zone = number_of(self.zone.0.name());
        let sql = "SELECT value FROM checkpoints WHERE bucket = $1 AND name = $2";
        let rows = store.query(Statement::new(sql, [BUCKET.into(), ZONE.into()])).await?;
        match rows.first().map(|row| row.int(0)) {
            Some(counted) if counted == zone => Ok(()),
            Some(counted) if counted_to > 0 => Err(StatisticsError::Zone {
                counted: zone_of(counted).map_or("another time zone", |zone| zone.0.name()).to_owned(),
                zone: self.zone.0.name().to_owned(),
            }),
            _ => {
                let sql = "INSERT INTO checkpoints (bucket, name, value) VALUES ($1, $2, $3)
                           ON CONFLICT (bucket, name) DO UPDATE SET value = excluded.value";
                store.write(vec![Statement::new(sql, [BUCKET.into(), ZONE.into(), zone.into()])]).await?;
                Ok(())
            }
        }
    }
}

/// What a range adds to each of these statistics. What is known is then as of the range's end.
async fn added(
    known: &mut Known,
    (log, tables): (&Store, &Store),
    (from, zone): (i64, Zone),
    group: &[&'static Statistic],
    events: Vec<StoredEvent>,
) -> Result<Vec<Vec<Row>>, StatisticsError> {
    if known.position != from {
        *known = Known { position: from, ..Known::default() };
    }
    let mut happened = Vec::new();
    for event in events.iter().filter(|event| event.aggregate_type == "coupon") {
        happened.push((event.position, id_of(event.as_ref())?, event.sequence, decode::<Coupon>(event)?));
    }
    known.recall(log, from, zone, &happened).await?;
    let mut facts = Vec::new();
    for (position, coupon_id, _, event) in &happened {
        let told = known.tell(*coupon_id, event, zone);
        facts.extend(told.into_iter().map(|fact| Fact {
            position: *position,
            coupon_id: *coupon_id,
            ..fact
        }));
    }
    let (group, tables) = (group.to_vec(), tables.clone());
    // What visits remember is as of the range before only where they had a part in that.
    let mut visits = std::mem::take(&mut known.visits);
    let runtime = Handle::current();
    let folding = tokio::task::spawn_blocking(move || -> Result<_, StoreError> {
        let cells: Vec<Vec<Cell>> = facts.iter().map(Fact::cells).collect();
        let mut added = fold(&group, &COLUMNS, &cells)?;
        match group.iter().position(|one| one.table == visits::TABLE).and_then(|place| added.get_mut(place)) {
            Some(rows) => *rows = runtime.block_on(visits::changed(&tables, &mut visits, &facts))?,
            None => visits = visits::Remembered::default(),
        }
        Ok((added, visits))
    });
    let (added, visits) = folding.await.map_err(|ended| match ended.try_into_panic() {
        Ok(panic) => resume_unwind(panic),
        Err(_) => StatisticsError::Ended,
    })??;
    known.visits = visits;
    Ok(added)
}

/// The zone that days were counted in; None = none was counted yet, or in one that nobody knows.
pub async fn zone_counted(store: &Store) -> Result<Option<Zone>, StoreError> {
    let sql = "SELECT value FROM checkpoints WHERE bucket = $1 AND name = $2";
    let rows = store.query(Statement::new(sql, [BUCKET.into(), ZONE.into()])).await?;
    Ok(rows.first().and_then(|row| zone_of(row.int(0))))
}

fn zone_of(number: i64) -> Option<Zone> {
    chrono_tz::TZ_VARIANTS.into_iter().find(|zone| number_of(zone.name()) == number).map(Zone)
}

/// A text as a checkpoint can hold it.
fn number_of(text: &str) -> i64 {
    let hash = Sha256::digest(text.as_bytes());
    hash.iter().take(6).fold(0, |number, byte| number << 8 | i64::from(*byte))
}

impl Follow for Statistics {
    type Error = StatisticsError;

    fn follower(&self) -> &'static Follower {
        &STATISTICS
    }

    async fn step(&mut self, ledger: &Ledger) -> Result<bool, StatisticsError> {
        Statistics::step(self, ledger.store()).await
    }
}

/// How far some tables are, of a log that is read as far as a position.
async fn reached(log: &Store, tables: &Store, until: i64) -> Result<Reached, StoreError> {
    let sql = "SELECT name, value FROM checkpoints
               WHERE bucket = $1 AND (name = $2 OR name LIKE 'stats\\_%' ESCAPE '\\')";
    let head = log.head().await?.min(until);
    let mut reached = Reached { follower: None, tables: HashMap::new(), head };
    for mut row in tables.query(Statement::new(sql, [BUCKET.into(), STATISTICS.name.into()])).await? {
        let value = row.int(1);
        match row.take_text(0) {
            name if name == STATISTICS.name => reached.follower = Some(value),
            name => {
                reached.tables.insert(name, value);
            }
        }
    }
    Ok(reached)
}

/// Lets a statistic begin: what an earlier beginning left of it goes first.
async fn begin(store: &Store, statistic: &Statistic) -> Result<bool, StatisticsError> {
    let clear = Statement::new(statistic.clear, [BUCKET.into(), CLEARED.into()]);
    let cleared = store.write(vec![clear]).await?;
    if cleared.first().is_none_or(Vec::is_empty) {
        // Of the follower itself too: it has begun.
        let sql = "INSERT INTO checkpoints (bucket, name, value) VALUES ($1, $2, 0), ($1, $3, 0)
                   ON CONFLICT (bucket, name) DO NOTHING";
        let cells = [BUCKET.into(), statistic.table.into(), STATISTICS.name.into()];
        store.write(vec![Statement::new(sql, cells)]).await?;
    }
    Ok(true)
}

impl Known {
    /// Reads what is not remembered of the coupons that something happened to, as it was right after a position.
    async fn recall(
        &mut self,
        store: &Store,
        from: i64,
        zone: Zone,
        happened: &[(i64, i64, i64, CouponEvent)],
    ) -> Result<(), StatisticsError> {
        if self.lives.len() > REMEMBERED {
            self.older = std::mem::take(&mut self.lives);
        }
        let mut missing: BTreeSet<i64> = BTreeSet::new();
        for (_, coupon_id, sequence, _) in happened {
            if let Some(life) = self.older.remove(coupon_id) {
                self.lives.insert(*coupon_id, life);
            }
            // Of one that begins here there is nothing to read; what follows in this range finds it.
            if *sequence == 1 {
                self.lives.insert(*coupon_id, Life::default());
            } else if !self.lives.contains_key(coupon_id) {
                missing.insert(*coupon_id);
            }
        }
        let mut pasts: Vec<(i64, Vec<CouponEvent>)> = Vec::with_capacity(missing.len());
        let missing: Vec<i64> = missing.into_iter().collect();
        for ids in missing.chunks(STREAMS) {
            let streams: Vec<StreamId> = ids.iter().map(|id| StreamId { kind: "coupon", id: *id }).collect();
            for (id, past) in ids.iter().zip(store.load_bare(&streams, from).await?) {
                pasts.push((*id, past.iter().map(decode::<Coupon>).collect::<Result<_, _>>()?));
            }
        }
        let births = pasts.iter().flat_map(|(_, past)| past).chain(happened.iter().map(|(.., event)| event));
        let allotments =
            births.filter_map(CouponEvent::birth).filter(|issue| issue.source == Source::Partner);
        let unknown: BTreeSet<i64> =
            allotments.map(|issue| issue.source_id).filter(|id| !self.partners.contains_key(id)).collect();
        self.meet_partners(store, unknown.into_iter().collect()).await?;
        for (id, past) in pasts {
            let mut life = Life::default();
            for event in &past {
                life.advance(event, zone, |allotment| self.partner_of(allotment));
            }
            self.lives.insert(id, life);
        }
        Ok(())
    }

    async fn meet_partners(&mut self, store: &Store, allotments: Vec<i64>) -> Result<(), StatisticsError> {
        let streams: Vec<StreamId> =
            allotments.iter().map(|id| StreamId { kind: "allotment", id: *id }).collect();
        for (id, events) in allotments.iter().zip(store.load(&streams).await?) {
            let first = events.first().map(decode::<Allotment>).transpose()?;
            let partner = match first {
                Some(AllotmentEvent::Allotted { partner_id, .. }) => partner_id,
                _ => 0,
            };
            self.partners.insert(*id, partner);
        }
        Ok(())
    }

    fn partner_of(&self, allotment: i64) -> i64 {
        self.partners.get(&allotment).copied().unwrap_or_default()
    }

    fn tell(&mut self, coupon_id: i64, event: &CouponEvent, zone: Zone) -> Vec<Fact> {
        let partners = &self.partners;
        let partner_of = |allotment: i64| partners.get(&allotment).copied().unwrap_or_default();
        self.lives.entry(coupon_id).or_default().advance(event, zone, partner_of)
    }
}
