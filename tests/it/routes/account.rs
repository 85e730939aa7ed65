//! Passwords, second factors, sessions' ends, and accounts.

use coupon_ledger::identity::Caller;
use coupon_ledger::sign_in::{TOTP_STEP_MS, totp_code};
use serde_json::json;

use super::{Case, Refused, case, refused};
use crate::accounts::{PASSWORD, account};
use crate::harness::{EMPLOYEE, World};

const OPERATOR: Caller = Caller::Operator;

pub async fn cases(world: &World) -> Vec<Case> {
    let clerk = account(world, json!({"name": "clerk", "role": "employee", "user_id": 1000})).await;
    let boss = account(world, json!({"name": "boss", "role": "operator"})).await;
    world.operator("/user/add", json!({"id": 1001, "name": "店員", "shop_id": 1})).await.ok();
    let code = totp_code(&world.secrets.second_factor(clerk, 1), world.clock.now_ms() / TOTP_STEP_MS);
    let other = "wrong horse battery";
    vec![
        case("/user/logout", EMPLOYEE, json!({})),
        case("/user/logouteverywhere", EMPLOYEE, json!({})),
        case("/user/editpassword", EMPLOYEE, json!({"old": PASSWORD, "new": other})),
        case("/user/totp", EMPLOYEE, json!({})),
        case("/user/totpon", EMPLOYEE, json!({"code": code})),
        case("/user/totpoff", EMPLOYEE, json!({"password": other})),
        case("/account/add", OPERATOR, json!({"name": "clerk2", "role": "employee", "user_id": 1001})),
        case("/account/list", Caller::Auditor, json!({"page": 1, "limit": 10})),
        case(
            "/account/subject",
            OPERATOR,
            json!({"id": boss, "issuer": "https://login.example", "subject": "248289761001"}),
        ),
        case("/account/state", OPERATOR, json!({"id": boss, "state": 0})),
        case("/user/resetpassword", OPERATOR, json!({"id": 1000, "totp_off": 1})),
    ]
}

pub async fn refusals(world: &World) -> Vec<Refused> {
    account(world, json!({"name": "clerk", "role": "employee", "user_id": 1000})).await;
    let passwords = json!({"old": "wrong horse battery", "new": PASSWORD});
    let (code, password) = (json!({"code": "000000"}), json!({"password": "wrong horse battery"}));
    let mut all = Vec::new();
    // A token of an auditor has no account behind it.
    for (path, body) in [
        ("/user/logouteverywhere", json!({})),
        ("/user/editpassword", passwords.clone()),
        ("/user/totp", json!({})),
        ("/user/totpon", code.clone()),
        ("/user/totpoff", password.clone()),
    ] {
        all.push(refused(path, 310, Caller::Auditor, body));
    }
    for (path, body) in
        [("/user/editpassword", passwords), ("/user/totpon", code), ("/user/totpoff", password)]
    {
        all.push(refused(path, 1003, EMPLOYEE, body));
    }
    all.push(refused("/user/resetpassword", 310, OPERATOR, json!({"id": 999})));
    all.push(refused("/user/resetpassword", 310, OPERATOR, json!({"name": "nobody"})));
    all.push(refused(
        "/account/add",
        310,
        OPERATOR,
        json!({"name": "x", "role": "employee", "user_id": 999}),
    ));
    let link = json!({"id": 999, "issuer": "https://login.example", "subject": "x"});
    all.push(refused("/account/subject", 310, OPERATOR, link));
    all.push(refused("/account/state", 310, OPERATOR, json!({"id": 999, "state": 0})));
    all
}
