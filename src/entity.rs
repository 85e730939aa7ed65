//! What the aggregates have in common: `cqrs_es::Aggregate` over their pure `decide` and `evolve`, the names and
//! versions of their events, and what a change of them writes beside the events.
//!
//! Stored events come back through [`decode`]. An event's meaning never changes: a new shape is a new version, and
//! `decode` is where its upcaster belongs. An unknown or corrupt event is an error that names its place, never a skip.

mod names;

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};

use crate::account::{Account, AccountCommand, AccountEvent};
use crate::allotment::{Allotment, AllotmentCommand, AllotmentEvent};
use crate::approval::{Approval, ApprovalCommand, ApprovalEvent};
use crate::coupon::{Coupon, CouponCommand, CouponEvent, Past, Source};
use crate::definition::{Definition, DefinitionCommand, DefinitionEvent, IssueLimit};
use crate::directory::account_secrets;
use crate::facts::Facts;
use crate::grant::{Grant, GrantCommand, GrantEvent};
use crate::job::{Job, JobCommand, JobEvent};
use crate::machine::{Machine, MachineCommand, MachineEvent};
use crate::member::{Member, MemberCommand, MemberEvent};
use crate::office::{Appointment, AppointmentCommand, AppointmentEvent, Office, OfficeCommand, OfficeEvent};
use crate::order::{Order, OrderCommand, OrderEvent};
use crate::partner_key::{PartnerKey, PartnerKeyCommand, PartnerKeyEvent};
use crate::provenance::{Provenance, ProvenanceCommand, ProvenanceEvent};
use crate::read_model::accounts::account_rows;
use crate::read_model::approvals::approval_rows;
use crate::read_model::machines::machine_rows;
use crate::read_model::offices::{appointment_rows, office_rows};
use crate::read_model::orders::order_rows;
use crate::read_model::partner_keys::partner_key_rows;
use crate::read_model::readings::reading_rows;
use crate::read_model::rules::{goods_group_rows, grant_rows, order_amount_rows};
use crate::read_model::{allotment_rows, coupon_rows, definition_rows, job_rows, shop_rows};
use crate::reading::{Reading, ReadingCommand, ReadingEvent};
use crate::refusal::Refusal;
use crate::refusals::{Refusals, RefusalsCommand, RefusalsEvent};
use crate::rule::{
    GoodsGroup, GoodsGroupCommand, GoodsGroupEvent, OrderAmount, OrderAmountCommand, OrderAmountEvent,
};
use crate::shop::{Shop, ShopCommand, ShopEvent};
use crate::store::{
    AttemptGuard, Effects, EventRef, LiveRow, MemberCountChange, NewEvent, OneAtATime, ReviewText,
    StockChange, StockOf, StoredEvent, StreamId,
};

/// Which facts a command needs read before it can be decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs<'a> {
    /// The definition to issue from.
    pub definition_id: Option<i64>,
    /// The member to issue to.
    pub member_id: Option<i64>,
    /// The allotment to issue from; its partner is read with it, as the shop.
    pub allotment_id: Option<i64>,
    /// The shop to redeem at, or the partner to allot to.
    pub shop_id: Option<i64>,
    /// The QR that was scanned.
    pub audit_url: Option<&'a str>,
}

/// The two functions that an aggregate is.
pub trait Decider: Aggregate<Error = Refusal, Services = Facts, Command: Send + Sync> {
    /// What follows from a command, or why nothing does. Pure.
    fn decide(&self, command: &Self::Command, facts: &Facts) -> Result<Vec<Self::Event>, Refusal>;

    /// What an event makes of it. Pure and total.
    fn evolve(&mut self, event: &Self::Event);
}

