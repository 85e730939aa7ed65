//! Which members came on which day, and who of them had come before: sets, since no sum says how many members there are in
//! some days together.
//!
//! `stats_visits` has one row for each part of the members, by day and by what they used: anything, a definition's coupons, a
//! shop's. A use adds its member, one that is taken back removes him unless he has another of the same day; so the rows are a
//! function of the uses that stand and of the newest day, whichever way the log is cut. A member came *again* on a day where
//! his first use of all was on an earlier one. The sets of a month that is over stand in one row more, so that years are few
//! rows. What a use changes lies on its own day but where a first day changes: then the days of that member are looked up.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use roaring::RoaringTreemap;

use super::facts::Fact;
use crate::store::{BUCKET, Cell, Row, Statement, Store, StoreError};

/// The table, as statements name it.
macro_rules! table {
    () => {
        "stats_visits_v1"
    };
}

/// The table.
pub(super) const TABLE: &str = table!();

const NEWEST: &str =
    concat!("SELECT COALESCE(MAX(day), 0) FROM ", table!(), " WHERE bucket = $1 AND what = 0 AND grain = 1",);

const ROW: &str = concat!(
    "SELECT what, grain, day, id, part, member_set, again_set FROM ",
    table!(),
    " WHERE bucket = $1 AND what = $2 AND grain = $3 AND day = $4 AND id = $5 AND part = $6",
);

/// Days of one id and part; −1 is every one.
const DAYS: &str = concat!(
    "SELECT what, grain, day, id, part, member_set, again_set FROM ",
    table!(),
    " WHERE bucket = $1 AND what = $2 AND grain = 1 AND day >= $3 AND day <= $4
        AND ($5 = -1 OR id = $5) AND ($6 = -1 OR part = $6)",
);

const PARTS_OF_DAYS: &str = concat!(
    "SELECT DISTINCT part FROM ",
    table!(),
    " WHERE bucket = $1 AND what = 0 AND grain = 1 AND day >= $2 AND day <= $3 ORDER BY part",
);

const CAME: &str = concat!(
    "SELECT day, member_set FROM ",
    table!(),
    " WHERE bucket = $1 AND what = 0 AND grain = $2 AND id = 0 AND part = $3 AND day >= $4 AND day <= $5",
);

/// Members that follow one another have their sets in one row, and the next ones in the next: a use writes a small set anew.
const MEMBERS_OF_A_PART: u64 = 1 << 18;

/// Where ids are far apart, or very many, parts are shared.
const PARTS: u64 = 64;

/// Of what visits are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// Any coupon, anywhere.
    Anything = 0,
    /// A definition's.
    Definition = 1,
    /// A shop's.
    Shop = 2,
}

impl What {
    const ALL: [Self; 3] = [Self::Anything, Self::Definition, Self::Shop];
}

/// Of which time a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Grain {
    Day = 1,
    Month = 2,
    Ever = 3,
}

/// A row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    what: What,
    grain: Grain,
    day: i64,
    id: i64,
    part: i64,
}

impl Key {
    fn of_all(day: i64, part: i64) -> Self {
        Self { what: What::Anything, grain: Grain::Day, day, id: 0, part }
    }

    fn ever(part: i64) -> Self {
        Self { grain: Grain::Ever, ..Self::of_all(0, part) }
    }

    fn month(self) -> Self {
        Self { grain: Grain::Month, day: month_of(self.day), ..self }
    }

    fn cells(self) -> [i64; 5] {
        [self.what as i64, self.grain as i64, self.day, self.id, self.part]
    }
}

/// The month of a day, and what its row has for a day.
fn month_of(day: i64) -> i64 {
    day / 100 * 100
}

/// In which part a member is.
fn part_of(member: u64) -> i64 {
    (member / MEMBERS_OF_A_PART % PARTS) as i64
}

