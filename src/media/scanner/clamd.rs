//! clamd looks at a file that is sent to it.
//!
//! `INSTREAM` of <https://docs.clamav.net/manual/Usage/Scanning.html#clamd>: the command, then parts, each after its length
//! in four bytes, then a length of 0. The answer is `stream: OK`, `stream: NAME FOUND` or something that ends with `ERROR`.

use std::{
    io,
    path::{Path, PathBuf},
    pin::pin,
};

use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split},
    net::{TcpStream, UnixStream},
};

use super::verdict::Verdict;

/// Commands and answers that begin with `z` end with a zero byte.
const COMMAND: &[u8] = b"zINSTREAM\0";
/// What is sent at once, in bytes.
const PART: usize = 128 * 1024;
/// Of an answer, in bytes. It holds little more than a name.
const MAX_ANSWER: u64 = 4 * 1024;

/// Where clamd listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ClamdAddress {
    /// A host and a port.
    Tcp(String),
    Unix(PathBuf),
}

impl ClamdAddress {
    /// `IP:PORT` or `unix:/path`.
    pub(super) fn of(address: &str) -> Self {
        match address.strip_prefix("unix:") {
            Some(path) => Self::Unix(PathBuf::from(path)),
            None => Self::Tcp(address.to_owned()),
        }
    }
}

pub(super) async fn look(address: &ClamdAddress, file: &Path) -> io::Result<Verdict> {
    let mut file = File::open(file).await?;
    match address {
        ClamdAddress::Tcp(address) => stream(TcpStream::connect(address).await?, &mut file).await,
        ClamdAddress::Unix(path) => stream(UnixStream::connect(path).await?, &mut file).await,
    }
}

async fn stream(connection: impl AsyncRead + AsyncWrite, file: &mut File) -> io::Result<Verdict> {
    let (answers, parts) = split(connection);
    let mut answer = pin!(read_answer(answers));
    // It answers before the end, and reads no further, where something is too long for it.
    tokio::select! {
        answer = &mut answer => return answer.map(|answer| verdict(&answer)),
        sent = send(parts, file) => if let Err(error) = sent {
            tracing::debug!(%error, "clamd has not taken all of a file");
        }
    }
    answer.await.map(|answer| verdict(&answer))
}

async fn send(mut connection: impl AsyncWrite + Unpin, file: &mut File) -> io::Result<()> {
    connection.write_all(COMMAND).await?;
    let mut part = vec![0; PART];
    loop {
        let length = file.read(&mut part).await?;
        let Some(read) = part.get(..length).filter(|read| !read.is_empty()) else { break };
        let length = u32::try_from(length).map_err(io::Error::other)?;
        connection.write_all(&length.to_be_bytes()).await?;
        connection.write_all(read).await?;
    }
    connection.write_all(&0_u32.to_be_bytes()).await?;
    connection.flush().await
}

/// Up to its end, which is a zero byte or that of the connection.
async fn read_answer(connection: impl AsyncRead + Unpin) -> io::Result<String> {
    let (mut answer, mut connection) = (Vec::<u8>::new(), connection.take(MAX_ANSWER));
    loop {
        let read = connection.read_buf(&mut answer).await?;
        if let Some(end) = answer.iter().position(|byte| *byte == 0) {
            answer.truncate(end);
        } else if read > 0 {
            continue;
        }
        return Ok(String::from_utf8_lossy(&answer).trim().to_owned());
    }
}

