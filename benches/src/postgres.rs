//! A PostgreSQL of this run's own: new, empty, durable, and gone again however the run ends.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};

use crate::process;

/// Only binding a port tells whether it is free, so another one is tried when it was taken meanwhile.
const PORTS_TRIED: usize = 5;

/// A running server.
pub struct Postgres {
    folder: tempfile::TempDir,
    programs: PathBuf,
    as_root: bool,
    port: u16,
    pid: u32,
}

impl Postgres {
    /// Starts a server with the default configuration, 2 GB of shared buffers and 8 GB between checkpoints.
    pub fn start() -> anyhow::Result<Self> {
        let programs = find_programs()?;
        let as_root = output(Command::new("id").arg("-u"))?.trim() == "0";
        let folder = tempfile::Builder::new().prefix("coupon-ledger-pg.").tempdir()?;
        if as_root {
            output(Command::new("chown").arg("postgres:").arg(folder.path()))?;
        }
        let mut postgres = Self { folder, programs, as_root, port: 0, pid: 0 };
        let data = postgres.data();
        let mut initdb = postgres.program("initdb");
        // Only initdb's own sync is left out: the server syncs every commit.
        initdb.arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust", "--encoding=UTF8", "--no-sync"]);
        output(initdb.arg("--locale=C.UTF-8"))?;
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\n\
             shared_buffers = 2GB\nmax_wal_size = 8GB\nfsync = on\nsynchronous_commit = on\n",
            postgres.folder.path().display()
        );
        let mut file = std::fs::OpenOptions::new().append(true).open(data.join("postgresql.conf"))?;
        std::io::Write::write_all(&mut file, settings.as_bytes())?;
        postgres.listen()?;
        Ok(postgres)
    }

    fn listen(&mut self) -> anyhow::Result<()> {
        let mut tried = 0;
        loop {
            self.port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            let mut start = self.program("pg_ctl");
            start.args(["start", "-w", "-t", "60", "-s", "-D"]).arg(self.data());
            start.arg("-l").arg(self.folder.path().join("log")).args(["-o", &format!("-p {}", self.port)]);
            // The server would keep a pipe open for as long as it runs, so it gets none.
            let started =
                start.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status()?;
            tried += 1;
            if started.success() {
                break;
            }
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            ensure!(tried < PORTS_TRIED, "PostgreSQL did not start: {log}");
        }
        let pid = std::fs::read_to_string(self.data().join("postmaster.pid"))?;
        self.pid = pid.lines().next().context("postmaster.pid is empty")?.trim().parse()?;
        Ok(())
    }

    /// Makes a database and returns its URL.
    pub fn create_database(&self, name: &str) -> anyhow::Result<String> {
        let port = self.port.to_string();
        output(self.program("createdb").args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", name]))?;
        Ok(format!("postgres://postgres@127.0.0.1:{port}/{name}"))
    }

    /// Does now what autovacuum and the checkpointer would do sooner or later: what was loaded is not charged to the
    /// rows that are measured next.
    pub fn settle(&self, url: &str) -> anyhow::Result<()> {
        output(self.program("psql").args(["-q", "-c", "VACUUM (ANALYZE)", "-c", "CHECKPOINT", url]))?;
        Ok(())
    }

    /// Seconds of CPU of the whole server, backends that have ended included.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        process::family_cpu_seconds(self.pid)
    }

    /// Its version, for people.
    pub fn version(&self) -> anyhow::Result<String> {
        Ok(output(self.program("postgres").arg("--version"))?.trim().to_owned())
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A program of PostgreSQL's, run as its user, who may not be root, in a folder that he may enter.
    fn program(&self, name: &str) -> Command {
        let path = self.programs.join(name);
        let mut command = if self.as_root {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        command.current_dir(self.folder.path());
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.data().join("postmaster.pid").exists() {
            // At once: nothing of this data is kept.
            let stop = self
                .program("pg_ctl")
                .args(["stop", "-w", "-s", "-m", "immediate", "-D"])
                .arg(self.data())
                .status();
            if !stop.is_ok_and(|status| status.success()) {
                eprintln!(
                    "PostgreSQL {} could not be stopped; its data is in {}",
                    self.pid,
                    self.data().display()
                );
            }
        }
    }
}

/// The folder with the programs of the newest PostgreSQL: Debian has one per version, elsewhere see the PATH.
fn find_programs() -> anyhow::Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let numbers = versions.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    if let Some(newest) = numbers.max() {
        return Ok(format!("/usr/lib/postgresql/{newest}/bin").into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .find(|folder: &PathBuf| Path::is_file(&folder.join("initdb")))
        .context("no PostgreSQL on this machine: install it, or measure with --engine sqlite")
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let Output { status, stdout, stderr } =
        command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}