/// The members of a row.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Visits {
    /// Those who came; then, bit by bit, how many more uses than one each has. The last is not empty.
    layers: Vec<RoaringTreemap>,
    /// Those who came again.
    again: RoaringTreemap,
}

impl Visits {
    /// What a row says.
    pub fn read(member_set: &str, again_set: &str) -> Result<Self, StoreError> {
        Ok(Self { layers: sets(member_set)?, again: set(again_set)? })
    }

    /// Those who came, and those of them who came again.
    pub fn into_sets(mut self) -> (RoaringTreemap, RoaringTreemap) {
        let members = self.layers.drain(..).next().unwrap_or_default();
        (members, self.again)
    }

    /// Those of some members who came.
    fn among(&self, members: &RoaringTreemap) -> RoaringTreemap {
        self.layers.first().map(|came| came & members).unwrap_or_default()
    }

    fn has(&self, member: u64) -> bool {
        self.layers.first().is_some_and(|members| members.contains(member))
    }

    fn is_in(&self, other: &Self) -> bool {
        let members = match (self.layers.first(), other.layers.first()) {
            (Some(ours), Some(theirs)) => ours.is_subset(theirs),
            (ours, _) => ours.is_none(),
        };
        members && self.again.is_subset(&other.again)
    }

    /// Adds uses of a member, or takes them away.
    fn count(&mut self, member: u64, change: i64) {
        for _ in 0..change {
            self.add_one(member);
        }
        for _ in change..0 {
            self.take_one(member);
        }
        while self.layers.last().is_some_and(RoaringTreemap::is_empty) {
            self.layers.pop();
        }
    }

    fn add_one(&mut self, member: u64) {
        if self.layers.is_empty() {
            self.layers.push(RoaringTreemap::new());
        }
        let Some((members, more)) = self.layers.split_first_mut() else { return };
        if members.insert(member) {
            return;
        }
        for bit in more {
            if bit.insert(member) {
                return;
            }
            bit.remove(member);
        }
        self.layers.push(RoaringTreemap::from_iter([member]));
    }

    fn take_one(&mut self, member: u64) {
        let Some((members, more)) = self.layers.split_first_mut() else { return };
        let Some(lowest) = more.iter().position(|bit| bit.contains(member)) else {
            members.remove(member);
            return;
        };
        for (place, bit) in more.iter_mut().take(lowest + 1).enumerate() {
            if place == lowest {
                bit.remove(member)
            } else {
                bit.insert(member)
            };
        }
    }

    fn put(&mut self, member: u64, is_in: bool) {
        let has = self.has(member);
        if has != is_in {
            self.count(member, if is_in { 1 } else { -1 });
        }
    }

    fn put_again(&mut self, member: u64, is_in: bool) {
        if is_in {
            self.again.insert(member);
        } else {
            self.again.remove(member);
        }
    }

    /// Those of a day, added to those of its month.
    fn join(&mut self, day: &Self) {
        let Some(members) = day.layers.first() else { return };
        match self.layers.first_mut() {
            Some(all) => *all |= members,
            None => self.layers.push(members.clone()),
        }
        self.again |= &day.again;
    }

    fn row(&self, key: Key) -> Row {
        let members = self.layers.first().map_or(0, RoaringTreemap::len);
        let numbers = key.cells().into_iter().chain([members as i64, self.again.len() as i64]);
        let layers: Vec<String> = self.layers.iter().map(text).collect();
        let texts = [layers.join("."), text(&self.again)];
        Row(numbers.map(Cell::Int).chain(texts.map(Cell::Text)).collect())
    }
}

fn text(set: &RoaringTreemap) -> String {
    if set.is_empty() {
        return String::new();
    }
    let mut bytes = Vec::with_capacity(set.serialized_size());
    // Nothing that is written to memory fails.
    let _ = set.serialize_into(&mut bytes);
    STANDARD_NO_PAD.encode(bytes)
}

