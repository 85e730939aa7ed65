//! A coupon of the peers' own: events of the product's sizes, one rule, one view.

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent, EventEnvelope, View};
use serde::{Deserialize, Serialize};

/// Stands in the template stream where every loaded stream has its member's id.
pub const TEMPLATE_MEMBER: i64 = 7_000_000_000_007;

/// How many members hold the loaded streams.
pub const MEMBERS: i64 = 20_000;

/// Whose coupon a loaded stream is.
pub fn member_of(stream: i64) -> i64 {
    stream % MEMBERS + 1
}

/// What happened to a coupon, in about the sizes that coupon-ledger writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    Issued(Box<Issue>),
    Viewed { member_id: i64, at_ms: i64 },
    Redeemed { redemption_id: i64, member_id: i64, shop_id: i64, employee_id: i64, at_ms: i64 },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Issue {
    definition_id: i64,
    title: String,
    rules: String,
    deduction_cents: i64,
    weekdays: Vec<u8>,
    shop_ids: Vec<i64>,
    givable: bool,
    stackable: bool,
    self_redeemable: bool,
    scan_required: bool,
    member_id: i64,
    start_date: String,
    end_date: String,
    starts_at_ms: i64,
    ends_at_ms: i64,
    source: String,
    employee_id: i64,
    at_ms: i64,
}

impl Issue {
    /// A coupon of ten yuan in a member's hand.
    pub fn to(member_id: i64) -> Self {
        Self {
            definition_id: 1,
            title: "Ten off any order".to_owned(),
            rules: "One per order. Not with other offers, not for gift cards, not for delivery.".to_owned(),
            deduction_cents: 1_000,
            weekdays: vec![1, 2, 3, 4, 5],
            shop_ids: vec![1, 2, 3],
            givable: true,
            self_redeemable: true,
            member_id,
            start_date: "2026-11-01".to_owned(),
            end_date: "2027-11-01".to_owned(),
            starts_at_ms: 1_793_462_400_000,
            ends_at_ms: 1_825_084_800_000,
            source: "mass_send".to_owned(),
            at_ms: 1_793_500_000_000,
            ..Self::default()
        }
    }

    /// To whom.
    pub fn member_id(&self) -> i64 {
        self.member_id
    }
}

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        match self {
            Self::Issued(_) => "Issued",
            Self::Viewed { .. } => "Viewed",
            Self::Redeemed { .. } => "Redeemed",
        }
        .to_owned()
    }

    fn event_version(&self) -> String {
        "1.0".to_owned()
    }
}

pub enum Command {
    Issue { member_id: i64 },
    View,
    Redeem { redemption_id: i64 },
}

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no such coupon")]
    Unknown,
    #[error("already used")]
    AlreadyUsed,
}

/// What a decision needs to know.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Coupon {
    pub member_id: i64,
    pub viewed: bool,
    pub redeemed: bool,
}

impl Aggregate for Coupon {
    const TYPE: &'static str = "coupon";
    type Command = Command;
    type Event = Event;
    type Error = Refusal;
    type Services = ();

    async fn handle(&mut self, command: Command, (): &(), sink: &EventSink<Self>) -> Result<(), Refusal> {
        let event = decide(self, &command)?;
        sink.write(event, self).await;
        Ok(())
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Issued(issue) => self.member_id = issue.member_id,
            Event::Viewed { .. } => self.viewed = true,
            Event::Redeemed { .. } => self.redeemed = true,
        }
    }
}

/// What follows from a command.
pub fn decide(coupon: &Coupon, command: &Command) -> Result<Event, Refusal> {
    let at_ms = 1_793_600_000_000;
    match command {
        Command::Issue { member_id } => Ok(Event::Issued(Box::new(Issue::to(*member_id)))),
        _ if coupon.member_id == 0 => Err(Refusal::Unknown),
        Command::View => Ok(Event::Viewed { member_id: coupon.member_id, at_ms }),
        Command::Redeem { .. } if coupon.redeemed => Err(Refusal::AlreadyUsed),
        Command::Redeem { redemption_id } => Ok(Event::Redeemed {
            redemption_id: *redemption_id,
            member_id: coupon.member_id,
            shop_id: 1,
            employee_id: 0,
            at_ms,
        }),
    }
}

/// The read-model row: what a member's list shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WalletRow {
    pub member_id: i64,
    pub definition_id: i64,
    pub title: String,
    pub deduction_cents: i64,
    pub start_date: String,
    pub end_date: String,
    pub is_read: bool,
    pub used_at_ms: i64,
    pub used_by: i64,
    pub redemption_id: i64,
}

impl View<Coupon> for WalletRow {
    fn update(&mut self, event: &EventEnvelope<Coupon>) {
        match &event.payload {
            Event::Issued(issue) => {
                self.member_id = issue.member_id;
                self.definition_id = issue.definition_id;
                self.title.clone_from(&issue.title);
                self.deduction_cents = issue.deduction_cents;
                self.start_date.clone_from(&issue.start_date);
                self.end_date.clone_from(&issue.end_date);
            }
            Event::Viewed { .. } => self.is_read = true,
            Event::Redeemed { redemption_id, member_id, at_ms, .. } => {
                self.used_at_ms = *at_ms;
                self.used_by = *member_id;
                self.redemption_id = *redemption_id;
            }
        }
    }
}
