//! What guests get from WASI: enough for their languages' runtimes to start, and nothing behind it.
//!
//! Files: none are open. Environment and arguments: empty. Sockets and name look-up: refused.
//! Standard input: at its end; output: dropped, but for the last words on standard error. Clocks
//! show the time of the call and stand still; a sleep is over at once. Randomness is the call's.
//!
//! Everything that may wait is linked as a future: a call may run on a thread that drives others, and the
//! blocking kind would start a runtime within that one.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime::Result;
use wasmtime::component::{HasData, HasSelf, Linker, Resource, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream, WasiCli, WasiCliView as _};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView as _};
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};
use wasmtime_wasi::p2::bindings::{cli, filesystem, sockets};
use wasmtime_wasi::p2::{DynPollable, OutputStream, Pollable, StreamResult, subscribe};
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsView as _};
use wasmtime_wasi::{WasiCtx, WasiView as _, async_trait};
use wasmtime_wasi_io::bindings::wasi::io;

use super::guest::{Guest, cut};

/// Bytes of standard error that are kept.
const WORDS_BYTES_MAX: usize = 400;

pub(super) fn add_to_linker(l: &mut Linker<Guest>) -> Result<()> {
    wall_clock::add_to_linker::<Guest, HasSelf<Guest>>(l, |guest| guest)?;
    monotonic_clock::add_to_linker::<Guest, HasSelf<Guest>>(l, |guest| guest)?;
    random::add_to_linker::<Guest, HasSelf<Guest>>(l, |guest| guest)?;
    insecure::add_to_linker::<Guest, HasSelf<Guest>>(l, |guest| guest)?;
    insecure_seed::add_to_linker::<Guest, HasSelf<Guest>>(l, |guest| guest)?;

    io::error::add_to_linker::<Guest, HasTable>(l, Guest::table)?;
    io::poll::add_to_linker::<Guest, HasTable>(l, Guest::table)?;
    io::streams::add_to_linker::<Guest, HasTable>(l, Guest::table)?;

    cli::exit::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::environment::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::stdin::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::stdout::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::stderr::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_input::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_output::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_stdin::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_stdout::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_stderr::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;

    filesystem::preopens::add_to_linker::<Guest, WasiFilesystem>(l, Guest::filesystem)?;
    filesystem::types::add_to_linker::<Guest, WasiFilesystem>(l, Guest::filesystem)?;

    let network = sockets::network::LinkOptions::default();
    sockets::network::add_to_linker::<Guest, WasiSockets>(l, &network, Guest::sockets)?;
    sockets::instance_network::add_to_linker::<Guest, WasiSockets>(l, Guest::sockets)?;
    sockets::tcp_create_socket::add_to_linker::<Guest, WasiSockets>(l, Guest::sockets)?;
    sockets::ip_name_lookup::add_to_linker::<Guest, WasiSockets>(l, Guest::sockets)?;
    sockets::tcp::add_to_linker::<Guest, WasiSockets>(l, Guest::sockets)?;
    sockets::udp::add_to_linker::<Guest, WasiSockets>(l, Guest::sockets)?;
    sockets::udp_create_socket::add_to_linker::<Guest, WasiSockets>(l, Guest::sockets)
}

/// A context that holds nothing and allows nothing.
pub(super) fn nothing(words: &LastWords) -> WasiCtx {
    WasiCtx::builder()
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .stderr(words.clone())
        .build()
}

struct HasTable;

impl HasData for HasTable {
    type Data<'a> = &'a mut ResourceTable;
}

impl wall_clock::Host for Guest {
    fn now(&mut self) -> Result<wall_clock::Datetime> {
        let now = self.take_now()?.0;
        Ok(wall_clock::Datetime { seconds: now / 1000, nanoseconds: (now % 1000) as u32 * 1_000_000 })
    }

    fn resolution(&mut self) -> Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime { seconds: 0, nanoseconds: 1_000_000 })
    }
}

impl monotonic_clock::Host for Guest {
    fn now(&mut self) -> Result<u64> {
        Ok(self.take_now()?.0.saturating_mul(1_000_000))
    }

    fn resolution(&mut self) -> Result<u64> {
        Ok(1_000_000)
    }

    fn subscribe_instant(&mut self, _when: u64) -> Result<Resource<DynPollable>> {
        self.over_at_once()
    }

    fn subscribe_duration(&mut self, _duration: u64) -> Result<Resource<DynPollable>> {
        self.over_at_once()
    }
}

impl Guest {
    fn over_at_once(&mut self) -> Result<Resource<DynPollable>> {
        let over = self.ctx().table.push(Over)?;
        subscribe(self.ctx().table, over)
    }
}

impl random::Host for Guest {
    fn get_random_bytes(&mut self, length: u64) -> Result<Vec<u8>> {
        self.take_random_bytes(length)
    }

    fn get_random_u64(&mut self) -> Result<u64> {
        self.take_random()
    }
}

impl insecure::Host for Guest {
    fn get_insecure_random_bytes(&mut self, length: u64) -> Result<Vec<u8>> {
        self.take_random_bytes(length)
    }

    fn get_insecure_random_u64(&mut self) -> Result<u64> {
        self.take_random()
    }
}

impl insecure_seed::Host for Guest {
    fn insecure_seed(&mut self) -> Result<(u64, u64)> {
        Ok((self.take_random()?, self.take_random()?))
    }
}

/// A wait that is over before it begins.
struct Over;

#[async_trait]
impl Pollable for Over {
    async fn ready(&mut self) {}
}

/// The beginning of what a guest writes to its standard error: a panic's message, mostly.
#[derive(Debug, Clone, Default)]
pub(super) struct LastWords(Arc<Mutex<Vec<u8>>>);

impl LastWords {
    /// `: …` on one line, or nothing.
    pub(super) fn read(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&bytes);
        // Rust closes a panic with advice that does not hold in here.
        let text = text.split("\nnote: run with").next().unwrap_or_default();
        let words: Vec<&str> = text.split_whitespace().collect();
        if words.is_empty() { String::new() } else { format!(": {}", cut(&words.join(" "), WORDS_BYTES_MAX)) }
    }
}

impl IsTerminal for LastWords {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LastWords {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for LastWords {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut words = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = WORDS_BYTES_MAX.saturating_sub(words.len());
        words.extend(bytes.iter().take(room));
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}

#[async_trait]
impl Pollable for LastWords {
    async fn ready(&mut self) {}
}
