//! Keeps the plugin running, hands it questions and gives its answers back.
//!
//! One task. Takes questions from a bounded queue; writes and reads at the same time, so that neither side waits for the
//! other. A plugin that ends, answers garbage, or answers nothing at all for the configured time while it is asked
//! something is ended, with all that it started, and started anew after a pause that doubles until it answers again.
//! Questions are answered or dropped, and dropping one tells whoever asked; while it does not run all are dropped at once.
//! Bounded: questions without an answer, bytes to be written, one line of output.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::line::read_answer;
use super::options::PluginOptions;
use super::pace::Pace;
use super::troubles::{Trouble, Troubles};
use super::{Asked, Ruling};
use crate::child_process::{ChildProcess, Listening};
use crate::limits::{
    PLUGIN_LINE_BYTES, PLUGIN_OUTGOING_BYTES, PLUGIN_PAUSE_FIRST, PLUGIN_PAUSE_MAX,
    PLUGIN_REAP_DEADLINE,
};

/// Keeps the plugin running. See [`Plugin::new`](super::Plugin::new).
#[derive(Debug)]
pub struct PluginKeeper {
    options: watch::Receiver<Option<Arc<PluginOptions>>>,
    questions: mpsc::Receiver<Asked>,
    troubles: Arc<Troubles>,
    wanted: watch::Receiver<bool>,
}

/// Why a plugin is not run any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopped {
    /// Something went wrong.
    By(Trouble),
    /// Another one is configured, or none.
    Reconfigured,
    /// Nobody will ask any more.
    Over,
}

impl PluginKeeper {
    pub(super) fn new(
        options: watch::Receiver<Option<Arc<PluginOptions>>>,
        questions: mpsc::Receiver<Asked>,
        troubles: Arc<Troubles>,
        wanted: watch::Receiver<bool>,
    ) -> Self {
        Self {
            options,
            questions,
            troubles,
            wanted,
        }
    }

    /// The same as [`Self::run`], from the first question or [`Plugin::start`](super::Plugin::start) on: a station that is
    /// only opened for a command has nothing to ask.
    pub async fn run_when_wanted(mut self) {
        let wanted = self.wanted.wait_for(|wanted| *wanted).await.is_ok();
        if wanted {
            self.run().await;
        }
    }

    /// Keeps the plugin running until nobody can ask any more. Dropping it ends the plugin.
    pub async fn run(mut self) {
        let mut pause = PLUGIN_PAUSE_FIRST;
        loop {
            let options = self.options.borrow_and_update().clone();
            let Some(options) = options else {
                if self.wait(None).await.is_none() {
                    return;
                }
                continue;
            };
            let (stopped, has_answered) = self.keep(&options).await;
            let trouble = match stopped {
                Stopped::Over => return,
                Stopped::Reconfigured => {
                    pause = PLUGIN_PAUSE_FIRST;
                    continue;
                }
                Stopped::By(trouble) => trouble,
            };
            self.troubles.note(trouble);
            if has_answered {
                pause = PLUGIN_PAUSE_FIRST;
            }
            if self.wait(Some(Instant::now() + pause)).await.is_none() {
                return;
            }
            pause = (pause * 2).min(PLUGIN_PAUSE_MAX);
        }
    }

    /// Drops questions until the time has come, or the options change; nothing when it is all over.
    async fn wait(&mut self, until: Option<Instant>) -> Option<()> {
        loop {
            tokio::select! {
                changed = self.options.changed() => return changed.ok(),
                asked = self.questions.recv() => drop(asked?),
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => return Some(()),
            }
        }
    }

    /// Starts the plugin and serves it until it stops; says why, and whether it has answered anything.
    async fn keep(&mut self, options: &PluginOptions) -> (Stopped, bool) {
        let command = &options.command;
        let started = ChildProcess::start(
            &command.program,
            &command.arguments,
            Listening::StandardOutput,
        );
        let pipes = started.and_then(|mut child| {
            let input = child.take_input().ok_or(io::ErrorKind::BrokenPipe)?;
            let output = child.take_output().ok_or(io::ErrorKind::BrokenPipe)?;
            Ok((child, input, output))
        });
        let (mut child, input, output) = match pipes {
            Ok(pipes) => pipes,
            Err(error) => {
                tracing::debug!(program = %command.program, %error, "the write policy plugin does not start");
                return (Stopped::By(Trouble::NotStarted), false);
            }
        };
        let mut talk = Talk::new(input, output, options.timeout);
        let stopped = talk.go_on(self).await;
        let has_answered = talk.has_answered;
        // Whoever waits is told at once.
        drop(talk);
        child.kill();
        if timeout(PLUGIN_REAP_DEADLINE, child.ended()).await.is_err() {
            tracing::error!(program = %command.program, "a killed write policy plugin does not end");
        }
        (stopped, has_answered)
    }
}

