//! Every route × every role × own and another's: the table of docs/security.md against what is really answered. A new
//! route without a row, or without what it answers a stranger, fails.

use std::collections::BTreeSet;

use coupon_ledger::access::{RIGHTS, Reach, Right, Role, reaches, right_for};
use coupon_ledger::http::HttpOptions;
use coupon_ledger::http::routes::ALL;
use coupon_ledger::http::v1;
use coupon_ledger::identity::Caller;
use serde_json::{Value, json};

use crate::harness::{EMPLOYEE, MEMBER, PARTNER, World};
use crate::routes::{Case, PAGES};

/// A member who has nothing.
const STRANGER: Caller = Caller::Member(7777);
/// In shop 1, with every right that there is.
const WITH_ALL_RIGHTS: Caller = Caller::Employee(2001);
/// In shop 1, with every right but the one that the route asks for.
const WITH_ALL_BUT_ONE: Caller = Caller::Employee(2002);
const MANAGER: Caller = Caller::Employee(2004);
/// In another shop.
const EMPLOYEE_ELSEWHERE: Caller = Caller::Employee(2003);
const MANAGER_ELSEWHERE: Caller = Caller::Employee(2005);
/// There is no such partner.
const PARTNER_ELSEWHERE: Caller = Caller::Partner(9999);

/// A key with every right that there is; keys with all but one are those behind it.
const MACHINE: Caller = Caller::Machine(1);

/// What a stranger is answered on routes that reach to what is his own or his shop's only.
enum Abroad {
    /// One of these: as if what it names were not there, or not allowed where it names the shop itself.
    Is(i64),
    /// It names nothing that could be another's: whoever calls is answered for himself, or has what is named put before him
    /// (a coupon at his counter, a gift with its code).
    Nothing,
}

use Abroad::{Is, Nothing};

/// Every route with a cell `own` or `shop`.
const ABROAD: &[(&str, Abroad)] = &[
    ("/client/couponlist", Nothing),
    ("/client/couponinfo", Is(2001)),
    ("/client/couponcount", Nothing),
    ("/client/auditcoupon", Is(2001)),
    ("/client/auditcouponinfo", Is(2004)),
    ("/client/evaluacoupon", Is(2001)),
    ("/client/givecoupon", Is(2001)),
    ("/client/withdrawcoupon", Is(2001)),
    ("/client/giftinfo", Nothing),
    ("/client/getcoupon", Nothing),
    ("/client/getauditcoupon", Nothing),
    ("/client/shopid", Nothing),
    ("/client/cangetcoupon", Nothing),
    ("/client/claimcoupon", Nothing),
    ("/client/auditcode", Is(2001)),
    ("/user/auditbycode", Nothing),
    ("/user/auditelecouponlist", Nothing),
    ("/auditelecoupon/getlist", Is(1002)),
    ("/user/auditelecoupon", Nothing),
    ("/user/reverseelecoupon", Is(2004)),
    ("/user/add", Is(1002)),
    ("/user/edit", Is(1002)),
    ("/order/add", Is(1002)),
    ("/order/cancelago", Is(2006)),
    ("/order/cancel", Is(2006)),
    ("/order/get", Is(2006)),
    ("/order/list", Is(1002)),
    ("/order/elecouponlist", Nothing),
    ("/user/checkcoupons", Is(1002)),
    ("/businesshome/get", Nothing),
    ("/businesshome/giveqrcode", Nothing),
    ("/businesshome/auditqrcode", Nothing),
    ("/businesshome/auditcoupon", Nothing),
    ("/businesshome/attractcoupon", Nothing),
    ("/wechat/businesscoupon", Nothing),
    ("/wechat/getattract", Nothing),
    ("/wechat/receive", Nothing),
    ("/wechat/auditlist", Nothing),
    ("/wechat/openid", Nothing),
    ("/user/logout", Nothing),
    ("/user/logouteverywhere", Nothing),
    ("/user/editpassword", Nothing),
    ("/user/totp", Nothing),
    ("/user/totpon", Nothing),
    ("/user/totpoff", Nothing),
];

/// What the table says of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Nothing,
    HisOwn,
    All,
}

/// Read here once more, not asked of the program.
fn table_says(role: Role, has_right: bool, action: &str) -> Says {
    let reaches = reaches(role, action);
    if reaches.contains(&Reach::All)
        || reaches == [Reach::Open]
        || has_right && reaches.contains(&Reach::Right)
    {
        Says::All
    } else if reaches.contains(&Reach::Own) || reaches.contains(&Reach::Shop) {
        Says::HisOwn
    } else {
        Says::Nothing
    }
}

