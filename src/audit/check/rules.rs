//! The rules of the log as a whole: its streams, the times of its events, and stock; coupon by coupon the rules of use.
//!
//! State is kept in few bytes a stream, and nothing of what was read.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use super::coupon::{Broken, Coupon, Fact, Past};
use super::export::stream_name;
use super::{Finding, Findings};
use crate::account::AccountEvent;
use crate::allotment::AllotmentEvent;
use crate::approval::ApprovalEvent;
use crate::audit::leaf;
use crate::coupon::CouponEvent;
use crate::definition::DefinitionEvent;
use crate::grant::GrantEvent;
use crate::job::JobEvent;
use crate::machine::MachineEvent;
use crate::member::MemberEvent;
use crate::office::{AppointmentEvent, OfficeEvent};
use crate::order::OrderEvent;
use crate::partner_key::PartnerKeyEvent;
use crate::provenance::{LEDGER_ID, ProvenanceEvent};
use crate::reading::ReadingEvent;
use crate::refusals::RefusalsEvent;
use crate::rule::{GoodsGroupEvent, OrderAmountEvent};
use crate::shop::ShopEvent;
use crate::store::{MAX_CLOCK_SKEW_MS, StoredEvent};
use crate::webhook::WebhookEvent;

/// Every kind of stream and the names of its events.
pub(crate) const KINDS: &[(&str, &[&str])] = &[
    ("coupon", CouponEvent::NAMES),
    ("definition", DefinitionEvent::NAMES),
    ("shop", ShopEvent::NAMES),
    ("allotment", AllotmentEvent::NAMES),
    ("job", JobEvent::NAMES),
    ("order", OrderEvent::NAMES),
    ("grant", GrantEvent::NAMES),
    ("order_amount", OrderAmountEvent::NAMES),
    ("goods_group", GoodsGroupEvent::NAMES),
    ("member", MemberEvent::NAMES),
    ("account", AccountEvent::NAMES),
    ("office", OfficeEvent::NAMES),
    ("appointment", AppointmentEvent::NAMES),
    ("machine_key", MachineEvent::NAMES),
    ("partner_key", PartnerKeyEvent::NAMES),
    ("reading", ReadingEvent::NAMES),
    ("refusals", RefusalsEvent::NAMES),
    ("approval", ApprovalEvent::NAMES),
    ("webhook", WebhookEvent::NAMES),
    ("ledger", ProvenanceEvent::NAMES),
];

/// The version of every event today.
const VERSION: &str = "1.0";

/// Judges a log event by event.
pub(super) struct Rules {
    from: i64,
    coupons: HashMap<i64, Coupon>,
    /// How many events each other stream has, by kind and id.
    sequences: HashMap<(&'static str, i64), i64>,
    definitions: HashMap<i64, Stock>,
    allotments: HashMap<i64, Stock>,
    begun_before: u64,
    /// How many keys have signed; None in a part of a log that has not told yet.
    keys: Option<u32>,
}

/// How many may be issued, and how many are.
#[derive(Default)]
struct Stock {
    /// None = unlimited.
    most: Option<i64>,
    issued: i64,
    off: bool,
    /// An allotment's.
    definition_id: i64,
}

#[derive(Deserialize)]
enum DefinitionFact {
    Defined { stock: Option<i64>, at_ms: i64 },
    Edited { at_ms: i64 },
    StockChanged { by: i64, stock: i64, at_ms: i64 },
    StateChanged { on: bool, at_ms: i64 },
}

#[derive(Deserialize)]
enum AllotmentFact {
    Allotted { definition_id: i64, num: i64, at_ms: i64 },
    EndChanged { at_ms: i64 },
    StockChanged { by: i64, num: i64, at_ms: i64 },
}

#[derive(Deserialize)]
enum LedgerFact {
    CheckpointKeyRotated { generation: u32, at_ms: i64 },
}

/// All that is asked of other events.
#[derive(Deserialize)]
struct At {
    at_ms: i64,
}

impl Rules {
    pub(super) fn new(from: i64) -> Self {
        Self {
            from,
            coupons: HashMap::new(),
            sequences: HashMap::new(),
            definitions: HashMap::new(),
            allotments: HashMap::new(),
            begun_before: 0,
            keys: (from == 1).then_some(1),
        }
    }

