//! Imports of coupons and members from CSV.

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::approvals::waits;
use super::form::Form;
use super::{Answer, Call, Failure};
use crate::approving::{self, Imported};
use crate::import::{self, Asked, Report, What};
use crate::refusal::Language;
use crate::secrets::Secrets;
use crate::value::hex;

/// Every call of these pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Import {
    /// `/elecoupons/import`
    Coupons,
    /// `/member/import`
    Members,
}

pub(super) async fn run(which: Import, mut call: Call) -> Result<Answer, Failure> {
    let what = match which {
        Import::Coupons => What::Coupons,
        Import::Members => What::Members,
    };
    let (file, dry_run) = read_import(&mut call.form);
    // Who gives no key means this very file.
    call.key.get_or_insert_with(|| key_of(call.app.ledger.secrets(), &file, dry_run));
    call.checked()?;
    let (key, request_mac) =
        call.meta.receipt.clone().map_or_else(Default::default, |(key, mac)| (key.key, mac));
    let request_id = call.meta.request_id.clone();
    let asked = Asked { caller: call.caller, key, request_mac, request_id, dry_run };
    let rule = call.rule(call.app.options.approvals.imports).await?;
    let report = match approving::import(&call.app.ledger, what, &file, &asked, &rule).await? {
        Imported::Taken(report) => report,
        Imported::Waits(proposed) => return Err(waits(&proposed)),
    };
    Answer::new(&report_json(&report, dry_run, call.language)).map(|answer| answer.replayed(report.replayed))
}

/// Reads what an import takes: the file, and whether it is only to be checked.
pub fn read_import(form: &mut Form) -> (Bytes, bool) {
    let file = form.file("csv");
    (file, form.flag("dry_run", true))
}

/// The key of an import that was given none. Under a dry run's nothing is ever written: a file can be looked at again
/// after it was imported. It stays in the database when a member of the file is erased: without the secret nobody can find
/// out by it what was in the file.
#[must_use]
pub fn key_of(secrets: &Secrets, file: &[u8], dry_run: bool) -> String {
    let purpose = if dry_run { "dry run of" } else { "import of" };
    secrets.request_mac(&format!("{purpose} {}", hex(&Sha256::digest(file))))
}

/// What an import came to, as it is answered.
#[must_use]
pub fn report_json(report: &Report, dry_run: bool, language: Language) -> Value {
    let error =
        |bad: &import::BadLine| json!({"line": bad.line, "field": bad.field(), "why": bad.why(language)});
    json!({
        "nums": report.rows,
        "ok_num": report.ok,
        "bad_num": report.bad,
        "dry_run": i64::from(dry_run),
        "errors": report.errors.iter().map(error).collect::<Vec<_>>(),
    })
}
