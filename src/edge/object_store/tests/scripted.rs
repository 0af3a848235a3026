//! Servers that speak HTTP as badly as a script says.

use std::{future::pending, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::sleep,
};

use crate::ground::tasks::Tasks;

/// What is done with each connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Script {
    /// There is none.
    Refuse,
    /// The request is read, and nothing said.
    Silence,
    /// 503.
    Errors,
    /// The request is read, and the connection closed.
    HangUp,
    /// A tenth of the body comes, and the connection is closed.
    BreakOff,
    /// A tenth of the body comes, and no more.
    Stop,
    /// All of the body comes, byte by byte.
    Trickle,
    /// Whatever was asked for, the answer never ends.
    Endless,
}

/// Between two bytes: far less than a store is waited for.
const PAUSE: Duration = Duration::from_millis(15);
const HEAD: &str = "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 0-99/100\r\ncontent-length: 100\r\netag: \"x\"\r\n\
                    last-modified: Mon, 30 Nov 2026 10:00:00 GMT\r\n\r\n";
const TENTH: &[u8] = &[b'.'; 10];

/// Returns its URL.
pub(super) async fn serve(script: Script) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    if matches!(script, Script::Refuse) {
        return url;
    }
    let tasks = Tasks::new();
    let connections = tasks.clone();
    tasks.spawn("scripted server", async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            connections.spawn("scripted connection", async move { drop(play(script, stream).await) });
        }
    });
    url
}

async fn play(script: Script, mut stream: TcpStream) -> std::io::Result<()> {
    read_head(&mut stream).await?;
    match script {
        Script::Refuse | Script::HangUp => {}
        Script::Silence => pending().await,
        Script::Errors => {
            let answer = "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 4\r\n\r\nbusy";
            stream.write_all(answer.as_bytes()).await?;
        }
        Script::BreakOff => {
            stream.write_all(HEAD.as_bytes()).await?;
            stream.write_all(TENTH).await?;
        }
        Script::Stop => {
            stream.write_all(HEAD.as_bytes()).await?;
            stream.write_all(TENTH).await?;
            pending::<()>().await;
        }
        Script::Trickle => {
            stream.write_all(HEAD.as_bytes()).await?;
            for _ in 0..100 {
                stream.write_all(b".").await?;
                sleep(PAUSE).await;
            }
        }
        Script::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await?;
            loop {
                stream.write_all(b" ").await?;
                sleep(PAUSE).await;
            }
        }
    }
    Ok(())
}

async fn read_head(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(())
}
