//! What events are called, as they are stored.

use cqrs_es::DomainEvent;

use crate::account::AccountEvent;
use crate::allotment::AllotmentEvent;
use crate::approval::ApprovalEvent;
use crate::coupon::CouponEvent;
use crate::definition::DefinitionEvent;
use crate::grant::GrantEvent;
use crate::job::JobEvent;
use crate::machine::MachineEvent;
use crate::member::MemberEvent;
use crate::office::{AppointmentEvent, OfficeEvent};
use crate::order::OrderEvent;
use crate::partner_key::PartnerKeyEvent;
use crate::provenance::ProvenanceEvent;
use crate::reading::ReadingEvent;
use crate::refusals::RefusalsEvent;
use crate::rule::{GoodsGroupEvent, OrderAmountEvent};
use crate::shop::ShopEvent;
use crate::webhook::WebhookEvent;
macro_rules! domain_event {
    ($event:ident { $($name:ident),* }) => {
        impl DomainEvent for $event {
            fn event_type(&self) -> String {
                match self { $(Self::$name { .. } => stringify!($name).to_owned()),* }
            }

            fn event_version(&self) -> String {
                "1.0".to_owned()
            }
        }

        impl $event {
            /// The names of every event of this aggregate, as they are stored.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];
        }
    };
}

domain_event!(CouponEvent {
    Issued,
    Imported,
    Viewed,
    Given,
    GiftCodeRejected,
    GiftWithdrawn,
    GiftLapsed,
    Received,
    Redeemed,
    RedemptionReversed,
    Evaluated,
    Expired,
    EndMoved,
    Voided
});
domain_event!(DefinitionEvent { Defined, Edited, StockChanged, StateChanged });
domain_event!(ShopEvent { Opened, Edited, Closed, Reopened, AuditKeyRotated });
domain_event!(OrderEvent { Placed, Cancelled });
domain_event!(AllotmentEvent { Allotted, EndChanged, StockChanged });
domain_event!(JobEvent { Proposed, Started, Paused, Resumed, Cancelled, Finished });
domain_event!(GrantEvent { Added, Changed, Removed });
domain_event!(OrderAmountEvent { Defined, Changed, Deleted });
domain_event!(MemberEvent { Erased, SignedIn, WechatUnbound });
domain_event!(AccountEvent {
    Created,
    CodeGiven,
    PasswordSet,
    SignedIn,
    Locked,
    TotpEnabled,
    TotpDisabled,
    SubjectLinked,
    SubjectUnlinked,
    SignedOutEverywhere,
    Disabled,
    Enabled
});
domain_event!(OfficeEvent { Added, Edited, RightsSet, Deleted });
domain_event!(AppointmentEvent { Appointed });
domain_event!(MachineEvent { Issued, Revoked });
domain_event!(ApprovalEvent { Proposed, Approved, Refused, Withdrawn, Expired });
domain_event!(PartnerKeyEvent { Registered, Revoked });
domain_event!(ReadingEvent { Read });
domain_event!(RefusalsEvent { Gathered });
domain_event!(GoodsGroupEvent { Created, Renamed, GoodsSet, Deleted });
domain_event!(ProvenanceEvent { ImportedFrom, CheckpointKeyRotated, KeyRotated });
domain_event!(WebhookEvent { Added, Changed, SecretRotated, Paused, Resumed, Resent, Removed });