fn set(text: &str) -> Result<RoaringTreemap, StoreError> {
    if text.is_empty() {
        return Ok(RoaringTreemap::new());
    }
    let corrupt = |what: String| StoreError::Corrupt {
        table: TABLE.to_owned(),
        column: "a set of members".to_owned(),
        what,
    };
    let bytes = STANDARD_NO_PAD.decode(text).map_err(|error| corrupt(error.to_string()))?;
    RoaringTreemap::deserialize_from(bytes.as_slice()).map_err(|error| corrupt(error.to_string()))
}

fn sets(text: &str) -> Result<Vec<RoaringTreemap>, StoreError> {
    if text.is_empty() { Ok(Vec::new()) } else { text.split('.').map(set).collect() }
}

/// Whether a member came on a day.
struct Move {
    day: i64,
    came: bool,
}

/// The rows that the last range touched, as of its end: the next one often touches the same.
#[derive(Default)]
pub(super) struct Remembered {
    rows: BTreeMap<Key, Visits>,
    /// The newest day that anything was used on; None = it is not remembered.
    newest: Option<i64>,
}

/// The rows that a range touches: as they are, and as they become.
struct Book<'a> {
    tables: &'a Store,
    remembered: BTreeMap<Key, Visits>,
    before: BTreeMap<Key, Visits>,
    rows: BTreeMap<Key, Visits>,
    /// The newest day that anything was used on, as of the range's beginning; 0 = nothing was.
    newest: i64,
}

/// What the rows become by some facts, as of the range's end. The tables, and what is remembered of them, must be as of its
/// beginning; where they are not, nothing of it may be written or remembered.
pub(super) async fn changed(
    tables: &Store,
    remembered: &mut Remembered,
    facts: &[Fact],
) -> Result<Vec<Row>, StoreError> {
    let mut uses: BTreeMap<Key, BTreeMap<u64, i64>> = BTreeMap::new();
    for fact in facts.iter().filter(|fact| matches!(fact.event, "redeemed" | "reversed")) {
        let member = fact.member_id.unsigned_abs();
        for what in What::ALL {
            let id = match what {
                What::Anything => 0,
                What::Definition => fact.born.definition_id,
                What::Shop => fact.shop_id,
            };
            let key = Key { what, id, ..Key::of_all(fact.use_day, part_of(member)) };
            *uses.entry(key).or_default().entry(member).or_default() += fact.change.used;
        }
    }
    let Some(newest) = uses.keys().map(|key| key.day).max() else { return Ok(Vec::new()) };
    let mut book = Book::open(tables, std::mem::take(remembered)).await?;
    let newest = newest.max(book.newest);
    let parts: BTreeSet<i64> = uses.keys().map(|key| key.part).collect();
    book.load(uses.keys().copied().chain(parts.iter().map(|part| Key::ever(*part)))).await?;
    let mut moves: BTreeMap<(i64, u64), Vec<Move>> = BTreeMap::new();
    for (key, uses) in &uses {
        let row = book.row(*key);
        for (member, change) in uses {
            let had = row.has(*member);
            row.count(*member, *change);
            let came = row.has(*member);
            if key.what == What::Anything && had != came {
                moves.entry((key.part, *member)).or_default().push(Move { day: key.day, came });
            }
        }
    }
    book.move_members(moves).await?;
    book.tell_again();
    book.sum_months(newest).await?;
    let changes = book.changes();
    book.rows.retain(|key, _| uses.contains_key(key) || key.grain == Grain::Ever);
    *remembered = Remembered { rows: book.rows, newest: Some(newest) };
    Ok(changes)
}

impl<'a> Book<'a> {
    async fn open(tables: &'a Store, remembered: Remembered) -> Result<Self, StoreError> {
        let Remembered { rows: remembered, newest } = remembered;
        let newest = match newest {
            Some(newest) => newest,
            None => {
                tables.query(Statement::new(NEWEST, cells([]))).await?.first().map_or(0, |row| row.int(0))
            }
        };
        Ok(Self { tables, remembered, before: BTreeMap::new(), rows: BTreeMap::new(), newest })
    }

