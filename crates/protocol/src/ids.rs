//! Identifiers, parsed once at the border.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Position of a worker in its StatefulSet; the pod of an ordinal keeps its volume and its transactional ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Ordinal(pub u32);

/// As a key of a JSON object it is a text.
impl<'de> Deserialize<'de> for Ordinal {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u32),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(ordinal) => Ok(Self(ordinal)),
            Written::Text(text) => text.parse().map(Self).map_err(serde::de::Error::custom),
        }
    }
}

impl fmt::Display for Ordinal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One process: a pod's uid, or an invented one for a process without a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uid(pub String);

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A sub-topology at one partition; prints as `orders-3`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// Name of the sub-topology.
    pub sub_topology: String,
    /// Partition of its inputs.
    pub partition: i32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.sub_topology, self.partition)
    }
}

/// A text that is no task id.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no task id: expected `<sub-topology>-<partition>`")]
pub struct TaskIdError(String);

impl FromStr for TaskId {
    type Err = TaskIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || TaskIdError(text.to_owned());
        let (name, partition) = text.rsplit_once('-').ok_or_else(error)?;
        let partition = partition.parse::<u16>().map_err(|_| error())?;
        if name.is_empty() {
            return Err(error());
        }
        Ok(Self {
            sub_topology: name.to_owned(),
            partition: i32::from(partition),
        })
    }
}

impl Serialize for TaskId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TaskId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Names that an application owns in Kafka, all derived from its `application.id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ApplicationId(pub String);

impl ApplicationId {
    /// The id of one stream thread's producer.
    #[must_use]
    pub fn transactional_id(&self, ordinal: Ordinal, thread: u32) -> String {
        format!("{}-{ordinal}-{thread}", self.0)
    }

    /// The id under which operator records are written.
    #[must_use]
    pub fn operator_transactional_id(&self) -> String {
        format!("{}-operator", self.control_topic())
    }

    /// The control log: one partition, never expires.
    #[must_use]
    pub fn control_topic(&self) -> String {
        format!("{}-control", self.0)
    }

    /// Positions: compacted, one partition per task.
    #[must_use]
    pub fn positions_topic(&self) -> String {
        format!("{}-positions", self.0)
    }
}

impl fmt::Display for ApplicationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_id_prints_and_parses_with_dashes_in_its_name() {
        let id: TaskId = "exposure-by-customer-3".parse().unwrap();
        assert_eq!(
            id,
            TaskId {
                sub_topology: "exposure-by-customer".into(),
                partition: 3
            }
        );
        assert_eq!(id.to_string(), "exposure-by-customer-3");
    }

    #[test]
    fn a_text_without_name_or_partition_is_no_task_id() {
        for text in ["", "-1", "exposure", "exposure-", "exposure-x", "exposure--"] {
            assert!(text.parse::<TaskId>().is_err(), "{text}");
        }
    }
}
