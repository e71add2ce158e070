//! Services of stations that are plugged into one hub: bytes from a local port to a service of another station.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::*;
use crate::peer::{PeerAddress, PeerId};
use crate::tasks::TaskGroup;
use crate::tunnel::hub::{Hub, HubCarrier};
use crate::tunnel::{Carrier, GuestList, Guests, InboundStream, Refusal, ServiceName};

struct Side {
    id: PeerId,
    carrier: Arc<HubCarrier>,
    services: Arc<Services>,
    guests: watch::Sender<Arc<GuestList>>,
    tasks: TaskGroup,
    folder: tempfile::TempDir,
}

impl Side {
    fn new(hub: &Hub) -> Self {
        let id = PeerId::random();
        let guests = watch::Sender::default();
        let (carrier, inbound) = hub.plug(id, guests.subscribe());
        let folder = tempfile::tempdir().unwrap();
        let tasks = TaskGroup::new(64);
        let services = load(&carrier, folder.path().join("services.json"), &tasks);
        services.configure(&[], &[], &["ollama".parse().unwrap()]);
        serve(&services, inbound, &tasks);
        Self {
            id,
            carrier,
            services,
            guests,
            tasks,
            folder,
        }
    }

    /// Lets another in to everything that is exposed now.
    fn admit(&self, other: PeerId) {
        self.guests.send_replace(Arc::new(GuestList {
            services: self.services.guests().borrow().clone(),
            admitted: [other].into(),
            ..GuestList::default()
        }));
    }

    /// The same station after a restart.
    fn restarted(&self) -> Arc<Services> {
        load(
            &self.carrier,
            self.folder.path().join("services.json"),
            &self.tasks,
        )
    }
}

fn load(carrier: &Arc<HubCarrier>, path: PathBuf, tasks: &TaskGroup) -> Arc<Services> {
    let carrier = Arc::clone(carrier) as Arc<dyn Carrier>;
    Arc::new(Services::load(carrier, path, true, tasks.child(64)).unwrap())
}

fn serve(
    services: &Arc<Services>,
    inbound: tokio::sync::mpsc::Receiver<InboundStream>,
    tasks: &TaskGroup,
) {
    let said = |text: &'static str| -> RelayEntrance {
        Arc::new(move |_, mut stream| {
            Box::pin(async move {
                stream.write_all(text.as_bytes()).await.unwrap();
            })
        })
    };
    let parts = Inbound {
        relay: Some(said("relay")),
        constellation: said("cards"),
    };
    let serving = Arc::clone(services).serve(inbound, parts, tasks.child(64));
    tasks.spawn(serving).unwrap();
}

fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

fn exposed(text: &str, port: Option<u16>) -> ExposedOptions {
    ExposedOptions {
        name: name(text),
        port,
        allow: None,
    }
}

fn opened(text: &str, peer: PeerId, port: Option<u16>) -> OpenOptions {
    OpenOptions {
        name: name(text),
        peer: PeerAddress::of_station(peer),
        port,
    }
}

/// A service that says back what it hears, until the other end is done.
async fn echo(tasks: &TaskGroup) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let echoing = async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).await.unwrap();
            stream.write_all(&heard).await.unwrap();
        }
    };
    tasks.spawn(echoing).unwrap();
    port
}

async fn say(listen: &str, text: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(listen).await.unwrap();
    stream.write_all(text).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    // A stream that is refused may also be reset.
    drop(stream.read_to_end(&mut answer).await);
    answer
}

#[tokio::test]
async fn a_local_port_leads_to_an_exposed_service_of_another_station_and_only_there() {
    let hub = Hub::default();
    let (here, there) = (Side::new(&hub), Side::new(&hub));
    let port = echo(&there.tasks).await;
    there.services.expose(exposed("echo", Some(port))).unwrap();
    there.admit(here.id);
    let echo = here.services.open(opened("echo", there.id, None)).unwrap();
    let text = vec![7; 300_000];
    assert!(say(&echo.listen, &text).await == text);
    let relay = here
        .services
        .open(opened("strfry", there.id, None))
        .unwrap();
    assert_eq!(say(&relay.listen, b"").await, b"relay");
    let ssh = here.services.open(opened("ssh", there.id, None)).unwrap();
    assert!(say(&ssh.listen, b"x").await.is_empty(), "not exposed");
    let state = there.carrier.state().borrow().clone();
    assert_eq!(state.refused[&Refusal::NotExposed], 1);
    let ssh = &here.services.status().open[2];
    assert!(
        ssh.last_error
            .as_ref()
            .is_some_and(|error| error.contains("does not offer ssh"))
    );

    // Nobody listens behind it any more: the stream is dropped.
    there.services.expose(exposed("gone", Some(1))).unwrap();
    there.admit(here.id);
    let gone = here.services.open(opened("gone", there.id, None)).unwrap();
    assert!(say(&gone.listen, b"x").await.is_empty());
}

