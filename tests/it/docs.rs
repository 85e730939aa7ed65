//! The documents say what the program does: examples are decoded, generated parts are equal, samples have the answers' shape.

use std::path::PathBuf;

use coupon_ledger::account::{Account, AccountEvent};
use coupon_ledger::allotment::{Allotment, AllotmentEvent};
use coupon_ledger::approval::{Approval, ApprovalEvent};
use coupon_ledger::coupon::{Coupon, CouponEvent, Source};
use coupon_ledger::definition::{Definition, DefinitionEvent};
use coupon_ledger::entity::{Entity, decode, encode};
use coupon_ledger::grant::{Grant, GrantEvent};
use coupon_ledger::http::openapi;
use coupon_ledger::http::routes::ALL;
use coupon_ledger::http::v1;
use coupon_ledger::http::wechat::OPEN;
use coupon_ledger::job::{Job, JobEvent};
use coupon_ledger::machine::{Machine, MachineEvent};
use coupon_ledger::member::{Member, MemberEvent};
use coupon_ledger::office::{Appointment, AppointmentEvent, Office, OfficeEvent};
use coupon_ledger::order::{Order, OrderEvent};
use coupon_ledger::partner_key::{PartnerKey, PartnerKeyEvent};
use coupon_ledger::provenance::{Provenance, ProvenanceEvent};
use coupon_ledger::reading::{Reading, ReadingEvent};
use coupon_ledger::refusals::{Refusals, RefusalsEvent};
use coupon_ledger::rule::{GoodsGroup, GoodsGroupEvent, OrderAmount, OrderAmountEvent};
use coupon_ledger::shop::{Shop, ShopEvent};
use coupon_ledger::store::StoredEvent;
use coupon_ledger::webhook::{Webhook, WebhookEvent};
use serde_json::{Map, Value, json};

use crate::access::a_caller_of;
use crate::harness::{MEMBER, World};
use crate::routes;

pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// One `### ` section of docs/events.md.
struct Section {
    title: String,
    /// The first column of its table, without backticks.
    fields: Vec<String>,
    /// The second column.
    types: Vec<String>,
    /// Its JSON example.
    example: Option<String>,
}

/// The sections under one `## ` heading.
fn sections(chapter: &str) -> Vec<Section> {
    let text = read("docs/events.md");
    let heading = format!("\n## {chapter}\n");
    let (_, rest) =
        text.split_once(&heading).unwrap_or_else(|| panic!("docs/events.md has no chapter {chapter}"));
    let chapter = rest.split("\n## ").next().unwrap();
    chapter.split("\n### ").skip(1).map(section).collect()
}

fn section(text: &str) -> Section {
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let cell = |row: &str, column: usize| {
        row.split(" | ").nth(column).unwrap().trim_matches(['|', ' ', '`']).to_owned()
    };
    let example =
        text.split_once("```json\n").map(|(_, rest)| rest.split_once("\n```").unwrap().0.to_owned());
    Section {
        title: text.lines().next().unwrap().to_owned(),
        fields: rows.clone().map(|row| cell(row, 0)).collect(),
        types: rows.map(|row| cell(row, 1)).collect(),
        example,
    }
}

fn keys(object: &Value) -> Vec<String> {
    object.as_object().unwrap().keys().cloned().collect()
}

/// Every event type has a section with its version, a table of exactly its fields, and an example that is stored so.
fn documents<A: Entity>(names: &[&str]) {
    let sections = sections(A::TYPE);
    let documented: Vec<_> = sections.iter().map(|section| section.title.clone()).collect();
    let expected: Vec<_> = names.iter().map(|name| format!("{name} {}", A::EVENT_VERSION)).collect();
    assert_eq!(documented, expected, "sections of {}", A::TYPE);
    for (name, section) in names.iter().zip(sections) {
        let payload = section.example.unwrap_or_else(|| panic!("{name} has no example"));
        let stored = StoredEvent {
            position: 1,
            aggregate_type: A::TYPE.to_owned(),
            aggregate_id: "1".to_owned(),
            sequence: 1,
            event_type: (*name).to_owned(),
            event_version: A::EVENT_VERSION.to_owned(),
            payload: payload.clone(),
            metadata: "{}".to_owned(),
            recorded_at_ms: 0,
        };
        let event = decode::<A>(&stored).unwrap();
        let written = encode::<A>(&event).unwrap();
        assert_eq!((written.payload, written.event_type), (payload.clone(), stored.event_type), "{name}");
        let payload: Value = serde_json::from_str(&payload).unwrap();
        assert_eq!(section.fields, keys(&payload[name]), "fields of {name}");
        check_shapes(&payload[name]);
    }
}