/// An aggregate that the ledger can run commands on.
pub trait Entity: Decider + Clone + PartialEq + 'static {
    /// The shape of every event today.
    const EVENT_VERSION: &'static str = "1.0";

    /// Which facts a command needs.
    fn needs(_command: &Self::Command) -> Needs<'_> {
        Needs::default()
    }

    /// Whether a command begins a new stream.
    fn begins(_command: &Self::Command) -> bool {
        false
    }

    /// Every live row of a stream in this state.
    fn rows(&self, id: i64) -> Vec<LiveRow>;

    /// What this state counts for: stock and member counts move by `counts(after) - counts(before)`.
    fn counts(&self) -> Option<Counts> {
        None
    }

    /// The stock this state sets, and whose it is: a number of None = unlimited; None = it sets none.
    fn stock(&self, _id: i64) -> Option<(StockOf, Option<i64>)> {
        None
    }

    /// The guards and texts that belong to a command, beyond what follows from the states.
    fn guard(_command: &Self::Command, _events: &[Self::Event], _facts: &Facts, _effects: &mut Effects) {}

    /// The guard on a command that is refused or changes nothing but is counted all the same.
    fn attempt(&self, _command: &Self::Command, _facts: &Facts, _refused: bool) -> Option<AttemptGuard> {
        None
    }
}

/// A coupon's weight in the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Of which definition.
    pub definition_id: i64,
    /// From which partner's allotment, if it was taken from one.
    pub allotment_id: Option<i64>,
    /// Issued to whom.
    pub member_id: i64,
    /// 1 while it counts, 0 once voided.
    pub issued: i64,
}

/// What a stream's change from one state to another writes: the rows that differ, and the counters' moves.
#[must_use]
pub fn effects<A: Entity>(id: i64, before: &A, after: &A) -> Effects {
    let old = before.rows(id);
    let mut effects = Effects::default();
    let changed = after.rows(id).into_iter();
    effects.rows = changed.filter(|row| !old.iter().any(|old| same_row(old, row))).collect();
    if let Some((of, stock)) = after.stock(id).filter(|stock| before.stock(id) != Some(*stock)) {
        effects.stock.push(StockChange::Set { of, stock });
    }
    if let Some(counts) = after.counts() {
        let by = counts.issued - before.counts().map_or(0, |before| before.issued);
        if by != 0 {
            let Counts { definition_id, allotment_id, member_id, .. } = counts;
            effects.stock.push(StockChange::Issued { of: StockOf::Definition(definition_id), by });
            let allotment = allotment_id.map(StockOf::Allotment);
            effects.stock.extend(allotment.map(|of| StockChange::Issued { of, by }));
            effects.member_counts.push(MemberCountChange { member_id, definition_id, by, limit: None });
        }
    }
    effects
}

fn same_row(one: &LiveRow, other: &LiveRow) -> bool {
    std::ptr::eq(one.table, other.table) && one.cells == other.cells
}

/// An event as it goes into the log: serialised once.
pub fn encode<A: Entity>(event: &A::Event) -> Result<NewEvent, serde_json::Error> {
    Ok(NewEvent {
        event_type: event.event_type(),
        event_version: event.event_version(),
        payload: serde_json::to_string(event)?,
    })
}

/// A stored event that cannot be read: names where it lies.
#[derive(Debug, thiserror::Error)]
#[error(
    "position {position}, stream {stream} {aggregate_id} event {sequence} ({event_type} {event_version}): {what}"
)]
pub struct CorruptEvent {
    /// Its place in the log.
    pub position: i64,
    /// Its stream's type.
    pub stream: String,
    /// Its stream's id.
    pub aggregate_id: String,
    /// Its place in the stream.
    pub sequence: i64,
    /// What it calls itself.
    pub event_type: String,
    /// The version it has.
    pub event_version: String,
    /// What is wrong with it.
    pub what: String,
}

impl CorruptEvent {
    fn at(event: EventRef<'_>, what: String) -> Box<Self> {
        Box::new(Self {
            position: event.position,
            stream: event.aggregate_type.to_owned(),
            aggregate_id: event.aggregate_id.to_owned(),
            sequence: event.sequence,
            event_type: event.event_type.to_owned(),
            event_version: event.event_version.to_owned(),
            what,
        })
    }
}

