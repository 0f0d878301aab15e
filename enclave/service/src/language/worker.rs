//! The thread that owns the engine: takes requests, steps while there are any, hands tokens out.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use adyton_inference::lm::{Engine, Event, Finish, Request, RequestId};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::EnclaveError;

/// What is told of an answer. A channel that closes without [`Piece::Finished`] belongs to an answer that was broken off.
#[derive(Debug, Clone, Copy)]
pub(super) enum Piece {
    Token(u32),
    Finished(Finish),
}

enum Command {
    Generate(Request, UnboundedSender<Piece>),
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
    pub(super) fn start(engine: Engine) -> Result<Self, EnclaveError> {
        let (commands, waiting) = mpsc::channel();
        let over = Arc::new(AtomicBool::new(false));
        let seen = over.clone();
        thread::Builder::new().name("engine".into()).spawn(move || run(engine, &waiting, &seen))?;
        Ok(Self { commands, over })
    }

    /// `None` once the thread has ended. What can be taken is bounded by whoever calls.
    pub(super) fn generate(&self, request: Request) -> Option<UnboundedReceiver<Piece>> {
        let (pieces, receiver) = unbounded_channel();
        self.commands.send(Command::Generate(request, pieces)).is_ok().then_some(receiver)
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
    let mut open: HashMap<RequestId, UnboundedSender<Piece>> = HashMap::new();
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
            Ok(Command::Generate(request, pieces)) => {
                // The prompt was looked at before; a refusal closes the channel.
                if let Ok(id) = engine.submit(request) {
                    open.insert(id, pieces);
                }
                continue;
            }
            Ok(Command::Forget(tenant)) => {
                engine.forget(tenant);
                continue;
            }
            Ok(Command::Look) => continue,
            Err(mpsc::TryRecvError::Disconnected) => return,
            Err(mpsc::TryRecvError::Empty) => (),
        }
        let Ok(events) = engine.step() else {
            tracing::error!("the engine failed; all answers that were being computed are broken off");
            open.drain().for_each(|(id, _)| engine.cancel(id));
            continue;
        };
        for event in events {
            let (id, piece) = match event {
                Event::Token(id, token) => (id, Piece::Token(token)),
                Event::Finished(id, finish) => (id, Piece::Finished(finish)),
                // Nobody asks for them yet.
                Event::Logprobs(..) => continue,
            };
            let gone = open.get(&id).is_none_or(|pieces| pieces.send(piece).is_err());
            if gone || matches!(piece, Piece::Finished(_)) {
                open.remove(&id);
                engine.cancel(id);
            }
        }
    }
}
