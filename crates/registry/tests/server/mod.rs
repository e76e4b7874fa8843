//! A registry of our own, as small as can be: it serves what it was given over plain HTTP, asks for credentials, and breaks
//! off, stands still, lies and redirects where it is told to.

#![allow(
    dead_code,
    reason = "each of the two suites that have it uses its own part"
)]

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What it wants before it answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Open,
    Basic,
    Token,
}

/// What it does wrong, once.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection ends after this many bytes of the body.
    BreakAfter(usize),
    /// Nothing more comes after this many bytes of the body.
    StallAfter(usize),
    /// A status instead.
    Status(u16),
    /// Somewhere else.
    Redirect(String),
    /// Other bytes of the same length.
    Lie,
    /// All of it, also when a part was asked for.
    Whole,
}

#[derive(Default)]
struct State {
    content: BTreeMap<String, (String, Vec<u8>)>,
    faults: BTreeMap<String, VecDeque<Fault>>,
    requests: Vec<(String, BTreeMap<String, String>)>,
}

pub(crate) struct Server {
    pub(crate) host: String,
    access: Access,
    state: Arc<Mutex<State>>,
    end: Arc<AtomicBool>,
}

/// The token it hands out.
const TOKEN: &str = "a-secret-token";
/// `user:password` in base64.
const BASIC: &str = "Basic dXNlcjpwYXNzd29yZA==";

impl Server {
    pub(crate) fn start(access: Access) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server {
            host: listener.local_addr().unwrap().to_string(),
            access,
            state: Arc::default(),
            end: Arc::default(),
        };
        let (state, end, host) = (
            server.state.clone(),
            server.end.clone(),
            server.host.clone(),
        );
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                let (state, host, stream) = (state.clone(), host.clone(), stream.unwrap());
                // Whoever hung up needs no answer.
                std::thread::spawn(move || drop(answer(stream, &state, access, &host)));
            }
        });
        server
    }

    pub(crate) fn put(&self, path: &str, media_type: &str, bytes: &[u8]) {
        let entry = (media_type.to_owned(), bytes.to_vec());
        self.state
            .lock()
            .unwrap()
            .content
            .insert(path.to_owned(), entry);
    }

    pub(crate) fn fault(&self, path: &str, fault: Fault) {
        let mut state = self.state.lock().unwrap();
        state
            .faults
            .entry(path.to_owned())
            .or_default()
            .push_back(fault);
    }

    /// Takes back what was to go wrong at a path.
    pub(crate) fn calm(&self, path: &str) {
        self.state.lock().unwrap().faults.remove(path);
    }

    /// Paths and headers of what was asked so far.
    pub(crate) fn requests(&self) -> Vec<(String, BTreeMap<String, String>)> {
        self.state.lock().unwrap().requests.clone()
    }

    pub(crate) fn access(&self) -> Access {
        self.access
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(&self.host);
    }
}

fn answer(
    mut stream: TcpStream,
    state: &Mutex<State>,
    access: Access,
    host: &str,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or(Ok(String::new()))?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        match line.split_once(": ") {
            Some((name, value)) => {
                drop(headers.insert(name.to_ascii_lowercase(), value.to_owned()))
            }
            None => break,
        }
    }
    let authorization = headers.get("authorization").cloned().unwrap_or_default();
    let range = headers
        .get("range")
        .and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let (found, fault) = {
        let mut state = state.lock().unwrap();
        state.requests.push((path.clone(), headers));
        let fault = state.faults.get_mut(&path).and_then(VecDeque::pop_front);
        (state.content.get(&path).cloned(), fault)
    };
    let mut say = |head: &str, body: &[u8]| -> std::io::Result<()> {
        write!(stream, "HTTP/1.1 {head}\r\nconnection: close\r\n\r\n")?;
        stream.write_all(body)
    };
    if path.starts_with("/token") {
        if authorization != BASIC {
            return say("401 Unauthorized\r\ncontent-length: 0", b"");
        }
        let body = format!("{{\"token\":\"{TOKEN}\"}}");
        return say(
            &format!("200 OK\r\ncontent-length: {}", body.len()),
            body.as_bytes(),
        );
    }
    let wanted = match access {
        Access::Open => String::new(),
        Access::Basic => BASIC.to_owned(),
        Access::Token => format!("Bearer {TOKEN}"),
    };
    if !wanted.is_empty() && authorization != wanted {
        let challenge = match access {
            Access::Token => format!(
                "Bearer realm=\"http://{host}/token\",service=\"s\",scope=\"repository:a:pull\""
            ),
            _ => "Basic realm=\"r\"".to_owned(),
        };
        return say(
            &format!("401 Unauthorized\r\nwww-authenticate: {challenge}\r\ncontent-length: 0"),
            b"",
        );
    }
    match &fault {
        Some(Fault::Status(status)) => {
            return say(&format!("{status} Fault\r\ncontent-length: 0"), b"");
        }
        Some(Fault::Redirect(to)) => {
            return say(
                &format!("307 Moved\r\nlocation: {to}\r\ncontent-length: 0"),
                b"",
            );
        }
        _ => {}
    }
    let Some((media_type, mut bytes)) = found else {
        return say("404 Not Found\r\ncontent-length: 0", b"");
    };
    if fault == Some(Fault::Lie) {
        bytes.iter_mut().for_each(|byte| *byte ^= 1);
    }
    let (status, from) = match range {
        Some(from) if fault != Some(Fault::Whole) => ("206 Partial Content", from),
        _ => ("200 OK", 0usize),
    };
    let body = &bytes[from.min(bytes.len())..];
    let head = format!(
        "{status}\r\ncontent-type: {media_type}\r\ncontent-length: {}",
        body.len()
    );
    match fault {
        Some(Fault::BreakAfter(count)) => say(&head, &body[..count.min(body.len())]),
        Some(Fault::StallAfter(count)) => {
            say(&head, &body[..count.min(body.len())])?;
            std::thread::sleep(Duration::from_secs(3));
            Ok(())
        }
        _ => say(&head, body),
    }
}