    /// The next event.
    pub(super) fn see(&mut self, event: &StoredEvent, found: &mut Findings) {
        let mut tell = |(rule, what): Broken| {
            let stream = Some(stream_name(event));
            found.add(Finding { stream, ..Finding::at(rule, event.position, what) });
        };
        let (kind, id) = match known(event) {
            Ok(known) => known,
            Err(broken) => return tell(broken),
        };
        if let Err(broken) = self.count(kind, id, event.sequence) {
            tell(broken);
        }
        let judged = match kind {
            "coupon" => self.coupon(id, event, &mut tell),
            "definition" => self.definition(id, event, &mut tell),
            "allotment" => self.allotment(id, event, &mut tell),
            "ledger" if event.event_type == "CheckpointKeyRotated" => self.rotation(id, event),
            _ => other(event),
        };
        match judged {
            // The note of an import has the time of what it stands before, and says when it was done.
            Ok(_) if leaf::is_import_note(event) => {}
            Ok(at_ms) if at_ms > event.recorded_at_ms.saturating_add(MAX_CLOCK_SKEW_MS) => tell((
                "command time",
                format!("it was done at {at_ms} and recorded before that, at {}", event.recorded_at_ms),
            )),
            Ok(_) => {}
            Err(broken) => tell(broken),
        }
    }

    /// What could not be judged, for people.
    pub(super) fn finish(self) -> Option<String> {
        (self.begun_before > 0).then(|| {
            format!(
                "{} streams began before position {}: of them only the sequence was checked",
                self.begun_before, self.from
            )
        })
    }

    fn count(&mut self, kind: &'static str, id: i64, sequence: i64) -> Result<(), Broken> {
        let last = match kind {
            "coupon" => &mut self.coupons.entry(id).or_default().sequence,
            _ => self.sequences.entry((kind, id)).or_default(),
        };
        let expected = last.saturating_add(1);
        let began_before = *last == 0 && self.from > 1 && sequence > 1;
        *last = sequence;
        if began_before {
            self.begun_before += 1;
        } else if sequence != expected {
            return Err((
                "sequence",
                format!("it is event {sequence} of its stream, and {expected} must come"),
            ));
        }
        Ok(())
    }

    fn coupon(&mut self, id: i64, event: &StoredEvent, tell: &mut impl FnMut(Broken)) -> Result<i64, Broken> {
        let fact: Fact<'_> = parse(event)?;
        let coupon = self.coupons.entry(id).or_default();
        // Of one that began before the export nothing can be judged.
        if !coupon.is_born() && self.from > 1 && fact.birth().is_none() {
            return Ok(fact.at_ms());
        }
        let was_voided = coupon.voided;
        if let Some(broken) = coupon.take(&fact) {
            tell(broken);
        }
        let by = match &fact {
            Fact::Issued(_) => 1,
            Fact::Imported { past, .. } => i64::from(!matches!(past, Past::Voided {})),
            Fact::Voided { .. } if !was_voided => -1,
            _ => return Ok(fact.at_ms()),
        };
        let (definition_id, allotment_id) = (coupon.definition_id, coupon.allotment_id);
        let issued_here = matches!(fact, Fact::Issued(_));
        if let Err(broken) = self.move_stock(definition_id, allotment_id, by, issued_here) {
            tell(broken);
        }
        Ok(fact.at_ms())
    }

    fn move_stock(
        &mut self,
        definition_id: i64,
        allotment_id: i64,
        by: i64,
        issued_here: bool,
    ) -> Result<(), Broken> {
        let whole = self.from == 1;
        let allotment = self.allotments.get_mut(&allotment_id);
        if whole && allotment_id != 0 && allotment.is_none() {
            return Err(("stock", format!("it is taken of allotment {allotment_id}, which there is not")));
        }
        let of_another = allotment.as_ref().is_some_and(|stock| stock.definition_id != definition_id);
        let taken = allotment.map_or(Ok(()), |stock| stock.issue(by));
        let Some(stock) = self.definitions.get_mut(&definition_id) else {
            let what = format!("it is issued from definition {definition_id}, which there is not");
            return if whole { Err(("stock", what)) } else { taken };
        };
        let off = stock.off;
        stock.issue(by)?;
        taken?;
        if of_another {
            return Err(("stock", format!("allotment {allotment_id} is of another definition")));
        }
        if off && issued_here && by > 0 {
            return Err(("stock", format!("definition {definition_id} was switched off")));
        }
        Ok(())
    }

    fn definition(
        &mut self,
        id: i64,
        event: &StoredEvent,
        tell: &mut impl FnMut(Broken),
    ) -> Result<i64, Broken> {
        let fact: DefinitionFact = parse(event)?;
        if let DefinitionFact::Defined { stock, at_ms } = fact {
            let new = Stock { most: stock, ..Stock::default() };
            if self.definitions.insert(id, new).is_some() {
                tell(("defined once", "it is defined a second time".to_owned()));
            }
            return Ok(at_ms);
        }
        let Some(definition) = self.definitions.get_mut(&id) else {
            return self.unseen().map(|()| 0);
        };
        match fact {
            DefinitionFact::StockChanged { by, stock, at_ms } => {
                definition.change(by, stock)?;
                Ok(at_ms)
            }
            DefinitionFact::StateChanged { on, at_ms } => {
                definition.off = !on;
                Ok(at_ms)
            }
            DefinitionFact::Defined { at_ms, .. } | DefinitionFact::Edited { at_ms } => Ok(at_ms),
        }
    }