/// A stored event as what happened.
pub fn decode<A: Entity>(stored: &StoredEvent) -> Result<A::Event, Box<CorruptEvent>> {
    decode_ref::<A>(stored.as_ref())
}

/// The same of an event in passing. Where a second version of an event comes to be, its upcaster goes here.
pub fn decode_ref<A: Entity>(stored: EventRef<'_>) -> Result<A::Event, Box<CorruptEvent>> {
    let corrupt = |what: String| CorruptEvent::at(stored, what);
    if stored.aggregate_type != A::TYPE {
        return Err(corrupt(format!("expected an event of a {}", A::TYPE)));
    }
    if stored.event_version != A::EVENT_VERSION {
        return Err(corrupt("unknown version".to_owned()));
    }
    let event: A::Event = serde_json::from_str(stored.payload).map_err(|error| corrupt(error.to_string()))?;
    if event.event_type() != stored.event_type {
        return Err(corrupt(format!("the payload is a {}", event.event_type())));
    }
    Ok(event)
}

/// The id of an event's stream: a decimal number, written in the one way.
pub fn id_of(event: EventRef<'_>) -> Result<i64, Box<CorruptEvent>> {
    let text = event.aggregate_id;
    let is_one = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| is_one)
        .ok_or_else(|| CorruptEvent::at(event, format!("{} is no id of a stream", event.aggregate_id)))
}

/// A stream's state and version, event by event.
#[derive(Clone, Debug)]
pub struct Folded<A> {
    /// What its events have made of it.
    pub state: A,
    /// The last one's sequence.
    pub version: i64,
}

impl<A: Entity> Default for Folded<A> {
    fn default() -> Self {
        Self { state: A::default(), version: 0 }
    }
}

impl<A: Entity> Folded<A> {
    /// Takes the next event; one that is missing or cannot be read is an error.
    pub fn take(&mut self, event: EventRef<'_>) -> Result<(), Box<CorruptEvent>> {
        let expected = self.version + 1;
        if event.sequence != expected {
            return Err(CorruptEvent::at(event, format!("event {expected} of the stream is missing")));
        }
        if self.version == 0 {
            id_of(event)?;
        }
        self.state.evolve(&decode_ref::<A>(event)?);
        self.version = expected;
        Ok(())
    }
}

/// Folds a stream's stored events; the version is the last one's sequence.
pub fn fold<A: Entity>(stream: &[StoredEvent]) -> Result<(A, i64), Box<CorruptEvent>> {
    let mut folded = Folded::default();
    for stored in stream {
        folded.take(stored.as_ref())?;
    }
    Ok((folded.state, folded.version))
}

/// The stream of an entity.
#[must_use]
pub fn stream_of<A: Entity>(id: i64) -> StreamId {
    StreamId { kind: A::TYPE, id }
}

