//! The manual's page, sample by sample: keys, types and formats are the law, oddities included.

use serde_json::json;

use crate::harness::{Engine, FRIEND, MEMBER, World};

on_both_engines! {
    /// The sample of couponlist has these keys in this order.
    async fn couponlist_has_exactly_the_samples_keys(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        let list = world.call(MEMBER, "/client/couponlist", json!({"state": 0})).await;
        insta::allow_duplicates! { insta::assert_json_snapshot!("couponlist", list.body); }
        assert_eq!(id, 1);
        assert_eq!(world.call(FRIEND, "/client/couponinfo", json!({"id": id})).await.code(), 2001);
        world.close().await;
    }
}
