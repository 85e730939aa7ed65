//! Small files of another system's coupons, in every state and with bad lines, and the same files again.

use chrono::{DateTime, Days};
use rand::Rng as _;
use rand::seq::{IndexedRandom as _, IteratorRandom as _};
use serde_json::{Value, json};

use super::{PARTNERS, Simulation, caller};
use crate::harness::HOUR;
use crate::model::Who;

const ROUTE: &str = "/elecoupons/import";
const COLUMNS: &str = "id,coupon_id,member_id,start_date,end_date,create_date,state,use_date,shop_id,user_id";
/// Below it lies what the server hands out first: a block of a thousand.
const FIRST_ID: i64 = 1_001;
/// Where no server of a simulation comes to.
const FAR_ID: i64 = 50_000;

/// A file that was imported, with the key if it had one.
#[derive(Clone)]
pub(super) struct File {
    key: Option<String>,
    csv: String,
}

impl Simulation {
    /// One file, checked only or taken, or one that came before.
    pub(super) async fn import(&mut self) {
        if self.chance(25) {
            return self.import_again().await;
        }
        let mut lines = vec![COLUMNS.to_owned()];
        for _ in 0..self.rng.random_range(1..=6) {
            let line = self.some_line(&lines);
            lines.push(line);
        }
        let csv = lines.join("\n");
        if self.chance(40) {
            let before = self.head().await;
            self.perform(Who::Operator, ROUTE, json!({"csv": csv, "dry_run": 1}), None).await;
            assert_eq!(self.head().await, before, "a dry run wrote something");
            self.happens("only checked");
            if self.chance(40) {
                return;
            }
        }
        let key = self.key();
        self.files.push(File { key: key.clone(), csv: csv.clone() });
        self.perform(Who::Operator, ROUTE, json!({"csv": csv, "dry_run": 0}), key).await;
    }

    async fn import_again(&mut self) {
        let recent = self.files.len().saturating_sub(4);
        let Some(File { key, csv }) = self.files[recent..].choose(&mut self.rng).cloned() else { return };
        let (before, had_taken) = (self.head().await, self.model.has_imported(key.as_ref().unwrap_or(&csv)));
        let operator = caller(Who::Operator);
        if let (true, Some(key)) = (had_taken && self.chance(25), &key) {
            let other = json!({"csv": format!("{csv}\n"), "dry_run": 0});
            let reply = self.world.keyed(operator, key, ROUTE, other).await;
            assert_eq!((reply.code(), reply.data()), (6001, &Value::Null), "{key} with another file");
            return;
        }
        let body = json!({"csv": csv, "dry_run": 0});
        let reply = match &key {
            None => self.world.call(operator, ROUTE, body.clone()).await,
            Some(key) => self.world.keyed(operator, key, ROUTE, body.clone()).await,
        };
        self.model.chosen = self.chosen_since(before).await;
        self.model.key = key;
        self.compare(Who::Operator, ROUTE, &body, &reply);
        let wrote = self.head().await > before;
        assert_eq!(reply.replayed(), had_taken && !wrote, "a file again: {csv}");
        if had_taken {
            self.happens("imported again");
        }
    }

