//! Sets of ids held for negentropy sessions whose filter the store keeps no sums for, bounded over all connections.
//!
//! A [`Holding`] is filled, sealed and then read; it lets go of its ids when dropped. When there is no room for more, one
//! holding loses its ids at once: its session learns so at its next message (NEG-ERR `closed:`). It is one of a stranger
//! before one of those whom we know, of the household that holds most before others, and of these the one that was used least
//! recently: whoever asks for much takes it from themselves. Worst case: `ids_max` ids of 40 bytes while they are collected, 72 once sealed.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use constellation_reconcile::{Item, VecSet};

use super::addresses::Owner;

/// The ids of a holding were given up to make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Evicted;

/// Why no more ids can be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HoldError {
    /// More than one session may hold.
    TooMany {
        /// How many that is.
        ids_max: usize,
    },
    /// See [`Evicted`].
    Evicted,
}

impl From<Evicted> for HoldError {
    fn from(_: Evicted) -> Self {
        Self::Evicted
    }
}

/// Where all holdings are counted.
#[derive(Debug)]
pub(super) struct Hoard {
    ids_each_max: usize,
    ids_max: usize,
    ledger: Mutex<Ledger>,
}

#[derive(Debug, Default)]
struct Ledger {
    total: usize,
    ticks: u64,
    next: u64,
    accounts: HashMap<u64, Account>,
}

#[derive(Debug)]
struct Account {
    owner: Owner,
    ids: usize,
    used: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Collecting(Vec<Item>),
    Sealed(Arc<VecSet>),
    Evicted,
}

