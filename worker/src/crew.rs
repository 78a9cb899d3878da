//! The stream threads of a session: who runs which task, and what they are asked to do.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use kafka::Wakeup;
use protocol::TaskId;

use crate::preparation::panicked;
use crate::seed::Seed;
use crate::session_end::SessionEnd;
use crate::shared::TaskShared;
use crate::stream_thread::{Command, End, Signal, StreamThread, Wanted};

/// How often a session that waits for its threads looks whether one has ended.
const LOOK: Duration = Duration::from_millis(50);

/// All stream threads of a session.
pub(crate) struct Crew {
    members: Vec<Member>,
    signal: Arc<Signal>,
}

struct Member {
    thread: JoinHandle<End>,
    commands: Sender<Command>,
    wakeup: Arc<Wakeup>,
    tasks: Vec<Arc<TaskShared>>,
}

/// What a thread is given before it begins.
pub(crate) struct Post {
    pub(crate) wakeup: Arc<Wakeup>,
    pub(crate) signal: Arc<Signal>,
    pub(crate) commands: Receiver<Command>,
}

/// A thread has ended: the session is over.
#[derive(Debug)]
pub(crate) struct Ended;

impl Crew {
    pub(crate) fn new() -> Self {
        Self {
            members: Vec::new(),
            signal: Arc::new(Signal::new()),
        }
    }

    /// Adds a thread that `make` puts together.
    pub(crate) fn hire(
        &mut self,
        make: impl FnOnce(Post) -> Result<StreamThread, SessionEnd>,
    ) -> Result<(), SessionEnd> {
        let none_left = |reason, error: std::io::Error| SessionEnd::Failed {
            reason,
            message: error.to_string(),
        };
        let wakeup = Wakeup::new().map_err(|error| none_left("NoDescriptors", error))?;
        let wakeup = Arc::new(wakeup);
        let (sender, commands) = channel();
        let thread = make(Post {
            wakeup: Arc::clone(&wakeup),
            signal: Arc::clone(&self.signal),
            commands,
        })?;
        let thread = std::thread::Builder::new()
            .name("stream-thread".to_owned())
            .spawn(move || thread.run())
            .map_err(|error| none_left("NoThread", error))?;
        self.members.push(Member {
            thread,
            commands: sender,
            wakeup,
            tasks: Vec::new(),
        });
        Ok(())
    }

    /// The tasks of all threads.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = &Arc<TaskShared>> {
        self.members.iter().flat_map(|member| &member.tasks)
    }

    /// Gives a task to the thread with the fewest of its sub-topology, then the fewest of all.
    pub(crate) fn start(&mut self, seed: Seed) {
        let alike = |member: &Member| {
            let name = &seed.shared.id.sub_topology;
            let tasks = member.tasks.iter();
            tasks.filter(|task| task.id.sub_topology == *name).count()
        };
        let member = self
            .members
            .iter_mut()
            .min_by_key(|member| (alike(member), member.tasks.len()));
        if let Some(member) = member {
            member.tasks.push(Arc::clone(&seed.shared));
            // A thread that has ended takes no command; the session sees that it has.
            let _ = member.commands.send(Command::Start(Box::new(seed)));
            member.wakeup.wake();
        }
    }

    /// Commits and closes tasks; threads that have none of them are not touched.
    pub(crate) fn give_up(&mut self, leaving: &BTreeSet<TaskId>) -> Result<(), Ended> {
        let (sender, done) = channel();
        let mut asked = 0;
        for member in &mut self.members {
            let before = member.tasks.len();
            member.tasks.retain(|task| !leaving.contains(&task.id));
            if member.tasks.len() < before {
                asked += 1;
                let _ = member
                    .commands
                    .send(Command::GiveUp(leaving.clone(), sender.clone()));
                member.wakeup.wake();
            }
        }
        drop(sender);
        for _ in 0..asked {
            loop {
                match done.recv_timeout(LOOK) {
                    Ok(()) => break,
                    Err(RecvTimeoutError::Timeout) if !self.has_ended() => {}
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Err(Ended),
                }
            }
        }
        Ok(())
    }

    /// Whether a thread has ended by itself.
    pub(crate) fn has_ended(&self) -> bool {
        self.members.iter().any(|member| member.thread.is_finished())
    }

    /// Ends all threads; how each of them ended.
    pub(crate) fn end(self, wanted: Wanted) -> Vec<Result<End, SessionEnd>> {
        self.signal.set(wanted);
        self.members.iter().for_each(|member| member.wakeup.wake());
        self.members
            .into_iter()
            .map(|member| member.thread.join().map_err(|_| panicked()))
            .collect()
    }
}
