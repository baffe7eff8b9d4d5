//! A small client of WebSockets for load: a few bytes a socket, one read a
//! frame, and no copy of what comes.

use std::io;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::Target;

/// The longest frame that is taken: a state has about 700 bytes.
const FRAME_BYTES_MAX: usize = 64 * 1024;
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// What came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Frame<'a> {
    Text(&'a [u8]),
    Closed(u16),
}

/// One socket.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    input: Vec<u8>,
    /// How much of the input has been given out.
    used: usize,
}

impl Socket {
    /// Opens it.
    ///
    /// # Errors
    /// If it is refused: the status line and the body.
    pub(super) async fn open(target: &Target, path: &str, token: &str) -> io::Result<Self> {
        let mut stream = TcpStream::connect(target.addr()).await?;
        stream.set_nodelay(true)?;
        let key = BASE64_STANDARD.encode(uuid::Uuid::new_v4().as_bytes());
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\nauthorization: Bearer {token}\r\n\r\n",
            target.host()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut input = Vec::with_capacity(1024);
        let head = loop {
            if stream.read_buf(&mut input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(at) = input.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if input.len() > HEAD_BYTES_MAX {
                return Err(io::Error::other("a head of more than 16 KiB"));
            }
        };
        if !input.starts_with(b"HTTP/1.1 101") {
            let text = String::from_utf8_lossy(&input);
            let line = text.lines().next().unwrap_or_default();
            return Err(io::Error::other(line.to_owned()));
        }
        Ok(Self {
            stream,
            input,
            used: head,
        })
    }

    /// The next frame of text, or the end. Pings are answered on the way.
    ///
    /// # Errors
    /// If the connection fails, or what comes is no WebSocket.
    pub(super) async fn next(&mut self) -> io::Result<Frame<'_>> {
        self.input.drain(..self.used);
        self.used = 0;
        loop {
            let Some((opcode, from, upto)) =
                frame_in(self.input.get(self.used..).unwrap_or_default())?
            else {
                if self.stream.read_buf(&mut self.input).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                continue;
            };
            let (from, upto) = (self.used + from, self.used + upto);
            self.used = upto;
            let payload = self.input.get(from..upto).unwrap_or_default();
            match opcode {
                1 => return Ok(Frame::Text(self.input.get(from..upto).unwrap_or_default())),
                8 => {
                    let code = payload
                        .first_chunk()
                        .map_or(1005, |code| u16::from_be_bytes(*code));
                    return Ok(Frame::Closed(code));
                }
                9 => {
                    // A pong with the same bytes; a mask of zeros changes none.
                    let mut pong = vec![0x8a, 0x80 | (payload.len() as u8 & 0x7f), 0, 0, 0, 0];
                    pong.extend_from_slice(payload);
                    self.stream.write_all(&pong).await?;
                }
                _ => {}
            }
        }
    }
}

/// The first frame in `input`, if it is complete: its opcode, and where its
/// payload begins and ends.
fn frame_in(input: &[u8]) -> io::Result<Option<(u8, usize, usize)>> {
    let (Some(first), Some(second)) = (input.first(), input.get(1)) else {
        return Ok(None);
    };
    if first & 0x80 == 0 || second & 0x80 != 0 {
        return Err(io::Error::other("a frame in pieces, or masked"));
    }
    let (from, length) = match second & 0x7f {
        126 => match input.get(2..4).and_then(|bytes| bytes.first_chunk()) {
            Some(length) => (4, usize::from(u16::from_be_bytes(*length))),
            None => return Ok(None),
        },
        127 => return Err(io::Error::other("a frame of more than 64 KiB")),
        short => (2, usize::from(short)),
    };
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::other("a frame of more than 64 KiB"));
    }
    Ok((input.len() >= from + length).then_some((first & 0x0f, from, from + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_once_they_are_complete() {
        assert_eq!(frame_in(&[]).unwrap(), None);
        assert_eq!(frame_in(&[0x81, 2, b'a']).unwrap(), None);
        assert_eq!(
            frame_in(&[0x81, 2, b'a', b'b', 0x81]).unwrap(),
            Some((1, 2, 4))
        );
        let mut long = vec![0x81, 126, 1, 0];
        long.extend_from_slice(&[b'x'; 256]);
        assert_eq!(frame_in(&long).unwrap(), Some((1, 4, 260)));
        assert!(frame_in(&[0x01, 0]).is_err(), "not whole");
        assert!(frame_in(&[0x81, 0x80]).is_err(), "masked");
    }
}