/// Objects that several events share have a section of their own.
fn check_shapes(fields: &Value) {
    for section in sections("Shapes") {
        if let Some(shape) = fields.get(&section.title).filter(|shape| shape.is_object()) {
            assert_eq!(section.fields, keys(shape), "fields of {}", section.title);
            check_shapes(shape);
        }
    }
}

#[test]
fn every_event_of_a_coupon_is_documented_as_it_is_stored() {
    documents::<Coupon>(CouponEvent::NAMES);
}

#[test]
fn every_event_of_a_definition_is_documented_as_it_is_stored() {
    documents::<Definition>(DefinitionEvent::NAMES);
}

#[test]
fn every_event_of_a_shop_is_documented_as_it_is_stored() {
    documents::<Shop>(ShopEvent::NAMES);
}

#[test]
fn every_event_of_an_allotment_is_documented_as_it_is_stored() {
    documents::<Allotment>(AllotmentEvent::NAMES);
}

#[test]
fn every_event_of_a_job_is_documented_as_it_is_stored() {
    documents::<Job>(JobEvent::NAMES);
}

#[test]
fn every_event_of_an_order_is_documented_as_it_is_stored() {
    documents::<Order>(OrderEvent::NAMES);
}

#[test]
fn every_event_of_a_rule_and_its_grants_is_documented_as_it_is_stored() {
    documents::<Grant>(GrantEvent::NAMES);
    documents::<OrderAmount>(OrderAmountEvent::NAMES);
    documents::<GoodsGroup>(GoodsGroupEvent::NAMES);
}

#[test]
fn every_event_of_the_ledger_itself_is_documented_as_it_is_stored() {
    documents::<Provenance>(ProvenanceEvent::NAMES);
}

#[test]
fn every_event_of_a_member_is_documented_as_it_is_stored() {
    documents::<Member>(MemberEvent::NAMES);
}

#[test]
fn every_event_of_an_account_is_documented_as_it_is_stored() {
    documents::<Account>(AccountEvent::NAMES);
}

#[test]
fn every_event_of_an_office_and_of_who_holds_it_is_documented_as_it_is_stored() {
    documents::<Office>(OfficeEvent::NAMES);
    documents::<Appointment>(AppointmentEvent::NAMES);
}

#[test]
fn every_event_of_a_machine_is_documented_as_it_is_stored() {
    documents::<Machine>(MachineEvent::NAMES);
}

#[test]
fn every_event_of_a_partners_key_is_documented_as_it_is_stored() {
    documents::<PartnerKey>(PartnerKeyEvent::NAMES);
}

#[test]
fn every_event_of_what_is_watched_over_is_documented_as_it_is_stored() {
    documents::<Reading>(ReadingEvent::NAMES);
    documents::<Refusals>(RefusalsEvent::NAMES);
}

#[test]
fn every_event_of_an_approval_is_documented_as_it_is_stored() {
    documents::<Approval>(ApprovalEvent::NAMES);
}

#[test]
fn every_event_of_a_webhook_is_documented_as_it_is_stored() {
    documents::<Webhook>(WebhookEvent::NAMES);
}

#[test]
fn every_documented_source_has_its_number() {
    let sources = sections("Shapes").into_iter().find(|section| section.title == "source").unwrap();
    assert_eq!(sources.fields.len(), 9);
    for (name, number) in sources.fields.into_iter().zip(sources.types) {
        let source: Source = serde_json::from_value(name.clone().into()).unwrap();
        assert_eq!((source.come().to_string(), serde_json::to_value(source).unwrap()), (number, name.into()));
    }
}

