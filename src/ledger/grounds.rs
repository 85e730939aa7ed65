//! What decisions rest on besides their own streams: definitions, shops, allotments and members.
//!
//! Every stream among them goes to the writer with the version that was seen, which refuses the append where it has moved.
//! Small, hot streams are remembered between commands. Must never let a refusal rest on what was only remembered: the
//! caller looks at [`Grounds::remembered`] and asks again.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::{ExecuteError, Ledger, Meta};
use crate::allotment::Allotment;
use crate::definition::Definition;
use crate::directory;
use crate::entity::{Entity, Needs, stream_of};
use crate::facts::{Facts, Membership};
use crate::shop::Shop;
use crate::store::StreamId;

/// How many streams of one kind are remembered; beyond it the memory starts anew.
const MAX_REMEMBERED: usize = 10_000;

/// States of streams as they were last read, each with its version.
struct Remembered<A>(Mutex<HashMap<i64, (Arc<A>, i64)>>);

impl<A> Default for Remembered<A> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<A> Remembered<A> {
    fn get(&self, id: i64) -> Option<(Arc<A>, i64)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    fn put(&self, id: i64, state: &Arc<A>, version: i64) {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(id, (Arc::clone(state), version));
    }
}

/// What is remembered between commands.
#[derive(Default)]
pub(super) struct Memory {
    definitions: Remembered<Definition>,
    shops: Remembered<Shop>,
    allotments: Remembered<Allotment>,
}

/// The grounds of one command, or of many that are written together.
#[derive(Default)]
pub(super) struct Grounds {
    definitions: HashMap<i64, Arc<Definition>>,
    shops: HashMap<i64, Arc<Shop>>,
    allotments: HashMap<i64, Arc<Allotment>>,
    /// Who was asked for; None = the directory does not have him.
    members: HashMap<i64, Option<Membership>>,
    /// The streams among them, and whatever else must not have moved.
    pub(super) unchanged: Vec<(StreamId, i64)>,
    /// Whether any of it was remembered.
    pub(super) remembered: bool,
}

impl Grounds {
    /// The shop that a command needs: its own, or the partner of the allotment it issues from.
    fn shop_of(&self, needs: Needs<'_>) -> Option<i64> {
        let partner = needs.allotment_id.and_then(|id| self.allotments.get(&id));
        needs.shop_id.or(partner.map(|allotment| allotment.partner_id))
    }
}

impl Ledger {
    /// Reads what these commands need and is not among the grounds yet.
    pub(super) async fn read_grounds<'c>(
        &self,
        grounds: &mut Grounds,
        needs: impl Iterator<Item = Needs<'c>>,
        may_remember: bool,
    ) -> Result<(), ExecuteError> {
        let memory = &self.inner.memory;
        let mut members = HashSet::new();
        for needs in needs {
            members.extend(needs.member_id.filter(|id| !grounds.members.contains_key(id)));
            if let Some(id) = needs.definition_id.filter(|id| !grounds.definitions.contains_key(id)) {
                let definition = self.recall(grounds, &memory.definitions, id, may_remember).await?;
                grounds.definitions.insert(id, definition);
            }
            if let Some(id) = needs.allotment_id.filter(|id| !grounds.allotments.contains_key(id)) {
                let allotment = self.recall(grounds, &memory.allotments, id, may_remember).await?;
                grounds.allotments.insert(id, allotment);
            }
            if let Some(id) = grounds.shop_of(needs).filter(|id| !grounds.shops.contains_key(id)) {
                let shop = self.recall(grounds, &memory.shops, id, may_remember).await?;
                grounds.shops.insert(id, shop);
            }
        }
        let members: Vec<i64> = members.into_iter().collect();
        let found = match members[..] {
            [] => Vec::new(),
            [member_id] => vec![directory::membership(&self.inner.store, member_id).await?],
            _ => directory::memberships(&self.inner.store, &members).await?,
        };
        grounds.members.extend(members.into_iter().zip(found));
        Ok(())
    }

    /// A stream's state, remembered if that may be, else read; the grounds get to know which, and its version.
    async fn recall<A: Entity>(
        &self,
        grounds: &mut Grounds,
        memory: &Remembered<A>,
        id: i64,
        may_remember: bool,
    ) -> Result<Arc<A>, ExecuteError> {
        let remembered = if may_remember { memory.get(id) } else { None };
        grounds.remembered |= remembered.is_some();
        let (state, version) = if let Some(remembered) = remembered {
            remembered
        } else {
            let (state, version) = self.load::<A>(id).await?;
            let state = Arc::new(state);
            if version > 0 {
                memory.put(id, &state, version);
            }
            (state, version)
        };
        grounds.unchanged.push((stream_of::<A>(id), version));
        Ok(state)
    }

    /// The facts that a command is decided by, from grounds that were read for it.
    pub(super) fn facts(&self, id: i64, needs: Needs<'_>, meta: &Meta, grounds: &Grounds) -> Facts {
        let inner = &self.inner;
        let shop_id = grounds.shop_of(needs);
        let shop = shop_id.and_then(|id| grounds.shops.get(&id).cloned());
        let scanned = needs.audit_url.and_then(|url| inner.secrets.signed_shop(url));
        let hangs = shop_id.zip(shop.as_ref().map(|shop| shop.audit_key));
        Facts {
            definition: needs.definition_id.and_then(|id| grounds.definitions.get(&id).cloned()),
            member: needs.member_id.and_then(|id| grounds.members.get(&id).cloned().flatten()),
            allotment: needs.allotment_id.and_then(|id| grounds.allotments.get(&id).cloned()),
            scanned: scanned.is_some() && scanned == hangs,
            shop,
            ..Facts::at(id, meta.at, inner.zone, inner.secrets.gift_codes().clone())
        }
    }
}
