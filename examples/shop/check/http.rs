//! As much of HTTP/1.1 as the check needs: requests on one connection that is kept, and one kind of slow request.
//!
//! Absent: everything else, chunked bodies and redirects above all.

use crate::request::COOKIE_NAME;
use std::io::{Error, ErrorKind, Result};
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const HEAD_BYTES_MAX: u64 = 16 << 10;
const BODY_BYTES_MAX: usize = 1 << 20;

/// A connection to one node.
pub(crate) struct Connection {
    port: u16,
    stream: BufReader<TcpStream>,
    /// The node said that it closes the connection: the next request opens another one.
    closing: bool,
}

/// A node's answer.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The session that it gives the client.
    pub(crate) cookie: Option<String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// What it says to a person: the first sentence of the page, or the status when there is none.
    pub(crate) fn said(&self) -> String {
        let page = String::from_utf8_lossy(&self.body);
        let sentence = page.split_once("<p>").and_then(|(_, rest)| rest.split_once("</p>"));
        sentence.map_or_else(|| format!("status {}", self.status), |(sentence, _)| sentence.to_owned())
    }
}

impl Connection {
    pub(crate) async fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { port, stream: BufReader::new(stream), closing: false })
    }

    pub(crate) async fn get(&mut self, path: &str, session: &str) -> Result<Answer> {
        self.send(&format!("GET {path} HTTP/1.1\r\n{}\r\n", self.headers(session))).await?;
        self.answer().await
    }

    pub(crate) async fn post(&mut self, path: &str, session: &str, form: &str) -> Result<Answer> {
        let length = form.len();
        let headers = self.headers(session);
        self.send(&format!("POST {path} HTTP/1.1\r\n{headers}content-length: {length}\r\n\r\n{form}")).await?;
        self.answer().await
    }

    /// Sends the head of a request, and returns once the node waits for its body: its handler has begun then. `Err`
    /// inside is an answer that did not want the body.
    pub(crate) async fn begin(
        &mut self,
        path: &str,
        session: &str,
        length: usize,
    ) -> Result<std::result::Result<(), Answer>> {
        let headers = self.headers(session);
        let head = format!("POST {path} HTTP/1.1\r\n{headers}expect: 100-continue\r\ncontent-length: {length}\r\n\r\n");
        self.send(&head).await?;
        let answer = self.answer().await?;
        Ok(if answer.status == 100 { Ok(()) } else { Err(answer) })
    }

    /// Sends the body of the request that was begun.
    pub(crate) async fn finish(&mut self, form: &str) -> Result<Answer> {
        self.stream.write_all(form.as_bytes()).await?;
        self.answer().await
    }

    fn headers(&self, session: &str) -> String {
        let port = self.port;
        format!(
            "host: 127.0.0.1:{port}\r\ncookie: {COOKIE_NAME}={session}\r\n\
             content-type: application/x-www-form-urlencoded\r\n"
        )
    }

    async fn send(&mut self, request: &str) -> Result<()> {
        if self.closing {
            *self = Self::open(self.port).await?;
        }
        self.stream.write_all(request.as_bytes()).await
    }

    async fn answer(&mut self) -> Result<Answer> {
        let answer = timeout(ANSWER_TIMEOUT, self.read_answer()).await;
        answer.map_err(|_elapsed| Error::new(ErrorKind::TimedOut, format!("no answer within {ANSWER_TIMEOUT:?}")))?
    }

    async fn read_answer(&mut self) -> Result<Answer> {
        let bad = |what: &str| Error::new(ErrorKind::InvalidData, format!("a bad answer: {what}"));
        let mut head = (&mut self.stream).take(HEAD_BYTES_MAX);
        let mut line = String::new();
        head.read_line(&mut line).await?;
        let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
        let mut answer = Answer { status: status.ok_or_else(|| bad(&format!("{line:?}")))?, ..Answer::default() };
        let mut length = 0;
        loop {
            line.clear();
            head.read_line(&mut line).await?;
            if line == "\r\n" {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| bad("its head is too long or breaks off"))?;
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().map_err(|_not_a_number| bad("its length"))?,
                "transfer-encoding" => return Err(bad("its body comes in chunks")),
                "connection" => self.closing = value.eq_ignore_ascii_case("close"),
                "set-cookie" => answer.cookie = cookie(value),
                _ => {}
            }
        }
        if length > BODY_BYTES_MAX {
            return Err(bad("it is too long"));
        }
        answer.body.resize(length, 0);
        self.stream.read_exact(&mut answer.body).await?;
        Ok(answer)
    }
}

/// The session in a `Set-Cookie` header.
fn cookie(header: &str) -> Option<String> {
    let (pair, _settings) = header.split_once(';')?;
    let (name, value) = pair.split_once('=')?;
    (name == COOKIE_NAME && !value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// What a client makes of an answer, word for word.
    async fn answer_to(text: &'static str) -> Result<Answer> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let mut connection = Connection::open(listener.local_addr()?.port()).await?;
        let (mut peer, _) = listener.accept().await?;
        peer.write_all(text.as_bytes()).await?;
        drop(peer);
        connection.answer().await
    }

    #[tokio::test]
    async fn answers_are_read_to_their_end() {
        let answer = answer_to(
            "HTTP/1.1 303 See Other\r\nSet-Cookie: kiln-shop=0a; HttpOnly\r\nContent-Length: 5\r\n\r\nhello, and more",
        );
        let answer = answer.await.unwrap();
        assert_eq!((answer.status, answer.cookie.as_deref(), &*answer.body), (303, Some("0a"), &b"hello"[..]));
        assert_eq!(answer_to("HTTP/1.1 100 Continue\r\n\r\n").await.unwrap().status, 100);
    }

    #[tokio::test]
    async fn bad_answers_are_errors() {
        for bad in [
            "",
            "SSH-2.0\r\n",
            "HTTP/1.1 2",
            "HTTP/1.1 200 OK\r\nno-colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        ] {
            assert!(answer_to(bad).await.is_err(), "{bad}");
        }
    }
}
