//! The built program as an operator runs it: its commands, its log, and how it ends.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread::JoinHandle,
    time::Duration,
};

use serde_json::Value;

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where a server is installed: its folder and its settings.
pub(crate) struct Installation {
    pub(crate) dir: tempfile::TempDir,
    settings: Vec<(String, String)>,
}

/// What a command said, and with which code it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A terminal on which a line of the shell runs. Killed at the latest with the test.
pub(crate) struct Terminal {
    child: Child,
    shown: String,
}

/// A server that runs. Killed at the latest with the test.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    log: JoinHandle<String>,
}

impl Installation {
    /// Logs are JSON, the port is a free one, and SQLite is where it is by default.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data").display().to_string();
        let settings = [("DATA_DIR", data.as_str()), ("LISTEN", "127.0.0.1:0"), ("LOG__FORMAT", "json")];
        let settings = settings.map(|(key, value)| (format!("HEARTH_{key}"), value.to_owned())).into();
        Self { dir, settings }
    }

    pub(crate) fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    /// Changes a setting, named without `HEARTH_`.
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        let key = format!("HEARTH_{key}");
        self.settings.retain(|(name, _)| *name != key);
        self.settings.push((key, value.to_owned()));
    }

    /// `umask 022` is what nearly everybody has. The signal is for tests that give a server's files a limit, who want the
    /// error that comes without it.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", "umask 022 && trap '' XFSZ && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_hearth")])
            .args(arguments);
        command.env_clear().envs(self.settings.iter().cloned()).current_dir(self.dir.path());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        self.run_with(arguments, "")
    }

    /// A command that reads something.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &str) -> Said {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        // It may have ended without having read it.
        drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
        let done = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { code: done.status.code(), out: text(done.stdout), err: text(done.stderr) }
    }

    /// Runs a line of the shell, in which `$HEARTH` is the program, on a terminal. None where nothing makes one.
    pub(crate) fn terminal(&self, line: &str) -> Option<Terminal> {
        let made = Command::new("script").arg("--version").output();
        made.ok().filter(|made| String::from_utf8_lossy(&made.stdout).contains("util-linux"))?;
        let mut command = Command::new("script");
        command.args(["-q", "-f", "-c", line, "/dev/null"]).current_dir(self.dir.path());
        command
            .env_clear()
            .envs(self.settings.iter().cloned())
            .envs(std::env::vars().filter(|(name, _)| name == "PATH"));
        command.env("HEARTH", env!("CARGO_BIN_EXE_hearth")).env("SHELL", "/bin/sh");
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        Some(Terminal { child, shown: String::new() })
    }

    /// Starts a server and waits until it listens.
    pub(crate) fn start(&self) -> Server {
        self.start_with(&["serve"])
    }

    /// As [`Installation::start`], with other arguments.
    pub(crate) fn start_with(&self, arguments: &[&str]) -> Server {
        let mut child = self.command(arguments).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let (tell, told) = mpsc::channel();
        let log = std::thread::spawn(move || {
            let mut log = String::new();
            while lines.read_line(&mut log).unwrap() > 0 {
                let line = log.lines().next_back().unwrap();
                if let Some((_, url)) = line.split_once("listening on ") {
                    drop(tell.send(url.split('"').next().unwrap().to_owned()));
                }
            }
            log
        });
        let url = told.recv_timeout(PATIENCE).expect("the server starts");
        Server { child, url, log }
    }
}

impl Terminal {
    /// Waits until the terminal shows something new that ends like this.
    #[track_caller]
    pub(crate) fn read_until(&mut self, end: &str) {
        let out = self.child.stdout.as_mut().unwrap();
        let mut new = Vec::new();
        while !new.ends_with(end.as_bytes()) {
            let mut byte = [0];
            out.read_exact(&mut byte).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&new)));
            new.extend(byte);
        }
        self.shown.push_str(&String::from_utf8(new).unwrap());
    }

    pub(crate) fn type_in(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Everything that it showed until the line was done.
    pub(crate) fn end(mut self) -> String {
        let mut shown = std::mem::take(&mut self.shown);
        self.child.stdout.as_mut().unwrap().read_to_string(&mut shown).unwrap();
        assert!(self.child.wait().unwrap().success());
        shown
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Server {
    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Stops the server as a service manager does, and returns its whole log.
    pub(crate) fn stop(mut self) -> String {
        let told = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(told.success());
        let code = self.child.wait().unwrap().code();
        let log = std::mem::replace(&mut self.log, std::thread::spawn(String::new)).join().unwrap();
        assert_eq!(code, Some(0), "{log}");
        log
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Said {
    /// What a command said that was done.
    #[track_caller]
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.err);
        self.out
    }

    /// What a command said that was not done.
    #[track_caller]
    pub(crate) fn refused(self) -> String {
        assert_eq!((self.code, self.out.as_str()), (Some(1), ""), "{}", self.err);
        self.err
    }
}

/// The lines of a log, each of which has to be JSON.
#[track_caller]
pub(crate) fn json_lines(log: &str) -> Vec<Value> {
    let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    log.lines().map(read).collect()
}

/// A database server that answers whoever connects with an error and ends. Its address.
pub(crate) fn refusing_postgres(code: &'static str, message: &'static str) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut answer: Vec<u8> = Vec::new();
    for (field, text) in [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', code), (b'M', message)] {
        answer.push(field);
        answer.extend(text.as_bytes());
        answer.push(0);
    }
    answer.push(0);
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let (mut length, mut code) = ([0; 4], [0; 4]);
            let mut begin = |connection: &mut std::net::TcpStream| {
                connection.read_exact(&mut length).ok()?;
                connection.read_exact(&mut code).ok()?;
                let mut rest = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap() - 8];
                connection.read_exact(&mut rest).ok()?;
                Some(u32::from_be_bytes(code))
            };
            let mut asked = begin(&mut connection);
            if asked == Some(ASKS_FOR_TLS) {
                drop(connection.write_all(b"N"));
                asked = begin(&mut connection);
            }
            if asked.is_some() {
                let length = u32::try_from(answer.len() + 4).unwrap().to_be_bytes();
                drop(connection.write_all(&[b"E".as_slice(), &length, &answer].concat()));
            }
        }
    });
    address
}

/// The rights of a file or a folder.
pub(crate) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// With this code a client of PostgreSQL asks first whether the server speaks TLS.
const ASKS_FOR_TLS: u32 = 80_877_103;
