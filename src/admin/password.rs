//! A password as an operator gives it: made up, from standard input, or typed without being shown.
//!
//! It never comes from an argument: those of a running command can be read by every user of the machine, and stay in
//! the shell's history.

use std::io::{self, BufRead as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::oneshot;

use super::failure::Failure;
use crate::{config::cli::GivenPassword, ground::random::Random};

/// In characters of 62: more than anybody guesses.
const LENGTH: usize = 20;

/// A password, and whether it has to be shown because nobody knows it yet.
pub(super) struct Password {
    pub(super) text: String,
    pub(super) made_up: bool,
}

impl Password {
    pub(super) async fn get(given: GivenPassword, random: &Random) -> Result<Self, Failure> {
        let text = match (given.ask, given.password_stdin) {
            (true, _) => ask().await?,
            (_, true) => read_line().await?,
            _ => return Ok(Self { text: random.token(LENGTH), made_up: true }),
        };
        if text.is_empty() {
            return Err(Failure::new("the password is empty"));
        }
        Ok(Self { text, made_up: false })
    }

    /// The line that shows it.
    pub(super) fn shown(&self) -> String {
        if self.made_up { format!("Password: {}\n", self.text) } else { String::new() }
    }
}

/// Standard input up to the first end of line. It is read on a thread of its own, so that the command can be broken off
/// meanwhile; nobody waits for that thread then, as for one of the runtime's.
pub(super) async fn read_line() -> Result<String, Failure> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new().name("standard input".to_owned()).spawn(move || {
        let mut line = String::new();
        let read = io::stdin().lock().read_line(&mut line).map(|_| line);
        // Nobody hears it where the command was broken off.
        drop(sender.send(read));
    })?;
    let line = receiver.await.map_err(|error| Failure::new(error.to_string()))??;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Silent from the first question to the last answer: somebody may type ahead.
async fn ask() -> Result<String, Failure> {
    let silence = EchoOff::begin()?;
    let (password, again) = (answer("Password: ").await?, answer("Once more: ").await?);
    drop(silence);
    if password == again { Ok(password) } else { Err(Failure::new("these were two different passwords")) }
}

async fn answer(question: &str) -> Result<String, Failure> {
    write!(io::stderr(), "{question}")?;
    let line = read_line().await;
    // The end of the line was not shown either.
    writeln!(io::stderr())?;
    line
}

/// What is typed is not shown as long as this is there. Whoever breaks the command off drops it, see
/// [`super::unless_broken_off`].
struct EchoOff(Termios);

impl EchoOff {
    fn begin() -> Result<Self, Failure> {
        let stdin = io::stdin();
        let Ok(before) = tcgetattr(&stdin) else {
            return Err(Failure::new("standard input is no terminal to ask on: use --password-stdin"));
        };
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Now, &silent).map_err(io::Error::from)?;
        Ok(Self(before))
    }
}

impl Drop for EchoOff {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(io::stdin(), OptionalActions::Now, &self.0) {
            tracing::warn!(%error, "the terminal goes on hiding what is typed: `stty echo` ends that");
        }
    }
}