    fn allotment(
        &mut self,
        id: i64,
        event: &StoredEvent,
        tell: &mut impl FnMut(Broken),
    ) -> Result<i64, Broken> {
        let fact: AllotmentFact = parse(event)?;
        if let AllotmentFact::Allotted { definition_id, num, at_ms } = fact {
            let new = Stock { most: Some(num), definition_id, ..Stock::default() };
            if self.allotments.insert(id, new).is_some() {
                tell(("defined once", "it is allotted a second time".to_owned()));
            }
            return Ok(at_ms);
        }
        let Some(allotment) = self.allotments.get_mut(&id) else {
            return self.unseen().map(|()| 0);
        };
        match fact {
            AllotmentFact::StockChanged { by, num, at_ms } => {
                allotment.change(by, num)?;
                Ok(at_ms)
            }
            AllotmentFact::EndChanged { at_ms } | AllotmentFact::Allotted { at_ms, .. } => Ok(at_ms),
        }
    }

    fn rotation(&mut self, id: i64, event: &StoredEvent) -> Result<i64, Broken> {
        let LedgerFact::CheckpointKeyRotated { generation, at_ms } = parse(event)?;
        if id != LEDGER_ID {
            return Err(("keys", "a ledger rotates its keys in its first stream only".to_owned()));
        }
        // Counted, as the ledger counts them: after a forged number the next true one is right again.
        let expected = self.keys.map(|keys| keys.saturating_add(1));
        self.keys = Some(expected.unwrap_or(generation));
        match expected {
            Some(expected) if generation != expected => {
                Err(("keys", format!("it is key {generation}, and {expected} must come")))
            }
            _ => Ok(at_ms),
        }
    }

    /// Something of a definition or allotment whose beginning was not seen.
    fn unseen(&self) -> Result<(), Broken> {
        if self.from > 1 { Ok(()) } else { Err(("defined once", "it was never defined".to_owned())) }
    }
}

impl Stock {
    fn issue(&mut self, by: i64) -> Result<(), Broken> {
        self.issued = self.issued.saturating_add(by);
        match self.most {
            Some(most) if by > 0 && self.issued > most => {
                Err(("stock", format!("{} are issued, and {most} may be", self.issued)))
            }
            _ => Ok(()),
        }
    }

    fn change(&mut self, by: i64, most: i64) -> Result<(), Broken> {
        let expected = self.most.unwrap_or(0).saturating_add(by);
        self.most = Some(most);
        if most != expected {
            return Err(("stock", format!("it becomes {most}, where {expected} must come of it")));
        }
        if most < self.issued {
            return Err(("stock", format!("it becomes {most}, and {} are issued", self.issued)));
        }
        Ok(())
    }
}

/// The kind of its stream and the id.
fn known(event: &StoredEvent) -> Result<(&'static str, i64), Broken> {
    let kind = KINDS.iter().find(|(kind, _)| *kind == event.aggregate_type);
    let kind = kind.filter(|(_, names)| names.contains(&event.event_type.as_str()));
    let Some((kind, _)) = kind.filter(|_| event.event_version == VERSION) else {
        let name = format!("{} {}", event.event_type, event.event_version);
        return Err((
            "event",
            format!("{name} is no event of a {} that this program knows", event.aggregate_type),
        ));
    };
    let id =
        event.aggregate_id.parse().ok().filter(|id: &i64| *id > 0 && id.to_string() == event.aggregate_id);
    id.map(|id| (*kind, id)).ok_or_else(|| ("event", "the id of its stream is no number".to_owned()))
}

fn parse<'a, T: Deserialize<'a>>(event: &'a StoredEvent) -> Result<T, Broken> {
    let rest =
        event.payload.strip_prefix("{\"").and_then(|rest| rest.strip_prefix(event.event_type.as_str()));
    if !rest.is_some_and(|rest| rest.starts_with("\":")) {
        return Err(("event", format!("its payload is not that of a {}", event.event_type)));
    }
    let parsed = serde_json::from_str(&event.payload);
    parsed.map_err(|error| ("event", format!("its payload cannot be read: {error}")))
}

/// The time of an event of which nothing else is judged.
fn other(event: &StoredEvent) -> Result<i64, Broken> {
    let at: BTreeMap<String, At> = parse(event)?;
    Ok(at.values().next().map_or(0, |at| at.at_ms))
}
