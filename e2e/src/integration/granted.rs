//! What a broker grants to producers, from the requests and answers that a proxy sees.

use super::frame::Bytes;
use super::proxy::Api;

const INIT_PRODUCER_ID: i16 = Api::InitProducerId as i16;
const END_TXN: i16 = Api::EndTxn as i16;

/// Requests whose answers tell who may write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// `InitProducerId` with a transactional id.
    Producer { id: String, has_tags: bool },
    /// `EndTxn` that commits.
    Commit,
}

/// Answers without an error.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Granted {
    /// Transactional ids with the epochs of their producers.
    pub(super) epochs: Vec<(String, i16)>,
    pub(super) commits: usize,
}

impl Asked {
    /// Of a request with its length before it, in the versions that librdkafka sends.
    pub(super) fn of(frame: &[u8]) -> Option<Self> {
        let mut bytes = Bytes(frame.get(4..)?);
        let (api, version) = (bytes.i16()?, bytes.i16()?);
        bytes.take(4)?; // correlation id
        bytes.text()?; // client id
        match (api, version) {
            (INIT_PRODUCER_ID, 0..=1) => Some(Self::Producer {
                id: bytes.text()?,
                has_tags: false,
            }),
            (INIT_PRODUCER_ID, 2..=4) => {
                bytes.take(1)?; // no tags
                Some(Self::Producer {
                    id: bytes.compact_text()?,
                    has_tags: true,
                })
            }
            (END_TXN, 0..=2) => {
                bytes.text()?;
                bytes.take(8 + 2)?; // producer id and epoch
                (bytes.take(1)? != [0]).then_some(Self::Commit)
            }
            _ => None,
        }
    }
}

impl Granted {
    /// Takes the answer, with its length before it.
    pub(super) fn note(&mut self, asked: Asked, frame: &[u8]) {
        match asked {
            Asked::Producer { id, has_tags } => {
                if let Some(epoch) = epoch(frame, has_tags) {
                    self.epochs.push((id, epoch));
                }
            }
            Asked::Commit => self.commits += usize::from(without_error(frame, false).is_some()),
        }
    }
}

fn epoch(frame: &[u8], has_tags: bool) -> Option<i16> {
    let mut bytes = without_error(frame, has_tags)?;
    bytes.take(8)?; // producer id
    bytes.i16()
}

/// What stands behind the error, if there is none.
fn without_error(frame: &[u8], has_tags: bool) -> Option<Bytes<'_>> {
    // Length and correlation id, no tags, the time of a throttle.
    let mut bytes = Bytes(frame.get(4 + 4 + usize::from(has_tags) + 4..)?);
    (bytes.i16()? == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Length and header of a request, with the client id `c`, and then `rest`.
    fn request(api: i16, version: i16, rest: &[&[u8]]) -> Vec<u8> {
        let (api, version) = (api.to_be_bytes(), version.to_be_bytes());
        let header = [&[0; 4][..], &api, &version, &[0, 0, 0, 9], &[0, 1], b"c"];
        [header.concat(), rest.concat()].concat()
    }

    #[test]
    fn a_producer_is_granted_its_epoch_unless_the_answer_is_an_error() {
        let plain = request(22, 1, &[&[0, 3], b"a-0", &[0; 4]]);
        let flexible = request(22, 4, &[&[0], &[4], b"a-1", &[0; 14], &[0]]);
        let mut granted = Granted::default();
        for (frame, has_tags) in [(plain, false), (flexible, true)] {
            let answer = |error: u8, epoch: u8| {
                let tags = if has_tags { &[0][..] } else { &[] };
                [&[0; 8][..], tags, &[0; 4], &[0, error], &[7; 8], &[0, epoch]].concat()
            };
            granted.note(Asked::of(&frame).unwrap(), &answer(51, 0));
            granted.note(Asked::of(&frame).unwrap(), &answer(0, 5));
        }
        let epochs = vec![("a-0".to_owned(), 5), ("a-1".to_owned(), 5)];
        assert_eq!(granted, Granted { epochs, commits: 0 });
    }

    #[test]
    fn a_commit_counts_when_it_is_answered_without_an_error() {
        let end = |commit: u8| request(26, 1, &[&[0, 3], b"a-0", &[7; 8], &[0, 2], &[commit]]);
        let answer = |error: u8| [&[0; 12][..], &[0, error]].concat();
        assert_eq!(Asked::of(&end(0)), None);
        let mut granted = Granted::default();
        for error in [0, 47, 0, 90] {
            granted.note(Asked::of(&end(1)).unwrap(), &answer(error));
        }
        assert_eq!(granted.commits, 2);
    }

    #[test]
    fn other_requests_and_versions_ask_for_nothing() {
        assert_eq!(Asked::of(&request(26, 3, &[&[0; 20]])), None);
        assert_eq!(Asked::of(&request(3, 1, &[&[0; 20]])), None);
        assert_eq!(Asked::of(&[0; 9]), None);
    }
}