impl Entity for Coupon {
    fn needs(command: &CouponCommand) -> Needs<'_> {
        match command {
            CouponCommand::Issue { definition_id, member_id, origin } => Needs {
                definition_id: Some(*definition_id),
                member_id: Some(*member_id),
                allotment_id: (origin.source == Source::Partner).then_some(origin.source_id),
                ..Needs::default()
            },
            CouponCommand::UseInOrder { shop_id, .. } => {
                Needs { shop_id: Some(*shop_id), ..Needs::default() }
            }
            CouponCommand::Import { definition_id, member_id, past, .. } => Needs {
                definition_id: Some(*definition_id),
                member_id: Some(*member_id),
                shop_id: match past {
                    Past::Used { shop_id, .. } => Some(*shop_id),
                    Past::Unused | Past::Voided { .. } => None,
                },
                ..Needs::default()
            },
            CouponCommand::Redeem { shop_id, audit_url, .. } => {
                Needs { shop_id: Some(*shop_id), audit_url: audit_url.as_deref(), ..Needs::default() }
            }
            _ => Needs::default(),
        }
    }

    fn begins(command: &CouponCommand) -> bool {
        matches!(command, CouponCommand::Issue { .. } | CouponCommand::Import { .. })
    }

    fn rows(&self, id: i64) -> Vec<LiveRow> {
        coupon_rows(id, self)
    }

    fn counts(&self) -> Option<Counts> {
        let issue = self.issue.as_ref()?;
        let issued = i64::from(self.voided_at_ms.is_none());
        let (definition_id, member_id) = (issue.definition_id, issue.member_id);
        Some(Counts { definition_id, allotment_id: issue.allotment_id(), member_id, issued })
    }

    fn guard(command: &CouponCommand, events: &[CouponEvent], facts: &Facts, effects: &mut Effects) {
        match command {
            CouponCommand::Issue { definition_id, member_id, .. } => {
                let offer = facts.definition.as_ref().and_then(|definition| definition.offer.as_ref());
                let Some(offer) = offer else { return };
                if offer.issue_limit == IssueLimit::PerMember {
                    for change in &mut effects.member_counts {
                        change.limit = Some(offer.get_limit);
                    }
                }
                if let (IssueLimit::OneAtATime, Some(CouponEvent::Issued(issue))) =
                    (&offer.issue_limit, events.first())
                {
                    effects.one_at_a_time.push(OneAtATime {
                        member_id: *member_id,
                        definition_id: *definition_id,
                        now_ms: facts.at.ms,
                        ends_at_ms: issue.ends_at_ms,
                    });
                }
            }
            CouponCommand::Receive { member_id, .. } | CouponCommand::Peek { member_id, .. } => {
                let failed = events.iter().any(|event| matches!(event, CouponEvent::GiftCodeRejected { .. }));
                effects.attempts = Some(AttemptGuard { member_id: *member_id, now_ms: facts.at.ms, failed });
            }
            CouponCommand::Evaluate { member_id, text, salt, .. } => {
                let (coupon_id, member_id) = (facts.id, *member_id);
                effects.review =
                    Some(ReviewText { coupon_id, member_id, salt: salt.clone(), text: text.clone() });
            }
            _ => {}
        }
    }

    fn attempt(&self, command: &CouponCommand, facts: &Facts, refused: bool) -> Option<AttemptGuard> {
        let (CouponCommand::Receive { member_id, .. } | CouponCommand::Peek { member_id, .. }) = command
        else {
            return None;
        };
        // The receiver who repeats his code tries nothing.
        let tries = refused || self.pending_gift(facts.at.ms).is_some();
        tries.then_some(AttemptGuard { member_id: *member_id, now_ms: facts.at.ms, failed: refused })
    }
}

impl Entity for Definition {
    fn rows(&self, id: i64) -> Vec<LiveRow> {
        definition_rows(id, self)
    }

    fn stock(&self, id: i64) -> Option<(StockOf, Option<i64>)> {
        self.offer.as_ref().map(|_| (StockOf::Definition(id), self.stock))
    }
}

impl Entity for Shop {
    fn rows(&self, id: i64) -> Vec<LiveRow> {
        shop_rows(id, self)
    }
}

impl Entity for Allotment {
    fn needs(command: &AllotmentCommand) -> Needs<'_> {
        match command {
            AllotmentCommand::Allot { partner_id, definition_id, .. } => {
                Needs { definition_id: Some(*definition_id), shop_id: Some(*partner_id), ..Needs::default() }
            }
            _ => Needs::default(),
        }
    }

    fn rows(&self, id: i64) -> Vec<LiveRow> {
        allotment_rows(id, self)
    }

    fn stock(&self, id: i64) -> Option<(StockOf, Option<i64>)> {
        self.num().map(|num| (StockOf::Allotment(id), Some(num)))
    }
}

impl Entity for Job {
    fn rows(&self, id: i64) -> Vec<LiveRow> {
        job_rows(id, self)
    }
}

impl Entity for Order {
    fn begins(command: &OrderCommand) -> bool {
        matches!(command, OrderCommand::Place(_))
    }