impl Hoard {
    /// Room for `ids_max` ids, and for `ids_each_max` of one session.
    pub(super) fn new(ids_each_max: usize, ids_max: usize) -> Self {
        Self {
            ids_each_max,
            ids_max,
            ledger: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty holding.
    pub(super) fn open(self: &Arc<Self>, owner: Owner) -> Holding {
        let mut ledger = self.lock();
        let number = ledger.next;
        ledger.next += 1;
        ledger.ticks += 1;
        let account = Account {
            owner,
            ids: 0,
            used: ledger.ticks,
            content: Content::Collecting(Vec::new()),
        };
        ledger.accounts.insert(number, account);
        Holding {
            hoard: Arc::clone(self),
            number,
        }
    }
}

impl Ledger {
    fn touch(&mut self, number: u64) -> Result<&mut Account, Evicted> {
        self.ticks += 1;
        let ticks = self.ticks;
        let account = self.accounts.get_mut(&number).ok_or(Evicted)?;
        account.used = ticks;
        if matches!(account.content, Content::Evicted) {
            return Err(Evicted);
        }
        Ok(account)
    }

    /// Gives up ids until `more` fit; in the end those of whoever asks.
    fn make_room(&mut self, more: usize, ids_max: usize) {
        while self.total + more > ids_max {
            let mut held: HashMap<Owner, usize> = HashMap::new();
            for account in self.accounts.values() {
                *held.entry(account.owner).or_default() += account.ids;
            }
            let first = self
                .accounts
                .values_mut()
                .filter(|account| account.ids > 0)
                .min_by_key(|account| {
                    let is_trusted = account.owner == Owner::Trusted;
                    (is_trusted, Reverse(held[&account.owner]), account.used)
                });
            let Some(account) = first else { return };
            self.total -= std::mem::take(&mut account.ids);
            account.content = Content::Evicted;
        }
    }
}

/// The ids of one session.
#[derive(Debug)]
pub(super) struct Holding {
    hoard: Arc<Hoard>,
    number: u64,
}

impl Holding {
    /// Adds ids. Whoever asks for more than one session may hold costs nobody else theirs.
    pub(super) fn add(&self, items: Vec<Item>) -> Result<(), HoldError> {
        let count = items.len();
        let ids_max = self.hoard.ids_each_max;
        let mut ledger = self.hoard.lock();
        if ledger.touch(self.number)?.ids + count > ids_max || count > self.hoard.ids_max {
            return Err(HoldError::TooMany { ids_max });
        }
        ledger.make_room(count, self.hoard.ids_max);
        let account = ledger.touch(self.number)?;
        account.ids += count;
        if let Content::Collecting(collected) = &mut account.content {
            collected.extend(items);
        }
        ledger.total += count;
        Ok(())
    }

    /// Sorts what was collected. Takes a moment: not for the runtime's threads.
    pub(super) fn seal(&self) -> Result<(), Evicted> {
        let collected = match &mut self.hoard.lock().touch(self.number)?.content {
            Content::Collecting(items) => std::mem::take(items),
            Content::Sealed(_) | Content::Evicted => return Ok(()),
        };
        let set = Arc::new(VecSet::from_unsorted(collected));
        self.hoard.lock().touch(self.number)?.content = Content::Sealed(set);
        Ok(())
    }

    /// The sealed set.
    pub(super) fn set(&self) -> Result<Arc<VecSet>, Evicted> {
        match &self.hoard.lock().touch(self.number)?.content {
            Content::Sealed(set) => Ok(Arc::clone(set)),
            Content::Collecting(_) | Content::Evicted => Err(Evicted),
        }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let mut ledger = self.hoard.lock();
        if let Some(account) = ledger.accounts.remove(&self.number) {
            ledger.total -= account.ids;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(count: u8) -> Vec<Item> {
        let item = |id| Item {
            timestamp: 7,
            id: [id; 32],
        };
        (0..count).map(item).collect()
    }

    /// A hostile stranger's sessions, each used all the time, took the ids of everybody else's.
    #[test]
    fn whoever_holds_most_makes_room_and_strangers_before_those_whom_we_know() {
        let household = |n: u8| Owner::Stranger(Some([192, 0, 2, n].into()));
        let hoard = Arc::new(Hoard::new(6, 20));
        let station = hoard.open(Owner::Trusted);
        assert_eq!(station.add(items(6)), Ok(()));
        let honest = hoard.open(household(1));
        assert_eq!(honest.add(items(3)), Ok(()));
        let hostile: Vec<_> = (0..10).map(|_| hoard.open(household(2))).collect();
        for one in &hostile {
            assert_eq!(one.add(items(4)), Ok(()));
        }
        let known = hoard.open(Owner::Trusted);
        assert_eq!(known.add(items(6)), Ok(()));
        for kept in [&station, &honest, &known] {
            assert_eq!(kept.seal(), Ok(()), "it was not given up");
        }
        let left = hostile.iter().filter(|one| one.seal().is_ok()).count();
        assert_eq!(left, 1);
    }

    #[test]
    fn the_least_recently_used_makes_room_and_all_is_returned_in_the_end() {
        let hoard = Arc::new(Hoard::new(6, 10));
        let open = || hoard.open(Owner::Trusted);
        let (first, second, third) = (open(), open(), open());
        assert_eq!(first.add(items(4)), Ok(()));
        assert_eq!(second.add(items(3)), Ok(()));
        assert_eq!(second.add(items(4)), Err(HoldError::TooMany { ids_max: 6 }));
        assert_eq!(second.add(items(1)), Ok(()));
        first.seal().unwrap();
        assert_eq!(first.set().unwrap().items().len(), 4);
        assert_eq!(third.add(items(5)), Ok(()));
        assert_eq!(second.add(items(1)), Err(HoldError::Evicted));
        assert!(second.set().is_err());
        assert!(first.set().is_ok(), "it was used after the second");
        drop((first, second, third));
        assert_eq!(hoard.lock().total, 0);
        assert!(hoard.lock().accounts.is_empty());
    }

    #[test]
    fn whoever_finds_no_room_at_all_gives_up_their_own() {
        let hoard = Arc::new(Hoard::new(6, 4));
        let only = hoard.open(Owner::Stranger(None));
        assert_eq!(only.add(items(3)), Ok(()));
        assert_eq!(only.add(items(3)), Err(HoldError::Evicted));
        assert_eq!(hoard.lock().total, 0);
    }
}