    fn row(&mut self, key: Key) -> &mut Visits {
        self.rows.entry(key).or_default()
    }

    /// Has these rows here, as they are.
    async fn load(&mut self, keys: impl IntoIterator<Item = Key>) -> Result<(), StoreError> {
        let mut unknown = Vec::new();
        for key in keys {
            match self.remembered.remove(&key) {
                _ if self.rows.contains_key(&key) => {}
                Some(visits) => self.keep(key, visits),
                None => unknown.push(key),
            }
        }
        self.read(ROW, unknown.iter().map(|key| key.cells()).collect()).await?;
        for key in unknown {
            self.row(key);
        }
        Ok(())
    }

    fn keep(&mut self, key: Key, visits: Visits) {
        self.before.insert(key, visits.clone());
        self.rows.insert(key, visits);
    }

    async fn read(&mut self, sql: &'static str, of: Vec<[i64; 5]>) -> Result<(), StoreError> {
        for row in self.tables.query_each(sql, of.into_iter().map(cells).collect()).await?.iter().flatten() {
            let Some(key) = key_of(row) else { continue };
            if !self.rows.contains_key(&key) {
                self.keep(key, Visits::read(row.text(5), row.text(6))?);
            }
        }
        Ok(())
    }

    /// Says of everybody who came on a day, or no more, whether he came again: on that day, and where his first day is
    /// another now.
    async fn move_members(&mut self, moves: BTreeMap<(i64, u64), Vec<Move>>) -> Result<(), StoreError> {
        let mut others = BTreeMap::new();
        for ((part, member), moves) in moves {
            let ever = self.row(Key::ever(part));
            match moves.as_slice() {
                [Move { came: true, .. }] if !ever.has(member) => ever.put(member, true),
                // He was not there on that day, and there is none behind it.
                [Move { day, came: true }] if *day >= self.newest => {
                    self.row(Key::of_all(*day, part)).put_again(member, true);
                }
                _ => drop(others.insert((part, member), moves)),
            }
        }
        let parts: BTreeSet<i64> = others.keys().map(|(part, _)| *part).collect();
        for part in parts {
            let members: BTreeMap<u64, &Vec<Move>> = others
                .iter()
                .filter(|((of, _), _)| *of == part)
                .map(|((_, member), moves)| (*member, moves))
                .collect();
            self.move_some(part, &members).await?;
        }
        Ok(())
    }

    async fn move_some(&mut self, part: i64, members: &BTreeMap<u64, &Vec<Move>>) -> Result<(), StoreError> {
        let days = self.days_of(part, &members.keys().copied().collect()).await?;
        let mut turned: BTreeMap<i64, Vec<(u64, bool)>> = BTreeMap::new();
        let mut firsts: BTreeSet<i64> = BTreeSet::new();
        for (member, moves) in members {
            let before = days.get(member).cloned().unwrap_or_default();
            let mut after = before.clone();
            for Move { day, came } in *moves {
                if *came {
                    after.insert(*day)
                } else {
                    after.remove(day)
                };
            }
            self.row(Key::ever(part)).put(*member, !after.is_empty());
            let (was_first, first) = (before.first(), after.first());
            let mut asked: BTreeSet<i64> = moves.iter().map(|one| one.day).collect();
            if was_first != first {
                // He came on them whatever he used, and nothing of this range need be about that.
                firsts.extend(was_first.into_iter().chain(first).filter(|day| before.contains(*day)));
                asked.extend(was_first.into_iter().chain(first));
            }
            for day in asked {
                let again = after.contains(&day) && Some(&day) != first;
                turned.entry(day).or_default().push((*member, again));
            }
        }
        let of_day = |day: &i64| What::ALL.map(|what| [what as i64, *day, *day, -1, part]);
        self.read(DAYS, firsts.iter().flat_map(of_day).collect()).await?;
        for (day, members) in turned {
            let row = self.row(Key::of_all(day, part));
            for (member, again) in members {
                row.put_again(member, again);
            }
        }
        Ok(())
    }

