//! What an exchange brought does not go back over the live link either.

use super::common::{Home, author, note, notes, now, wait_until};
use super::{Client, links, live, wait_for_links, with_peers};

#[test]
fn what_the_exchange_after_connecting_fetched_is_not_offered_to_the_peer_it_came_from() {
    let (one, other) = (Home::with_config(&live("")), Home::with_config(&live("")));
    let before = notes(&author(1), 1_700_000_000, 300);
    one.import(&before);
    let peer = one.start();
    other.configure(&with_peers(&[&peer]));
    let running = other.start();
    wait_for_links(&other, 1);
    assert_eq!(other.count("{}"), 300);

    // Over the link events go in the order in which they were stored: with this one all before it have gone, or will not.
    let next = note(&author(2), now(), "and on");
    Client::of(&running).publish(&next);
    wait_until("it is there", || one.count("{}") == 301);
    wait_until("it is counted", || links(&other)[0]["events_out"] != 0);
    let link = &links(&other)[0];
    assert_eq!(link["events_out"], 1, "{link}");
    assert_eq!(link["duplicates_out"], 0, "{link}");
}
