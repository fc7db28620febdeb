//! A TCP proxy in front of PostgreSQL that breaks connections at an exact point of the conversation.
//!
//! It runs in a thread of its own and can be told another fault at any time; a fault strikes
//! connections that are open already, too.

use super::wire::{Conversation, Passage, Rule, Wish};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

/// What happens to the traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// New connections and open ones are reset.
    Refuse,
    /// Connections open, and then nothing arrives; what was sent meanwhile arrives when it ends.
    BlackHole,
    /// What a client sends arrives and is done; of the answers nothing comes back, on connections that
    /// were struck not even afterwards.
    HalfOpen,
    /// Everything arrives this much later, in each direction.
    Delay(Duration),
    /// A connection breaks when its client has sent this many bytes more; exactly these arrive.
    CutAfterBytes(u64),
    /// A connection breaks when its client has been answered this many bytes more.
    CutAfterAnswerBytes(u64),
    /// The server commits, and the client is not told: the connection breaks instead of the answer.
    CutAfterCommitReply,
    /// The same for a request whose SQL contains this text (simple, or executed as a statement).
    CutAfterReplyTo(String),
    /// The connection breaks before a request whose SQL contains this text reaches the server.
    CutBefore(String),
    /// The connection stays open, but neither such a request nor anything after it passes.
    SilenceBefore(String),
    /// The same for a commit.
    SilenceBeforeCommit,
}

impl Mode {
    fn wish(&self) -> Wish {
        let mut wish = Wish::default();
        match self {
            Mode::CutAfterCommitReply => wish.answer = Some(Rule::Commit),
            Mode::CutAfterReplyTo(text) => wish.answer = Some(Rule::Contains(text.clone())),
            Mode::CutBefore(text) | Mode::SilenceBefore(text) => {
                wish.before = Some(Rule::Contains(text.clone()));
            }
            Mode::SilenceBeforeCommit => wish.before = Some(Rule::Commit),
            _ => {}
        }
        wish
    }
}

/// What has passed since the start or the last [`Proxy::reset_stats`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub connections: u64,
    pub bytes_up: u64,
    pub bytes_down: u64,
    pub messages_up: u64,
    pub messages_down: u64,
    /// Simple queries and Syncs, each of which the server answers once.
    pub requests: u64,
    /// Bursts of requests: a request counts when an answer has come since the one before.
    pub round_trips: u64,
    /// Connections that a `Cut...` fault has broken.
    pub cuts: u64,
}

#[derive(Clone)]
struct Control {
    mode: Mode,
    /// How often the fault may still strike before the mode is `Pass` again.
    times: Option<u32>,
    /// Counts the changes of mode: byte counts begin anew with each.
    epoch: u64,
    /// Connections of an older generation are broken.
    generation: u64,
    /// Of a broken connection the server hears nothing until the mode is set again.
    abandons: bool,
}

struct Shared {
    control: watch::Sender<Control>,
    stats: Mutex<Stats>,
    /// Every byte in both directions, where somebody wants to look at them.
    record: Mutex<Option<Vec<u8>>>,
    target: (String, u16),
}

impl Shared {
    fn stats(&self) -> MutexGuard<'_, Stats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the fault of `epoch` may strike; counts it if so.
    fn strike(&self, epoch: u64) -> bool {
        let mut granted = false;
        self.control.send_modify(|c| {
            granted = c.epoch == epoch;
            if granted && let Some(times) = &mut c.times {
                *times -= 1;
                if *times == 0 {
                    c.mode = Mode::Pass;
                    c.times = None;
                    c.epoch += 1;
                }
            }
        });
        if granted {
            self.stats().cuts += 1;
        }
        granted
    }
}

