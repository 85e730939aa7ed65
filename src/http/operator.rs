//! The operators' side: definitions, shops, issuing to one member and to many.

use serde_json::{Value, json};

use super::directory::replayed_id;
use super::form::Form;
use super::jobs::begin;
use super::{Answer, Call, Failure};
use crate::approval::Act;
use crate::bulk::{self, MAX_CHUNK};
use crate::coupon::{Coupon, CouponCommand, Origin, Source};
use crate::definition::{Definition, DefinitionCommand, IssueLimit, Kind, Offer, Terms, Validity};
use crate::directory::{self, Written};
use crate::identity::Token;
use crate::job::Work;
use crate::ledger::{ExecuteError, Executed};
use crate::read_model::pages::{self, DefinitionRow, ShopRow};
use crate::refusal::{Refusal, Wrong};
use crate::shop::{Shop, ShopCommand, ShopDetails};
use crate::store::StoreError;
use crate::value::{MAX_ID, money_text};

/// The most days that a validity may count.
const MAX_DAYS: i64 = 36_500;

/// Every call of these pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `/elecoupons/add`
    DefinitionAdd,
    /// `/elecoupons/edit`
    DefinitionEdit,
    /// `/elecoupons/info`
    DefinitionInfo,
    /// `/elecoupons/getlist`
    DefinitionList,
    /// `/elecoupons/state`
    DefinitionState,
    /// `/elecoupons/inventory`
    DefinitionInventory,
    /// `/shop/add`
    ShopAdd,
    /// `/shop/edit`
    ShopEdit,
    /// `/shop/get`
    ShopGet,
    /// `/shop/list`
    ShopList,
    /// `/shop/num`
    ShopNum,
    /// `/shop/auditqrcode`
    ShopAuditQrCode,
    /// `/shop/rotateauditkey`
    ShopRotateAuditKey,
    /// `/sendelecoupon/one`
    SendOne,
    /// `/sendelecoupon/members`
    SendMembers,
    /// `/token/revoke`
    RevokeToken,
}

pub(super) async fn run(which: Operator, call: Call) -> Result<Answer, Failure> {
    match which {
        Operator::DefinitionAdd => definition_add(call).await,
        Operator::DefinitionEdit => definition_edit(call).await,
        Operator::DefinitionInfo => definition_info(call).await,
        Operator::DefinitionList => definition_list(call).await,
        Operator::DefinitionState => definition_state(call).await,
        Operator::DefinitionInventory => definition_inventory(call).await,
        Operator::ShopAdd => open_shop(call, false).await,
        Operator::ShopEdit => edit_shop(call, false).await,
        Operator::ShopGet => shop_get(call).await,
        Operator::ShopList => shop_list(call).await,
        Operator::ShopNum => shop_num(call).await,
        Operator::ShopAuditQrCode => shop_audit_qr_code(call).await,
        Operator::ShopRotateAuditKey => shop_rotate_audit_key(call).await,
        Operator::SendOne => send_one(call).await,
        Operator::SendMembers => send_members(call).await,
        Operator::RevokeToken => revoke_token(call).await,
    }
}

/// Reads what `/elecoupons/add` and `/edit` have in common.
fn read_offer(call: &mut Call) -> Offer {
    let form = &mut call.form;
    let kind = if form.int("type", 1, 2) == 2 { Kind::Exchange } else { Kind::Cash };
    let title = form.text("title", 100);
    let deduction_cents = match kind {
        Kind::Cash if !form.has_error("type") => form.money("deduction"),
        _ => form.optional_money("deduction").unwrap_or_default(),
    };
    let minimum_order_cents = form.optional_money("money").unwrap_or_default();
    let validity = match form.int("validity_type", 1, 3) {
        // What start_num and end_num must be is not known, so nothing is said of them.
        _ if form.has_error("validity_type") => Validity::MemberCard,
        1 => {
            let (start, end) = (form.day("start_num"), form.day("end_num"));
            if end < start {
                form.wrong("end_num", Wrong::EndBeforeStart);
            }
            Validity::Fixed { start, end }
        }
        2 => Validity::FromReceipt {
            starts_after_days: form.int("start_num", 0, MAX_DAYS) as u32,
            valid_days: form.int("end_num", 1, MAX_DAYS) as u32,
        },
        _ => Validity::MemberCard,
    };
    let mut weekdays: Vec<u8> = form.ints("use_week", 7).into_iter().map(|day| day as u8).collect();
    weekdays.sort_unstable();
    weekdays.dedup();
    let issue_limit = match form.int("get_limit_type", 1, 4) {
        1 => IssueLimit::Unlimited,
        2 => IssueLimit::PerMember,
        3 => IssueLimit::OneAtATime,
        _ => IssueLimit::Levels,
    };
    let get_limit = match issue_limit {
        IssueLimit::PerMember => form.int("get_limit", 1, MAX_ID),
        _ => form.optional_int("get_limit", 0, MAX_ID).unwrap_or_default(),
    };
    let level_ids = form.ints("level_ids", MAX_ID);
    if issue_limit == IssueLimit::Levels && level_ids.is_empty() {
        form.wrong("level_ids", Wrong::Required);
    }
    Offer {
        terms: Terms {
            kind,
            title,
            deduction_cents,
            minimum_order_cents,
            weekdays,
            givable: form.int("is_giving", 0, 1) == 1,
            stackable: form.flag("use_limit", false),
            rules: form.optional_text("rules", 5_000).unwrap_or_default(),
            shop_ids: form.ints("shop_ids", MAX_ID),
            self_redeemable: form.flag("is_self", true),
            scan_required: form.flag("need_scan", false),
        },
        validity,
        issue_limit,
        get_limit,
        level_ids,
        claimable: form.flag("is_claim", false),
    }
}