fn verdict(answer: &str) -> Verdict {
    let what = answer.strip_prefix("stream: ").unwrap_or(answer);
    match (what, what.strip_suffix(" FOUND")) {
        ("OK", _) => Verdict::Clean,
        (_, Some(name)) => Verdict::Infected(name.to_owned()),
        ("", None) => Verdict::Unknown("clamd has ended the connection without an answer".to_owned()),
        (other, None) => Verdict::Unknown(format!("clamd says: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join;
    use tokio::net::{TcpListener, UnixListener};

    use super::*;

    async fn read_command(connection: &mut (impl AsyncRead + Unpin)) {
        let mut command = vec![0; COMMAND.len()];
        connection.read_exact(&mut command).await.unwrap();
        assert_eq!(command, COMMAND);
    }

    /// Takes one file in, and answers.
    async fn serve(mut connection: impl AsyncRead + AsyncWrite + Unpin, answer: &[u8]) -> Vec<u8> {
        read_command(&mut connection).await;
        let mut file = Vec::new();
        loop {
            let length = usize::try_from(connection.read_u32().await.unwrap()).unwrap();
            if length == 0 {
                break;
            }
            let start = file.len();
            file.resize(start + length, 0);
            connection.read_exact(&mut file[start..]).await.unwrap();
        }
        connection.write_all(answer).await.unwrap();
        file
    }

    #[tokio::test]
    async fn clamd_gets_all_of_a_file_by_either_way_and_is_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let unix = UnixListener::bind(folder.path().join("clamd")).unwrap();
        let by_tcp = ClamdAddress::of(&tcp.local_addr().unwrap().to_string());
        let by_unix = ClamdAddress::of(&format!("unix:{}", folder.path().join("clamd").display()));
        let infected = Verdict::Infected("Eicar-Test-Signature".to_owned());
        let answers: [(&[u8], Option<Verdict>); 5] = [
            (b"stream: OK\0", Some(Verdict::Clean)),
            (b"stream: OK\n", Some(Verdict::Clean)),
            (b"stream: Eicar-Test-Signature FOUND\0", Some(infected)),
            (b"INSTREAM size limit exceeded. ERROR\0", None),
            (b"", None),
        ];
        for (answer, wanted) in answers {
            for length in [0, 5, PART + 3] {
                let bytes = vec![7; length];
                std::fs::write(&path, &bytes).unwrap();
                let served = async { serve(tcp.accept().await.unwrap().0, answer).await };
                let (verdict, got) = join(look(&by_tcp, &path), served).await;
                let verdict = verdict.unwrap();
                assert!(got == bytes, "{length}");
                match &wanted {
                    Some(wanted) => assert_eq!(&verdict, wanted),
                    None => assert!(matches!(verdict, Verdict::Unknown(_)), "{verdict:?}"),
                }
                let served = async { serve(unix.accept().await.unwrap().0, answer).await };
                let (again, got) = join(look(&by_unix, &path), served).await;
                assert!(again.unwrap() == verdict && got == bytes);
            }
        }
    }

    #[tokio::test]
    async fn an_early_answer_is_heard_although_not_all_was_sent() {
        let folder = tempfile::tempdir().unwrap();
        let (path, socket) = (folder.path().join("file"), folder.path().join("clamd"));
        // More than what lies in between holds.
        std::fs::write(&path, vec![7; 8 * 1024 * 1024]).unwrap();
        let unix = UnixListener::bind(&socket).unwrap();
        let looking = async {
            let verdict = look(&ClamdAddress::Unix(socket.clone()), &path).await.unwrap();
            assert_eq!(verdict, Verdict::Unknown("clamd says: INSTREAM size limit exceeded. ERROR".to_owned()));
        };
        let serving = async {
            let (mut connection, _) = unix.accept().await.unwrap();
            read_command(&mut connection).await;
            connection.write_all(b"INSTREAM size limit exceeded. ERROR\0").await.unwrap();
            // It stays open, and nobody reads.
            connection
        };
        let ((), connection) = join(looking, serving).await;
        drop(connection);
    }

    #[tokio::test]
    async fn nobody_there_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "bytes").unwrap();
        assert!(look(&ClamdAddress::Unix(folder.path().join("nothing")), &path).await.is_err());
        assert!(look(&ClamdAddress::Unix(path.clone()), &path).await.is_err());
    }
}
