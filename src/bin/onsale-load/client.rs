//! A small HTTP/1.1 client for load.
//!
//! It shares the processors with the server that it measures, so it does as
//! little as possible: one request at a time on a kept connection, no task and
//! no channel of its own, the answer's body borrowed from the read buffer. The
//! benches use this very file.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// The most headers that an answer may have.
const HEADERS_MAX: usize = 48;
/// The longest answer that is read, in bytes: the layout of the largest venue
/// is below it.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// A connection that was idle for so long is looked at before it is used: the
/// server may have closed it.
const IDLE_LOOK: Duration = Duration::from_millis(500);

/// Where requests go.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    addr: SocketAddr,
    host: Arc<str>,
}

impl Target {
    /// Of `http://HOST[:PORT]`; what follows the port is ignored.
    pub(crate) async fn of(url: &str) -> Result<Self, String> {
        let rest = url
            .strip_prefix("http://")
            .ok_or_else(|| format!("{url}: must begin with http:// (there is no TLS here)"))?;
        let host = rest.split('/').next().unwrap_or_default();
        let with_port = match host.rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_ok() => host.to_owned(),
            _ => format!("{host}:80"),
        };
        let addr = tokio::net::lookup_host(&with_port)
            .await
            .map_err(|error| format!("{url}: {error}"))?
            .next()
            .ok_or_else(|| format!("{url}: no address"))?;
        Ok(Self {
            addr,
            host: host.into(),
        })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }
}

/// What is sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'static str,
    /// With its query.
    pub(crate) path: &'a str,
    /// The access token.
    pub(crate) token: Option<&'a str>,
    pub(crate) idempotency_key: Option<&'a str>,
    /// Of a waiting room.
    pub(crate) queue_pass: Option<&'a str>,
    /// What the door of a waiting room asks for.
    pub(crate) proof_of_work: Option<&'a str>,
    /// JSON.
    pub(crate) body: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    pub(crate) fn get(path: &'a str) -> Self {
        Self {
            method: "GET",
            path,
            ..Self::default()
        }
    }

    pub(crate) fn post(path: &'a str, body: &'a [u8]) -> Self {
        Self {
            method: "POST",
            path,
            body: Some(body),
            ..Self::default()
        }
    }

    pub(crate) fn delete(path: &'a str) -> Self {
        Self {
            method: "DELETE",
            path,
            ..Self::default()
        }
    }

    pub(crate) fn by(self, token: &'a str) -> Self {
        Self {
            token: Some(token),
            ..self
        }
    }

    pub(crate) fn with_pass(self, pass: &'a str) -> Self {
        Self {
            queue_pass: Some(pass),
            ..self
        }
    }

    pub(crate) fn with_proof(self, proof: &'a str) -> Self {
        Self {
            proof_of_work: Some(proof),
            ..self
        }
    }

    pub(crate) fn keyed(self, key: &'a str) -> Self {
        Self {
            idempotency_key: Some(key),
            ..self
        }
    }
}

/// What came back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    /// In seconds.
    pub(crate) retry_after: Option<u32>,
    pub(crate) body: &'a [u8],
}

/// One kept connection.
#[derive(Debug)]
pub(crate) struct Connection {
    target: Target,
    stream: Option<TcpStream>,
    used_at: Instant,
    output: Vec<u8>,
    input: Vec<u8>,
}

/// The parts of an answer's head that matter here.
struct Head {
    bytes: usize,
    status: u16,
    retry_after: Option<u32>,
    close: bool,
    body: Body,
}

/// How the end of a body is told (RFC 9112 §6.3).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    Bytes(usize),
    Chunked,
    UntilClosed,
}

impl Connection {
    /// Connects with the first request.
    pub(crate) fn to(target: &Target) -> Self {
        Self {
            target: target.clone(),
            stream: None,
            used_at: Instant::now(),
            output: Vec::new(),
            input: Vec::new(),
        }
    }

