//! A visitor of a web site: asks over HTTP/1.1, a connection for each request, and keeps one cookie.
//!
//! Absent: everything else that browsers do, redirects above all.

use crate::patience::soon;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Every `Set-Cookie`.
    pub set_cookie: Vec<String>,
    /// Where to go instead.
    pub location: Option<String>,
    /// The body, as text.
    pub body: String,
}

/// One visitor.
#[derive(Clone, Debug, Default)]
pub struct Browser {
    /// Name and value.
    pub cookie: Option<String>,
}

impl Browser {
    /// Asks for a page, and keeps the cookie that comes back.
    ///
    /// # Panics
    /// As [`Browser::ask`].
    pub async fn get(&mut self, node: SocketAddr, path: &str) -> Answer {
        let answer = self.ask(node, path).await;
        self.keep(&answer);
        answer
    }

    /// Keeps the cookie of an answer, or forgets it, as browsers do.
    ///
    /// # Panics
    /// When the cookie has no settings.
    pub fn keep(&mut self, answer: &Answer) {
        for header in &answer.set_cookie {
            let (pair, settings) = header.split_once(';').expect("a cookie has settings");
            self.cookie = (!settings.contains("Max-Age=0")).then(|| pair.to_owned());
        }
    }

    /// Asks for a page, and keeps nothing.
    ///
    /// # Panics
    /// When there is no answer within [`PATIENCE`](crate::PATIENCE).
    pub async fn ask(&self, node: SocketAddr, path: &str) -> Answer {
        self.try_ask(node, path).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Sends a form, and keeps nothing.
    ///
    /// # Errors
    /// When the node ends before its answer does. Of kind `ConnectionRefused` when nobody listens: nothing was sent then.
    ///
    /// # Panics
    /// When it takes longer than [`PATIENCE`](crate::PATIENCE).
    pub async fn post(&self, node: SocketAddr, path: &str, form: &str) -> io::Result<Answer> {
        let (headers, length) = (self.headers(), form.len());
        let kind = "Content-Type: application/x-www-form-urlencoded";
        let request = format!("POST {path} HTTP/1.1\r\n{headers}{kind}\r\nContent-Length: {length}\r\n\r\n{form}");
        self.request(node, &request).await
    }

    /// As [`ask`](Self::ask), of a node that may end.
    ///
    /// # Errors
    /// As [`Browser::post`].
    ///
    /// # Panics
    /// As [`Browser::post`].
    pub async fn try_ask(&self, node: SocketAddr, path: &str) -> io::Result<Answer> {
        self.begin(node, path).await?.answer().await
    }

    fn headers(&self) -> String {
        let cookie = self.cookie.as_ref().map_or_else(String::new, |cookie| format!("Cookie: {cookie}\r\n"));
        format!("Host: localhost\r\nConnection: close\r\n{cookie}")
    }

    /// Sends a request for a page, without waiting for the answer.
    ///
    /// # Errors
    /// When nobody listens.
    ///
    /// # Panics
    /// As [`Browser::post`].
    pub async fn begin(&self, node: SocketAddr, path: &str) -> io::Result<Question> {
        Question::send(node, &format!("GET {path} HTTP/1.1\r\n{}\r\n", self.headers())).await
    }

    async fn request(&self, node: SocketAddr, request: &str) -> io::Result<Answer> {
        Question::send(node, request).await?.answer().await
    }
}

/// A request that is sent.
#[derive(Debug)]
pub struct Question {
    what: String,
    stream: TcpStream,
}

impl Question {
    async fn send(node: SocketAddr, request: &str) -> io::Result<Self> {
        let what = request.lines().next().unwrap_or_default().to_owned();
        let sent = async {
            let mut stream = TcpStream::connect(node).await?;
            stream.write_all(request.as_bytes()).await?;
            Ok::<_, io::Error>(stream)
        };
        let stream = soon(&what, sent).await?;
        Ok(Self { what, stream })
    }

    /// The answer.
    ///
    /// # Errors
    /// As [`Browser::post`].
    ///
    /// # Panics
    /// As [`Browser::post`].
    pub async fn answer(mut self) -> io::Result<Answer> {
        let mut text = String::new();
        soon(&self.what, self.stream.read_to_string(&mut text)).await?;
        read_answer(&text).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// `None` when the answer breaks off.
fn read_answer(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<_> = lines.filter_map(|line| line.split_once(": ")).collect();
    let of = |wanted: &str| {
        let found = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| (*value).to_owned()).collect::<Vec<_>>()
    };
    let length = of("content-length").pop();
    let is_whole = length.is_none_or(|length| length.parse() == Ok(body.len()));
    let (set_cookie, location) = (of("set-cookie"), of("location").pop());
    is_whole.then(|| Answer { status, set_cookie, location, body: body.to_owned() })
}
