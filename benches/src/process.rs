//! What /proc says of a process: the CPU time it used and the memory it holds.

use anyhow::Context as _;

/// Linux counts CPU time for user space in these, whatever the kernel's own tick.
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of CPU that a process has used since it began, in all its threads.
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    Ok(Stat::read(&format!("/proc/{pid}/stat"))?.own)
}

/// Seconds of CPU that the calling thread has used.
pub fn thread_cpu_seconds() -> anyhow::Result<f64> {
    Ok(Stat::read("/proc/thread-self/stat")?.own)
}

/// Seconds of CPU of a process, its children, and the children that have ended.
pub fn family_cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let parent = Stat::read(&format!("/proc/{pid}/stat"))?;
    let mut seconds = parent.own + parent.reaped;
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(child) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process may end between the listing and the reading.
        let Ok(stat) = Stat::read(&format!("/proc/{child}/stat")) else { continue };
        if stat.parent == pid {
            seconds += stat.own + stat.reaped;
        }
    }
    Ok(seconds)
}

/// A process's memory in MiB: resident now, and the most it ever was.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// VmRSS
    pub resident_mib: f64,
    /// VmHWM
    pub peak_mib: f64,
}

/// The memory of a process.
pub fn memory(pid: u32) -> anyhow::Result<Memory> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
        kib.map(|kib| kib / 1024.0).with_context(|| format!("no {name} in /proc/{pid}/status"))
    };
    Ok(Memory { resident_mib: mib("VmRSS:")?, peak_mib: mib("VmHWM:")? })
}

struct Stat {
    parent: u32,
    own: f64,
    reaped: f64,
}

impl Stat {
    fn read(path: &str) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        // The name in parentheses may hold blanks: the fields begin behind it, with the third.
        let fields: Vec<&str> = text.rsplit_once(')').context("no name")?.1.split_whitespace().collect();
        let ticks = |number: usize| -> anyhow::Result<f64> {
            Ok(fields.get(number - 3).with_context(|| format!("{path}: no field {number}"))?.parse()?)
        };
        Ok(Self {
            parent: ticks(4)? as u32,
            own: (ticks(14)? + ticks(15)?) / TICKS_PER_SECOND,
            reaped: (ticks(16)? + ticks(17)?) / TICKS_PER_SECOND,
        })
    }
}
