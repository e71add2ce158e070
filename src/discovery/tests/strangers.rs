//! Strangers who keep a station busy while a newcomer with a token comes.

use tokio::io::AsyncWriteExt;

use super::*;
use crate::peer::ByteStream;
use crate::tunnel::ServiceName;

/// A stream of somebody whom nobody knows.
async fn knock(hub: &Hub, host: &Member, seed: u8) -> ByteStream {
    let own = Identity::from_seed([seed; 32]).public_key().peer_id();
    let (carrier, _inbound) = hub.plug(own, watch::Sender::default().subscribe());
    let service = ServiceName::constellation();
    let opening = carrier.open(host.id(), &service, Duration::from_secs(1));
    opening.await.expect("a token is out")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_who_say_nothing_keep_no_newcomer_out() {
    let hub = Hub::default();
    let id = ConstellationId::of_name("test");
    let [host, guest] = [1, 2].map(|seed| Member::start(&hub, seed, id));
    let invitation = host.invite();
    let mut silent = Vec::new();
    for seed in 100..140 {
        silent.push(knock(&hub, &host, seed).await);
    }
    guest.join(&invitation).await.unwrap();
    assert_eq!(host.registry.turned_away(), 0);
    host.admits(&[guest.id()].into()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_comes_again_when_all_places_are_taken_and_those_turned_away_are_counted() {
    let hub = Hub::default();
    let id = ConstellationId::of_name("test");
    let [host, guest] = [1, 2].map(|seed| Member::start(&hub, seed, id));
    let invitation = host.invite();
    // Each says how much it will send, and then sends nothing.
    let mut slow = Vec::new();
    for seed in 100..110 {
        let mut stream = knock(&hub, &host, seed).await;
        let head = b"POST /join HTTP/1.1\r\nhost: station\r\ncontent-length: 10\r\n\r\n";
        stream.write_all(head).await.unwrap();
        slow.push(stream);
    }
    let are_turned_away = async |count| {
        while host.registry.turned_away() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let all_are_there = timeout(Duration::from_secs(30), are_turned_away(2));
    all_are_there.await.expect("two of them have no place");
    let joining = guest.join(&invitation);
    let leaving = async {
        are_turned_away(3).await;
        drop(slow);
    };
    let (joined, ()) = timeout(Duration::from_secs(30), async {
        tokio::join!(joining, leaving)
    })
    .await
    .unwrap();
    joined.unwrap();
    host.admits(&[guest.id()].into()).await;
}
