//! The event rules: what is kept, what gives way, what is removed (NIP-01, 09, 40, 62, 59).
//!
//! Takes a verified event inside a transaction, gives its [`Admission`]. Invariant: of each address the newest version is
//! stored of those that came, are not deleted, and were not superseded when they came; deletions leave tombstones, for
//! an id, or for an address up to a time, so what they name is gone whatever the order of arrival. A version that was
//! deleted by its id, or that expired, supersedes nothing any more: those before it come back where anybody still has
//! one, and once all that is stored anywhere has travelled, all stores are equal. Nobody deletes for others (but the
//! addressee of a gift wrap), and nothing deletes a deletion. Does not decide who may write, nor what is in scope.
//! Worst case: a deletion of 5,000 tags costs 5,000 look-ups.

use constellation_event::{KindClass, Rejection, VerifiedEvent};
use nostr::event::Kind;

use crate::StoreError;
use crate::keys::{self, AuthorNumber, CoordinateKey, Sequence, TIME_MAX};
use crate::record::Header;
use crate::transaction::Transaction;

pub(crate) const KIND_DELETION: u16 = 5;
pub(crate) const KIND_VANISH: u16 = 62;
pub(crate) const KIND_GIFT_WRAP: u16 = 1059;
const ALL_RELAYS: &str = "ALL_RELAYS";

/// What became of an event that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Stored under this number.
    Stored(Sequence),
    /// Already stored.
    Duplicate,
    /// Passed on to live subscribers, never stored (NIP-01).
    Ephemeral,
    /// Not taken: superseded, deleted, expired, blocked or too far in the future.
    Refused(Rejection),
}

/// Whether neither a deletion nor a request to vanish may be undone by a kind 5 (NIP-09, NIP-62).
fn is_undeletable(kind: u16) -> bool {
    matches!(kind, KIND_DELETION | KIND_VANISH)
}

