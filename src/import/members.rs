//! Members of another system, into the directory.
//!
//! The directory has no events to tell what a chunk did, so a chunk's receipt says it: it holds one bit for each of its rows,
//! set where the row's id was taken. Rows without an id are thus added once, however often they are asked for.

use super::table::{Column, Row, Table, optional};
use super::{BadLine, Import};
use crate::clock::day_number;
use crate::directory::{self, DirectoryKey, Member, Written};
use crate::ledger::{ExecuteError, Ledger};
use crate::refusal::{Refusal, Wrong};
use crate::value::MAX_ID;

/// Rows of one transaction: as many as a receipt's number has bits, and room to spare.
pub(super) const CHUNK: usize = 60;

/// The most tags of one member, so that a chunk stays a short transaction.
const MAX_TAGS: usize = 20;

/// How often a chunk is tried while others add members under its ids.
const TRIES: u32 = 4;

pub(super) const COLUMNS: &[Column] = &[
    optional("id"),
    optional("nickname"),
    optional("headimgurl"),
    optional("member_name"),
    optional("phone"),
    optional("member_card"),
    optional("level_id"),
    optional("shop_id"),
    optional("tag_ids"),
    optional("birthday"),
    optional("card_end"),
    optional("sex"),
];

/// What a row says; the id is 0 where it says none.
fn read(row: &Row, now_ms: i64) -> Result<Member, Refusal> {
    row.complete()?;
    Ok(Member {
        id: row.optional_int("id", 1, MAX_ID)?.unwrap_or_default(),
        nickname: row.text("nickname", 100)?,
        headimgurl: row.text("headimgurl", 500)?,
        member_name: row.text("member_name", 100)?,
        phone: row.text("phone", 30)?,
        member_card: row.text("member_card", 50)?,
        level_id: row.optional_int("level_id", 0, MAX_ID)?.unwrap_or_default(),
        shop_id: row.optional_int("shop_id", 0, MAX_ID)?.unwrap_or_default(),
        tag_ids: row.ids("tag_ids", MAX_ID, MAX_TAGS)?,
        birthday: row.optional_day("birthday")?.map_or(0, day_number),
        card_end: row.optional_day("card_end")?.map_or(0, day_number),
        sex: row.optional_int("sex", 0, 2)?.unwrap_or_default(),
        joined_at_ms: now_ms,
        ..Member::default()
    })
}

fn key(import: &Import<'_>, chunk: Option<usize>) -> DirectoryKey {
    let key = import.key(chunk);
    DirectoryKey {
        caller: key.caller,
        operation: key.operation,
        key: key.key,
        request_mac: import.asked.request_mac.clone(),
    }
}

/// 6001 where the key stands for another file.
pub(super) async fn refuse_other_file(import: &Import<'_>) -> Result<(), ExecuteError> {
    if directory::is_used_for_another(import.ledger.store(), &key(import, None)).await? {
        return Err(Refusal::KeyReused.into());
    }
    Ok(())
}

/// Lets the ids of members go on behind those of a file before any of it is written: rows that bring none must not be given
/// what a later row brings.
pub(super) async fn claim_ids(ledger: &Ledger, table: Table<'_>) -> Result<(), ExecuteError> {
    if let Some(highest) = table.highest_id().await {
        directory::claim_member_ids(ledger.store(), highest).await?;
    }
    Ok(())
}

/// Takes a chunk of rows and returns those that were bad.
pub(super) async fn step(import: &mut Import<'_>, rows: &[Row]) -> Result<Vec<BadLine>, ExecuteError> {
    let now_ms = import.ledger.clock().now_ms();
    // With its bit in the chunk's receipt.
    let (mut members, mut bad) = (Vec::with_capacity(rows.len()), Vec::new());
    for (bit, row) in rows.iter().enumerate() {
        let read = read(row, now_ms);
        match read.and_then(|member| match member.id {
            0 => Ok(member),
            id => import.refuse_second(id).map(|()| member),
        }) {
            Ok(member) => members.push((1_i64 << bit, row.line, member)),
            Err(refusal) => bad.push(BadLine { line: row.line, refusal }),
        }
    }
    let taken =
        if import.asked.dry_run { taken(import, &members).await? } else { add(import, &members).await? };
    let taken = members.iter().filter(|(bit, ..)| taken & bit != 0);
    bad.extend(
        taken.map(|(_, line, _)| BadLine { line: *line, refusal: Refusal::field("id", Wrong::Taken) }),
    );
    Ok(bad)
}

/// The bits of the rows whose ids are taken.
async fn taken(import: &Import<'_>, members: &[(i64, u64, Member)]) -> Result<i64, ExecuteError> {
    let ids: Vec<i64> = members.iter().map(|(.., member)| member.id).filter(|id| *id != 0).collect();
    if ids.is_empty() {
        return Ok(0);
    }
    let known = directory::known_members(import.ledger.store(), import.ledger.seal(), &ids).await?;
    let taken = members.iter().filter(|(.., member)| known.contains(&member.id));
    Ok(taken.fold(0, |bits, (bit, ..)| bits | bit))
}

/// Adds the members whose ids are free and returns the bits of the others, or of the others then.
async fn add(import: &mut Import<'_>, members: &[(i64, u64, Member)]) -> Result<i64, ExecuteError> {
    let store = import.ledger.store();
    let key = key(import, Some(import.number));
    for _ in 0..TRIES {
        match directory::receipt(store, &key).await? {
            Some((request_mac, bits)) if request_mac == key.request_mac => {
                import.took_earlier = true;
                return Ok(bits);
            }
            Some(_) => return Err(Refusal::KeyReused.into()),
            None => {}
        }
        let bits = taken(import, members).await?;
        let free = members.iter().filter(|(bit, ..)| bits & bit == 0);
        let mut free: Vec<Member> = free.map(|(.., member)| member.clone()).collect();
        if free.is_empty() {
            return Ok(bits);
        }
        let nameless = free.iter().filter(|member| member.id == 0).count() as i64;
        if nameless > 0 {
            let first = store.reserve_ids("member", nameless).await?;
            for (id, member) in (first..).zip(free.iter_mut().filter(|member| member.id == 0)) {
                member.id = id;
            }
        }
        match directory::add_members(store, import.ledger.seal(), &free, &key, bits).await? {
            Written::Done => {
                import.took_now = true;
                return Ok(bits);
            }
            // Someone else was quicker with an id or with this very chunk.
            Written::Unmet | Written::KeyUsed => {}
        }
    }
    Err(ExecuteError::Conflict)
}
