//! The command line: words in, exit codes out. Meaning is elsewhere; here it is read, shown and decided how to end.
//!
//! Exit codes (DESIGN §6): 0 done or converged; 1 done, but something was rejected or found wrong; 2 usage or
//! configuration; 3 nothing could be reached; 4 deadline; 5 local failure; 130 interrupted.

/// As `println!`, in a function that gives a `Result` with our `Failure`: a reader who has gone is no panic.
macro_rules! outln {
    ($($words:tt)*) => {
        $crate::cli::exit::say(format_args!($($words)*))?
    };
}

mod access;
mod arguments;
mod astroport;
mod bench;
mod demo;
mod doctor;
mod events;
mod exit;
mod init;
mod members;
mod moderation;
mod pair_arguments;
mod pair_sides;
mod pairs;
mod progress;
mod reference;
mod report;
mod run;
mod status;
mod sync;
mod table;
mod terminal;
mod tunnel;
mod watch;

use clap::Parser;

use self::arguments::{Arguments, AstroportCommand, Command, StoreCommand};
pub use self::exit::Exit;
use self::exit::Failure;

/// Reads the command line and carries it out.
pub fn main() -> Exit {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no failures; a closed terminal cannot be told anything.
            drop(error.print());
            return if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            };
        }
    };
    start_log(&arguments);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            return Failure::local(format!("cannot start the runtime: {error}")).report();
        }
    };
    let ended = runtime.block_on(Box::pin(carry_out(arguments)));
    // Not waited for: a thread that reads standard input ends only with that input. Stations are closed by now.
    runtime.shutdown_background();
    match ended {
        Ok(exit) => exit,
        Err(failure) => failure.report(),
    }
}

async fn carry_out(arguments: Arguments) -> Result<Exit, Failure> {
    let Arguments { global, command } = arguments;
    match command {
        Command::Run => run::run(&global).await,
        Command::Sync(command) => sync::sync(&global, command).await,
        Command::Diff(command) => pairs::diff(&global, command).await,
        Command::Mirror(command) => pairs::mirror(&global, command).await,
        Command::Demo(command) => {
            global.refuse_for("demo")?;
            demo::demo(command).await
        }
        Command::Status(command) => status::status(&global, &command).await,
        Command::Report(command) => report::report(&global, command).await,
        Command::History(command) => report::history(&global, &command).await,
        Command::Import(command) => events::import(&global, &command).await,
        Command::Export(command) => events::export(&global, &command).await,
        Command::Count(command) => events::count(&global, &command).await,
        Command::Store {
            command: StoreCommand::Verify(command),
        } => events::verify(&global, &command).await,
        Command::Tunnel { action } => tunnel::tunnel(&global, action).await,
        Command::Invite(command) => tunnel::invite(&global, command).await,
        Command::Join(command) => tunnel::join(&global, command).await,
        Command::Peers(command) => tunnel::peers(&global, command).await,
        Command::Members(command) => members::members(&global, &command).await,
        Command::Block(command) => moderation::block(&global, command).await,
        Command::Unblock(command) => moderation::unblock(&global, command).await,
        Command::Purge(command) => moderation::purge(&global, command).await,
        Command::Doctor(command) => doctor::doctor(&global, &command).await,
        Command::Completions(command) => reference::completions(&command),
        Command::Man(command) => reference::man(&command),
        Command::Init(command) => init::init(&global, &command).await,
        Command::Astroport {
            command: AstroportCommand::Trigger(command),
        } => astroport::trigger(&global, command).await,
        Command::Bench(command) => {
            global.refuse_for("bench")?;
            bench::bench(command).await
        }
    }
}

/// Logs go to standard error: standard output is for results.
fn start_log(arguments: &Arguments) {
    let default = match (&arguments.command, arguments.global.verbose) {
        (_, true) => "info,libp2p_swarm=warn,constellation=debug",
        // libp2p tells its PeerID, which we do ourselves.
        (Command::Run, false) => "info,libp2p_swarm=warn",
        _ => "error",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("CONSTELLATION_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal::colours_wanted())
        .init();
}