impl Transaction<'_> {
    /// Applies the rules to one event, and stores it if they allow.
    ///
    /// `now` is Unix seconds. A deletion or request to vanish takes effect in the same transaction.
    ///
    /// # Errors
    /// The database's; the transaction must then be given up.
    pub fn admit(&mut self, event: &VerifiedEvent, now: u64) -> Result<Admission, StoreError> {
        if event.created_at() > TIME_MAX {
            return Ok(Admission::Refused(Rejection::Future));
        }
        // Before all that an event could do: what is blocked neither deletes nor supersedes.
        if self.is_blocked(event.author(), &event.id())? {
            return Ok(Admission::Refused(Rejection::Blocked));
        }
        if event.expiration().is_some_and(|at| at <= now) {
            return Ok(Admission::Refused(Rejection::Expired));
        }
        if event.class() == KindClass::Ephemeral {
            self.ephemeral.push(event.clone());
            return Ok(Admission::Ephemeral);
        }
        if self.contains(&event.id())? {
            return Ok(Admission::Duplicate);
        }
        let author = self.find_author(event.author())?;
        if let Some(author) = author
            && self.is_deleted(event, author)?
        {
            if event.kind() == KIND_DELETION {
                // Its author has vanished since; what it names may be newer than that.
                self.apply_deletion(event, author)?;
            }
            return Ok(Admission::Refused(Rejection::Deleted));
        }
        if event.kind() == KIND_GIFT_WRAP && self.is_unwanted_gift(event)? {
            return Ok(Admission::Refused(Rejection::Deleted));
        }
        let author = match author {
            Some(author) => author,
            None => self.intern_author(event.author())?,
        };
        let coordinate = self.coordinate_of(event, author);
        if let Some(coordinate) = &coordinate
            && let Some(current) = self.at_coordinate(coordinate)?
        {
            let (sequence, key) = current;
            if !event.canonical_key().supersedes(&key) {
                return Ok(Admission::Refused(Rejection::Superseded));
            }
            self.remove_refused(sequence, Rejection::Superseded)?;
        }
        let is_vanish = event.kind() == KIND_VANISH;
        let header = Header {
            unshared: event.is_protected() || (is_vanish && !names_relay(event, ALL_RELAYS)),
            hidden: false,
            kind: event.kind(),
            author,
            created_at: event.created_at(),
            expires_at: event.expiration(),
            id: event.id(),
        };
        let sequence = self.insert(&header, event, coordinate.as_ref())?;
        if event.kind() == KIND_DELETION {
            self.apply_deletion(event, author)?;
        } else if is_vanish && self.vanish_concerns_us(event) {
            self.apply_vanish(author, event.created_at())?;
        }
        Ok(Admission::Stored(sequence))
    }

    fn coordinate_of(&self, event: &VerifiedEvent, author: AuthorNumber) -> Option<CoordinateKey> {
        event
            .class()
            .has_coordinate()
            .then(|| keys::coordinate_key(author, event.kind(), &event.identifier()))
    }

    /// Whether its author has deleted it, its address, or everything.
    fn is_deleted(&self, event: &VerifiedEvent, author: AuthorNumber) -> Result<bool, StoreError> {
        if event.kind() == KIND_VANISH {
            return Ok(false);
        }
        if self
            .vanished_until(author)?
            .is_some_and(|until| event.created_at() <= until)
        {
            return Ok(true);
        }
        if is_undeletable(event.kind()) {
            return Ok(false);
        }
        if self.has_id_tombstone(&event.id(), author)? {
            return Ok(true);
        }
        match self.coordinate_of(event, author) {
            Some(coordinate) => Ok(self
                .address_deleted_up_to(&coordinate)?
                .is_some_and(|until| event.created_at() <= until)),
            None => Ok(false),
        }
    }

    /// Whether the addressee of a gift wrap has deleted it, or vanished (NIP-59, NIP-62).
    fn is_unwanted_gift(&self, event: &VerifiedEvent) -> Result<bool, StoreError> {
        let mut addressees = Vec::new();
        event.for_each_tag(&mut |name, value| {
            if name == "p" {
                addressees.extend(value.and_then(public_key));
            }
        });
        for addressee in addressees {
            let Some(addressee) = self.known_author(addressee.as_bytes())? else {
                continue;
            };
            if self.has_id_tombstone(&event.id(), addressee)?
                || self
                    .vanished_until(addressee)?
                    .is_some_and(|until| event.created_at() <= until)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn apply_deletion(
        &mut self,
        deletion: &VerifiedEvent,
        deleter: AuthorNumber,
    ) -> Result<(), StoreError> {
        for tag in deletion.to_event().tags.iter() {
            let Some(value) = tag.content() else { continue };
            match tag.kind() {
                "e" => {
                    // Other relays store deletions whose tags are no ids; such a tag names nothing.
                    if let Ok(target) = nostr::event::EventId::from_hex(value) {
                        self.delete_id(target.as_bytes(), deleter)?;
                    }
                }
                "a" => {
                    if let Some((kind, identifier)) = own_address(value, deletion.author()) {
                        let coordinate = keys::coordinate_key(deleter, kind, identifier);
                        self.delete_address(&coordinate, deletion.created_at())?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Deletes one event, for ever. Of the versions that it superseded none is brought back from here: they are gone.
    fn delete_id(&mut self, target: &[u8; 32], deleter: AuthorNumber) -> Result<(), StoreError> {
        self.put_id_tombstone(target, deleter)?;
        if let Some(found) = self.deletable(target, deleter)? {
            self.remove_refused(found, Rejection::Deleted)?;
        }
        Ok(())
    }

    /// The stored event with this id, if `deleter` may delete it.
    fn deletable(
        &self,
        target: &[u8; 32],
        deleter: AuthorNumber,
    ) -> Result<Option<Sequence>, StoreError> {
        let Some(record) = self.find(target)? else {
            return Ok(None);
        };
        if is_undeletable(record.kind()) {
            return Ok(None);
        }
        if record.header.author == deleter {
            return Ok(Some(record.sequence()));
        }
        if record.kind() != KIND_GIFT_WRAP {
            return Ok(None);
        }
        let parts = record.parse()?;
        for tag in &parts.tags.0 {
            if let [name, addressee, ..] = tag.as_slice()
                && name == "p"
                && let Some(addressee) = public_key(addressee)
                && self.known_author(addressee.as_bytes())? == Some(deleter)
            {
                return Ok(Some(record.sequence()));
            }
        }
        Ok(None)
    }

    /// Deletes every version of an address that is not newer than `until` (Unix seconds), for ever.
    fn delete_address(&mut self, coordinate: &CoordinateKey, until: u64) -> Result<(), StoreError> {
        if self
            .address_deleted_up_to(coordinate)?
            .is_some_and(|known| until <= known)
        {
            return Ok(());
        }
        self.put_address_tombstone(coordinate, until)?;
        if let Some((sequence, key)) = self.at_coordinate(coordinate)?
            && key.created_at <= until
        {
            self.remove_refused(sequence, Rejection::Deleted)?;
        }
        Ok(())
    }

    fn vanish_concerns_us(&self, event: &VerifiedEvent) -> bool {
        names_relay(event, ALL_RELAYS)
            || self
                .options()
                .own_urls
                .iter()
                .any(|url| names_relay_by(event, &|named| same_url(named, url)))
    }

    /// Remembers the request; the events go in slices, by [`Transaction::sweep`].
    fn apply_vanish(&mut self, author: AuthorNumber, at: u64) -> Result<(), StoreError> {
        // One that asks for no more than an earlier one begins nothing anew.
        if self
            .vanished_until(author)?
            .is_some_and(|until| at <= until)
        {
            return Ok(());
        }
        self.put_vanished(author, at)
    }
}

/// A public key in lower-case hex. Capitals name nobody: the index, which is asked when someone vanishes, holds
/// values as they are written.
fn public_key(hex: &str) -> Option<nostr::key::PublicKey> {
    let is_lower = !hex.bytes().any(|byte| byte.is_ascii_uppercase());
    is_lower
        .then(|| nostr::key::PublicKey::from_hex(hex).ok())
        .flatten()
}

fn names_relay(event: &VerifiedEvent, name: &str) -> bool {
    names_relay_by(event, &|named| named == name)
}

fn names_relay_by(event: &VerifiedEvent, is_meant: &dyn Fn(&str) -> bool) -> bool {
    let mut names = false;
    event.for_each_tag(&mut |name, value| {
        names |= name == "relay" && value.is_some_and(is_meant);
    });
    names
}

/// URLs are compared without the slash at their end and without regard to case, as clients write them.
fn same_url(a: &str, b: &str) -> bool {
    a.trim_end_matches('/')
        .eq_ignore_ascii_case(b.trim_end_matches('/'))
}

/// Kind and identifier of an address `kind:pubkey:identifier` that belongs to `author` (32 bytes).
pub(crate) fn own_address<'v>(value: &'v str, author: &[u8; 32]) -> Option<(u16, &'v str)> {
    let mut parts = value.splitn(3, ':');
    let kind: u16 = parts.next()?.parse().ok()?;
    let pubkey = nostr::key::PublicKey::from_hex(parts.next()?).ok()?;
    let identifier = parts.next().unwrap_or_default();
    if pubkey.as_bytes() != author {
        return None;
    }
    match KindClass::of_kind(Kind::from_u16(kind)) {
        KindClass::Addressable => Some((kind, identifier)),
        KindClass::Replaceable => Some((kind, "")),
        KindClass::Regular | KindClass::Ephemeral => None,
    }
}
