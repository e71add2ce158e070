//! The streams that are open: how many, with whom, and a way to cut them.
//!
//! Invariant: at most so many inbound streams of one station and in all. A stream occupies its place until it is dropped;
//! when it is cut, its reader finds the end of the stream and its writer a broken pipe. Does not decide who is let in.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::tunnel::{PeerId, Refusal, ServiceName};

/// Streams of one station: a burst of a thousand, and those that were there before.
pub(super) const STREAMS_OF_ONE_MAX: u32 = 1_100;
/// Streams of all stations.
pub(super) const STREAMS_MAX: usize = 4_096;

/// Open streams with one station.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) outbound: u32,
    pub(super) inbound: u32,
}

#[derive(Debug)]
struct Occupant {
    peer: PeerId,
    /// What it entered for; `None` for a stream that we opened.
    entered: Option<ServiceName>,
    cut: CancellationToken,
}

#[derive(Debug, Default)]
struct Table {
    open: BTreeMap<PeerId, Open>,
    inbound: usize,
    occupants: HashMap<u64, Occupant>,
    last: u64,
}

impl Table {
    fn enter(&mut self, places: &Arc<Places>, occupant: Occupant) -> Place {
        self.last += 1;
        let place = Place {
            places: Arc::clone(places),
            id: self.last,
            cut: occupant.cut.clone(),
        };
        self.occupants.insert(self.last, occupant);
        place
    }
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<Table>);

impl Places {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Its counts are changed in one step each: what panicked elsewhere left them right.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a stream that we opened.
    pub(super) fn outbound(self: &Arc<Self>, peer: PeerId) -> Place {
        let mut table = self.table();
        table.open.entry(peer).or_default().outbound += 1;
        let occupant = Occupant {
            peer,
            entered: None,
            cut: CancellationToken::new(),
        };
        table.enter(self, occupant)
    }

    /// A place for a stream that a station opened.
    ///
    /// # Errors
    /// [`Refusal::TooMany`] of one station, [`Refusal::Overloaded`] in all.
    pub(super) fn inbound(
        self: &Arc<Self>,
        peer: PeerId,
        service: &ServiceName,
    ) -> Result<Place, Refusal> {
        let mut table = self.table();
        if table.inbound >= STREAMS_MAX {
            return Err(Refusal::Overloaded);
        }
        let open = table.open.entry(peer).or_default();
        if open.inbound >= STREAMS_OF_ONE_MAX {
            return Err(Refusal::TooMany);
        }
        open.inbound += 1;
        table.inbound += 1;
        let occupant = Occupant {
            peer,
            entered: Some(service.clone()),
            cut: CancellationToken::new(),
        };
        Ok(table.enter(self, occupant))
    }

    /// Cuts the streams that may not stay: told whose, and for what it entered (`None`: we opened it).
    pub(super) fn cut_unless(&self, may_stay: impl Fn(&PeerId, Option<&ServiceName>) -> bool) {
        let cut: Vec<CancellationToken> = self
            .table()
            .occupants
            .values()
            .filter(|occupant| !may_stay(&occupant.peer, occupant.entered.as_ref()))
            .map(|occupant| occupant.cut.clone())
            .collect();
        // Not while the table is held: whoever is woken may give its place back.
        for token in cut {
            token.cancel();
        }
    }

    /// Stations with open streams.
    pub(super) fn open(&self) -> BTreeMap<PeerId, Open> {
        self.table().open.clone()
    }
}

/// Room for one stream; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    id: u64,
    cut: CancellationToken,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.places.table();
        let Some(occupant) = table.occupants.remove(&self.id) else {
            return;
        };
        let is_inbound = occupant.entered.is_some();
        table.inbound -= usize::from(is_inbound);
        if let Some(open) = table.open.get_mut(&occupant.peer) {
            open.inbound -= u32::from(is_inbound);
            open.outbound -= u32::from(!is_inbound);
            if *open == Open::default() {
                table.open.remove(&occupant.peer);
            }
        }
    }
}

/// A local connection with kubo that stands for a stream, in its place.
pub(super) struct PlacedStream {
    stream: TcpStream,
    /// One each for the reader and the writer: they may wait in different tasks.
    cut_reading: Cut,
    cut_writing: Cut,
    _place: Place,
}

/// Becomes ready when the stream is cut.
struct Cut {
    future: Pin<Box<WaitForCancellationFutureOwned>>,
    is_ready: bool,
}

impl Cut {
    fn of(place: &Place) -> Self {
        Self {
            future: Box::pin(place.cut.clone().cancelled_owned()),
            is_ready: false,
        }
    }

    /// Whether it was cut; wakes whoever waits when it is.
    fn poll(&mut self, context: &mut Context<'_>) -> bool {
        self.is_ready = self.is_ready || self.future.as_mut().poll(context).is_ready();
        self.is_ready
    }
}

impl PlacedStream {
    pub(super) fn new(stream: TcpStream, place: Place) -> Self {
        Self {
            stream,
            cut_reading: Cut::of(&place),
            cut_writing: Cut::of(&place),
            _place: place,
        }
    }
}

impl AsyncRead for PlacedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut_reading.poll(context) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for PlacedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.cut_writing.poll(context) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.cut_writing.poll(context) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn places_are_bounded_and_come_back() {
        let places = Arc::new(Places::default());
        let service = ServiceName::strfry();
        let one = PeerId::random();
        let enter = |peer| places.inbound(peer, &service);
        let mut held: Vec<Place> = (0..STREAMS_OF_ONE_MAX)
            .map(|_| enter(one).expect("within the bound"))
            .collect();
        assert_eq!(enter(one).err(), Some(Refusal::TooMany));
        while held.len() < STREAMS_MAX {
            held.push(enter(PeerId::random()).expect("within the bound"));
        }
        assert_eq!(enter(PeerId::random()).err(), Some(Refusal::Overloaded));
        let out = places.outbound(one);
        let open = Open {
            outbound: 1,
            inbound: STREAMS_OF_ONE_MAX,
        };
        assert_eq!(places.open()[&one], open);
        drop(held);
        drop(out);
        assert!(places.open().is_empty());
        assert!(enter(one).is_ok());
    }

    #[tokio::test]
    async fn who_may_not_stay_is_cut_and_wakes_whoever_waits() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let places = Arc::new(Places::default());
        let (gone, stays) = (PeerId::random(), PeerId::random());
        let mut kept = Vec::new();
        let mut streams = Vec::new();
        for peer in [gone, stays] {
            let stream = TcpStream::connect(("127.0.0.1", port)).await;
            let place = places.inbound(peer, &ServiceName::strfry());
            let place = place.expect("within the bound");
            streams.push(PlacedStream::new(stream.expect("it listens"), place));
            kept.push(listener.accept().await.expect("it comes"));
        }
        let mut other = streams.pop().expect("two");
        let mut cut = streams.pop().expect("two");
        let mut byte = [0];
        let reading = cut.read(&mut byte);
        let cutting = async {
            tokio::task::yield_now().await;
            places.cut_unless(|peer, entered| entered.is_some() && *peer == stays);
        };
        let both = async { tokio::join!(reading, cutting).0 };
        let read = tokio::time::timeout(std::time::Duration::from_secs(10), both).await;
        assert_eq!(read.expect("woken").expect("no error"), 0);
        let written = cut.write(b"x").await.expect_err("cut");
        assert_eq!(written.kind(), io::ErrorKind::BrokenPipe);
        other.write_all(b"x").await.expect("it stays");
    }
}