/// The proxy. Dropping it breaks every connection and frees the port.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Proxy {
    pub fn start(host: &str, port: u16) -> Proxy {
        let (control, _) = watch::channel(Control {
            mode: Mode::Pass,
            times: None,
            epoch: 0,
            generation: 0,
            abandons: false,
        });
        let shared = Arc::new(Shared {
            control,
            stats: Mutex::default(),
            record: Mutex::default(),
            target: (host.to_owned(), port),
        });
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        listener.set_nonblocking(true).expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let (stop, stopped) = oneshot::channel();
        let inner = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    () = accept(listener, inner) => {}
                    _ = stopped => {}
                }
            });
        });
        Proxy {
            port,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// In front of the server that all tests share.
    pub fn shared_server() -> Proxy {
        let (host, port) = super::server::way_to_shared();
        Proxy::start(host, port)
    }

    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Until another mode is set.
    pub fn set(&self, mode: Mode) {
        self.change(mode, None);
    }

    /// Until a `Cut...` fault has struck `times` times; then `Pass`.
    pub fn set_times(&self, mode: Mode, times: u32) {
        assert!(times > 0, "a fault that never strikes");
        self.change(mode, Some(times));
    }

    pub fn mode(&self) -> Mode {
        self.shared.control.borrow().mode.clone()
    }

    /// Resets every open connection now.
    pub fn cut_all(&self) {
        self.end_all(false);
    }

    /// Resets every open connection towards its client alone: the server goes on with what it was asked,
    /// and keeps the locks of an open transaction, until the mode is set again.
    pub fn abandon_all(&self) {
        self.end_all(true);
    }

    fn end_all(&self, abandons: bool) {
        self.shared.control.send_modify(|c| {
            c.generation += 1;
            c.abandons = abandons;
        });
    }

    /// Keeps every byte that passes from now on.
    pub fn record(&self) {
        *self.shared.record.lock().expect("the record") = Some(Vec::new());
    }

    /// What has passed since [`Proxy::record`].
    pub fn recorded(&self) -> Vec<u8> {
        let record = self.shared.record.lock().expect("the record");
        record.clone().unwrap_or_default()
    }

    pub fn stats(&self) -> Stats {
        *self.shared.stats()
    }

    pub fn reset_stats(&self) {
        *self.shared.stats() = Stats::default();
    }

    fn change(&self, mode: Mode, times: Option<u32>) {
        self.shared.control.send_modify(|c| {
            c.mode = mode;
            c.times = times;
            c.epoch += 1;
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        shared.stats().connections += 1;
        tokio::spawn(serve(client, Arc::clone(&shared)));
    }
}

async fn serve(mut client: TcpStream, shared: Arc<Shared>) {
    let mut control = shared.control.subscribe();
    let generation = control.borrow_and_update().generation;
    let target = (shared.target.0.as_str(), shared.target.1);
    let refused = control.borrow().mode == Mode::Refuse;
    let server = match refused {
        true => None,
        false => TcpStream::connect(target).await.ok(),
    };
    let Some(mut server) = server else {
        let _ = client.set_zero_linger();
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let conversation = Mutex::new(Conversation::default());
    let broken = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            _ = pump(Direction::Up, from_client, to_server, &conversation, &shared) => false,
            _ = pump(Direction::Down, from_server, to_client, &conversation, &shared) => false,
            _ = control.wait_for(|c| c.mode == Mode::Refuse || c.generation != generation) => true,
        }
    };
    if broken {
        let _ = client.set_zero_linger();
        let Control {
            abandons, epoch, ..
        } = *control.borrow();
        if abandons {
            drop(client);
            let _ = control.wait_for(|c| c.epoch != epoch).await;
        }
        let _ = server.set_zero_linger();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

/// Returns when the connection is to end: at the end of the stream, or because a fault struck.
async fn pump(
    direction: Direction,
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    conversation: &Mutex<Conversation>,
    shared: &Shared,
) -> io::Result<()> {
    let mut control = shared.control.subscribe();
    let mut buffer = vec![0; 64 * 1024];
    let mut epoch = control.borrow().epoch;
    let mut passed = 0;
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let now = match control.wait_for(|c| c.mode != Mode::BlackHole).await {
            Ok(now) => now.clone(),
            Err(_) => return Ok(()),
        };
        if now.mode == Mode::HalfOpen && direction == Direction::Down {
            tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
            return Ok(());
        }
        if let Mode::Delay(time) = now.mode {
            tokio::time::sleep(time).await;
        }
        if now.epoch != epoch {
            epoch = now.epoch;
            passed = 0;
        }
        let mut passage = {
            let mut conversation = conversation.lock().unwrap_or_else(PoisonError::into_inner);
            let may_strike = || shared.strike(epoch);
            match direction {
                Direction::Up => conversation.up(&buffer[..read], &now.mode.wish(), may_strike),
                Direction::Down => conversation.down(&buffer[..read], may_strike),
            }
        };
        let limit = match (direction, &now.mode) {
            (Direction::Up, Mode::CutAfterBytes(n))
            | (Direction::Down, Mode::CutAfterAnswerBytes(n)) => n.saturating_sub(passed),
            _ => u64::MAX,
        };
        if limit <= passage.forward.len() as u64 && shared.strike(epoch) {
            passage
                .forward
                .truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            passage.cut = true;
        }
        count(direction, &passage, shared);
        if let Some(record) = &mut *shared.record.lock().expect("the record") {
            record.extend(&passage.forward);
        }
        to.write_all(&passage.forward).await?;
        passed += passage.forward.len() as u64;
        if passage.cut {
            if matches!(now.mode, Mode::SilenceBefore(_) | Mode::SilenceBeforeCommit) {
                // Until the client gives up and the connection goes.
                let mut rest = Vec::new();
                from.read_to_end(&mut rest).await?;
            }
            return Ok(());
        }
    }
}

fn count(direction: Direction, passage: &Passage, shared: &Shared) {
    let mut stats = shared.stats();
    let bytes = passage.forward.len() as u64;
    match direction {
        Direction::Up => {
            stats.bytes_up += bytes;
            stats.messages_up += passage.messages;
            stats.requests += passage.requests;
            stats.round_trips += passage.round_trips;
        }
        Direction::Down => {
            stats.bytes_down += bytes;
            stats.messages_down += passage.messages;
        }
    }
}