on_both_engines! {
    async fn metadata_holds_what_is_documented(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        world.keyed(MEMBER, "some-key", "/client/givecoupon", json!({"id": id})).await.ok();
        let events = world.store().events_after(0, 100).await.unwrap();
        let metadata: Value = serde_json::from_str(&events.last().unwrap().metadata).unwrap();
        let text = read("docs/events.md");
        let chapter = text.split_once("\n## Metadata\n").unwrap().1.split("\n## ").next().unwrap();
        let documented = section(chapter);
        let example: Value = serde_json::from_str(&documented.example.unwrap()).unwrap();
        assert_eq!((documented.fields, keys(&example)), (keys(&metadata), keys(&metadata)));
        assert!(metadata.as_object().unwrap().values().all(Value::is_string), "{metadata}");
        assert_eq!(
            [&metadata["caller"], &metadata["caller_kind"], &metadata["idempotency_key"]],
            ["member:439", "member", "some-key"]
        );
        world.close().await;
    }
}

const GENERATED_FROM: &str = "## Codes\n";

#[test]
fn the_generated_part_of_the_api_is_up_to_date() {
    let text = read("docs/api.md");
    let hand_written = text.split(GENERATED_FROM).next().unwrap();
    let expected = format!("{hand_written}{}", openapi::markdown());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(repository().join("docs/api.md"), &expected).unwrap();
    } else {
        assert!(text == expected, "docs/api.md is behind: UPDATE_DOCS=1 cargo test --test it docs");
    }
}

on_both_engines! {
    /// The example's values may name what is not there, but never what the fields' rules refuse.
    async fn every_example_request_is_accepted_by_its_route(engine: Engine) {
        let world = World::empty(engine).await;
        let document = world.raw("GET", "/openapi.json", &[], Vec::new()).await.body;
        let documented: Vec<_> = keys(&document["paths"]).into_iter().filter(|path| {
            document["paths"][path].get("post").is_some()
        }).collect();
        let posted = v1::ALL.iter().filter(|resource| resource.method == v1::Method::Post);
        let open = OPEN.iter().filter(|open| open.method == v1::Method::Post).map(|open| open.path);
        let posted: Vec<_> = ALL.iter().map(|route| route.path).chain(open).chain(posted.map(|r| r.path)).collect();
        assert_eq!(documented, posted);
        for route in ALL.iter() {
            let content = &document["paths"][route.path]["post"]["requestBody"]["content"]["application/json"];
            let mut example = content["example"].clone();
            if route.path == "/token/revoke" {
                // No document can hold a token that this ledger signed.
                example["revoke"] = world.token(MEMBER).into();
            }
            let required: Vec<_> = content["schema"]["required"].as_array().unwrap().iter().collect();
            let given = keys(&example);
            assert!(required.iter().all(|name| given.contains(&name.as_str().unwrap().to_owned())), "{}", route.path);
            let reply = world.call(a_caller_of(route.path), route.path, example).await;
            assert!(![401, 1001, 1002, 9004, 9999].contains(&reply.code()), "{}: {}", route.path, reply.body);
            assert!(reply.code() == 0 || route.refusals.contains(&reply.code()), "{}: {}", route.path, reply.body);
        }
        world.close().await;
    }

    /// Keys in their order and types of the example are those of a real answer, on every route.
    async fn every_example_answer_has_the_shape_of_a_real_one(engine: Engine) {
        for page in routes::PAGES {
            let world = World::with_people(engine).await;
            for case in (page.cases)(&world).await {
                let example: Value = serde_json::from_str(routes::route(case.path).data).unwrap();
                let reply = world.call(case.caller, case.path, case.body).await;
                assert_eq!(shape(reply.ok()), shape(&example), "{}: {}", case.path, reply.body);
            }
            world.close().await;
        }
    }
}

/// A value with its types for values and one row for a list; the order of keys counts.
fn shape(value: &Value) -> String {
    fn types(value: &Value) -> Value {
        match value {
            Value::Null => "null".into(),
            Value::Bool(_) => "boolean".into(),
            Value::Number(number) => if number.is_i64() { "integer" } else { "number" }.into(),
            Value::String(_) => "text".into(),
            Value::Array(rows) => Value::Array(rows.first().map(types).into_iter().collect()),
            Value::Object(fields) => {
                let fields = fields.iter().map(|(name, value)| (name.clone(), types(value)));
                Value::Object(fields.collect::<Map<_, _>>())
            }
        }
    }
    serde_json::to_string_pretty(&types(value)).unwrap()
}
