//! A station that is on Astroport's scripts still, with a real kubo, and ours: it opens our relay by our `x_strfry.sh` and
//! asks as those scripts do.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use constellation::relay_client::{
    ConnectOptions, Conversation, ConversationLimits, RequestItem, connect,
};
use constellation::tasks::TaskGroup;
use nostr::filter::Filter;
use serde_json::json;

use super::common::tunnelled::{beside_kubo, start};
use super::common::{Home, author, notes, wait_for, wait_until};
use super::kubo::{Kubo, Setup, binary};

/// As many as the scripts name in one filter.
const AUTHORS: u8 = 100;
const EVENTS_OF_EACH: u64 = 20;

/// Runs the script as that station would, on its own kubo.
fn bash(script: &Path, kubo: &Kubo, arguments: &[&str]) -> Output {
    let beside = binary();
    let beside = beside.parent().expect("a folder").display();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("bash");
    command.arg(script).args(arguments);
    command.env("PATH", format!("{beside}:{path}"));
    command.env("IPFS_PATH", kubo.repository());
    command.env("IPFS_TELEMETRY", "off");
    command.output().expect("bash")
}

/// How many events come in answer to such a request.
fn asked_as_scripts_do(port: u16) -> usize {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let tasks = TaskGroup::new(4);
    let filter = Filter::new()
        .authors((0..AUTHORS).map(|number| author(number).public_key()))
        .limit(10_000);
    runtime.block_on(async {
        let url = format!("ws://127.0.0.1:{port}")
            .parse()
            .expect("an address");
        let options = ConnectOptions {
            as_station: false,
            ..ConnectOptions::default()
        };
        let socket = connect(&url, &options).await.expect("the relay is there");
        let limits = ConversationLimits::default();
        let conversation = Conversation::start(socket, limits, &tasks).expect("room");
        let mut request = conversation.request(&[filter]).await.expect("asked");
        let mut events = 0;
        while let RequestItem::Event(_) = request.next().await.expect("answered") {
            events += 1;
        }
        drop((request, conversation));
        tasks.end().await;
        events
    })
}

#[test]
fn a_station_on_the_scripts_opens_our_relay_by_our_script_and_gets_everything() {
    if !Kubo::is_installed() {
        return;
    }
    let [ours, theirs] = [(); 2].map(|()| Kubo::start(Setup::default()));
    let home = Home::with_config(&beside_kubo(&ours.api()));
    let data = home.data();
    let zen = data.parent().expect("a folder").join(".zen");
    let write = |path: &str, text: &str| {
        let path = zen.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("our own folder");
        fs::write(path, text).expect("our own folder");
    };
    let card = |peer: &str| json!({"ipfsnodeid": peer, "UPLANETG1PUB": "ours"}).to_string();
    write("Astroport.ONE/tools/my.sh", "#!/bin/bash\n");
    write(
        &format!("tmp/{}/12345.json", ours.peer()),
        &card(ours.peer()),
    );
    write(
        &format!("tmp/swarm/{}/12345.json", theirs.peer()),
        &card(theirs.peer()),
    );
    for number in 0..AUTHORS {
        home.import(&notes(&author(number), 1_700_000_000, EVENTS_OF_EACH));
    }
    let station = start(&home);
    let published = zen.join(format!("tmp/{}/x_strfry.sh", ours.peer()));
    let script = wait_for("it is published", || fs::read_to_string(&published).ok());

    // What they fetch, with ports that are free here.
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let ports = listeners.each_ref().map(|listener| {
        let address = listener.local_addr().expect("bound");
        address.port()
    });
    let [native, alternative] = ports.map(|port| format!("\"{port}\""));
    let script = script
        .replace("\"9999\"", &native)
        .replace("\"9998\"", &alternative);
    let fetched = zen.join("x_strfry.sh");
    fs::write(&fetched, script).expect("our own folder");
    let address = ours.addresses().remove(0);
    theirs.ipfs(&["swarm", "connect", &address]);
    // The native port is taken by somebody else, as by a tunnel to another station.
    let [_native, alternative] = listeners;
    drop(alternative);
    for _ in 0..2 {
        let opened = bash(&fetched, &theirs, &[]);
        assert!(opened.status.success(), "{opened:?}");
        let said = String::from_utf8_lossy(&opened.stdout).into_owned();
        assert!(
            said.contains(&format!("ws://127.0.0.1:{}", ports[1])),
            "{said}"
        );
        assert_eq!(theirs.mounts().len(), 1, "{:?}", theirs.mounts());
    }
    let all = usize::from(AUTHORS) * usize::try_from(EVENTS_OF_EACH).expect("few");
    wait_until("it is let in", || {
        std::net::TcpStream::connect(("127.0.0.1", ports[1])).is_ok()
    });
    assert_eq!(asked_as_scripts_do(ports[1]), all);
    let closed = bash(&fetched, &theirs, &["off"]);
    assert!(closed.status.success(), "{closed:?}");
    assert_eq!(theirs.mounts(), Vec::<String>::new());
    station.stop();
    assert!(!published.exists());
}