/// Everybody there is: who, as what, with the right that the route asks for, and whether what the route names is his.
/// Strangers come first, so that they meet everything as it is.
fn everybody(owner: Caller, right: Option<i64>) -> Vec<(Caller, Role, bool, bool)> {
    let place = RIGHTS.iter().position(|other| Some(other.id) == right).unwrap_or_default();
    let machine_with_all_but_one = Caller::Machine(2 + place as i64);
    let member = if matches!(owner, Caller::Member(_)) { owner } else { MEMBER };
    vec![
        (STRANGER, Role::Member, false, false),
        (EMPLOYEE_ELSEWHERE, Role::Employee, false, false),
        (MANAGER_ELSEWHERE, Role::Manager, false, false),
        (PARTNER_ELSEWHERE, Role::Partner, false, false),
        (WITH_ALL_BUT_ONE, Role::Employee, false, true),
        (machine_with_all_but_one, Role::Machine, false, true),
        (Caller::Auditor, Role::Auditor, false, true),
        (member, Role::Member, false, true),
        (EMPLOYEE, Role::Employee, false, true),
        (MANAGER, Role::Manager, false, true),
        (PARTNER, Role::Partner, false, true),
        (WITH_ALL_RIGHTS, Role::Employee, true, true),
        (MACHINE, Role::Machine, true, true),
        (Caller::Operator, Role::Operator, true, true),
    ]
}

fn numbers<'a>(rights: impl Iterator<Item = &'a Right>) -> String {
    rights.map(|right| right.id.to_string()).collect::<Vec<_>>().join(",")
}

/// Whoever is missing in a world with people.
struct Cast {
    /// The office whose rights are those of [`WITH_ALL_BUT_ONE`].
    office: i64,
    /// The machines' keys, by their ids from 1.
    keys: Vec<String>,
}

impl Cast {
    /// What somebody shows of himself.
    fn bearer(&self, world: &World, caller: Caller) -> String {
        let shown = match caller {
            Caller::Machine(id) => self.keys[id as usize - 1].clone(),
            caller => world.token(caller),
        };
        format!("Bearer {shown}")
    }
}

async fn bring_in(world: &World) -> Cast {
    world.operator("/member/add", json!({"id": 7777, "nickname": "路人"})).await.ok();
    let elsewhere = json!({"shop_name": "遠方", "phone": "1", "address": "a"});
    let elsewhere = world.operator("/shop/add", elsewhere).await.ok()["id"].as_str().unwrap().to_owned();
    let office = async || world.operator("/office/add", json!({"title": "試"})).await.ok()["id"].clone();
    let (all, but_one) = (office().await, office().await);
    let rights = json!({"id": all, "competence_ids": numbers(RIGHTS.iter())});
    world.operator("/office/setcompetence", rights).await.ok();
    let here = json!(1);
    let elsewhere = json!(elsewhere);
    for (id, shop, office, manager) in [
        (2001, &here, &all, 0),
        (2002, &here, &but_one, 0),
        (2003, &elsewhere, &json!(0), 0),
        (2004, &here, &json!(0), 1),
        (2005, &elsewhere, &json!(0), 1),
    ] {
        let employee =
            json!({"id": id, "name": "店員", "shop_id": shop, "office_id": office, "is_manager": manager});
        world.operator("/user/add", employee).await.ok();
    }
    let mut sets = vec![numbers(RIGHTS.iter())];
    sets.extend(RIGHTS.iter().map(|but| numbers(RIGHTS.iter().filter(|right| right.id != but.id))));
    let operator = format!("Bearer {}", world.token(Caller::Operator));
    let mut keys = Vec::new();
    for rights in sets {
        let path = format!("/v1/machine-keys?name=m&rights={rights}");
        let issued = world.raw("POST", &path, &[("authorization", &operator)], Vec::new()).await;
        keys.push(issued.body["key"].as_str().unwrap().to_owned());
        assert_eq!(issued.body["id"], keys.len());
    }
    Cast { office: but_one.as_i64().unwrap(), keys }
}

