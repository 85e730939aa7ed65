//! Who is connected: so many in all, so many from one address, and whoever asks nothing gives way to whoever comes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// A connection that has asked nothing for so long may be made to give way: one that has just come, or has just been
/// answered, is about to ask.
const GRACE: Duration = Duration::from_secs(1);

/// How often it is looked who could give way while somebody waits.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The connections of a server.
pub(super) struct Crowd {
    places: Arc<Semaphore>,
    max_per_address: usize,
    began: Instant,
    members: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    last_id: u64,
    by_id: HashMap<u64, Arc<Guest>>,
    /// Only the addresses that are counted, and only while they are connected.
    by_address: HashMap<IpAddr, usize>,
}

/// One connection.
pub(super) struct Guest {
    began: Instant,
    /// Requests that are whole and whose answer is not yet sent.
    requests: AtomicU32,
    /// Since when there is none, or one has begun to come, in milliseconds since the server began.
    idle_since_ms: AtomicU64,
    leave: Notify,
}

/// A connection's place; it is free again once this is dropped.
pub(super) struct Place {
    /// Who has it.
    pub(super) guest: Arc<Guest>,
    crowd: Arc<Crowd>,
    id: u64,
    address: Option<IpAddr>,
    _permit: OwnedSemaphorePermit,
}

impl Crowd {
    pub(super) fn new(max: usize, max_per_address: usize) -> Arc<Self> {
        let (places, members) = (Arc::new(Semaphore::new(max)), Mutex::default());
        Arc::new(Self { places, max_per_address, began: Instant::now(), members })
    }

    /// Whether an address may have one more connection.
    pub(super) fn may_enter(&self, address: IpAddr) -> bool {
        self.members(|members| members.by_address.get(&address).copied().unwrap_or(0) < self.max_per_address)
    }

    /// Waits for a place. `address` is None for one that is not counted.
    pub(super) async fn enter(self: &Arc<Self>, address: Option<IpAddr>) -> Option<Place> {
        let permit = loop {
            if let Ok(permit) = self.places.clone().try_acquire_owned() {
                break permit;
            }
            self.ask_the_idlest_to_leave();
            if let Ok(permit) = tokio::time::timeout(LOOK_AGAIN, self.places.clone().acquire_owned()).await {
                break permit.ok()?;
            }
        };
        let guest = Arc::new(Guest {
            began: self.began,
            requests: AtomicU32::new(0),
            idle_since_ms: AtomicU64::new(ms_since(self.began)),
            leave: Notify::new(),
        });
        let id = self.members(|members| {
            members.last_id += 1;
            members.by_id.insert(members.last_id, guest.clone());
            if let Some(address) = address {
                *members.by_address.entry(address).or_default() += 1;
            }
            members.last_id
        });
        Some(Place { guest, crowd: self.clone(), id, address, _permit: permit })
    }

    /// Whoever has asked nothing for longest: also one whose request, head or body, never comes to its end.
    pub(super) fn ask_the_idlest_to_leave(&self) {
        let idlest = self.members(|members| {
            let idle = members.by_id.values().filter(|guest| guest.is_idle());
            idle.min_by_key(|guest| guest.idle_since_ms.load(Ordering::Relaxed)).cloned()
        });
        if let Some(guest) = idlest {
            guest.leave.notify_one();
        }
    }

    fn members<T>(&self, look: impl FnOnce(&mut Members) -> T) -> T {
        look(&mut self.members.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.members(|members| {
            members.by_id.remove(&self.id);
            let Some(address) = self.address else { return };
            if let Some(count) = members.by_address.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    members.by_address.remove(&address);
                }
            }
        });
    }
}

impl Guest {
    /// A request has begun to come; whoever sends it is at work once it is whole, until this is dropped.
    pub(super) fn asks(self: &Arc<Self>) -> Asking {
        self.rests();
        Asking { guest: self.clone(), is_whole: AtomicBool::new(false) }
    }

    fn rests(&self) {
        self.idle_since_ms.store(ms_since(self.began), Ordering::Relaxed);
    }

    /// Done once it is asked to leave while it asks nothing.
    pub(super) async fn asked_to_leave(&self) {
        loop {
            self.leave.notified().await;
            if self.is_idle() {
                return;
            }
        }
    }

    fn is_idle(&self) -> bool {
        let since = self.idle_since_ms.load(Ordering::Relaxed);
        let grace = GRACE.as_millis() as u64;
        self.requests.load(Ordering::Relaxed) == 0 && ms_since(self.began) >= since.saturating_add(grace)
    }
}

/// A request that is coming or under way.
pub(super) struct Asking {
    guest: Arc<Guest>,
    is_whole: AtomicBool,
}

impl Asking {
    /// All of it is there.
    pub(super) fn is_whole(&self) {
        if !self.is_whole.swap(true, Ordering::Relaxed) {
            self.guest.requests.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.guest.rests();
        if self.is_whole.load(Ordering::Relaxed) {
            self.guest.requests.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn ms_since(began: Instant) -> u64 {
    began.elapsed().as_millis() as u64
}
