//! HTTP/2 as it is on the wire (<https://www.rfc-editor.org/rfc/rfc9113.html>), for clients that do with it what no
//! library does.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

pub(crate) const SETTINGS: u8 = 4;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const WINDOW_UPDATE: u8 = 8;
const INITIAL_WINDOW_SIZE: u16 = 4;
/// That neither headers nor a body follow.
const END: u8 = 0x5;
const END_STREAM: u8 = 0x1;

/// One connection.
pub(crate) struct Http2 {
    stream: TcpStream,
    next: u32,
}

/// What one side says.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    flags: u8,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The settings in a frame of them.
    pub(crate) fn settings(&self) -> Vec<(u16, u32)> {
        let setting = |setting: &[u8]| {
            let id = u16::from_be_bytes(setting[..2].try_into().unwrap());
            (id, u32::from_be_bytes(setting[2..].try_into().unwrap()))
        };
        self.payload.chunks(6).map(setting).collect()
    }

    /// Why a connection ends, in a frame that says so.
    pub(crate) fn reason(&self) -> u32 {
        u32::from_be_bytes(self.payload[4..8].try_into().unwrap())
    }
}

impl Http2 {
    /// Connects as a client that takes `window` bytes of each answer.
    pub(crate) async fn connect(url: &str, window: u32) -> Self {
        let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
        let setting = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &window.to_be_bytes()[..]].concat();
        stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &setting)].concat()).await.unwrap();
        Self { stream, next: 1 }
    }

    /// Asks for something, and for nothing more.
    pub(crate) async fn get(&mut self, path: &str, token: &str) {
        let request = self.request(path, token);
        self.stream.write_all(&request).await.unwrap();
    }

    /// Asks for the same so many times at once, and takes it back each time.
    pub(crate) async fn get_and_reset(&mut self, path: &str, times: usize) {
        let mut all = Vec::new();
        for _ in 0..times {
            let id = self.next;
            all.extend(self.request(path, "none"));
            all.extend(frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()));
        }
        // The server may hang up before all is written.
        drop(self.stream.write_all(&all).await);
    }

    /// The server's next frame. None at the end.
    pub(crate) async fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some(Frame { kind: head[3], flags: head[4], payload })
    }

    /// The server's next frame of one kind.
    pub(crate) async fn read_kind(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.read().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    /// The body of the only answer that is under way, read as it comes. None where the server breaks it off.
    pub(crate) async fn read_body(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let part = self.read_part().await?;
            body.extend(&part.payload);
            if part.flags & END_STREAM != 0 {
                return Some(body);
            }
            self.take_more(u32::try_from(part.payload.len()).unwrap()).await;
        }
    }

    /// The next part of it, which is not asked to go on.
    pub(crate) async fn read_part(&mut self) -> Option<Frame> {
        loop {
            let frame = self.read().await.expect("the connection ended before the answer");
            match frame.kind {
                DATA => return Some(frame),
                RST_STREAM => return None,
                _ => {}
            }
        }
    }

    /// Takes so many bytes more of the answer.
    pub(crate) async fn take_more(&mut self, bytes: u32) {
        let stream = self.next - 2;
        let more = bytes.to_be_bytes();
        let update = [frame(WINDOW_UPDATE, 0, 0, &more), frame(WINDOW_UPDATE, 0, stream, &more)].concat();
        self.stream.write_all(&update).await.unwrap();
    }

    /// A GET on a new stream, its headers as they are, by the numbers of HPACK's static table.
    fn request(&mut self, path: &str, token: &str) -> Vec<u8> {
        let (get, http) = ([0x82], [0x86]);
        let mut block = [&get[..], &http[..]].concat();
        block.extend(literal(&[0x04], path));
        block.extend(literal(&[0x01], "localhost"));
        block.extend(literal(&[0x0f, 0x08], &format!("Bearer {token}")));
        let request = frame(HEADERS, END, self.next, &block);
        self.next += 2;
        request
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header's value, not compressed.
fn literal(name: &[u8], value: &str) -> Vec<u8> {
    let length = match u8::try_from(value.len()).unwrap() {
        short @ 0..127 => vec![short],
        long => vec![127, long - 127],
    };
    [name, &length, value.as_bytes()].concat()
}