/// The request as this caller would send it: only operators may ask for a partner's coupon back.
fn body_of(case: &Case, caller: Caller) -> Value {
    let mut body = case.body.clone();
    if caller != Caller::Operator
        && let Some(fields) = body.as_object_mut()
    {
        fields.remove("return_partner");
    }
    body
}

#[test]
fn every_route_that_reaches_to_what_is_ones_own_says_what_a_stranger_gets() {
    let own = |path: &&str| {
        let all = Role::ALL.into_iter().flat_map(|role| reaches(role, path));
        all.into_iter().any(|reach| matches!(reach, Reach::Own | Reach::Shop))
    };
    let reaching: BTreeSet<&str> = ALL.iter().map(|route| route.path).filter(own).collect();
    assert_eq!(reaching, ABROAD.iter().map(|(path, _)| *path).collect());
}

on_both_engines! {
    async fn every_role_gets_on_every_route_what_the_table_says(engine: Engine) {
        for page in PAGES {
            let world = World::with_people(engine).await;
            let cases = (page.cases)(&world).await;
            let cast = bring_in(&world).await;
            for case in &cases {
                let but = right_for(case.path).map(|right| right.id);
                let rights = numbers(RIGHTS.iter().filter(|right| Some(right.id) != but));
                let rights = json!({"id": cast.office, "competence_ids": rights});
                world.operator("/office/setcompetence", rights).await.ok();
                for (caller, role, has_right, is_his) in everybody(case.caller, but) {
                    let said = table_says(role, has_right, case.path);
                    let bearer = cast.bearer(&world, caller);
                    let body = body_of(case, caller).to_string();
                    let reply = world.request(case.path, &[("authorization", &bearer)], &body).await;
                    let what = format!("{} as {caller} ({role:?}): {}", case.path, reply.body);
                    let refused = (reply.code(), reply.status.as_u16()) == (1002, 403);
                    assert_eq!(reply.code() == 1002, refused, "{what}");
                    assert_ne!(reply.code(), 1001, "{what}");
                    match said {
                        Says::Nothing => assert!(refused, "{what}"),
                        Says::All => assert!(!refused, "{what}"),
                        Says::HisOwn if is_his => assert!(!refused, "{what}"),
                        Says::HisOwn => match ABROAD.iter().find(|(path, _)| *path == case.path).unwrap().1 {
                            Is(code) => assert_eq!(reply.code(), code, "{what}"),
                            Nothing => assert!(!refused, "{what}"),
                        },
                    }
                }
            }
            world.close().await;
        }
    }

    async fn every_role_gets_under_v1_what_the_table_says(engine: Engine) {
        let mut world = World::with_people(engine).await;
        world.set_options(HttpOptions {
            receipts: coupon_ledger::audit::receipt::Patience { signature: std::time::Duration::ZERO, witnesses: 0 },
            ..HttpOptions::default()
        });
        let definition = world.define(json!({})).await;
        assert_eq!(world.issue(definition, 439).await, 1);
        let cast = bring_in(&world).await;
        for resource in v1::ALL.iter() {
            let method = resource.method.name();
            // Nobody's key is revoked on the way.
            let path = match resource.method {
                v1::Method::Delete => crate::v1::concrete(resource.path).replace("/1", "/99"),
                _ => crate::v1::concrete(resource.path),
            };
            let but = right_for(&resource.action()).map(|right| right.id);
            let rights = numbers(RIGHTS.iter().filter(|right| Some(right.id) != but));
            let rights = json!({"id": cast.office, "competence_ids": rights});
            world.operator("/office/setcompetence", rights).await.ok();
            for (caller, role, has_right, is_his) in everybody(MEMBER, but) {
                let said = table_says(role, has_right, &resource.action());
                let bearer = cast.bearer(&world, caller);
                let reply = world.raw(method, &path, &[("authorization", &bearer)], Vec::new()).await;
                let what = format!("{method} {path} as {caller} ({role:?}): {} {}", reply.status, reply.body);
                let refused = reply.status.as_u16() == 403;
                match said {
                    Says::Nothing => assert!(refused && reply.code() == 1002, "{what}"),
                    // Who one is, one may ask of oneself only.
                    Says::HisOwn if !is_his && resource.path != "/v1/session" => {
                        assert_eq!((reply.status.as_u16(), reply.code()), (404, 2001), "{what}");
                    }
                    Says::HisOwn | Says::All => assert!(!refused && reply.status.as_u16() != 401, "{what}"),
                }
            }
        }
        world.close().await;
    }
}
