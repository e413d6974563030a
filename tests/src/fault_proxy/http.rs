//! As much of HTTP/1.1 as a proxy for one request per connection needs.

use std::io::{self, Read, Write};
use std::net::TcpStream;

/// A head above this is none of ours.
const MAX_HEAD: usize = 64 * 1024;

/// A request with the bytes that came with it.
pub(super) struct Request {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    /// Head, then what has been read of the body.
    bytes: Vec<u8>,
    head: usize,
}

impl Request {
    /// Reads up to the end of the head (and what came with it of the body).
    pub(super) fn read_head(client: &mut TcpStream) -> io::Result<Self> {
        let mut bytes = Vec::new();
        let mut piece = [0; 16 * 1024];
        let head = loop {
            if let Some(head) = head_length(&bytes) {
                break head;
            }
            let got = client.read(&mut piece)?;
            if got == 0 || bytes.len() > MAX_HEAD {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes.extend_from_slice(&piece[..got]);
        };
        let line = String::from_utf8_lossy(&bytes[..head]);
        let mut words = line.split_ascii_whitespace();
        let mut word = || words.next().unwrap_or_default().to_owned();
        let (method, target) = (word(), word());
        Ok(Self { method, target, bytes, head })
    }

    /// Reads the rest of the body.
    pub(super) fn read_body(mut self, client: &mut TcpStream) -> io::Result<Self> {
        if header(&self.bytes[..self.head], "expect").is_some() {
            client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let end = self.head + content_length(&self.bytes[..self.head]).unwrap_or(0);
        let begun = self.bytes.len();
        self.bytes.resize(end.max(begun), 0);
        client.read_exact(&mut self.bytes[begun..])?;
        Ok(self)
    }

    /// The request, asking the server to close the connection after its answer.
    pub(super) fn for_one_connection(&self) -> Vec<u8> {
        let line = self.bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        [&self.bytes[..line], b"connection: close\r\n", &self.bytes[line..]].concat()
    }
}

/// The length of a head with its empty line, once it is complete.
pub(super) fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// The length of the body as the head announces it.
pub(super) fn content_length(message: &[u8]) -> Option<usize> {
    header(message, "content-length")?.parse().ok()
}

fn header(message: &[u8], name: &str) -> Option<String> {
    let head = &message[..head_length(message)?];
    let head = String::from_utf8_lossy(head);
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

/// An error as S3 answers it.
pub(super) fn error_answer(status: u16, code: &str, head_only: bool) -> Vec<u8> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code>\
         <Message>made by the fault proxy</Message></Error>"
    );
    let body = if head_only { String::new() } else { body };
    format!(
        "HTTP/1.1 {status} Fault\r\ncontent-type: application/xml\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
