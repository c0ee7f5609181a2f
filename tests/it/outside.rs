//! The other side of an `http` sink: it answers as it is told to, and remembers what it took.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    /// Nothing: the request waits until it says something else.
    Nothing,
    Yes,
    /// 400 to everything.
    No,
    /// 400 to bodies that contain `bad`, 204 to the others.
    NoToBad,
}

#[derive(Debug)]
struct Shared {
    says: Mutex<Says>,
    changed: Condvar,
    /// How often each idempotency key was accepted.
    taken: Mutex<BTreeMap<String, u64>>,
    refused: Mutex<u64>,
}

#[derive(Debug)]
pub struct Outside {
    pub url: String,
    shared: Arc<Shared>,
}

impl Outside {
    pub fn start(says: Says) -> Outside {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/events", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            says: Mutex::new(says),
            changed: Condvar::new(),
            taken: Mutex::default(),
            refused: Mutex::default(),
        });
        let serving = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = serving.clone();
                // A client that goes away ends its connection's thread with an error.
                thread::spawn(move || _ = serve(stream, &shared));
            }
        });
        Outside { url, shared }
    }

    pub fn now(&self, says: Says) {
        *self.shared.says.lock().unwrap() = says;
        self.shared.changed.notify_all();
    }

    /// Different events that were accepted.
    pub fn taken(&self) -> u64 {
        self.keys().len() as u64
    }

    pub fn keys(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.shared.taken.lock().unwrap()
    }

    pub fn refused(&self) -> u64 {
        *self.shared.refused.lock().unwrap()
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let (mut length, mut key) = (0, String::new());
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(": ") {
                match name.to_ascii_lowercase().as_str() {
                    "content-length" => length = value.parse().unwrap(),
                    "idempotency-key" => key = value.to_string(),
                    _ => {}
                }
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let says =
            *shared.changed.wait_while(shared.says.lock().unwrap(), |says| *says == Says::Nothing).unwrap();
        let bad = || body.windows(3).any(|part| part == b"bad");
        let yes = match says {
            Says::Nothing | Says::Yes => true,
            Says::No => false,
            Says::NoToBad => !bad(),
        };
        if yes {
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
            *shared.taken.lock().unwrap().entry(key).or_insert(0) += 1;
        } else {
            *shared.refused.lock().unwrap() += 1;
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno")?;
        }
    }
}
