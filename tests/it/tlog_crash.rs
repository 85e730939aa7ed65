//! Whatever is killed, and whoever takes over: no checkpoint that anybody was shown is ever contradicted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use coupon_ledger::audit::checkpoint::Trust;
use coupon_ledger::audit::leaf;
use coupon_ledger::identity::Caller;
use coupon_ledger::secrets::Secrets;
use coupon_ledger::store;
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use sha2::Sha256;
use tokio::sync::RwLock;

use crate::harness::{Engine, Home, Server, definition, program};
use crate::leaks::Heard as _;
use crate::outside::{Api, until};

/// The servers that share a ledger, each with a folder of its own.
async fn homes(engine: Engine) -> Vec<Home> {
    let first = Home::new(engine).await;
    let count = if engine == Engine::Postgres { 2 } else { 1 };
    Server::start(&first, &[]).await.kill().await;
    let secret = std::fs::read(first.path().join("secret.key")).unwrap();
    let mut homes = vec![first];
    while homes.len() < count {
        let home = Home::on(homes[0].database_url.clone());
        std::fs::write(home.path().join("secret.key"), &secret).unwrap();
        std::fs::copy(homes[0].person_keys_file(), home.person_keys_file()).unwrap();
        homes.push(home);
    }
    homes
}

on_both_engines! {
    async fn checkpoints_never_shrink_or_contradict_each_other_whatever_is_killed(engine: Engine) {
        const KILLS: usize = 8;
        let seed = rand::random();
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let homes = homes(engine).await;
        let mut servers = Vec::new();
        for home in &homes {
            servers.push(Server::start(home, &[]).await);
        }
        let apis = |servers: &[Server]| -> Vec<Api> {
            homes.iter().zip(servers).map(|(home, server)| Api::new(home, server)).collect()
        };
        let serving = Arc::new(RwLock::new(apis(&servers)));
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let writing = {
            let (serving, stop) = (serving.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    for api in serving.read().await.clone() {
                        let body = definition(json!({}));
                        let _ = api.try_call(Caller::Operator, None, "/elecoupons/add", &body).await;
                    }
                }
            })
        };
        // One reader, so that what it sees has an order.
        let reading = {
            let (serving, stop, seen) = (serving.clone(), stop.clone(), seen.clone());
            tokio::spawn(async move {
                let mut notes: Vec<String> = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    for api in serving.read().await.clone() {
                        let Ok((200, note)) = api.try_get(Caller::Auditor, "/v1/checkpoint").await else { continue };
                        if notes.last() != Some(&note) {
                            notes.push(note);
                            seen.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                    tokio::task::yield_now().await;
                }
                notes
            })
        };
        for _ in 0..KILLS {
            let enough = seen.load(Ordering::SeqCst) + random.random_range(1..4);
            until("more is signed", async || seen.load(Ordering::SeqCst) >= enough).await;
            let victim = random.random_range(0..servers.len());
            servers.remove(victim).kill().await;
            // PostgreSQL: the other one takes over before the victim is back.
            servers.insert(victim, Server::start(&homes[victim], &[]).await);
            *serving.write().await = apis(&servers);
        }
        stop.store(true, Ordering::SeqCst);
        writing.await.unwrap();
        let notes = reading.await.unwrap();
        for server in servers {
            server.kill().await;
        }

        let listed = program(&homes[0]).args(["key", "list"]).heard().await;
        let key = String::from_utf8(listed.stdout).unwrap();
        let trust = Trust::new(&[key.trim()], &[], 0).unwrap();
        let opened: Vec<_> = notes.iter().map(|note| trust.open(note).unwrap()).collect();
        assert!(opened.len() > KILLS, "too few checkpoints to test anything");
        assert!(opened.is_sorted_by_key(|opened| opened.size), "a checkpoint is smaller than the one before");
        let secret = std::fs::read_to_string(homes[0].path().join("secret.key")).unwrap();
        let options = homes[0].store_options(&Secrets::parse(&secret).unwrap(), 0);
        let store = store::open_read_only(&options).await.unwrap();
        let events = store.events_after(0, i64::MAX).await.unwrap();
        store.close().await;
        let mut tree = MemoryBackedTree::<Sha256, Vec<u8>>::new();
        let mut roots = BTreeMap::new();
        for event in &events {
            tree.push(leaf::bytes(event));
            roots.insert(tree.len(), tree.root().as_bytes().to_vec());
        }
        for opened in opened {
            assert_eq!(roots.get(&opened.size).map(Vec::as_slice), Some(opened.root.0.as_slice()), "{}", opened.size);
        }
    }
}
