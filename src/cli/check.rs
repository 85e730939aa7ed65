//! `coupon-ledger check`: an export or a receipt, held against keys that somebody trusts. No database, no server, no data
//! folder.

use std::path::PathBuf;

use anyhow::Context as _;

use super::{Failed, write_out};
use crate::audit::check::{Report, Trusted, check_export, check_proof, is_proof, printable};

/// The largest receipt or checkpoint that is read.
const MAX_TEXT: u64 = 4 << 20;

/// What to check, and by what.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// The folder of an export, or the file of a receipt
    what: PathBuf,
    /// A verifier key of the ledger that you had from elsewhere; several while one is replaced
    #[arg(long = "key", value_name = "VKEY", required_unless_present = "unsigned")]
    keys: Vec<String>,
    /// A checkpoint that you have kept: the log must still begin as it did then
    #[arg(long = "checkpoint", value_name = "FILE")]
    checkpoints: Vec<PathBuf>,
    /// The verifier key of a witness that must have cosigned
    #[arg(long = "witness", value_name = "VKEY", requires = "keys")]
    witnesses: Vec<String>,
    /// Check only that an export is whole and follows the rules, not who signed it
    #[arg(long, conflicts_with_all = ["keys", "checkpoints"])]
    unsigned: bool,
    /// The report as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &CheckArgs) -> Result<(), Failed> {
    let mut trusted = Trusted::new(&arguments.keys, &arguments.witnesses)?;
    for path in &arguments.checkpoints {
        trusted = trusted.and_checkpoint(&path.display().to_string(), &read_text(path)?);
    }
    let path = &arguments.what;
    let metadata = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    let report = if metadata.is_dir() {
        let mut shown = super::Progress::new("events");
        check_export(path, &trusted, |done| shown.tell(done, None))?
    } else {
        let text = read_text(path)?;
        if !is_proof(&text) {
            let path = path.display();
            return Err(anyhow::anyhow!("{path} is neither the folder of an export nor a receipt").into());
        }
        if arguments.unsigned {
            return Err(anyhow::anyhow!("a receipt proves nothing without --key").into());
        }
        check_proof(&text, &trusted)?
    };
    tell(&report, arguments)
}

fn read_text(path: &std::path::Path) -> anyhow::Result<String> {
    let shown = path.display();
    let size = std::fs::metadata(path).with_context(|| format!("cannot read {shown}"))?.len();
    anyhow::ensure!(size <= MAX_TEXT, "{shown} is too large to be a receipt or a checkpoint");
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {shown}"))?;
    String::from_utf8(bytes).with_context(|| format!("{shown} is no text"))
}

/// The report to standard output; findings are what it is for.
fn tell(report: &Report, arguments: &CheckArgs) -> Result<(), Failed> {
    let told = if arguments.json {
        serde_json::to_string(report)? + "\n"
    } else {
        in_words(report, arguments.unsigned)
    };
    write_out(&told)?;
    if report.is_sound() {
        return Ok(());
    }
    let count = report.findings.len() as u64 + report.findings_left_out;
    Err(Failed::Refused(anyhow::anyhow!("{count} findings")))
}

fn in_words(report: &Report, unsigned: bool) -> String {
    let mut lines: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    if report.findings_left_out > 0 {
        lines.push(format!("and {} more", report.findings_left_out));
    }
    lines.extend(report.notes.iter().map(|note| format!("note: {}", printable(note))));
    let Report { origin, from, to, events, receipts, signed_size, witnesses, .. } = report;
    let origin = printable(origin);
    if report.is_sound() {
        lines
            .push(format!("sound: {origin}, positions {from} to {to}: {events} events, {receipts} receipts"));
    }
    // By keys that the export itself names nothing is signed.
    if report.is_sound() && *signed_size > 0 && !unsigned {
        let witnesses_num = witnesses.len();
        lines.push(format!(
            "       as signed for {signed_size} positions; cosigned by {witnesses_num} witnesses"
        ));
    }
    lines.join("\n") + "\n"
}
