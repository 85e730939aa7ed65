//! Who may do what, and who is told: offices, accounts, keys and webhooks. No secret is in any of them.

use super::From::{Cell, Computed};
use super::Kind::{Flag, Id, Instant, Int, Text};
use super::{EMPLOYEE_ID, by_id, column, same};
use crate::access::right_names;
use crate::exports::rows::Seen;
use crate::exports::{Accepts, Column, Filter, Sheet, Source, Value};
use crate::read_model::accounts::ACCOUNTS;
use crate::read_model::offices::read_rights;
use crate::read_model::{APPOINTMENTS, MACHINES, OFFICES, PARTNER_KEYS, WEBHOOKS};

const OFFICE_ID: Column = same("office_id", Id, ["職務ID", "职务ID", "Office ID"]);
const RIGHTS: Column = column("rights", Text, Computed(rights), ["權限", "权限", "Rights"]);
const REVOKED_AT: Column =
    column("revoked_at", Instant, Cell("revoked_at_ms"), ["撤銷時間", "撤销时间", "Revoked at"]);

/// By the names that docs/security.md has for them.
fn rights(row: &Seen<'_>) -> Value {
    Value::Text(right_names(&read_rights(row.text("rights"))).join(","))
}

pub(super) static OFFICES_SHEET: Sheet = Sheet {
    name: "offices",
    words: ["職務", "职务", "Offices"],
    about: "Offices and the `rights` that employees have by them",
    whose: None,
    columns: &[
        OFFICE_ID,
        same("title", Text, ["名稱", "名称", "Title"]),
        RIGHTS,
        EMPLOYEE_ID,
        column("added_at", Instant, Cell("added_at_ms"), ["新增時間", "新增时间", "Added at"]),
        same("deleted", Flag, ["已移除", "已移除", "Removed"]),
    ],
    keys: 1,
    filters: &[],
    days: Some("added_at"),
    source: Source::Log { kind: "office", table: &OFFICES },
};

pub(super) static APPOINTMENTS_SHEET: Sheet = Sheet {
    name: "appointments",
    words: ["任職", "任职", "Appointments"],
    about: "Which employee holds which office, and who manages his shop",
    whose: None,
    columns: &[
        column("employee_id", Id, Cell("appointment_id"), ["員工ID", "员工ID", "Employee ID"]),
        OFFICE_ID,
        same("manager", Flag, ["店長", "店长", "Manager"]),
    ],
    keys: 1,
    filters: &[by_id("office_id", "who hold this office")],
    days: None,
    source: Source::Log { kind: "appointment", table: &APPOINTMENTS },
};

const ROLES: &[&str] = &["operator", "auditor", "employee"];

pub(super) static ACCOUNTS_SHEET: Sheet = Sheet {
    name: "accounts",
    words: ["登入帳號", "登录账号", "Accounts"],
    about: "Accounts that people sign in with, without their names, which are not in the log; `passwords` is how many each has \
            had, `second_factor` whether a code is asked besides",
    whose: None,
    columns: &[
        same("account_id", Id, ["帳號ID", "账号ID", "Account ID"]),
        same("role", Text, ["角色", "角色", "Role"]),
        EMPLOYEE_ID,
        same("active", Flag, ["啟用", "启用", "Active"]),
        same("passwords", Int, ["密碼次數", "密码次数", "Passwords"]),
        column("second_factor", Flag, Computed(second_factor), ["兩步驗證", "两步验证", "Second factor"]),
    ],
    keys: 1,
    filters: &[
        by_id("account_id", "this one"),
        Filter { name: "role", accepts: Accepts::OneOf(ROLES), about: "with this role" },
    ],
    days: None,
    source: Source::Log { kind: "account", table: &ACCOUNTS },
};

fn second_factor(row: &Seen<'_>) -> Value {
    Value::Int(i64::from(row.int("totp") != 0))
}

pub(super) static MACHINE_KEYS: Sheet = Sheet {
    name: "machine-keys",
    words: ["程式金鑰", "程序密钥", "Machine keys"],
    about: "The keys of programs, what they may and until when; no secret, and not when one was last used, which is not in the log",
    whose: None,
    columns: &[
        same("machine_key_id", Id, ["金鑰ID", "密钥ID", "Key ID"]),
        same("name", Text, ["名稱", "名称", "Name"]),
        RIGHTS,
        column("expires_at", Instant, Cell("expires_at_ms"), ["到期時間", "到期时间", "Expires at"]),
        EMPLOYEE_ID,
        column("issued_at", Instant, Cell("issued_at_ms"), ["發放時間", "发放时间", "Issued at"]),
        REVOKED_AT,
    ],
    keys: 1,
    filters: &[],
    days: Some("issued_at"),
    source: Source::Log { kind: "machine_key", table: &MACHINES },
};

pub(super) static PARTNER_KEYS_SHEET: Sheet = Sheet {
    name: "partner-keys",
    words: ["商家公鑰", "商家公钥", "Partners' keys"],
    about: "The public keys that partners sign their requests with, Ed25519 in base64",
    whose: None,
    columns: &[
        same("partner_id", Id, ["商家ID", "商家ID", "Partner ID"]),
        same("partner_key_id", Id, ["公鑰ID", "公钥ID", "Key ID"]),
        same("public_key", Text, ["公鑰", "公钥", "Public key"]),
        EMPLOYEE_ID,
        column("registered_at", Instant, Cell("registered_at_ms"), ["登記時間", "登记时间", "Registered at"]),
        REVOKED_AT,
    ],
    keys: 2,
    filters: &[by_id("partner_id", "of this partner")],
    days: Some("registered_at"),
    source: Source::Log { kind: "partner_key", table: &PARTNER_KEYS },
};

pub(super) static WEBHOOKS_SHEET: Sheet = Sheet {
    name: "webhooks",
    words: ["事件推送", "事件推送", "Webhooks"],
    about: "Webhooks: whom is told which events, all of them where `types` or `streams` is empty; `state` running, paused by \
            somebody, gone (the receiver answered 410) or removed. How far each is, is told by its page",
    whose: None,
    columns: &[
        same("webhook_id", Id, ["推送ID", "推送ID", "Webhook ID"]),
        same("url", Text, ["網址", "网址", "URL"]),
        same("types", Text, ["事件類型", "事件类型", "Event types"]),
        same("streams", Text, ["事件流", "事件流", "Streams"]),
        column("state", Text, Computed(webhook_state), ["狀態", "状态", "State"]),
        same("generation", Int, ["密鑰代次", "密钥代次", "Secret's number"]),
        EMPLOYEE_ID,
        column("added_at", Instant, Cell("added_at_ms"), ["新增時間", "新增时间", "Added at"]),
        column("removed_at", Instant, Cell("removed_at_ms"), ["移除時間", "移除时间", "Removed at"]),
    ],
    keys: 1,
    filters: &[],
    days: Some("added_at"),
    source: Source::Log { kind: "webhook", table: &WEBHOOKS },
};

fn webhook_state(row: &Seen<'_>) -> Value {
    let state = match (row.int("removed_at_ms"), row.int("paused")) {
        (0, 0) => "running",
        (0, 1) => "paused",
        (0, _) => "gone",
        _ => "removed",
    };
    Value::Text(state.to_owned())
}
