//! Processes and their threads, as futures that somebody steps. A process that is killed is dropped in the middle of
//! whatever it does.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};

type Thread = Pin<Box<dyn Future<Output = ()>>>;

/// Starts threads of a process.
#[derive(Clone, Default)]
pub(crate) struct Spawner(Rc<RefCell<Vec<Thread>>>);

impl Spawner {
    pub(crate) fn spawn(&self, thread: impl Future<Output = ()> + 'static) {
        self.0.borrow_mut().push(Box::pin(thread));
    }
}

/// A process.
pub(crate) struct Host {
    /// The first one is the process itself: when it ends, all end.
    threads: Vec<Thread>,
    spawned: Spawner,
}

impl Host {
    /// A process that runs what `main` makes.
    pub(crate) fn new<F: Future<Output = ()> + 'static>(main: impl FnOnce(Spawner) -> F) -> Self {
        let spawned = Spawner::default();
        let main: Thread = Box::pin(main(spawned.clone()));
        Self {
            threads: vec![main],
            spawned,
        }
    }

    /// Whether the process has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.threads.is_empty()
    }

    /// Runs one thread to its next call; `choose(n)` is below `n`.
    pub(crate) fn step(&mut self, choose: impl FnOnce(usize) -> usize) {
        if self.has_ended() {
            return;
        }
        let which = choose(self.threads.len());
        let mut context = Context::from_waker(Waker::noop());
        if self.threads[which].as_mut().poll(&mut context).is_ready() {
            if which == 0 {
                self.threads.clear();
                self.spawned.0.borrow_mut().clear();
                return;
            }
            drop(self.threads.swap_remove(which));
        }
        self.threads.append(&mut self.spawned.0.borrow_mut());
    }
}