    /// The days on which some members came, as of the range's beginning.
    async fn days_of(
        &self,
        part: i64,
        members: &RoaringTreemap,
    ) -> Result<HashMap<u64, BTreeSet<i64>>, StoreError> {
        let ask = async |of: Vec<[i64; 4]>| {
            let rows = self.tables.query_each(CAME, of.into_iter().map(cells).collect()).await?;
            let day = |row: &Row| Ok((row.int(0), Visits::read(row.text(1), "")?.among(members)));
            rows.iter().flatten().map(day).collect::<Result<Vec<_>, StoreError>>()
        };
        let open = month_of(self.newest);
        let months = ask(vec![[Grain::Month as i64, part, 0, open]]).await?;
        let months = months.into_iter().filter(|(_, came)| !came.is_empty()).map(|(month, _)| month);
        let days = months.chain([open]).map(|month| [Grain::Day as i64, part, month, month + 31]);
        let mut found: HashMap<u64, BTreeSet<i64>> = HashMap::new();
        for (day, came) in ask(days.collect()).await? {
            for member in came {
                found.entry(member).or_default().insert(day);
            }
        }
        Ok(found)
    }

    /// Who came again on a day is so whatever he used and wherever.
    fn tell_again(&mut self) {
        let days = self.rows.iter().filter(|(key, _)| key.grain == Grain::Day);
        let of_all = days.filter(|(key, _)| key.what == What::Anything);
        let again: BTreeMap<Key, RoaringTreemap> =
            of_all.map(|(key, row)| (*key, row.again.clone())).collect();
        let days = self.rows.iter_mut().filter(|(key, _)| key.grain == Grain::Day);
        for (key, row) in days.filter(|(key, _)| key.what != What::Anything) {
            let again = again.get(&Key::of_all(key.day, key.part));
            row.again = again.map(|again| row.among(again)).unwrap_or_default();
        }
    }

    /// Brings the months that are over to what their days became.
    async fn sum_months(&mut self, newest: i64) -> Result<(), StoreError> {
        let (open, opens) = (month_of(self.newest), month_of(newest));
        let is_over = |key: &&Key| key.grain == Grain::Day && key.day < opens;
        let (older, ending): (Vec<Key>, Vec<Key>) =
            self.rows.keys().filter(is_over).partition(|key| key.day < open);
        // Of a month that ends here nothing is summed yet.
        let mut anew: BTreeSet<Key> = ending.into_iter().map(Key::month).collect();
        // An older one is added to, or summed once more where somebody is there no longer.
        let older: Vec<Key> =
            older.into_iter().filter(|key| self.before.get(key) != self.rows.get(key)).collect();
        self.load(older.iter().map(|key| key.month())).await?;
        for key in older {
            let day = self.rows.get(&key).cloned().unwrap_or_default();
            if self.before.get(&key).is_none_or(|before| before.is_in(&day)) {
                self.row(key.month()).join(&day);
            } else {
                anew.insert(key.month());
            }
        }
        let older = anew.iter().filter(|key| key.day < open);
        let mut days: Vec<[i64; 5]> =
            older.map(|key| [key.what as i64, key.day, key.day + 31, key.id, key.part]).collect();
        if opens > open {
            let parts = Statement::new(PARTS_OF_DAYS, cells([open, open + 31]));
            for part in self.tables.query(parts).await? {
                days.extend(What::ALL.map(|what| [what as i64, open, open + 31, -1, part.int(0)]));
            }
        }
        let months = self.sum_anew(anew, days).await?;
        self.rows.extend(months);
        Ok(())
    }

