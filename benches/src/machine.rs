//! What the figures were taken on.

use std::process::Command;

use crate::measure::number;
use crate::rows::Settings;

/// Machine, program and settings, as a Markdown list.
pub fn describe(settings: &Settings) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let field = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text
            .lines()
            .find_map(|line| Some(line.strip_prefix(name)?.trim_start_matches([' ', '\t', ':']).to_owned()));
        line.unwrap_or_else(|| "unknown".to_owned())
    };
    let memory =
        field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse::<f64>().unwrap_or_default();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let dirty = if said("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty() {
        ""
    } else {
        ", changed"
    };
    let Settings { seconds, rounds, scale, connections, .. } = settings;
    let connections = connections.map_or("each row's own".to_owned(), |connections| connections.to_string());
    format!(
        "- measured {}\n- {cores} cores, {}, {} GiB, Linux {}, {}\n- coupon-ledger {} (commit {}{dirty}), {}\n\
         - rounds of {seconds} s, {rounds} of each contestant in turns; load × {scale}; connections: {connections}\n",
        said("date", &["+%Y-%m-%d %H:%M %Z"]),
        field("/proc/cpuinfo", "model name"),
        number(memory / 1024.0 / 1024.0),
        kernel.trim(),
        said("stat", &["-f", "-c", "%T", &settings.folder().display().to_string()]),
        said(&settings.program.display().to_string(), &["--version"]).trim_start_matches("coupon-ledger "),
        said("git", &["rev-parse", "--short", "HEAD"]),
        said("rustc", &["--version"]),
    )
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or("unknown".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