    fn rows(&self, id: i64) -> Vec<LiveRow> {
        order_rows(id, self)
    }
}

impl Entity for Grant {
    fn needs(command: &GrantCommand) -> Needs<'_> {
        match command {
            GrantCommand::Add { definition_id, .. } => {
                Needs { definition_id: Some(*definition_id), ..Needs::default() }
            }
            _ => Needs::default(),
        }
    }

    fn begins(command: &GrantCommand) -> bool {
        matches!(command, GrantCommand::Add { .. })
    }

    fn rows(&self, id: i64) -> Vec<LiveRow> {
        grant_rows(id, self)
    }
}

impl Entity for OrderAmount {
    fn begins(command: &OrderAmountCommand) -> bool {
        matches!(command, OrderAmountCommand::Define { .. })
    }

    fn rows(&self, id: i64) -> Vec<LiveRow> {
        order_amount_rows(id, self)
    }
}

impl Entity for Member {
    fn needs(command: &MemberCommand) -> Needs<'_> {
        Needs { member_id: Some(command.member_id()), ..Needs::default() }
    }

    fn rows(&self, _id: i64) -> Vec<LiveRow> {
        Vec::new()
    }
}

impl Entity for GoodsGroup {
    fn begins(command: &GoodsGroupCommand) -> bool {
        matches!(command, GoodsGroupCommand::Create { .. })
    }

    fn rows(&self, id: i64) -> Vec<LiveRow> {
        goods_group_rows(id, self)
    }
}

impl Entity for Account {
    fn begins(command: &AccountCommand) -> bool {
        matches!(command, AccountCommand::Create { .. })
    }

    fn rows(&self, id: i64) -> Vec<LiveRow> {
        account_rows(id, self)
    }

    fn guard(command: &AccountCommand, events: &[AccountEvent], facts: &Facts, effects: &mut Effects) {
        effects.beside = account_secrets(facts.id, command, events, facts.at.ms);
    }
}

impl Entity for Office {
    fn begins(command: &OfficeCommand) -> bool {
        matches!(command, OfficeCommand::Add { .. })
    }

    fn rows(&self, id: i64) -> Vec<LiveRow> {
        office_rows(id, self)
    }
}

impl Entity for Appointment {
    fn rows(&self, id: i64) -> Vec<LiveRow> {
        appointment_rows(id, self)
    }
}

impl Entity for Machine {
    fn begins(command: &MachineCommand) -> bool {
        matches!(command, MachineCommand::Issue { .. })
    }

    fn rows(&self, id: i64) -> Vec<LiveRow> {
        machine_rows(id, self)
    }
}

impl Entity for PartnerKey {
    fn needs(command: &PartnerKeyCommand) -> Needs<'_> {
        match command {
            PartnerKeyCommand::Register { partner_id, .. } => {
                Needs { shop_id: Some(*partner_id), ..Needs::default() }
            }
            PartnerKeyCommand::Revoke { .. } => Needs::default(),
        }
    }

    fn begins(command: &PartnerKeyCommand) -> bool {
        matches!(command, PartnerKeyCommand::Register { .. })
    }

    fn rows(&self, id: i64) -> Vec<LiveRow> {
        partner_key_rows(id, self)
    }
}

impl Entity for Reading {
    fn begins(_command: &ReadingCommand) -> bool {
        true
    }

    fn rows(&self, id: i64) -> Vec<LiveRow> {
        reading_rows(id, self)
    }
}

impl Entity for Refusals {
    fn begins(_command: &RefusalsCommand) -> bool {
        true
    }

    fn rows(&self, _id: i64) -> Vec<LiveRow> {
        Vec::new()
    }
}

impl Entity for Approval {
    fn begins(command: &ApprovalCommand) -> bool {
        matches!(command, ApprovalCommand::Propose { .. })
    }

    fn rows(&self, id: i64) -> Vec<LiveRow> {
        approval_rows(id, self)
    }
}

