//! Signing in, which nobody has done yet who calls.

use serde_json::json;

use super::{Case, Refused, case, each_refused};
use crate::accounts::{PASSWORD, account, invite};
use crate::harness::{MEMBER, World};

pub async fn cases(world: &World) -> Vec<Case> {
    account(world, json!({"name": "boss", "role": "operator"})).await;
    let code = invite(world, json!({"name": "clerk", "role": "employee", "user_id": 1000})).await;
    let sign_in = json!({"name": "Boss", "password": PASSWORD, "totp": "000000"});
    let choose = json!({"code": code, "password": PASSWORD, "name": "clerk.2"});
    vec![case("/user/login", MEMBER, sign_in), case("/user/setpassword", MEMBER, choose)]
}

pub async fn refusals(world: &World) -> Vec<Refused> {
    account(world, json!({"name": "boss", "role": "operator"})).await;
    let wrong = [
        (1003, json!({"name": "boss", "password": "wrong horse battery"})),
        (1003, json!({"name": "nobody", "password": PASSWORD})),
    ];
    let code = "ac1.1.1.AAAAAAAAAAAAAAAAAAAAAA";
    let choose = [(1003, json!({"code": code, "password": PASSWORD}))];
    let all = each_refused("/user/login", MEMBER, wrong);
    all.chain(each_refused("/user/setpassword", MEMBER, choose)).collect()
}