async fn definition_add(mut call: Call) -> Result<Answer, Failure> {
    let offer = Box::new(read_offer(&mut call));
    let stock = call.form.optional_int("num", 0, MAX_ID).filter(|num| *num != 0);
    call.checked()?;
    let id = call.app.ledger.next_id("definition", true).await?;
    let (employee_id, limits) = (call.caller.employee_id(), call.app.options.approvals);
    call.refuse_proposed().await?;
    let at_most = limits.stock_at_most();
    let command = DefinitionCommand::Define { offer: offer.clone(), stock, employee_id, at_most };
    let done = match call.execute::<Definition>(id, &command).await {
        Err(Failure::Execute(ExecuteError::Refused(Refusal::NeedsApproval))) => {
            return call.propose(Act::Define { definition_id: id, offer, stock }, limits.stock).await;
        }
        done => done?,
    };
    Answer::of(&done, &json!({"id": done.id}))
}

async fn definition_edit(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    let offer = Box::new(read_offer(&mut call));
    call.checked()?;
    let command = DefinitionCommand::Edit { offer, employee_id: call.caller.employee_id() };
    let done = call.execute::<Definition>(id, &command).await?;
    Answer::of(&done, &json!({"id": done.id}))
}

/// A definition with the keys of the manual's `/elecoupons/info`, then ours.
pub(super) fn definition_json(row: &DefinitionRow) -> Value {
    let (start_num, end_num) = match row.validity_type {
        1 => (row.start_date.clone(), row.end_date.clone()),
        2 => (row.starts_after_days.to_string(), row.valid_days.to_string()),
        _ => (String::new(), String::new()),
    };
    json!({
        "id": row.id,
        "type": row.kind,
        "title": row.title,
        "num": row.stock.unwrap_or_default(),
        "inventory": row.inventory(),
        "code": 0,
        "deduction": money_text(row.deduction_cents),
        "money": money_text(row.minimum_order_cents),
        "validity_type": row.validity_type,
        "validity": row.valid_days,
        "start_date": row.start_date,
        "end_date": row.end_date,
        "use_week": row.weekdays,
        "is_giving": i64::from(row.givable),
        "get_limit_type": row.issue_limit,
        "get_limit": row.get_limit,
        "use_limit": i64::from(row.stackable),
        "rules": row.rules,
        "user_id": row.employee_id,
        "start_num": start_num,
        "end_num": end_num,
        "is_self": i64::from(row.self_redeemable),
        "is_claim": i64::from(row.claimable),
        "need_scan": i64::from(row.scan_required),
        "shop_ids": row.shop_ids,
        "level_ids": row.level_ids,
        "state": i64::from(row.on),
    })
}

async fn definition_info(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    call.checked()?;
    let row = pages::definition(call.app.ledger.store(), id).await?.ok_or(Refusal::NoSuchDefinition)?;
    Answer::new(&definition_json(&row))
}

async fn definition_list(mut call: Call) -> Result<Answer, Failure> {
    let slice = call.form.slice();
    call.checked()?;
    let rows = pages::definitions(call.app.ledger.store(), slice).await?;
    Answer::new(&rows.iter().map(definition_json).collect::<Vec<_>>())
}

async fn definition_state(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    let on = call.form.int("state", 0, 1) == 1;
    call.checked()?;
    let command = DefinitionCommand::ChangeState { on, employee_id: call.caller.employee_id() };
    let done = call.execute::<Definition>(id, &command).await?;
    Answer::of(&done, &json!({"id": done.id, "state": i64::from(done.state.on)}))
}