impl Entity for Provenance {
    fn rows(&self, _id: i64) -> Vec<LiveRow> {
        Vec::new()
    }
}

macro_rules! aggregate {
    ($aggregate:ty, $name:literal, $command:ty, $event:ty) => {
        impl Decider for $aggregate {
            fn decide(&self, command: &$command, facts: &Facts) -> Result<Vec<$event>, Refusal> {
                <$aggregate>::decide(self, command, facts)
            }

            fn evolve(&mut self, event: &$event) {
                <$aggregate>::evolve(self, event);
            }
        }

        impl Aggregate for $aggregate {
            const TYPE: &'static str = $name;
            type Command = $command;
            type Event = $event;
            type Error = Refusal;
            type Services = Facts;

            async fn handle(
                &mut self,
                command: Self::Command,
                facts: &Facts,
                sink: &EventSink<Self>,
            ) -> Result<(), Refusal> {
                for event in <$aggregate>::decide(self, &command, facts)? {
                    sink.write(event, self).await;
                }
                Ok(())
            }

            fn apply(&mut self, event: Self::Event) {
                <$aggregate>::evolve(self, &event);
            }
        }
    };
}

/// Hands every aggregate to a macro that takes their types: what must not forget a kind of stream goes through here.
macro_rules! for_each_aggregate {
    ($act:ident) => {
        $act!(
            $crate::coupon::Coupon,
            $crate::definition::Definition,
            $crate::shop::Shop,
            $crate::allotment::Allotment,
            $crate::job::Job,
            $crate::order::Order,
            $crate::grant::Grant,
            $crate::rule::OrderAmount,
            $crate::rule::GoodsGroup,
            $crate::member::Member,
            $crate::account::Account,
            $crate::office::Office,
            $crate::office::Appointment,
            $crate::machine::Machine,
            $crate::partner_key::PartnerKey,
            $crate::reading::Reading,
            $crate::refusals::Refusals,
            $crate::approval::Approval,
            $crate::webhook::Webhook,
            $crate::provenance::Provenance
        );
    };
}

pub(crate) use for_each_aggregate;

macro_rules! kinds {
    ($($aggregate:ty),*) => {
        /// Every kind of stream.
        pub const KINDS: &[&str] = &[$(<$aggregate>::TYPE),*];
    };
}

for_each_aggregate!(kinds);

aggregate!(Coupon, "coupon", CouponCommand, CouponEvent);
aggregate!(Definition, "definition", DefinitionCommand, DefinitionEvent);
aggregate!(Shop, "shop", ShopCommand, ShopEvent);
aggregate!(Allotment, "allotment", AllotmentCommand, AllotmentEvent);
aggregate!(Job, "job", JobCommand, JobEvent);
aggregate!(Order, "order", OrderCommand, OrderEvent);
aggregate!(Grant, "grant", GrantCommand, GrantEvent);
aggregate!(OrderAmount, "order_amount", OrderAmountCommand, OrderAmountEvent);
aggregate!(GoodsGroup, "goods_group", GoodsGroupCommand, GoodsGroupEvent);
aggregate!(Provenance, "ledger", ProvenanceCommand, ProvenanceEvent);
aggregate!(Member, "member", MemberCommand, MemberEvent);
aggregate!(Account, "account", AccountCommand, AccountEvent);
aggregate!(Office, "office", OfficeCommand, OfficeEvent);
aggregate!(Appointment, "appointment", AppointmentCommand, AppointmentEvent);
aggregate!(Machine, "machine_key", MachineCommand, MachineEvent);
aggregate!(Approval, "approval", ApprovalCommand, ApprovalEvent);
aggregate!(PartnerKey, "partner_key", PartnerKeyCommand, PartnerKeyEvent);
aggregate!(Reading, "reading", ReadingCommand, ReadingEvent);
aggregate!(Refusals, "refusals", RefusalsCommand, RefusalsEvent);

// Behind the macro that it uses.
mod webhooks;