    /// Sends `request` and reads the whole answer.
    ///
    /// # Errors
    /// If the connection fails or the answer is no HTTP; whether the request
    /// was carried out is then unknown. The next call connects anew. The same
    /// holds if this future is dropped before its end.
    pub(crate) async fn send(&mut self, request: &Request<'_>) -> io::Result<Answer<'_>> {
        // Taken out, so that an unfinished exchange never leaves a connection
        // behind that still owes an answer.
        let mut stream = match self.stream.take() {
            Some(stream) if !self.is_stale(&stream) => stream,
            _ => {
                let stream = TcpStream::connect(self.target.addr).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        self.write_request(request)?;
        stream.write_all(&self.output).await?;
        self.input.clear();
        let head = loop {
            if stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(head) = head_of(&self.input)? {
                break head;
            }
        };
        let body = self.read_body(&mut stream, &head).await?;
        if !head.close && head.body != Body::UntilClosed {
            self.stream = Some(stream);
            self.used_at = Instant::now();
        }
        Ok(Answer {
            status: head.status,
            retry_after: head.retry_after,
            body: self.input.get(body).unwrap_or_default(),
        })
    }

    fn is_stale(&self, stream: &TcpStream) -> bool {
        // Nothing is owed on an idle connection: whatever can be read, be it
        // the end, says that it can't be used.
        self.used_at.elapsed() > IDLE_LOOK
            && !matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    fn write_request(&mut self, request: &Request<'_>) -> io::Result<()> {
        let out = &mut self.output;
        out.clear();
        write!(
            out,
            "{} {} HTTP/1.1\r\nhost: {}\r\n",
            request.method, request.path, self.target.host
        )?;
        if let Some(token) = request.token {
            write!(out, "authorization: Bearer {token}\r\n")?;
        }
        if let Some(key) = request.idempotency_key {
            write!(out, "idempotency-key: {key}\r\n")?;
        }
        if let Some(pass) = request.queue_pass {
            write!(out, "queue-pass: {pass}\r\n")?;
        }
        if let Some(proof) = request.proof_of_work {
            write!(out, "proof-of-work: {proof}\r\n")?;
        }
        match request.body {
            Some(body) => {
                write!(
                    out,
                    "content-type: application/json\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                )?;
                out.extend_from_slice(body);
            }
            None => out.extend_from_slice(b"\r\n"),
        }
        Ok(())
    }

    /// Reads the rest of the answer; returns where its body is in the buffer.
    async fn read_body(
        &mut self,
        stream: &mut TcpStream,
        head: &Head,
    ) -> io::Result<std::ops::Range<usize>> {
        let input = &mut self.input;
        match head.body {
            Body::Bytes(length) => {
                let end = head.bytes + length;
                if end > ANSWER_BYTES_MAX {
                    return Err(io::Error::other("an answer of more than 64 MiB"));
                }
                input.reserve(end.saturating_sub(input.len()));
                while input.len() < end {
                    read_more(stream, input).await?;
                }
                Ok(head.bytes..end)
            }
            Body::Chunked => {
                let mut body = Vec::new();
                let mut at = head.bytes;
                loop {
                    let size = loop {
                        match httparse::parse_chunk_size(input.get(at..).unwrap_or_default()) {
                            Ok(httparse::Status::Complete((used, size))) => {
                                at += used;
                                break usize::try_from(size).unwrap_or(usize::MAX);
                            }
                            Ok(httparse::Status::Partial) => read_more(stream, input).await?,
                            Err(_) => return Err(io::Error::other("a broken chunk")),
                        }
                    };
                    if size > ANSWER_BYTES_MAX {
                        return Err(io::Error::other("a chunk of more than 64 MiB"));
                    }
                    // The chunk, and the line end after it; without trailers
                    // the same holds for the last one.
                    while input.len() < at + size + 2 {
                        read_more(stream, input).await?;
                    }
                    body.extend_from_slice(input.get(at..at + size).unwrap_or_default());
                    at += size + 2;
                    if size == 0 {
                        *input = body;
                        return Ok(0..input.len());
                    }
                }
            }
            Body::UntilClosed => {
                stream.read_to_end(input).await?;
                Ok(head.bytes..input.len())
            }
        }
    }
}

async fn read_more(stream: &mut TcpStream, input: &mut Vec<u8>) -> io::Result<()> {
    if input.len() > ANSWER_BYTES_MAX {
        return Err(io::Error::other("an answer of more than 64 MiB"));
    }
    match stream.read_buf(input).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// The head at the beginning of `input`, if it is complete.
fn head_of(input: &[u8]) -> io::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let bytes = match response.parse(input).map_err(io::Error::other)? {
        httparse::Status::Complete(bytes) => bytes,
        httparse::Status::Partial => return Ok(None),
    };
    let status = response.code.unwrap_or_default();
    let mut head = Head {
        bytes,
        status,
        retry_after: None,
        close: false,
        body: Body::UntilClosed,
    };
    for header in response.headers.iter() {
        let value = || std::str::from_utf8(header.value).unwrap_or_default().trim();
        if header.name.eq_ignore_ascii_case("content-length") {
            let length = value().parse().map_err(io::Error::other)?;
            head.body = Body::Bytes(length);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            head.body = Body::Chunked;
        } else if header.name.eq_ignore_ascii_case("retry-after") {
            head.retry_after = value().parse().ok();
        } else if header.name.eq_ignore_ascii_case("connection") {
            head.close = value().eq_ignore_ascii_case("close");
        }
    }
    if matches!(status, 100..=199 | 204 | 304) {
        head.body = Body::Bytes(0);
    }
    Ok(Some(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers each connection's requests with `answers`, cut
    /// into pieces of `piece` bytes.
    async fn answering(answers: &'static [&'static str], piece: usize) -> Target {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for answer in answers {
                let mut request = [0; 4096];
                assert!(stream.read(&mut request).await.unwrap() > 0);
                for part in answer.as_bytes().chunks(piece) {
                    stream.write_all(part).await.unwrap();
                    stream.flush().await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        });
        Target::of(&url).await.unwrap()
    }

    #[tokio::test]
    async fn answers_are_read_whole_however_they_are_cut_and_framed() {
        const ANSWERS: &[&str] = &[
            "HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
            "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        ];
        for piece in [1, 7, 4096] {
            let mut connection = Connection::to(&answering(ANSWERS, piece).await);
            for (status, body) in [(201, "hello"), (204, ""), (200, "hello"), (503, "")] {
                let answer = connection.send(&Request::get("/")).await.unwrap();
                assert_eq!(
                    (answer.status, answer.body),
                    (status, body.as_bytes()),
                    "{piece}"
                );
                assert_eq!(answer.retry_after, (status == 503).then_some(2));
            }
            assert!(
                connection.stream.is_none(),
                "the server said that it closes"
            );
        }
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_an_error() {
        const CUT: &[&str] = &["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"];
        let mut connection = Connection::to(&answering(CUT, 4096).await);
        let error = connection.send(&Request::get("/")).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(connection.stream.is_none());
    }
}
