//! A receipt that a member or merchant has kept, held against keys that its reader trusts.

use super::{CheckError, Finding, Findings, Report, Trusted};
use crate::audit::checkpoint::Untrusted;
use crate::audit::feed;
use crate::audit::receipt::{BadReceipt, Receipt};

/// Whether a text looks like a receipt.
#[must_use]
pub fn is_proof(text: &str) -> bool {
    text.starts_with("c2sp.org/tlog-proof@")
}

/// Checks a receipt. Without a trusted key it proves nothing, and that is what is found.
pub fn check_proof(text: &str, trusted: &Trusted) -> Result<Report, CheckError> {
    let receipt = Receipt::parse(text).map_err(|error| CheckError::NoProof(error.to_string()))?;
    let position = i64::try_from(receipt.index).unwrap_or(i64::MAX).saturating_add(1);
    let mut found = Findings::default();
    let mut report = Report::default();
    match receipt.open(&trusted.trust.clone().unwrap_or_default()) {
        Ok((event, opened)) => {
            for older in &trusted.older {
                let Some(kept) = older.open(trusted, &opened.origin, &mut found)? else { continue };
                if kept.size != opened.size {
                    return Err(older.incomparable(&format!(
                        "covers {} positions, and the receipt is of a tree of {}: only an export can be held against it",
                        kept.size, opened.size
                    )));
                }
                if kept.root != opened.root {
                    found.add(kept.fork());
                }
            }
            (report.from, report.to, report.events) = (position, position, 1);
            report.origin = opened.origin;
            report.signed_size = opened.size;
            report.witnesses = opened.witnesses.into_iter().map(|(name, _)| name).collect();
            report.notes.extend(feed::line(&event).ok());
        }
        Err(error) => {
            let what = error.to_string();
            found.add(match error {
                BadReceipt::Untrusted(Untrusted::TooFewWitnesses { .. }) => Finding::of("witnesses", what),
                BadReceipt::Untrusted(_) | BadReceipt::Malformed(_) => Finding::of("signature", what),
                BadReceipt::NotIncluded { .. } => Finding::at("inclusion", position, what),
                BadReceipt::NoEvent => Finding::at("leaf", position, what),
            });
        }
    }
    report.findings = found.list;
    report.findings_left_out = found.left_out;
    Ok(report)
}
