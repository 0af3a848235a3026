//! A password as an operator gives it: made up, from standard input, or typed without being shown.

use std::io::{self, BufRead as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::Failure;
use crate::{cli::GivenPassword, random::Random};

/// In characters of 62: more than anybody guesses.
const LENGTH: usize = 20;

/// A password, and whether it has to be shown because nobody knows it yet.
pub(super) struct Password {
    pub(super) text: String,
    pub(super) made_up: bool,
}

impl Password {
    pub(super) fn get(given: GivenPassword, random: &Random) -> Result<Self, Failure> {
        let text = match (given.ask, given.password_stdin) {
            (true, _) => ask()?,
            (_, true) => read_line()?,
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

/// Standard input up to the first end of line.
pub(super) fn read_line() -> Result<String, Failure> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Silent from the first question to the last answer: somebody may type ahead.
fn ask() -> Result<String, Failure> {
    let silence = Silence::begin()?;
    let (password, again) = (answer("Password: ")?, answer("Once more: ")?);
    drop(silence);
    if password == again { Ok(password) } else { Err(Failure::new("these were two different passwords")) }
}

fn answer(question: &str) -> Result<String, Failure> {
    write!(io::stderr(), "{question}")?;
    let line = read_line();
    // The end of the line was not shown either.
    writeln!(io::stderr())?;
    line
}

/// What is typed is not shown as long as this is there.
struct Silence(Termios);

impl Silence {
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

impl Drop for Silence {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(io::stdin(), OptionalActions::Now, &self.0) {
            tracing::warn!(%error, "the terminal goes on hiding what is typed: `stty echo` ends that");
        }
    }
}
