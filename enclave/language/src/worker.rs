//! The thread that owns the engine: takes requests, steps while there are any, hands tokens out.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use adyton_inference::lm::{Engine, Event, Finish, Logprobs, Request, RequestId};

/// What is told of an answer. One whose telling ends without [`Piece::Finished`] was broken off.
/// `Debug` tells no token.
#[derive(Clone)]
pub enum Piece {
    /// The next token, and how likely it was where the request wants to know.
    Token(u32, Option<Logprobs>),
    /// There are no more.
    Finished(Finish),
    /// The engine failed.
    Failed,
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(_, logprobs) => write!(f, "Token({logprobs:?})"),
            Self::Finished(finish) => write!(f, "Finished({finish:?})"),
            Self::Failed => f.write_str("Failed"),
        }
    }
}

/// Takes the pieces of one answer, and says whether anybody still wants them. Dropped with the last one.
pub type Tell = Box<dyn FnMut(Piece) -> bool + Send>;

enum Command {
    Generate(Request, Tell),
    Forget(u64),
    /// Only wakes the thread, which then sees that it is over.
    Look,
}

/// A handle of the thread; it ends when this is dropped.
pub(super) struct Worker {
    commands: mpsc::Sender<Command>,
    over: Arc<AtomicBool>,
}

impl Worker {
    pub(super) fn start(engine: Engine) -> io::Result<Self> {
        let (commands, waiting) = mpsc::channel();
        let over = Arc::new(AtomicBool::new(false));
        let seen = over.clone();
        thread::Builder::new().name("engine".into()).spawn(move || run(engine, &waiting, &seen))?;
        Ok(Self { commands, over })
    }

    /// `false` once the thread has ended. What can be taken is bounded by whoever calls.
    pub(super) fn generate(&self, request: Request, tell: Tell) -> bool {
        self.commands.send(Command::Generate(request, tell)).is_ok()
    }

    pub(super) fn forget(&self, tenant: u64) {
        // A thread that is gone remembers nothing.
        let _ = self.commands.send(Command::Forget(tenant));
    }

    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.commands.send(Command::Look);
    }
}

fn run(mut engine: Engine, commands: &mpsc::Receiver<Command>, over: &AtomicBool) {
    let mut open: HashMap<RequestId, (u64, Tell)> = HashMap::new();
    loop {
        let next = if engine.is_idle() {
            commands.recv().map_err(|_| mpsc::TryRecvError::Disconnected)
        } else {
            commands.try_recv()
        };
        if over.load(Ordering::Relaxed) {
            return;
        }
        match next {
            Ok(Command::Generate(request, tell)) => {
                // The prompt was looked at before; a refusal ends the telling.
                let tenant = request.tenant;
                if let Ok(id) = engine.submit(request) {
                    open.insert(id, (tenant, tell));
                }
                continue;
            }
            Ok(Command::Forget(tenant)) => {
                engine.forget(tenant);
                open.retain(|_, (of, _)| *of != tenant);
                continue;
            }
            Ok(Command::Look) => continue,
            Err(mpsc::TryRecvError::Disconnected) => return,
            Err(mpsc::TryRecvError::Empty) => (),
        }
        let Ok(events) = engine.step() else {
            for (id, (_, mut tell)) in open.drain() {
                tell(Piece::Failed);
                engine.cancel(id);
            }
            continue;
        };
        for event in events {
            let (id, piece) = match event {
                Event::Token(id, token, likely) => (id, Piece::Token(token, likely)),
                Event::Finished(id, finish) => (id, Piece::Finished(finish)),
            };
            let last = matches!(piece, Piece::Finished(_));
            let gone = open.get_mut(&id).is_none_or(|(_, tell)| !tell(piece));
            if gone || last {
                open.remove(&id);
                engine.cancel(id);
            }
        }
    }
}
