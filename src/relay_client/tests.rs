//! Tests against a fake relay: the server role of our own socket, over `tokio::io::duplex`, clock paused.

mod connecting;
mod failing;
mod flowing;
mod negotiating;
mod subscribing;

use std::time::Duration;

use tokio::io::duplex;
use tokio::time::timeout;

use super::{Conversation, ConversationLimits, RequestEnd, RequestItem};
use crate::protocol::websocket::Role;
use crate::protocol::{ClientMessage, Message, SocketLimits, TextSocket, hex, relay_message};
use crate::tasks::TaskGroup;

const SOCKET: SocketLimits = SocketLimits {
    message_bytes_max: 100_000,
};

/// The other end of the conversation.
struct Relay {
    socket: TextSocket,
    /// Keeps the conversation's task.
    group: TaskGroup,
}

impl Relay {
    async fn say(&mut self, text: impl Into<String>) {
        self.socket.send(text.into()).await.unwrap();
    }

    /// The next message of the client, as text.
    async fn hear(&mut self) -> String {
        match within(self.socket.recv()).await.unwrap() {
            Some(Message::Text(text)) => text.as_str().to_owned(),
            other => panic!("a message expected, not {other:?}"),
        }
    }

    /// The name of the REQ that comes next.
    async fn hear_request(&mut self) -> String {
        let text = self.hear().await;
        match ClientMessage::parse(&text, 20) {
            Ok(ClientMessage::Request { subscription, .. }) => subscription.into_owned(),
            other => panic!("a REQ expected, not {other:?}"),
        }
    }

    /// The id of the EVENT that comes next; our events are `{"id":"…"}`.
    async fn hear_event(&mut self) -> [u8; 32] {
        let text = self.hear().await;
        let Ok(ClientMessage::Event(json)) = ClientMessage::parse(&text, 20) else {
            panic!("an EVENT expected, not {text}")
        };
        hex::decode_array(&json[7..71]).unwrap()
    }

    /// Waits until the client has gone, whatever it says before.
    async fn hear_end(&mut self) {
        while let Ok(Some(_)) = within(self.socket.recv()).await {}
    }
}

fn converse_with(limits: ConversationLimits, buffer: usize) -> (Conversation, Relay) {
    let (ours, theirs) = duplex(buffer);
    let group = TaskGroup::new(1);
    let ours = TextSocket::over(ours, Role::Client, SOCKET).unwrap();
    let conversation = Conversation::start(ours, limits, &group).unwrap();
    let socket = TextSocket::over(theirs, Role::Server, SOCKET).unwrap();
    (conversation, Relay { socket, group })
}

fn converse() -> (Conversation, Relay) {
    converse_with(ConversationLimits::default(), 64 * 1024)
}

/// Every wait of a test is under a deadline; the clock is paused, so it costs nothing.
async fn within<F: Future>(waiting: F) -> F::Output {
    timeout(Duration::from_secs(3600), waiting)
        .await
        .expect("must not hang")
}

fn event_json(id: u8) -> String {
    format!("{{\"id\":\"{}\"}}", hex::encode(&[id; 32]))
}
