//! The transparency log: checkpoints, tiles, proofs and receipts, as the specifications of C2SP have them.

use super::{Ask, Method, Page, Resource, Run};
use crate::audit::receipt::{event_of_coupon, receipt};
use crate::audit::tlog::{FULL, consistency, cosigned, latest, size, tile, tile_of_path};
use crate::entity::KINDS;
use crate::http::Failure;
use crate::http::routes::{Field, Holds, optional, required};
use crate::identity::Caller;
use crate::refusal::{Refusal, Wrong};
use crate::store::{StoredEvent, StreamId};
use crate::value::MAX_ID;

/// Every resource of the transparency log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tlog {
    /// `/v1/checkpoint`
    Checkpoint,
    /// `/v1/tile/{level}/{*index}`
    Tile,
    /// `/v1/consistency`
    Consistency,
    /// `/v1/coupons/{id}/receipt`
    CouponReceipt,
    /// `/v1/streams/{kind}/{id}/receipt`
    StreamReceipt,
}

const TEXT: &str = "text/plain; charset=utf-8";
const MAX_WITNESSES: i64 = 16;

const SEQUENCE: Field =
    optional("sequence", Holds::Int(1, MAX_ID), "which event of the stream; default the last");

const RECEIPT: &str = "c2sp.org/tlog-proof@v1\nextra AAAAFWNvdXBvbi1sZWRnZXIgZXZlbnQgMQ…\nindex 6\n\
    1ai2lpFCj9lGdPT9aTKbVaXGT8HMQoNZKdH/xcrZAYU=\n\ncoupon-ledger/0123456789abcdef\n8\n\
    Wmm98ifBLXRKdWGvzBFnbmDR0k5Z3jSKIJAhIRl7DU8=\n\n— coupon-ledger/0123456789abcdef 7Tn1Zx…\n";

pub(super) const RESOURCES: &[Resource] = &[
    Resource {
        method: Method::Get,
        path: "/v1/checkpoint",
        about: "The last signed checkpoint of the transparency log (c2sp.org/tlog-checkpoint), with the cosignatures of \
                witnesses that have come in; 9002 where nothing is signed yet",
        parts: &[],
        query: &[optional(
            "witnesses",
            Holds::Int(0, MAX_WITNESSES),
            "the last one that so many witnesses have cosigned; default 0",
        )],
        produces: TEXT,
        example: "coupon-ledger/0123456789abcdef\n8\nWmm98ifBLXRKdWGvzBFnbmDR0k5Z3jSKIJAhIRl7DU8=\n\n\
                  — coupon-ledger/0123456789abcdef 7Tn1Zx…\n— witness.example/1 jWbPPwAAAABkGFDL…\n",
        run: Run::Tlog(Tlog::Checkpoint),
    },
    Resource {
        method: Method::Get,
        path: "/v1/tile/{level}/{*index}",
        about: "A tile of the tree (c2sp.org/tlog-tiles): 256 hashes of 32 bytes, or as many as .p/ says. Leaf n is the \
                event at position n + 1 of /v1/events; there are no entry bundles, because an event may be longer than \
                their 65,535 bytes",
        parts: &[
            required("level", Holds::Int(0, 63), "0: hashes of leaves; above: roots of full tiles below"),
            required(
                "index",
                Holds::Text(64),
                "its index on its level, as 067 or x001/x234/067, and .p/8 for a part",
            ),
        ],
        query: &[],
        produces: "application/octet-stream",
        example: "(bytes)",
        run: Run::Tlog(Tlog::Tile),
    },
    Resource {
        method: Method::Get,
        path: "/v1/consistency",
        about: "The proof that the tree of one size begins the tree of another (RFC 6962, 2.1.2): a hash in base64 a line",
        parts: &[],
        query: &[
            required("from", Holds::Int(0, MAX_ID), "the smaller size"),
            required("to", Holds::Int(0, MAX_ID), "the larger size"),
        ],
        produces: TEXT,
        example: "1ai2lpFCj9lGdPT9aTKbVaXGT8HMQoNZKdH/xcrZAYU=\n",
        run: Run::Tlog(Tlog::Consistency),
    },
    Resource {
        method: Method::Get,
        path: "/v1/coupons/{id}/receipt",
        about: "The proof that an event of a coupon is in the log (c2sp.org/tlog-proof), to be kept and checked anywhere; \
                `extra` is the event's leaf. A member gets those of the time when he holds or held it. 9002 while the \
                event is not signed yet",
        parts: &[required("id", Holds::Id, "會員電子券ID")],
        query: &[SEQUENCE],
        produces: TEXT,
        example: RECEIPT,
        run: Run::Tlog(Tlog::CouponReceipt),
    },
    Resource {
        method: Method::Get,
        path: "/v1/streams/{kind}/{id}/receipt",
        about: "The same of any stream",
        parts: &[
            required("kind", Holds::OneOf(KINDS), "the stream's kind"),
            required("id", Holds::Id, "the stream's id"),
        ],
        query: &[SEQUENCE],
        produces: TEXT,
        example: RECEIPT,
        run: Run::Tlog(Tlog::StreamReceipt),
    },
];

