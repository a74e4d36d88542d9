//! A mail server on the loopback that says what its script says, and notes what it is told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// The answer that is none: the connection ends.
pub const HANG_UP: &str = "";

/// For the answer to the message itself, after the final dot.
pub const MESSAGE: &str = "the message";

/// For the greeting of a connection.
pub const GREETING: &str = "the greeting";

#[derive(Default)]
struct State {
    answers: HashMap<&'static str, &'static str>,
    commands: Vec<String>,
    messages: Vec<String>,
    connections: usize,
}

#[derive(Clone)]
pub struct Server {
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            url: format!("smtp://{}", listener.local_addr().unwrap()),
            state: Arc::default(),
        };
        let state = Arc::clone(&server.state);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                state.lock().unwrap().connections += 1;
                tokio::spawn(converse(socket, Arc::clone(&state)));
            }
        });
        server
    }

    /// What to say to this command from now on, in place of consent.
    pub fn say(&self, to: &'static str, answer: &'static str) {
        self.state.lock().unwrap().answers.insert(to, answer);
    }

    pub fn consent_again(&self) {
        self.state.lock().unwrap().answers.clear();
    }

    pub fn commands(&self) -> Vec<String> {
        self.state.lock().unwrap().commands.clone()
    }

    /// The messages that were taken, as they came, without the dots put before lines.
    pub fn messages(&self) -> Vec<String> {
        self.state.lock().unwrap().messages.clone()
    }

    pub fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }
}

async fn converse(socket: TcpStream, state: Arc<Mutex<State>>) {
    let mut socket = BufReader::new(socket);
    let answer = |to: &str, consent: &'static str| {
        let state = state.lock().unwrap();
        state.answers.get(to).copied().unwrap_or(consent)
    };
    if !reply(&mut socket, answer(GREETING, "220 mx.example")).await {
        return;
    }
    let mut line = String::new();
    loop {
        line.clear();
        match socket.read_line(&mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let command = line.trim_end().to_owned();
        state.lock().unwrap().commands.push(command.clone());
        let verb = command.split([' ', ':']).next().unwrap_or_default();
        let consent = match verb {
            "EHLO" => "250-mx.example\r\n250-8BITMIME\r\n250 AUTH PLAIN LOGIN",
            "AUTH" => "235 2.7.0 welcome",
            "DATA" => "354 go on",
            "QUIT" => "221 bye",
            _ => "250 2.0.0 ok",
        };
        let said = answer(verb, consent);
        if !reply(&mut socket, said).await || verb == "QUIT" {
            return;
        }
        if verb == "DATA" && said.starts_with("354") {
            let mut message = String::new();
            loop {
                line.clear();
                if !matches!(socket.read_line(&mut line).await, Ok(count) if count > 0) {
                    return;
                }
                if line == ".\r\n" {
                    break;
                }
                message.push_str(line.strip_prefix('.').unwrap_or(&line));
            }
            let said = answer(MESSAGE, "250 2.0.0 queued");
            if said.starts_with('2') {
                state.lock().unwrap().messages.push(message);
            }
            if !reply(&mut socket, said).await {
                return;
            }
        }
    }
}

/// Whether the connection goes on.
async fn reply(socket: &mut BufReader<TcpStream>, answer: &str) -> bool {
    if answer == HANG_UP {
        return false;
    }
    let line = format!("{answer}\r\n");
    socket.get_mut().write_all(line.as_bytes()).await.is_ok()
}
