//! A write policy that somebody else wrote: a program that is asked about events before they are stored, as strfry asks.
//!
//! ```text
//! relay_server ────────────► Plugin::ask ─► (bounded queue) ─► PluginKeeper ─► a child process: a line of JSON in, a line out
//! transfer, live ─► Screen ─────┘
//! ```
//!
//! Takes events that are verified and would be stored; gives a [`Ruling`] about each. Many questions are under way at a
//! time, answers are matched by the event's id. **It never blocks the station**: a plugin that does not answer in time, dies,
//! does not start or answers garbage is started anew with growing pauses, and the configured policy decides meanwhile; that is
//! counted, and logged at most once a minute. About which events it is asked the captain says ([`AskedAbout`]); never about
//! `constellation import`. It has as many questions before it as it answers well in time (`pace`), the others wait here. Worst case: each question waits
//! for twice the configured time, and of many that come together a few.

mod keeper;
mod line;
mod options;
mod pace;
mod screen;
mod troubles;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

pub use keeper::PluginKeeper;
pub use line::{Question, SourceType};
pub use options::{AskedAbout, PluginCommand, PluginFailure, PluginOptions, plugin_timeout};
pub use screen::Screen;
use troubles::{Trouble, Troubles};

use crate::limits::PLUGIN_QUEUE;

/// What is to become of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    /// It is stored.
    Accept,
    /// It is not, and whoever offered it is told so.
    Reject(String),
    /// It is not, and whoever offered it is told that it was.
    ShadowReject,
    /// The plugin did not rule, and then nothing is to be stored: whoever offered it may do so again.
    Unanswered,
}

/// A question on its way.
#[derive(Debug)]
struct Asked {
    id: [u8; 32],
    line: String,
    /// Told when the program is handed the question: from then on it has its time.
    handed_over: oneshot::Sender<()>,
    reply: oneshot::Sender<Ruling>,
}

/// Asks the plugin. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Plugin {
    options: watch::Receiver<Option<Arc<PluginOptions>>>,
    questions: mpsc::Sender<Asked>,
    troubles: Arc<Troubles>,
    /// Whether the program is to run.
    wanted: watch::Sender<bool>,
}

impl Plugin {
    /// A way to ask, and what keeps the program running: to be run as a task for as long as questions are asked. Both
    /// follow the options; `None` is no plugin.
    pub fn new(options: watch::Receiver<Option<Arc<PluginOptions>>>) -> (Self, PluginKeeper) {
        let (questions, asked) = mpsc::channel(PLUGIN_QUEUE);
        let troubles = Arc::new(Troubles::default());
        let wanted = watch::Sender::new(false);
        let keeper = PluginKeeper::new(
            options.clone(),
            asked,
            Arc::clone(&troubles),
            wanted.subscribe(),
        );
        let plugin = Self {
            options,
            questions,
            troubles,
            wanted,
        };
        (plugin, keeper)
    }

    /// The program is to run from now on, if it waits to be asked ([`PluginKeeper::run_when_wanted`]).
    pub fn start(&self) {
        self.wanted
            .send_if_modified(|wanted| !std::mem::replace(wanted, true));
    }

    /// The options, if there is a plugin and it is to be asked about such events.
    pub fn is_asked_about(&self, source: AskedAbout) -> Option<Arc<PluginOptions>> {
        let options = self.options.borrow().clone()?;
        options.asks.contains(&source).then_some(options)
    }

    /// Asks; answers within the time that the options give, counted from when the program is handed the question. For that it
    /// waits as long at most.
    ///
    /// Cancel safety: the plugin may have been asked.
    pub async fn ask(&self, options: &PluginOptions, question: &Question<'_>) -> Ruling {
        match self.answer(options, question).await {
            Some(ruling) => ruling,
            None => options.on_failure.ruling(),
        }
    }

    /// What it answers, if it does in time.
    async fn answer(&self, options: &PluginOptions, question: &Question<'_>) -> Option<Ruling> {
        self.start();
        let (handed_over, is_handed_over) = oneshot::channel();
        let (reply, answer) = oneshot::channel();
        let asked = Asked {
            id: question.id,
            line: question.to_line(),
            handed_over,
            reply,
        };
        let handing_over = async {
            self.questions.send(asked).await.ok()?;
            is_handed_over.await.ok()
        };
        let answered = match timeout(options.timeout, handing_over).await {
            Ok(Some(())) => timeout(options.timeout, answer)
                .await
                .map(|answer| answer.ok()),
            Ok(None) => Ok(None),
            Err(elapsed) => Err(elapsed),
        };
        let trouble = match answered {
            Ok(Some(ruling)) => return Some(ruling),
            Ok(None) => Trouble::Down,
            Err(_) => Trouble::Late,
        };
        self.troubles.note(trouble);
        None
    }
}