pub(super) async fn run(which: Tlog, ask: Ask) -> Result<Page, Failure> {
    match which {
        Tlog::Checkpoint => checkpoint(ask).await,
        Tlog::Tile => read_tile(ask).await,
        Tlog::Consistency => prove_consistency(ask).await,
        Tlog::CouponReceipt => coupon_receipt(ask).await,
        Tlog::StreamReceipt => stream_receipt(ask).await,
    }
}

async fn checkpoint(mut ask: Ask) -> Result<Page, Failure> {
    let witnesses = ask.form.optional_int("witnesses", 0, MAX_WITNESSES).unwrap_or_default() as usize;
    ask.checked()?;
    let store = ask.app.ledger.store();
    let signed = match witnesses {
        0 => latest(store).await?,
        _ => cosigned(store, witnesses).await?,
    };
    // There soon will be one.
    let signed = signed.ok_or(Failure::TooSlow)?;
    Ok(Page::new(TEXT, signed.note).with_text("cache-control", "no-cache"))
}

async fn read_tile(mut ask: Ask) -> Result<Page, Failure> {
    let (level, index) = (ask.form.text("level", 2), ask.form.text("index", 64));
    ask.checked()?;
    let (place, width) = tile_of_path(&level, &index).ok_or(Failure::NotThere)?;
    let bytes = tile(ask.app.ledger.store(), place, width).await?.ok_or(Failure::NotThere)?;
    // A full tile is the same for ever. A part is, too, but nobody needs it once it is longer.
    let keep = if width == FULL { "private, max-age=31536000, immutable" } else { "private, max-age=60" };
    Ok(Page::new("application/octet-stream", bytes).with_text("cache-control", keep))
}

async fn prove_consistency(mut ask: Ask) -> Result<Page, Failure> {
    use base64::Engine as _;
    let (from, to) = (ask.form.int("from", 0, MAX_ID), ask.form.int("to", 0, MAX_ID));
    ask.checked()?;
    let store = ask.app.ledger.store();
    let Some(proof) = consistency(store, from as u64, to as u64).await? else {
        let max = size(store).await? as i64;
        let (field, max) = if to > max { ("to", max) } else { ("from", to) };
        return Err(Refusal::field(field, Wrong::OutOfRange { min: 0, max }).into());
    };
    let line = |hash: &tlog_tiles::Hash| base64::engine::general_purpose::STANDARD.encode(hash.0) + "\n";
    Ok(Page::new(TEXT, proof.iter().map(line).collect::<String>()))
}

async fn coupon_receipt(mut ask: Ask) -> Result<Page, Failure> {
    let (id, sequence) = (ask.form.id("id"), ask.form.optional_int("sequence", 1, MAX_ID));
    ask.checked()?;
    let member_id = match ask.caller {
        Caller::Member(id) => Some(id),
        _ => None,
    };
    let event = event_of_coupon(ask.app.ledger.store(), id, sequence, member_id).await?;
    prove(&ask, &event.ok_or(Refusal::NoSuchCoupon)?).await
}

async fn stream_receipt(mut ask: Ask) -> Result<Page, Failure> {
    let kind = ask.form.one_of("kind", KINDS);
    let (id, sequence) = (ask.form.id("id"), ask.form.optional_int("sequence", 1, MAX_ID));
    ask.checked()?;
    let kind = kind.ok_or(Failure::NotThere)?;
    let mut events = ask.app.ledger.store().load_one(StreamId { kind, id }).await?;
    let event = match sequence {
        None => events.pop(),
        Some(sequence) => events.into_iter().find(|event| event.sequence == sequence),
    };
    prove(&ask, &event.ok_or(Failure::NotThere)?).await
}

async fn prove(ask: &Ask, event: &StoredEvent) -> Result<Page, Failure> {
    let proven = receipt(ask.app.ledger.store(), event, ask.app.options.receipts).await?;
    Ok(Page::new(TEXT, proven.ok_or(Failure::TooSlow)?.to_string()))
}
