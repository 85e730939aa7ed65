//! What is left of a member in the directory once his erasure is in the log, and how texts from before there were keys
//! come under theirs.

use super::keys::{Written, write};
use super::members::{Texts, add_tokens, remove_tokens, set_texts, still, texts};
use super::seal::{self, Seal};
use super::wechat::unbinding;
use crate::store::{BUCKET, Cell, Row, Statement, Store, StoreError};

/// How often a change of a member is tried again because another one came between.
const MAX_TRIES: usize = 16;

/// Clears a member's personal data, his search tokens, his WeChat, his messages and the texts of his reviews; his row with id, level, shop
/// and card stays, so that what the ledger says of him is said of someone. Whoever is cleared already, or is not here, is left as he
/// is; false where others change him all the time.
///
/// His key should still be there: by what it opens his tokens are found without reading all of them.
pub async fn clear_member(store: &Store, seal: &Seal, id: i64, at_ms: i64) -> Result<bool, StoreError> {
    for _ in 0..MAX_TRIES {
        let sql = concat!("SELECT erased_at_ms, ", texts!(), " FROM members WHERE member_id = $1");
        let rows = store.query(Statement::new(sql, [id.into()])).await?;
        let Some(row) = rows.first().filter(|row| row.int(0) == 0) else { return Ok(true) };
        let stored = Texts::read(row, 1);
        let mut statements = vec![still(id, 0, &stored), set_texts(id, Texts::default())];
        let blank = "UPDATE members SET birthday = 0, sex = 0, erased_at_ms = $2 WHERE member_id = $1";
        statements.push(Statement::new(blank, [id.into(), at_ms.max(1).into()]));
        statements.push(Statement::new("DELETE FROM member_tags WHERE member_id = $1", [id.into()]));
        statements.push(unbinding(id));
        let messages = "DELETE FROM messages WHERE bucket = $1 AND member_id = $2";
        statements.push(Statement::new(messages, [BUCKET.into(), id.into()]));
        statements.extend(forget_tokens(store, seal, id, &stored).await?);
        // A score stands in the reviewer's row only.
        let reviews = "DELETE FROM reviews WHERE coupon_id IN
                         (SELECT w.coupon_id FROM wallet_v1 w WHERE w.bucket = $1 AND w.member_id = $2 AND w.score > 0)";
        statements.push(Statement::new(reviews, [BUCKET.into(), id.into()]));
        statements.extend(forget_requests(store, id).await?);
        if write(store, id, None, statements).await? == Written::Done {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Fingerprints of requests that named him: with the secret they could be held against guesses of what was asked. The keys stay
/// used up.
async fn forget_requests(store: &Store, id: i64) -> Result<Vec<Statement>, StoreError> {
    let sql = "SELECT caller, operation, key FROM directory_receipts
               WHERE subject_id = $1 AND operation IN ('/member/add', '/member/edit')";
    let rows = store.query(Statement::new(sql, [id.into()])).await?;
    let forget = |row: &Row| {
        let sql = "UPDATE directory_receipts SET request_mac = '' WHERE caller = $1 AND operation = $2 AND key = $3";
        Statement::new(sql, [0, 1, 2].map(|column| Cell::from(row.text(column))))
    };
    Ok(rows.iter().map(forget).collect())
}

async fn forget_tokens(
    store: &Store,
    seal: &Seal,
    id: i64,
    stored: &Texts,
) -> Result<Vec<Statement>, StoreError> {
    let person = seal.person(id);
    if !person.is_erased()
        && let Ok(open) = stored.open(&person)
    {
        return Ok(remove_tokens(id, &open.tokens(seal)).into_iter().collect());
    }
    // His key was destroyed before, or his row was tampered with: no index leads from a member to his tokens.
    let sql = "SELECT token FROM member_tokens WHERE member_id = $1";
    let rows = store.query(Statement::new(sql, [id.into()])).await?;
    let delete = |token| {
        let sql = "DELETE FROM member_tokens WHERE token = $1 AND member_id = $2";
        Statement::new(sql, [Cell::from(token), id.into()])
    };
    Ok(rows.iter().map(|row| delete(row.int(0))).collect())
}

/// How many rows are looked at in one piece of sealing.
const PIECE: i64 = 200;

/// A piece of sealing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// The id to go on behind; None at the end.
    pub behind: Option<i64>,
    /// How many rows were plain.
    pub sealed: u64,
}

impl Piece {
    fn of(rows: &[Row], sealed: u64) -> Self {
        let last = rows.last().filter(|_| rows.len() as i64 == PIECE);
        Self { behind: last.map(|row| row.int(0)), sealed }
    }
}

/// Seals the texts of the next members behind an id that were written before there were keys. Several servers may do it
/// at once.
pub async fn seal_members(store: &Store, seal: &Seal, behind: i64) -> Result<Piece, StoreError> {
    let sql = concat!(
        "SELECT member_id, ",
        texts!(),
        " FROM members WHERE member_id > $1 ORDER BY member_id LIMIT $2"
    );
    let rows = store.query(Statement::new(sql, [behind.into(), PIECE.into()])).await?;
    let mut members = Vec::new();
    for row in &rows {
        let (id, stored) = (row.int(0), Texts::read(row, 1));
        let person = seal.person(id);
        if stored.is_plain() && !person.is_erased() {
            let open = stored.open(&person)?;
            let mut statements = vec![still(id, 0, &stored), set_texts(id, open.seal(&person))];
            statements.extend(add_tokens(id, &open.tokens(seal)));
            members.push(statements);
        }
    }
    // One transaction, unless somebody comes between: then each by itself, and whom he has edited is sealed by that.
    if !members.is_empty() && write(store, 0, None, members.concat()).await? != Written::Done {
        for statements in &members {
            let _ = write(store, 0, None, statements.clone()).await?;
        }
    }
    Ok(Piece::of(&rows, members.len() as u64))
}

/// The same of reviews, by their coupons.
pub async fn seal_reviews(store: &Store, seal: &Seal, behind: i64) -> Result<Piece, StoreError> {
    let mut sealed = 0;
    let sql = "SELECT r.coupon_id, r.salt, r.text,
                      COALESCE((SELECT MIN(w.member_id) FROM wallet_v1 w
                                WHERE w.bucket = $1 AND w.coupon_id = r.coupon_id AND w.score > 0), 0)
               FROM reviews r WHERE r.coupon_id > $2 ORDER BY r.coupon_id LIMIT $3";
    let rows = store.query(Statement::new(sql, [BUCKET.into(), behind.into(), PIECE.into()])).await?;
    for row in &rows {
        let (coupon_id, salt, text) = (row.int(0), row.text(1), row.text(2));
        if !seal::is_plain(text) {
            continue;
        }
        let person = seal.person(row.int(3));
        let sql = "UPDATE reviews SET salt = $2, text = $3 WHERE coupon_id = $1 AND text = $4";
        let stored =
            [person.seal(seal::REVIEW_SALT, salt), person.seal(seal::REVIEW_TEXT, text), text.to_owned()];
        let cells = std::iter::once(Cell::from(coupon_id)).chain(stored.map(Cell::from));
        store.write(vec![Statement::new(sql, cells)]).await?;
        sealed += 1;
    }
    Ok(Piece::of(&rows, sealed))
}

/// An erasure that was recorded before erasures were events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EarlierErasure {
    /// Whose.
    pub member_id: i64,
    /// Unix milliseconds.
    pub at_ms: i64,
    /// Why.
    pub reason: String,
}

/// Erasures from before they were events, behind a member.
pub async fn earlier_erasures(store: &Store, behind: i64) -> Result<Vec<EarlierErasure>, StoreError> {
    let sql =
        "SELECT member_id, at_ms, reason FROM erasures WHERE member_id > $1 ORDER BY member_id LIMIT $2";
    let rows = store.query(Statement::new(sql, [behind.into(), PIECE.into()])).await?;
    let erasure = |row: &Row| EarlierErasure {
        member_id: row.int(0),
        at_ms: row.int(1),
        reason: row.text(2).to_owned(),
    };
    Ok(rows.iter().map(erasure).collect())
}

/// Which of these members are here with their data, by their rows.
pub async fn not_cleared(store: &Store, ids: &[i64]) -> Result<Vec<i64>, StoreError> {
    let sql = "SELECT member_id FROM members WHERE member_id = $1 AND erased_at_ms = 0";
    let found = store.query_each(sql, ids.iter().map(|id| vec![Cell::from(*id)]).collect()).await?;
    Ok(found.iter().flatten().map(|row| row.int(0)).collect())
}