// The port is let go by another thread than the one that waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_commands_opened_and_exposed_is_there_again_on_the_same_ports() {
    let hub = Hub::default();
    let (here, there) = (Side::new(&hub), Side::new(&hub));
    here.services.expose(exposed("echo", Some(4_000))).unwrap();
    let first = here
        .services
        .open(opened("comfyui", there.id, None))
        .unwrap();
    let before = here.services.status();
    here.services.configure(&[], &[], &[]);
    assert_eq!(here.services.status(), before, "a reload changes nothing");
    here.services
        .close(&name("comfyui"), Some(there.id))
        .unwrap();
    let again = here
        .services
        .open(opened("comfyui", there.id, None))
        .unwrap();
    assert_eq!(again.listen, first.listen, "closed and opened again");

    let restarted = {
        here.services.close(&name("comfyui"), None).unwrap();
        here.services
            .open(opened("comfyui", there.id, None))
            .unwrap();
        // Only the file is left of it.
        here.services.forget_mouths();
        here.restarted()
    };
    assert!(restarted.configure(&[], &[], &[]).is_empty());
    assert_eq!(restarted.status().open[0].listen, first.listen);
    assert_eq!(restarted.status().exposed.len(), 2, "echo, and the relay");
    restarted.close(&name("strfry"), None).unwrap();
    assert_eq!(
        restarted.status().exposed.len(),
        1,
        "the relay is exposed by default only"
    );
}

#[tokio::test]
async fn nothing_private_and_no_mouth_of_a_tunnel_is_exposed() {
    let hub = Hub::default();
    let (here, there) = (Side::new(&hub), Side::new(&hub));
    let refused = |options| here.services.expose(options).unwrap_err().to_string();
    assert!(refused(exposed("ollama", None)).contains("private"));
    assert!(refused(exposed("constellation", Some(1))).contains("own service"));
    assert!(refused(exposed("unknown", None)).contains("name the port"));
    let mouth = here.services.open(opened("echo", there.id, None)).unwrap();
    let port = mouth.listen.rsplit(':').next().unwrap().parse().unwrap();
    assert!(refused(exposed("strfry", Some(port))).contains("mouth of a tunnel"));
    let ours = here
        .services
        .open(opened("echo", here.id, None))
        .unwrap_err();
    assert!(ours.to_string().contains("itself"));
    let configured = [
        exposed("echo", Some(port)),
        exposed("ollama", None),
        exposed("ssh", None),
    ];
    let errors = here.services.configure(&configured, &[], &[name("ollama")]);
    assert_eq!(errors.len(), 2, "{errors:?}");
    let shown = here.services.status().exposed;
    let names: Vec<&str> = shown.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["ssh", "strfry"]);
    assert!(
        here.services
            .close(&name("ssh"), None)
            .unwrap_err()
            .to_string()
            .contains("configuration")
    );
    assert!(here.services.expose(exposed("ssh", Some(2))).is_err());
}

#[tokio::test]
async fn a_busy_native_port_gives_way_to_the_alternative_one_and_a_named_one_does_not() {
    let hub = Hub::default();
    let (here, there) = (Side::new(&hub), Side::new(&hub));
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let refused = here
        .services
        .open(opened("ssh", there.id, Some(port)))
        .unwrap_err();
    assert!(refused.to_string().contains(&port.to_string()), "{refused}");
    let allowed = ExposedOptions {
        allow: Some(vec![PeerAddress::of_station(there.id)]),
        ..exposed("echo", Some(port))
    };
    here.services.expose(allowed).unwrap();
    let guests = here.services.guests().borrow()[&name("echo")].clone();
    assert_eq!(guests, Guests::Only([there.id].into()));
    // Another station of the same service gets another port.
    let third = Side::new(&hub);
    let one = here
        .services
        .open(opened("orpheus", there.id, None))
        .unwrap();
    let other = here
        .services
        .open(opened("orpheus", third.id, None))
        .unwrap();
    assert_ne!(one.listen, other.listen);
    assert!(
        here.services
            .close(&name("orpheus"), None)
            .unwrap_err()
            .to_string()
            .contains("several")
    );
}

#[tokio::test]
async fn a_tunnel_that_cannot_be_kept_is_not_left_open_and_an_earlier_one_stays() {
    let hub = Hub::default();
    let (here, there) = (Side::new(&hub), Side::new(&hub));
    let earlier = here.services.open(opened("echo", there.id, None)).unwrap();
    std::fs::remove_dir_all(here.folder.path()).unwrap();
    let free = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let not_kept = here
        .services
        .open(opened("echo", there.id, Some(free)))
        .unwrap_err();
    assert!(
        matches!(not_kept, ServiceError::State { .. }),
        "{not_kept:?}"
    );
    assert_eq!(here.services.status().open, [earlier]);
    // Its port is free again as soon as the task that listened there has ended.
    let again = async {
        while TcpListener::bind((Ipv4Addr::LOCALHOST, free))
            .await
            .is_err()
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), again)
        .await
        .unwrap();
}

#[tokio::test]
async fn where_no_relay_is_served_others_find_none_but_the_captain_may_still_hide_it() {
    let hub = Hub::default();
    let here = Side::new(&hub);
    let carrier = Arc::clone(&here.carrier) as Arc<dyn Carrier>;
    let path = here.folder.path().join("of-a-command.json");
    let services = Services::load(carrier, path.clone(), false, here.tasks.child(8)).unwrap();
    services.configure(&[], &[], &[]);
    assert_eq!(services.status().exposed[0].name, name("strfry"));
    assert!(services.guests().borrow().is_empty());
    assert!(services.exposure(&name("strfry")).is_none());
    services.close(&name("strfry"), None).unwrap();
    assert!(services.status().exposed.is_empty());
    let next = load(&here.carrier, path, &here.tasks);
    next.configure(&[], &[], &[]);
    assert!(
        next.guests().borrow().is_empty(),
        "hidden, also where one is served"
    );
}