async fn definition_inventory(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    let num = call.form.int("num", 1, MAX_ID);
    let more = call.form.int("type", 0, 1) == 1;
    call.checked()?;
    let by = if more { num } else { -num };
    let (employee_id, limits) = (call.caller.employee_id(), call.app.options.approvals);
    call.refuse_proposed().await?;
    let command = DefinitionCommand::ChangeStock { by, employee_id, at_most: limits.stock_at_most() };
    let done = match call.execute::<Definition>(id, &command).await {
        Err(Failure::Execute(ExecuteError::Refused(Refusal::NeedsApproval))) => {
            let (definition, _) = call.app.ledger.load::<Definition>(id).await?;
            let stock = definition.stock.unwrap_or_default().saturating_add(by);
            return call.propose(Act::RaiseStock { definition_id: id, by, stock }, limits.stock).await;
        }
        done => done?,
    };
    Answer::of(&done, &json!({"id": done.id, "num": done.state.stock.unwrap_or_default()}))
}

fn read_shop_details(call: &mut Call) -> ShopDetails {
    ShopDetails {
        name: call.form.text("shop_name", 100),
        phone: call.form.text("phone", 30),
        address: call.form.text("address", 300),
    }
}

/// Opens a shop, or adds a partner.
pub(super) async fn open_shop(mut call: Call, partner: bool) -> Result<Answer, Failure> {
    let details = read_shop_details(&mut call);
    call.checked()?;
    let done = make_room(&call, details, partner).await?;
    let details = done.state.details.clone().unwrap_or_default();
    Answer::of(
        &done,
        &json!({
            "shop_name": details.name,
            "phone": details.phone,
            "address": details.address,
            "id": done.id.to_string(),
        }),
    )
}

/// Opens a shop where there is room for one more; a partner needs none. Whoever counts has the turn until his shop is there; servers beside this
/// one count for themselves.
async fn make_room(call: &Call, details: ShopDetails, partner: bool) -> Result<Executed<Shop>, Failure> {
    let _turn = call.app.opening_shop.lock().await;
    if !partner && shops_left(call).await? == 0 {
        let full = Refusal::field("shop_name", Wrong::NoMoreShops { max: call.app.options.max_shops });
        return Ok(call.app.ledger.replay::<Shop>(&call.meta).await?.ok_or(full)?);
    }
    // Shops and partners share one sequence of ids.
    let id = call.app.ledger.next_id("shop", true).await?;
    let command = ShopCommand::Open { details, partner, employee_id: call.caller.employee_id() };
    call.execute::<Shop>(id, &command).await
}

/// How many shops may still be opened; closed ones count, because they may open again.
async fn shops_left(call: &Call) -> Result<i64, Failure> {
    let shops = pages::count_shops(call.app.ledger.store()).await?;
    Ok((call.app.options.max_shops - shops).max(0))
}

async fn shop_num(mut call: Call) -> Result<Answer, Failure> {
    call.checked()?;
    Answer::new(&shops_left(&call).await?)
}

/// Changes a shop or a partner; neither is found among the others.
pub(super) async fn edit_shop(mut call: Call, partner: bool) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    let details = read_shop_details(&mut call);
    let open = call.form.int("state", 0, 1) == 1;
    call.checked()?;
    let command = ShopCommand::Edit { details, open, partner, employee_id: call.caller.employee_id() };
    let done = call.execute::<Shop>(id, &command).await?;
    let details = done.state.details.clone().unwrap_or_default();
    Answer::of(
        &done,
        &json!({
            "id": done.id,
            "shop_name": details.name,
            "phone": details.phone,
            "address": details.address,
            "state": i64::from(done.state.open),
        }),
    )
}

pub(super) fn shop_json(shop: &ShopRow) -> Value {
    json!({
        "id": shop.id,
        "shop_name": shop.name,
        "title": "",
        "address": shop.address,
        "phone": shop.phone,
        "state": i64::from(shop.open),
        "user_id": shop.employee_id,
    })
}

async fn shop_get(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    call.checked()?;
    let shop = pages::shop(call.app.ledger.store(), id).await?.ok_or(Refusal::NoSuchShop)?;
    Answer::new(&shop_json(&shop))
}

async fn shop_list(mut call: Call) -> Result<Answer, Failure> {
    let slice = call.form.slice_if_asked();
    call.checked()?;
    let shops = pages::shops(call.app.ledger.store(), slice).await?;
    Answer::new(&shops.iter().map(shop_json).collect::<Vec<_>>())
}

/// The signed URL of a shop's QR and its picture.
pub(super) fn shop_qr(call: &Call, id: i64, audit_key: u32) -> Result<Value, Failure> {
    let url = call.app.ledger.secrets().shop_url(&call.app.options.public_url, id, audit_key);
    let svg = qr_svg(&url)?;
    Ok(json!({"url": url, "svg": svg}))
}

