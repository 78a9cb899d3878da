//! Volumes: the stores of a worker, in memory and on disk. What is on disk is a prefix of what was applied, with the
//! positions that belong to it; a crash leaves that.

use std::cell::{Ref, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use engine::MemoryStore;
use protocol::{StorePositions, TaskId};

use super::client::Sim;

/// A store's content with its positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) content: MemoryStore,
    pub(crate) positions: StorePositions,
}

/// A task's store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    pub(crate) memory: Image,
    disk: Image,
    /// A call has found that it cannot be read.
    pub(crate) is_damaged: bool,
}

impl Store {
    /// Puts or deletes a key.
    pub(crate) fn change(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.memory.content.apply(key, value);
    }

    /// Writes what is in memory to disk.
    pub(crate) fn flush(&mut self) {
        self.disk.clone_from(&self.memory);
    }

    /// A call fails: everything is there when it is opened again, or what is on disk, or it is damaged.
    pub(crate) fn fail(&mut self, how: usize) {
        match how {
            0 => {}
            1 => *self = self.crashed(),
            _ => self.is_damaged = true,
        }
    }

    /// What a crash leaves.
    fn crashed(&self) -> Self {
        Self {
            memory: self.disk.clone(),
            disk: self.disk.clone(),
            is_damaged: self.is_damaged,
        }
    }
}

/// A store, open.
pub(crate) type Db = Rc<RefCell<Store>>;

/// The engine's view of it.
pub(crate) struct Reader {
    pub(crate) sim: Rc<Sim>,
    pub(crate) db: Db,
}

impl Reader {
    fn call(&self) -> Result<Ref<'_, Store>, engine::StoreError> {
        if self.sim.store_fails(&self.db) {
            return Err(engine::StoreError::new("the store fails".to_owned()));
        }
        Ok(self.db.borrow())
    }
}

impl engine::Store for Reader {
    fn get(&self, key: &[u8], into: &mut Vec<u8>) -> Result<bool, engine::StoreError> {
        self.call()?.memory.content.get(key, into)
    }

    fn scan(
        &self,
        range: engine::KeyRange<'_>,
        visit: &mut engine::Visit<'_>,
    ) -> Result<(), engine::StoreError> {
        self.call()?.memory.content.scan(range, visit)
    }
}

/// The stores of a worker.
#[derive(Debug, Default)]
pub(crate) struct Volume {
    stores: BTreeMap<TaskId, Db>,
    /// The control log that was followed last.
    pub(crate) control: Option<u32>,
}

impl Volume {
    /// Opens or creates a task's store.
    pub(crate) fn open(&mut self, task: &TaskId) -> Db {
        Rc::clone(self.stores.entry(task.clone()).or_default())
    }

    /// Sets a task's store aside.
    pub(crate) fn set_aside(&mut self, task: &TaskId) {
        self.stores.remove(task);
    }

    /// Every store that there is.
    pub(crate) fn stores(&self) -> impl Iterator<Item = (&TaskId, &Db)> {
        self.stores.iter()
    }

    /// What a crash leaves, also as a copy of the volume.
    pub(crate) fn crashed(&self) -> Self {
        let crashed = |(task, db): (&TaskId, &Db)| {
            let store = db.borrow().crashed();
            (task.clone(), Rc::new(RefCell::new(store)))
        };
        Self {
            stores: self.stores.iter().map(crashed).collect(),
            control: self.control,
        }
    }
}
