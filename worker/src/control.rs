//! The control log as this worker uses it, and what the worker remembers of it across restarts.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(crate) use control::REQUEST_TIMEOUT;
use control::{Appender, Landmark, Reader};
use kafka::{Admin, Settings};
use protocol::{ApplicationId, Ordinal, Record, World};
use serde::{Deserialize, Serialize};

use crate::standstill::{Patience, Stalled, Standstill};
use crate::store::{StoreError, write_atomically};

/// Why the worker cannot follow its control log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    /// Reading or writing it failed.
    #[error(transparent)]
    Log(#[from] control::Error),
    /// A file of the state directory could not be read or written.
    #[error(transparent)]
    File(#[from] StoreError),
    /// The state directory belongs to another worker, or says nothing.
    #[error("state directory: {} {reason}", .path.display())]
    StateDir {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl From<kafka::Error> for ControlError {
    fn from(error: kafka::Error) -> Self {
        Self::Log(error.into())
    }
}

/// What the worker remembers of the log across restarts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    application_id: String,
    ordinal: Ordinal,
    cluster_id: String,
    control_topic_id: String,
    applied_offset: i64,
    /// The last record below that; older files do not say.
    #[serde(default)]
    applied: Option<Landmark>,
}

/// The control log and the world that it describes.
pub(crate) struct ControlLog {
    reader: Reader,
    appender: Appender,
    standstill: Standstill,
    file: PathBuf,
    memory: Memory,
}

impl ControlLog {
    /// Opens the log from its first record, after comparing it with the one followed before.
    pub(crate) fn open(
        settings: &Settings,
        admin: &Admin,
        application: &ApplicationId,
        ordinal: Ordinal,
        state_dir: &Path,
    ) -> Result<Self, ControlError> {
        let cluster_id = admin.cluster_id(REQUEST_TIMEOUT)?;
        let file = state_dir.join("worker.json");
        let mut reader = match Reader::open(settings, admin, application) {
            Err(control::Error::Missing(topic)) if file.exists() => {
                return Err(lost(&topic, "it does not exist"));
            }
            opened => opened?,
        };
        let fresh = Memory {
            application_id: application.0.clone(),
            ordinal,
            cluster_id,
            control_topic_id: reader.topic_id().to_owned(),
            applied_offset: 0,
            applied: None,
        };
        let found = Memory::load(&file, &fresh)?;
        let known = found
            .as_ref()
            .filter(|found| found.control_topic_id == fresh.control_topic_id);
        if let Some(applied) = known.and_then(|found| found.applied.clone()) {
            reader.expect(applied);
        }
        let end = reader.end()?;
        let topic = reader.topic().to_owned();
        let world = reader.read_to(end)?;
        let memory = match found {
            Some(found) => found.continued(fresh, &topic, end, world)?,
            None => fresh,
        };
        Ok(Self {
            reader,
            appender: Appender::new(settings, application)?,
            standstill: Standstill::default(),
            file,
            memory,
        })
    }

    /// The cluster's id.
    pub(crate) fn cluster_id(&self) -> &str {
        &self.memory.cluster_id
    }

    /// The log must be there, and the one that is followed: nobody tells a reader of a topic that was deleted.
    pub(crate) fn is_there(&self, admin: &Admin, timeout: Duration) -> Result<(), ControlError> {
        let topic = self.reader.topic();
        match admin.topic(topic, timeout)? {
            None => Err(lost(topic, "it does not exist")),
            Some(found) if found.id != self.reader.topic_id() => {
                Err(lost(topic, "it was deleted and made again"))
            }
            Some(_) => Ok(()),
        }
    }

    /// The place of the log.
    pub(crate) fn place(&self) -> (&str, i32) {
        (self.reader.topic(), 0)
    }

    /// The log's records must arrive up to the end that the broker tells.
    pub(crate) fn arrives(&mut self, end: i64, patience: &Patience) -> Result<(), Stalled> {
        let place = (self.reader.topic(), 0, self.reader.position());
        self.standstill.observe(Instant::now(), place, end, patience)
    }

    /// What the log says so far.
    pub(crate) fn world(&self) -> &World {
        self.reader.world()
    }

    /// Appends a record; returns its offset, which lies behind all that was read, unless the log has lost its end. What is read
    /// through that offset then is not what lies before it.
    pub(crate) fn append(&self, record: &Record) -> Result<i64, ControlError> {
        let offset = self.appender.append(record)?;
        let read = self.reader.position();
        if offset < read {
            let why = format!("it ended at offset {offset}, this worker has read it up to {read}");
            return Err(lost(self.reader.topic(), &why));
        }
        Ok(offset)
    }

    /// Reads the control log through the record at `offset`.
    pub(crate) fn read_through(&mut self, offset: i64) -> Result<&World, ControlError> {
        self.reader.read_through(offset)?;
        self.remember()?;
        Ok(self.reader.world())
    }

    /// Applies what arrives within `timeout`.
    pub(crate) fn follow(&mut self, timeout: Duration) -> Result<(), ControlError> {
        self.reader.follow(timeout)?;
        self.remember()
    }

    /// Writes down how far the log was applied.
    fn remember(&mut self) -> Result<(), ControlError> {
        let applied_offset = self.reader.world().next_offset;
        if applied_offset == self.memory.applied_offset {
            return Ok(());
        }
        self.memory.applied_offset = applied_offset;
        self.memory.applied = self.reader.last().cloned();
        let written = write_atomically(&self.file, &self.memory);
        written.map_err(|error| of_file(&self.file, error))
    }
}

fn of_file(file: &Path, error: std::io::Error) -> ControlError {
    let path = file.to_owned();
    ControlError::File(StoreError::Io { path, error })
}

fn wrong(file: &Path, reason: String) -> ControlError {
    let path = file.to_owned();
    ControlError::StateDir { path, reason }
}

fn lost(topic: &str, why: &str) -> ControlError {
    let (topic, why) = (topic.to_owned(), why.to_owned());
    ControlError::Log(control::Error::Lost { topic, why })
}

impl Memory {
    /// What an earlier process of this worker wrote down, if there was one.
    fn load(file: &Path, fresh: &Self) -> Result<Option<Self>, ControlError> {
        let bytes = match std::fs::read(file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(of_file(file, error)),
        };
        let found: Self = serde_json::from_slice(&bytes).map_err(|error| wrong(file, error.to_string()))?;
        if found.application_id != fresh.application_id || found.ordinal != fresh.ordinal {
            let reason = format!(
                "belongs to application `{}` ordinal {}, not `{}` ordinal {}; choose another state directory",
                found.application_id, found.ordinal, fresh.application_id, fresh.ordinal
            );
            return Err(wrong(file, reason));
        }
        if found.cluster_id != fresh.cluster_id {
            let reason = format!(
                "belongs to Kafka cluster {}, not {}; choose another state directory",
                found.cluster_id, fresh.cluster_id
            );
            return Err(wrong(file, reason));
        }
        Ok(Some(found))
    }

    /// Whether the log is the one that was followed, and has not lost its end.
    fn continued(self, fresh: Self, topic: &str, end: i64, world: &World) -> Result<Self, ControlError> {
        if self.control_topic_id != fresh.control_topic_id {
            return if world.started_over {
                Ok(fresh)
            } else {
                Err(lost(topic, "it was deleted and made again"))
            };
        }
        if end < self.applied_offset {
            let applied = self.applied_offset;
            let why = format!("it ends at offset {end}, this worker has applied it up to {applied}");
            return Err(lost(topic, &why));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(topic: &str, applied_offset: i64) -> Memory {
        Memory {
            application_id: "a".into(),
            ordinal: Ordinal(0),
            cluster_id: "c".into(),
            control_topic_id: topic.into(),
            applied_offset,
            applied: None,
        }
    }

    #[test]
    fn a_log_that_ends_before_what_was_applied_or_was_recreated_is_lost() {
        let mut world = World::default();
        let is_lost = |topic, end, world: &World| {
            let found = memory("t", 9).continued(memory(topic, 0), "log", end, world);
            match found {
                Ok(_) => false,
                Err(ControlError::Log(control::Error::Lost { .. })) => true,
                Err(error) => panic!("{error}"),
            }
        };
        assert!(!is_lost("t", 9, &world));
        assert!(is_lost("t", 8, &world));
        assert!(is_lost("u", 20, &world));
        // A person has said that the new one counts.
        let threads = std::collections::BTreeMap::new();
        world.apply(0, &Record::StartedOver { prev: None, threads });
        assert!(!is_lost("u", 20, &world));
        assert!(is_lost("t", 8, &world));
    }

    #[test]
    fn a_state_directory_of_another_application_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("worker.json");
        write_atomically(&file, &memory("t", 9)).unwrap();
        let other = Memory {
            application_id: "b".into(),
            ..memory("t", 0)
        };
        let error = Memory::load(&file, &other).unwrap_err().to_string();
        assert!(error.contains("belongs to application `a`"), "{error}");
    }
}
