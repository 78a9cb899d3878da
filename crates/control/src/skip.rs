//! A person lets a task pass over one record that it cannot process. Workers obey what the control log says, in the transaction
//! that moves the task's position, so the record is skipped once, whatever crashes.

use kafka::Settings;
use protocol::{ApplicationId, Record, RecordId};

use crate::offsets::{InputOffsets, Offsets, OffsetsError};
use crate::{Error, OperatorLog, Reader};

/// Why a record is not skipped.
#[derive(Debug, thiserror::Error)]
pub enum SkipError {
    /// The positions or the control log cannot be used.
    #[error(transparent)]
    Offsets(#[from] OffsetsError),
    /// The record cannot be written.
    #[error(transparent)]
    Control(#[from] Error),
    /// Nobody reads it.
    #[error(
        "no task reads {topic}/{partition}; the application's tasks have committed positions of {inputs}"
    )]
    NotAnInput {
        /// As it was asked for.
        topic: String,
        /// As it was asked for.
        partition: i32,
        /// What is read.
        inputs: String,
    },
    /// It is processed.
    #[error("{topic}/{partition}@{offset} was processed: {task} stands at {position}")]
    Processed {
        /// Its topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// Its offset.
        offset: i64,
        /// Who reads it.
        task: String,
        /// The next offset of the task.
        position: i64,
    },
    /// It is not in the topic.
    #[error("{topic}/{partition}@{offset} does not exist: the partition has offsets from {low} to {high}")]
    NotThere {
        /// Its topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// Its offset.
        offset: i64,
        /// First offset.
        low: i64,
        /// Next offset.
        high: i64,
    },
}

/// Lets the task that reads a record pass over it; returns the input as it stands, and whether that is news. The record must be in
/// the topic, and not be processed.
///
/// # Errors
/// [`SkipError`]; nothing is changed then.
pub fn skip(
    settings: &Settings,
    application: &ApplicationId,
    (topic, partition, offset): (&str, i32, i64),
) -> Result<(InputOffsets, bool), SkipError> {
    let offsets = Offsets::open(settings, application)?;
    let input = find(offsets.look()?, (topic, partition, offset))?;
    let record = RecordId {
        topic: input.topic.clone(),
        topic_id: input.topic_id.clone(),
        partition,
        offset,
    };
    let reader = Reader::open(settings, &offsets.admin, application)?;
    let mut log = OperatorLog::open(settings, application, reader)?;
    let is_news = !log.world().skipped.contains(&record);
    if is_news {
        log.write(|prev| Record::Skipped { prev, record })?;
    }
    Ok((input, is_news))
}

fn find(
    all: Vec<InputOffsets>,
    (topic, partition, offset): (&str, i32, i64),
) -> Result<InputOffsets, SkipError> {
    let name = |input: &InputOffsets| format!("{}/{}", input.topic, input.partition);
    let inputs: Vec<_> = all.iter().map(name).collect();
    let is_it = |input: &InputOffsets| (input.topic.as_str(), input.partition) == (topic, partition);
    let Some(input) = all.into_iter().find(is_it) else {
        return Err(SkipError::NotAnInput {
            topic: topic.to_owned(),
            partition,
            inputs: inputs.join(", "),
        });
    };
    if offset < input.low || offset >= input.high {
        return Err(SkipError::NotThere {
            topic: topic.to_owned(),
            partition,
            offset,
            low: input.low,
            high: input.high,
        });
    }
    if offset < input.position {
        return Err(SkipError::Processed {
            topic: topic.to_owned(),
            partition,
            offset,
            task: input.task.to_string(),
            position: input.position,
        });
    }
    Ok(input)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OffsetsState;

    #[test]
    fn only_a_record_that_is_there_and_not_processed_is_skipped() {
        let input = || InputOffsets {
            task: "orders-1".parse().unwrap(),
            topic: "in".into(),
            partition: 1,
            position: 5,
            group: Some(5),
            low: 2,
            high: 9,
            topic_id: "id".into(),
            state: OffsetsState::Good,
        };
        let look = |place| find(vec![input()], place);
        let refused = |place| look(place).unwrap_err().to_string();
        assert_eq!(look(("in", 1, 5)).unwrap(), input());
        assert_eq!(look(("in", 1, 8)).unwrap(), input());
        assert_eq!(
            refused(("in", 1, 4)),
            "in/1@4 was processed: orders-1 stands at 5"
        );
        for gone in [1, 9] {
            let wanted = format!("in/1@{gone} does not exist: the partition has offsets from 2 to 9");
            assert_eq!(refused(("in", 1, gone)), wanted);
        }
        for place in [("in", 0, 5), ("out", 1, 5)] {
            let wanted = format!(
                "no task reads {}/{}; the application's tasks have committed positions of in/1",
                place.0, place.1
            );
            assert_eq!(refused(place), wanted);
        }
    }
}