/// One running plugin and what it was asked.
struct Talk {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// How long it may answer nothing while it is asked something.
    silence: Duration,
    /// Who waits for an answer about an id, in the order in which they asked.
    waiting: HashMap<[u8; 32], VecDeque<(Instant, oneshot::Sender<Ruling>)>>,
    pace: Pace,
    /// How many wait.
    questions: usize,
    outgoing: Vec<u8>,
    line: Vec<u8>,
    /// The last answer, or the first question after none was open.
    heard: Instant,
    has_answered: bool,
}

impl Talk {
    fn new(input: ChildStdin, output: ChildStdout, silence: Duration) -> Self {
        Self {
            input,
            output: BufReader::new(output),
            silence,
            waiting: HashMap::new(),
            pace: Pace::within(silence),
            questions: 0,
            outgoing: Vec::new(),
            line: Vec::new(),
            heard: Instant::now(),
            has_answered: false,
        }
    }

    async fn go_on(&mut self, keeper: &mut PluginKeeper) -> Stopped {
        loop {
            let silent_until = self.heard + self.silence;
            let has_room = self.questions < self.pace.at_a_time()
                && self.outgoing.len() < PLUGIN_OUTGOING_BYTES;
            tokio::select! {
                biased;
                changed = keeper.options.changed() => {
                    return changed.map_or(Stopped::Over, |()| Stopped::Reconfigured);
                }
                piece = self.output.fill_buf() => {
                    let piece = match piece {
                        Ok(piece) if !piece.is_empty() => piece.to_vec(),
                        _ => return Stopped::By(Trouble::Ended),
                    };
                    self.output.consume(piece.len());
                    if self.hear(&piece).is_none() {
                        return Stopped::By(Trouble::Garbage);
                    }
                }
                written = self.input.write(&self.outgoing), if !self.outgoing.is_empty() => match written {
                    Ok(bytes) if bytes > 0 => drop(self.outgoing.drain(..bytes)),
                    _ => return Stopped::By(Trouble::Ended),
                },
                asked = keeper.questions.recv(), if has_room => match asked {
                    Some(asked) => self.put(asked),
                    None => return Stopped::Over,
                },
                () = sleep_until(silent_until), if self.questions > 0 => {
                    return Stopped::By(Trouble::Hung);
                }
            }
        }
    }

    fn put(&mut self, asked: Asked) {
        // Nobody waits for it any more: its time was up in the queue.
        if asked.handed_over.send(()).is_err() {
            return;
        }
        let now = Instant::now();
        if self.questions == 0 {
            self.heard = now;
        }
        self.questions += 1;
        self.outgoing.extend_from_slice(asked.line.as_bytes());
        self.waiting
            .entry(asked.id)
            .or_default()
            .push_back((now, asked.reply));
    }

    /// Takes a piece of output; nothing if there is garbage in it.
    fn hear(&mut self, piece: &[u8]) -> Option<()> {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if self.line.len() > PLUGIN_LINE_BYTES {
                return None;
            }
            if self.line.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                if !line.trim_ascii().is_empty() {
                    self.answer(&line)?;
                }
            }
        }
        Some(())
    }

    fn answer(&mut self, line: &[u8]) -> Option<()> {
        let (id, ruling) = read_answer(line)?;
        let waiting = self.waiting.get_mut(&id)?;
        let reply = waiting.pop_front();
        if waiting.is_empty() {
            self.waiting.remove(&id);
        }
        self.questions -= 1;
        (self.heard, self.has_answered) = (Instant::now(), true);
        let (since, reply) = reply?;
        self.pace.answered_after(self.heard - since);
        // Whoever asked may have gone.
        drop(reply.send(ruling));
        Some(())
    }
}
