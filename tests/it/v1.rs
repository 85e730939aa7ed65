//! Resources under `/v1`: who may ask, what is answered, and how a wrong question is refused.

use coupon_ledger::access::is_open;
use coupon_ledger::http::v1::ALL;
use coupon_ledger::identity::Caller;
use serde_json::{Value, json};

use crate::access::may;
use crate::harness::{EMPLOYEE, MEMBER, PARTNER, Reply, World};

/// A path with something in the place of its parts.
pub fn concrete(path: &str) -> String {
    path.split('/').map(|part| if part.starts_with('{') { "1" } else { part }).collect::<Vec<_>>().join("/")
}

/// The lines of an answer of `application/x-ndjson`.
pub fn lines(reply: &Reply) -> Vec<Value> {
    let text = match &reply.body {
        Value::String(text) => text.clone(),
        // One line alone is JSON.
        other => other.to_string(),
    };
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

on_both_engines! {
    async fn nobody_else_is_answered(engine: Engine) {
        let world = World::empty(engine).await;
        for resource in ALL.iter() {
            let method = resource.method.name();
            let path = concrete(resource.path);
            let nobody = world.raw(method, &path, &[], Vec::new()).await;
            // A link shows all that is asked in its query, and this one shows nothing.
            let expected = if is_open(&resource.action()) { (400, 401) } else { (401, 1001) };
            assert_eq!((nobody.status.as_u16(), nobody.code()), expected, "{path}");
            for caller in [MEMBER, EMPLOYEE, PARTNER, Caller::Operator, Caller::Auditor] {
                let may = may(caller, &resource.action());
                let bearer = format!("Bearer {}", world.token(caller));
                let reply = world.raw(method, &path, &[("authorization", &bearer)], Vec::new()).await;
                assert_eq!(reply.status.as_u16() != 403, may, "{path} as {caller}: {}", reply.body);
            }
        }
        world.close().await;
    }

    async fn the_feed_is_the_log_line_by_line(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition_id = world.define(json!({})).await;
        let coupon_id = world.issue(definition_id, 439).await;
        world.call(MEMBER, "/client/couponinfo", json!({"id": coupon_id})).await.ok();
        let all = world.get(Caller::Auditor, "/v1/events").await;
        assert_eq!(all.headers["content-type"], "application/x-ndjson");
        assert_eq!(all.headers["next-after"], "4");
        let events = lines(&all);
        let names: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
        assert_eq!(names, ["Opened", "Defined", "Issued", "Viewed"]);
        let stored = world.store().events_after(0, 10).await.unwrap();
        for (event, stored) in events.iter().zip(&stored) {
            let stream = format!("{}/{}", stored.aggregate_type, stored.aggregate_id);
            assert_eq!(event["position"], stored.position);
            assert_eq!(event["stream"], stream);
            assert_eq!(event["sequence"], stored.sequence);
            assert_eq!(event["recorded_at_ms"], stored.recorded_at_ms);
            assert_eq!(event["payload"].to_string(), stored.payload);
            assert_eq!(event["metadata"].to_string(), stored.metadata);
        }
        // A part, from a cursor; the filters look at as many positions as are asked for.
        let part = world.get(Caller::Auditor, "/v1/events?after=1&limit=2").await;
        assert_eq!(lines(&part), events[1..3]);
        assert_eq!(part.headers["next-after"], "3");
        let of_coupon = format!("/v1/events?stream=coupon/{coupon_id}");
        assert_eq!(lines(&world.get(Caller::Auditor, &of_coupon).await), events[2..]);
        assert_eq!(lines(&world.get(Caller::Auditor, "/v1/events?stream=coupon&type=Viewed").await), events[3..]);
        let none = world.get(Caller::Auditor, "/v1/events?limit=2&type=Viewed").await;
        assert_eq!(none.body, "");
        assert_eq!(none.headers["next-after"], "2");
        let end = world.get(Caller::Auditor, "/v1/events?after=99").await;
        assert_eq!(end.headers["next-after"], "99");
        world.close().await;
    }

    async fn a_wrong_question_is_told_which_part_is_wrong(engine: Engine) {
        let world = World::empty(engine).await;
        for (path, field) in [
            ("/v1/events?after=-1", "after"),
            ("/v1/events?limit=0", "limit"),
            ("/v1/events?limit=1001", "limit"),
            ("/v1/events?after=x", "after"),
        ] {
            let reply = world.get(Caller::Auditor, path).await;
            assert_eq!((reply.status.as_u16(), reply.code()), (400, 401), "{path}");
            assert!(reply.body["info"].get(field).is_some(), "{path}: {}", reply.body);
        }
        let posted = world.raw("POST", "/v1/events", &[], Vec::new()).await;
        assert_eq!((posted.status.as_u16(), posted.code()), (405, 9004));
        world.close().await;
    }
}