    /// These months, and those of some days, each summed from all of its days.
    async fn sum_anew(
        &self,
        months: BTreeSet<Key>,
        days: Vec<[i64; 5]>,
    ) -> Result<BTreeMap<Key, Visits>, StoreError> {
        let mut months: BTreeMap<Key, Visits> =
            months.into_iter().map(|key| (key, Visits::default())).collect();
        // One after the other: the days of all members together may be more than there is room for.
        for of in days {
            for row in self.tables.query(Statement::new(DAYS, cells(of))).await? {
                let Some(key) = key_of(&row).filter(|key| !self.rows.contains_key(key)) else { continue };
                let day = Visits::read(row.text(5), row.text(6))?;
                months.entry(key.month()).or_default().join(&day);
            }
        }
        for (key, day) in self.rows.iter().filter(|(key, _)| key.grain == Grain::Day) {
            if let Some(month) = months.get_mut(&key.month()) {
                month.join(day);
            }
        }
        Ok(months)
    }

    /// The rows that are not what they were, and those that are new.
    fn changes(&self) -> Vec<Row> {
        let changed = self.rows.iter().filter(|(key, row)| self.before.get(key) != Some(row));
        changed.map(|(key, row)| row.row(*key)).collect()
    }
}

/// The parameters of a statement over one bucket.
fn cells<const NUMBERS: usize>(numbers: [i64; NUMBERS]) -> Vec<Cell> {
    std::iter::once(BUCKET.into()).chain(numbers.map(Cell::Int)).collect()
}

