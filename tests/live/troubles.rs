//! Live links with peers that refuse for the moment, and with stations that are put out.

use rustix::process::Signal;

use super::common::fake_relay::{FakeRelay, Publishing, Script};
use super::common::tunnelled::{own_node, peer_id};
use super::common::{Home, author, note, now, wait_until};
use super::{Client, links, live, wait_for_links};

/// What a link was told to come back with later was offered by nobody any more until the next scheduled run.
#[test]
fn what_a_peer_refuses_for_the_moment_is_offered_again_by_an_exchange() {
    for reason in ["rate-limited: slow down", "error: the disk is busy"] {
        let (relay, played) = FakeRelay::scripted(Script::default());
        let peer = format!("[[peers]]\naddress = \"{}\"\n", relay.address());
        let home = Home::with_config(&live(&peer));
        let station = home.start();
        wait_for_links(&home, 1);
        played.change(|script| script.publishing = Publishing::Refuses(reason));
        let ours = note(&author(1), now(), "ours");
        Client::of(&station).publish(&ours);
        wait_until("it is offered and refused", || {
            played.take_offered().contains(&ours.id.to_hex())
        });
        played.change(|script| script.publishing = Publishing::Keeps);
        wait_until("it is offered again, and taken", || played.holds(&ours));
    }
}

/// A station that was known by its information document kept its link when it was put out, and had none when it was let in.
#[test]
fn no_link_is_kept_with_a_station_that_is_out_by_whatever_address_and_there_is_one_when_it_is_let_in()
 {
    let live_with = |peers: &str| format!("{}[live]\nenabled = true\n{peers}", own_node(""));
    let (one, other) = (
        Home::with_config(&live_with("")),
        Home::with_config(&live_with("")),
    );
    let running = one.start();
    let by_url = format!("[[peers]]\naddress = \"{}\"\n", running.address());
    other.configure(&live_with(&by_url));
    let also_running = other.start();
    wait_for_links(&other, 1);
    let out = peer_id(&one);
    assert_eq!(links(&other)[0]["station"], *out);
    other.run(&["peers", "revoke", &out]).with_code(0);
    wait_until("there is no link", || links(&other).is_empty());
    // It does not come back when everything is looked at again.
    also_running.signal(Signal::HUP);
    other.run(&["peers", "allow", &out]).with_code(0);
    wait_until("there is one again", || links(&other).len() == 1);
    assert_eq!(links(&other)[0]["station"], *out);
}