    /// A line, one of four with a fault.
    fn some_line(&mut self, lines: &[String]) -> String {
        let today = self.today();
        let mut cells = vec![String::new(); 10];
        let mut set = |place: usize, text: &str| text.clone_into(&mut cells[place]);
        set(0, &self.next_imported_id().to_string());
        set(1, &self.definition().to_string());
        set(2, &if self.chance(4) { 999 } else { self.member() }.to_string());
        let start = today - Days::new(self.rng.random_range(3..20));
        set(3, &start.to_string());
        set(4, &(today + Days::new(self.rng.random_range(0..30))).to_string());
        if self.chance(40) {
            set(5, &if self.chance(50) { start.to_string() } else { self.time_ago(400) });
        }
        let states = match self.rng.random_range(0..100) {
            0..35 => ["unused", "未使用", "0"],
            35..45 => {
                set(3, &(today + Days::new(self.rng.random_range(1..4))).to_string());
                ["unused", "未使用", "0"]
            }
            45..60 => {
                set(4, &(today - Days::new(self.rng.random_range(1..3))).to_string());
                ["unused", "未使用", "0"]
            }
            60..82 => {
                set(7, &self.time_ago(40));
                set(8, &self.some_place().to_string());
                set(9, ["", "0", "1001", "1004"].choose(&mut self.rng).unwrap());
                ["used", "已使用", "1"]
            }
            _ => {
                if self.chance(50) {
                    set(7, &self.time_ago(40));
                }
                ["voided", "已作廢", "3"]
            }
        };
        set(6, states.choose(&mut self.rng).unwrap());
        if self.chance(25) {
            self.spoil(&mut cells, lines);
        }
        cells.join(",")
    }

    /// One fault, so that it is clear which column is to blame.
    fn spoil(&mut self, cells: &mut Vec<String>, lines: &[String]) {
        let today = self.today();
        let tomorrow = (today + Days::new(1)).to_string();
        let is_unused = ["unused", "未使用", "0"].contains(&cells[6].as_str());
        match self.rng.random_range(0..10) {
            0 => "2026-02-30".clone_into(&mut cells[3]),
            1 => cells[4] = (today - Days::new(60)).to_string(),
            2 => "lost".clone_into(&mut cells[6]),
            3 => cells[5] = tomorrow,
            4 if is_unused => cells[7] = today.to_string(),
            4 => cells[7] = tomorrow,
            5 => drop(cells.pop()),
            6 => "x".clone_into(&mut cells[0]),
            // Of an id that the server has not handed out yet only the server knows whether it is one of its own.
            7 => {
                if let Some(issued) = self.coupons.choose(&mut self.rng) {
                    cells[0] = issued.to_string();
                }
            }
            8 => {
                let other = lines.iter().skip(1).choose(&mut self.rng);
                if let Some((id, _)) = other.and_then(|line| line.split_once(',')) {
                    id.clone_into(&mut cells[0]);
                }
            }
            _ => "5555".clone_into(&mut cells[1]),
        }
    }

    /// At first such as the server comes to later and must pass over.
    fn next_imported_id(&mut self) -> i64 {
        let highest_own = self.coupons.iter().filter(|id| **id < FIRST_ID).max().copied().unwrap_or_default();
        let first = if highest_own < 500 { FIRST_ID } else { FAR_ID };
        self.imported_id = (self.imported_id + self.rng.random_range(1..4)).max(first);
        self.imported_id
    }

    /// Own shops, partners, and one that is not there.
    fn some_place(&mut self) -> i64 {
        self.rng.random_range(1..=PARTNERS.end() + 1)
    }

    /// A local time within so many hours.
    fn time_ago(&mut self, hours: i64) -> String {
        let at_ms = self.now_ms() - self.rng.random_range(0..hours * HOUR);
        let local = DateTime::from_timestamp_millis(at_ms).unwrap().with_timezone(&self.zone);
        local.format("%Y-%m-%d %H:%M:%S").to_string()
    }

    /// What an import gives somebody, no limit has allowed.
    pub(super) fn note_imported(&mut self, body: &Value, report: &Value) {
        if report["dry_run"] == 1 {
            return;
        }
        for line in body["csv"].as_str().unwrap().lines().skip(1) {
            let definition = line.split(',').nth(1).and_then(|id| id.parse::<i64>().ok());
            self.imported.extend(definition);
        }
        for id in self.model.chosen.coupons.clone() {
            self.happens(self.model.imported_as(self.now_ms(), id));
        }
        if report["bad_num"] != 0 && report["ok_num"] != 0 {
            self.happens("bad lines beside good ones");
        }
    }
}