fn key_of(row: &Row) -> Option<Key> {
    let what = What::ALL.into_iter().find(|what| *what as i64 == row.int(0))?;
    let grain =
        [Grain::Day, Grain::Month, Grain::Ever].into_iter().find(|grain| *grain as i64 == row.int(1))?;
    Some(Key { what, grain, day: row.int(2), id: row.int(3), part: row.int(4) })
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    use super::*;
    use crate::statistics::facts::{Born, Count};
    use crate::store::Scratch;
    use crate::store::statistics::statistics;

    #[derive(Clone)]
    struct Use {
        day: i64,
        definition_id: i64,
        shop_id: i64,
        member: u64,
        stands: bool,
    }

    impl Use {
        fn fact(&self, event: &'static str, change: i64) -> Fact {
            Fact {
                event,
                born: Born { definition_id: self.definition_id, ..Born::default() },
                shop_id: self.shop_id,
                member_id: self.member as i64,
                use_day: self.day,
                change: Count { used: change, ..Count::default() },
                ..Fact::default()
            }
        }
    }

    /// What the rows must be, by a look at every use for each use.
    fn computed(uses: &[Use]) -> BTreeMap<Key, Visits> {
        let open = uses.iter().map(|one| month_of(one.day)).max().unwrap_or_default();
        let mut rows: BTreeMap<Key, Visits> = BTreeMap::new();
        for one in uses.iter().filter(|one| one.stands) {
            let part = part_of(one.member);
            let his = uses.iter().filter(|other| other.stands && other.member == one.member);
            let again = his.map(|other| other.day).min() < Some(one.day);
            for (what, id) in
                [(What::Anything, 0), (What::Definition, one.definition_id), (What::Shop, one.shop_id)]
            {
                let key = Key { what, id, ..Key::of_all(one.day, part) };
                let day = rows.entry(key).or_default();
                day.count(one.member, 1);
                day.put_again(one.member, again);
                if one.day < open {
                    let month = rows.entry(key.month()).or_default();
                    month.put(one.member, true);
                    if again {
                        month.put_again(one.member, true);
                    }
                }
            }
            rows.entry(Key::ever(part)).or_default().put(one.member, true);
        }
        rows
    }

    /// Some use of one of a few members on one of a few days of five months.
    fn some_use(random: &mut StdRng) -> Use {
        let members = [1, 4_294_967_297, 262_143, 262_144, 65 * 262_144, 9_007_199_254_740_991];
        let days = [20_251_231, 20_260_101, 20_260_102, 20_260_131, 20_260_201, 20_260_315, 20_260_401];
        Use {
            day: days[random.random_range(0..days.len())],
            definition_id: random.random_range(1..3),
            shop_id: random.random_range(1..3),
            member: members[random.random_range(0..members.len())],
            stands: true,
        }
    }

    #[tokio::test]
    async fn rows_are_those_of_the_uses_that_stand_in_whatever_order_days_come() {
        let statistic = statistics().unwrap().iter().find(|one| one.table == TABLE).unwrap();
        for seed in 0..30 {
            let mut random = StdRng::seed_from_u64(seed);
            let scratch = Scratch::in_memory().await.unwrap();
            let store = scratch.store();
            let mut uses: Vec<Use> = Vec::new();
            let mut remembered = Remembered::default();
            for _ in 0..25 {
                // A process that begins remembers nothing.
                if random.random_bool(0.3) {
                    remembered = Remembered::default();
                }
                let mut facts = Vec::new();
                for _ in 0..random.random_range(1..6) {
                    let stands: Vec<usize> = (0..uses.len()).filter(|place| uses[*place].stands).collect();
                    if stands.is_empty() || random.random_bool(0.7) {
                        let used = some_use(&mut random);
                        facts.push(used.fact("redeemed", 1));
                        uses.push(used);
                    } else {
                        let back = stands[random.random_range(0..stands.len())];
                        uses[back].stands = false;
                        facts.push(uses[back].fact("reversed", -1));
                    }
                    facts.push(Fact { event: "voided", ..uses[0].fact("voided", 0) });
                }
                let rows = changed(&store, &mut remembered, &facts).await.unwrap();
                store.write(statistic.add(&rows)).await.unwrap();
                let sql = "SELECT what, grain, day, id, part, members, again, member_set, again_set FROM stats_visits
                           WHERE members <> 0 ORDER BY what, grain, day, id, part";
                let found = store.query(Statement::new(sql, [])).await.unwrap();
                let expected: Vec<Row> = computed(&uses).iter().map(|(key, row)| row.row(*key)).collect();
                assert_eq!(found, expected, "seed {seed}");
            }
            scratch.close().await;
        }
    }

    #[test]
    fn many_uses_of_a_day_are_counted_one_by_one() {
        let mut day = Visits::default();
        day.count(2, 3);
        let of_another = day.clone();
        let steps: Vec<Visits> = (0..20)
            .map(|_| {
                let before = day.clone();
                day.count(1, 1);
                before
            })
            .collect();
        let row = |visits: &Visits| visits.row(Key::of_all(20_260_101, 0));
        assert_eq!(sets(row(&day).text(7)).unwrap(), day.layers);
        assert_eq!(day.layers.len(), 6, "20 is 1 and 19 more, five bits");
        for before in steps.iter().rev() {
            day.count(1, -1);
            assert_eq!((&day, row(&day)), (before, row(before)));
        }
        assert_eq!(day, of_another);
        day.count(2, -3);
        assert_eq!((day.has(2), row(&day).text(7)), (false, ""));
    }

    #[test]
    fn a_set_is_its_text_however_it_came_about() {
        let mut set = (0..10_000).collect::<RoaringTreemap>();
        set.insert(9_007_199_254_740_991);
        set.remove(9_007_199_254_740_991);
        set.remove_range(5..);
        assert_eq!(text(&set), text(&(0..5).collect()));
        assert_eq!(super::set(&text(&set)).unwrap(), set);
        assert_eq!(text(&(set & RoaringTreemap::from_iter([7]))), "");
        for bad in ["?", "AAAA", "AQAAAAAAAAAAAAAA"] {
            let error = sets(bad).unwrap_err();
            assert!(error.to_string().contains(TABLE), "{bad}: {error}");
        }
    }
}
