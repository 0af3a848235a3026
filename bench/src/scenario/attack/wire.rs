//! Connections that no library makes: who sends a byte now and then, and who reads nothing of what they asked for.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::deed::Came;
use crate::connection::Target;

/// Between two bytes of a slow client.
const DAWDLE: Duration = Duration::from_secs(1);
/// Requests that are sent without reading an answer.
const PIPELINED: usize = 50;
/// Streams that are asked for on one HTTP/2 connection.
const STREAMS: u32 = 100;

/// Asks for everything and reads nothing, until the server hangs up.
pub(super) async fn read_nothing(
    target: &Target,
    source: Option<Ipv4Addr>,
    authorization: Option<&str>,
) -> Result<Came> {
    let (mut stream, host) = target.dial(source).await?;
    let authorization = authorization.unwrap_or_default();
    let request = format!(
        "GET /_matrix/client/v3/sync?full_state=true&timeout=0 HTTP/1.1\r\nhost: {host}\r\nauthorization: {authorization}\r\n\r\n"
    );
    stream.write_all(request.repeat(PIPELINED).as_bytes()).await?;
    hold(&stream, request.as_bytes()).await
}

/// Many requests on one HTTP/2 connection whose answers have no room to go anywhere: a window of nothing.
pub(super) async fn read_no_stream(
    target: &Target,
    source: Option<Ipv4Addr>,
    authorization: Option<&str>,
    path: &str,
) -> Result<Came> {
    // INITIAL_WINDOW_SIZE is 0.
    const SETTINGS: [u8; 6] = [0, 4, 0, 0, 0, 0];
    let (mut stream, host) = target.dial(source).await?;
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    frame(&mut sent, 4, 0, 0, &SETTINGS);
    let mut head = Vec::new();
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", &host)];
    let authorization = authorization.map(|authorization| ("authorization", authorization));
    for (name, value) in fields.into_iter().chain(authorization) {
        field(&mut head, name, value)?;
    }
    for nth in 0..STREAMS {
        // END_STREAM and END_HEADERS
        frame(&mut sent, 1, 5, 2 * nth + 1, &head);
    }
    stream.write_all(&sent).await?;
    let mut ping = Vec::new();
    frame(&mut ping, 6, 0, 0, &[0; 8]);
    hold(&stream, &ping).await
}

/// A head or a body that comes a byte a second.
pub(super) async fn dawdle(
    target: &Target,
    source: Option<Ipv4Addr>,
    authorization: Option<&str>,
    body: bool,
) -> Result<Came> {
    let (mut stream, host) = target.dial(source).await?;
    let mut head = format!("POST /_matrix/client/v3/login HTTP/1.1\r\nhost: {host}\r\n");
    if let Some(authorization) = authorization {
        head = format!(
            "POST /_matrix/client/v3/createRoom HTTP/1.1\r\nhost: {host}\r\nauthorization: {authorization}\r\n"
        );
    }
    head += if body { "content-length: 200000\r\n\r\n" } else { "x-slow: " };
    stream.write_all(head.as_bytes()).await?;
    let (mut reading, mut writing) = stream.split();
    let write = async {
        while writing.write_all(b"x").await.is_ok() {
            tokio::time::sleep(DAWDLE).await;
        }
    };
    let mut answer = [0; 64];
    tokio::select! {
        () = write => bail!("hung up on"),
        heard = reading.read(&mut answer) => if heard? == 0 { bail!("hung up on") } else { Ok(Came::Refused) },
    }
}

/// Keeps a connection for as long as the server does, and reads nothing. `probe` shows whether it is still there: on a
/// connection that the other side has closed, the second one fails.
async fn hold(stream: &TcpStream, probe: &[u8]) -> Result<Came> {
    loop {
        tokio::time::sleep(DAWDLE).await;
        match stream.try_write(probe) {
            Ok(_) => {}
            // Nobody reads on the other side either.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("hung up on"),
        }
    }
}

fn frame(sent: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    sent.extend(length.into_iter().skip(1));
    sent.extend([kind, flags]);
    sent.extend(stream.to_be_bytes());
    sent.extend(payload);
}

/// A literal field without indexing and without Huffman's code: both lengths in seven bits.
fn field(head: &mut Vec<u8>, name: &str, value: &str) -> Result<()> {
    head.push(0);
    for text in [name, value] {
        match u8::try_from(text.len()) {
            Ok(length) if length < 127 => head.push(length),
            _ => bail!("{name} is too long"),
        }
        head.extend(text.bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_fields_are_written_as_http2_has_them() {
        let (mut sent, mut head) = (Vec::new(), Vec::new());
        field(&mut head, ":path", "/a").unwrap();
        assert_eq!(head, b"\0\x05:path\x02/a");
        frame(&mut sent, 1, 5, 3, &head);
        assert_eq!(&sent[..9], [0, 0, 10, 1, 5, 0, 0, 0, 3]);
        assert!(field(&mut head, "a", &"x".repeat(127)).is_err());
    }
}
