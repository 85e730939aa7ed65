//! The release program, run as its users run it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::process::{self, Memory};

/// Where a ledger lies and which program runs on it.
#[derive(Clone, Debug)]
pub struct Place {
    /// The program.
    pub program: PathBuf,
    /// The folder of the embedded ledger; with PostgreSQL it holds the secret only.
    pub folder: PathBuf,
    /// PostgreSQL; None = SQLite in the folder.
    pub database_url: Option<String>,
}

impl Place {
    /// The program with the options that say where the ledger is.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--data-dir").arg(&self.folder).kill_on_drop(true);
        command.env("COUPON_LEDGER_LOG", "warn").env_remove("DATABASE_URL");
        // Few members and one operator stand for many here: they are counted like anybody, but nobody asks too often.
        let limits =
            ["member-read", "member-write", "office", "audit"].map(|class| format!("{class}=100000/s"));
        command.env("COUPON_LEDGER_LIMITS", limits.join(","));
        if let Some(url) = &self.database_url {
            command.arg("--database-url").arg(url);
        }
        command
    }
}

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    /// Its process.
    pub pid: u32,
    /// Where it listens, `127.0.0.1:port`.
    pub address: String,
    /// From exec to the first 200 on /readyz.
    pub ready_after: Duration,
}

impl Server {
    /// Starts a server and waits until it is ready.
    pub async fn start(place: &Place) -> anyhow::Result<Self> {
        let begun = Instant::now();
        let mut command = place.command();
        let mut child = command
            .args(["serve", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", place.program.display()))?;
        let pid = child.id().context("the server ended at once")?;
        let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        let address = loop {
            let line = lines.next_line().await?.context("the server ended")?;
            if let Some(url) = line.trim().strip_prefix("listens on") {
                break url.trim().trim_start_matches("http://").to_owned();
            }
        };
        // A full pipe would stop the server.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        while !is_ready(&address).await? {
            ensure!(begun.elapsed() < Duration::from_secs(60), "not ready within a minute");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(Self { child, pid, address, ready_after: begun.elapsed() })
    }

    /// Seconds of CPU since it began.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        process::cpu_seconds(self.pid)
    }

    /// One POST of form fields on a connection of its own; the whole answer.
    pub async fn post(&self, route: &str, token: &str, body: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(&self.address).await?;
        let head = format!(
            "POST {route} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// Its memory.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        process::memory(self.pid)
    }

    /// Asks it to end, and waits until it has finished what it accepted.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let asked = Command::new("kill").args(["-TERM", &self.pid.to_string()]).status().await?;
        ensure!(asked.success(), "the server {} had ended by itself", self.pid);
        match tokio::time::timeout(Duration::from_secs(60), self.child.wait()).await {
            Ok(ended) => {
                let ended = ended?;
                ensure!(ended.success(), "the server ended with {ended}");
                Ok(())
            }
            Err(_) => bail!("the server {} did not end within a minute", self.pid),
        }
    }
}

async fn is_ready(address: &str) -> anyhow::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 200 "))
}

/// How long a command of the program took and what it used.
pub struct Ran {
    /// Wall time.
    pub seconds: f64,
    /// CPU time, as last seen before its end.
    pub cpu_seconds: f64,
    /// Memory, as last seen before its end.
    pub memory: Memory,
}

/// Runs a command of the program to its end, which must be a success, and watches what it uses.
pub async fn run(place: &Place, arguments: &[&str]) -> anyhow::Result<Ran> {
    let mut command = place.command();
    let begun = Instant::now();
    let mut child = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let pid = child.id().context("the program ended at once")?;
    let mut stderr = child.stderr.take().context("no stderr")?;
    let said = tokio::spawn(async move {
        let mut text = Vec::new();
        let _ = stderr.read_to_end(&mut text).await;
        text
    });
    let (mut cpu_seconds, mut memory) = (0.0, Memory::default());
    let ended = loop {
        tokio::select! {
            ended = child.wait() => break ended?,
            () = tokio::time::sleep(Duration::from_millis(20)) => {
                // Both fail once it has ended; what was seen last stands.
                cpu_seconds = process::cpu_seconds(pid).unwrap_or(cpu_seconds);
                memory = process::memory(pid).unwrap_or(memory);
            }
        }
    };
    let seconds = begun.elapsed().as_secs_f64();
    if !ended.success() {
        bail!("{arguments:?} ended with {ended}: {}", String::from_utf8_lossy(&said.await?));
    }
    Ok(Ran { seconds, cpu_seconds, memory })
}

/// A folder for one ledger under `parent`.
pub fn folder(parent: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let folder = parent.join(name);
    coupon_ledger::config::make_folder(&folder)?;
    Ok(folder)
}