/// A text as a QR code's picture.
pub(super) fn qr_svg(text: &str) -> Result<String, Failure> {
    let code = qrcode::QrCode::new(text.as_bytes()).map_err(|error| {
        Failure::from(StoreError::Corrupt {
            table: "a QR code".to_owned(),
            column: "text".to_owned(),
            what: error.to_string(),
        })
    })?;
    Ok(code.render::<qrcode::render::svg::Color<'_>>().min_dimensions(240, 240).build())
}

async fn shop_audit_qr_code(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    call.checked()?;
    let (shop, version) = call.app.ledger.load::<Shop>(id).await?;
    if version == 0 {
        return Err(Refusal::NoSuchShop.into());
    }
    Answer::new(&shop_qr(&call, id, shop.audit_key)?)
}

async fn shop_rotate_audit_key(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    call.checked()?;
    let command = ShopCommand::RotateAuditKey { employee_id: call.caller.employee_id() };
    let done = call.execute::<Shop>(id, &command).await?;
    let answer = Answer::new(&shop_qr(&call, done.id, done.state.audit_key)?)?;
    Ok(answer.replayed(done.replayed))
}

async fn send_one(mut call: Call) -> Result<Answer, Failure> {
    let definition_id = call.form.id("coupon_id");
    let member_id = call.form.id("member_id");
    call.checked()?;
    let id = call.app.ledger.next_id("coupon", false).await?;
    let command = CouponCommand::Issue {
        definition_id,
        member_id,
        origin: Origin::of(Source::OneToOne, call.caller.employee_id()),
    };
    let done = call.execute::<Coupon>(id, &command).await?;
    Answer::of(&done, &json!({"id": done.id}))
}

async fn send_members(mut call: Call) -> Result<Answer, Failure> {
    let (definition_id, members) = read_chunk(&mut call.form);
    call.checked()?;
    let above = call.app.options.approvals.sends;
    call.refuse_proposed().await?;
    if above > 0 && members.len() as i64 > above {
        return propose_members(&call, definition_id, members, above).await;
    }
    let origin = Origin::of(Source::MassSend, call.caller.employee_id());
    let chunk = bulk::issue(&call.app.ledger, definition_id, origin, &members, &call.meta).await?;
    let issued = chunk.issued.iter().map(|(member_id, id)| json!({"id": id, "member_id": member_id}));
    let refused: Vec<i64> = chunk.refused.iter().map(|(member_id, _)| *member_id).collect();
    Answer::new(&json!({
        "nums": members.len(),
        "send_num": chunk.issued.len(),
        "refused_num": refused.len(),
        "issued": issued.collect::<Vec<_>>(),
        "refused": refused,
    }))
    .map(|answer| answer.replayed(chunk.replayed))
}

/// What is more than one person decides goes on as a mass send, once somebody else approves it: to each of them once.
async fn propose_members(
    call: &Call,
    definition_id: i64,
    mut member_ids: Vec<i64>,
    above: i64,
) -> Result<Answer, Failure> {
    member_ids.sort_unstable();
    if member_ids.windows(2).any(|pair| matches!(pair, [one, next] if one == next)) {
        return Err(Failure::Fields(vec![("member_ids", Wrong::Twice)]));
    }
    let work = Work::SendTo { definition_id, member_ids };
    let done = begin(call, work, String::new(), (true, above)).await?;
    // Only a server whose limit was another then answers this way: it goes on.
    Answer::of(&done, &json!({"id": done.id, "nums": done.state.targeted}))
}

/// Reads what `/sendelecoupon/members` takes: the definition and the members.
pub fn read_chunk(form: &mut Form) -> (i64, Vec<i64>) {
    let definition_id = form.id("coupon_id");
    let members = form.ints("member_ids", MAX_ID);
    if members.len() > MAX_CHUNK {
        form.wrong("member_ids", Wrong::TooMany { max: MAX_CHUNK });
    } else if members.is_empty() {
        form.wrong("member_ids", Wrong::Required);
    }
    (definition_id, members)
}

async fn revoke_token(mut call: Call) -> Result<Answer, Failure> {
    let text = call.form.text("revoke", 500);
    call.checked()?;
    let Some(token) = Token::read(&text, call.app.ledger.secrets()) else {
        return Err(Failure::Fields(vec![("revoke", Wrong::NotAToken)]));
    };
    let mut replayed = replayed_id(&call).await?.is_some();
    if !replayed {
        let key = call.directory_key();
        let store = call.app.ledger.store();
        let written = directory::revoke_token(store, &token.id, token.expires_at_s, key.as_ref()).await?;
        call.app.refresh_revoked().await?;
        if written == Written::KeyUsed {
            replayed = replayed_id(&call).await?.is_some();
        }
    }
    Ok(Answer::new(&json!({"revoked": token.id}))?.replayed(replayed))
}
