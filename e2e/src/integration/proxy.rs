//! A proxy between a worker and the broker that loses, delays or repeats single requests and answers.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::frame::Bytes;
use super::granted::{Asked, Granted};
use super::scene::Scene;
use crate::bench::subjects::set;
use crate::wait;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// Kafka's numbers of the requests that matter to a transaction (`ApiKeys`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Api {
    Produce = 0,
    Fetch = 1,
    InitProducerId = 22,
    AddPartitionsToTxn = 24,
    AddOffsetsToTxn = 25,
    EndTxn = 26,
    TxnOffsetCommit = 28,
}

impl Api {
    /// All of them, with those that are sent only now and then last.
    pub(super) const TRANSACTIONAL: [Self; 7] = [
        Self::EndTxn,
        Self::TxnOffsetCommit,
        Self::AddPartitionsToTxn,
        Self::AddOffsetsToTxn,
        Self::Produce,
        Self::Fetch,
        Self::InitProducerId,
    ];
}

/// Answers that name brokers: `Metadata` and `FindCoordinator`.
const NAME_BROKERS: [i16; 2] = [3, 10];

/// `DeleteRecords`.
const DELETE_RECORDS: i16 = 21;

/// Records of a partition that somebody wants to be deleted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Deletion {
    pub(super) topic: String,
    pub(super) partition: i32,
    /// The first offset that stays.
    pub(super) before: i64,
}

/// Sees what a request wants to be deleted before the broker hears of it; after an error it does not.
type Witness = Box<dyn Fn(&[Deletion]) -> Result<()> + Send + Sync>;

/// What happens to one request, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection ends before the broker gets it.
    LoseRequest,
    /// The broker has done it; the connection ends before the answer arrives.
    LoseAnswer,
    /// The answer, and all after it on that connection, come later.
    DelayAnswer(Duration),
    /// The broker gets it twice.
    Repeat,
    /// The connection ends before the broker gets it, but it stays under way: after this time, and before the next request of
    /// a transaction of the kind `before`, which comes by another connection, the broker gets it and answers.
    LateRequest { after: Duration, before: Api },
}

impl Fault {
    /// Whether the client sees its connection end, and no answer.
    pub(super) fn leaves_no_answer(self) -> bool {
        match self {
            Self::LoseRequest | Self::LoseAnswer | Self::LateRequest { .. } => true,
            Self::DelayAnswer(_) | Self::Repeat => false,
        }
    }
}

/// A proxy on a port of its own. Brokers' addresses in answers become its own, so that clients stay with it.
pub(super) struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    upstream: SocketAddr,
    port: u16,
    witness: Option<Witness>,
    armed: Mutex<BTreeMap<i16, Fault>>,
    fired: AtomicUsize,
    late: Mutex<Vec<Late>>,
    /// What the broker said to requests that came late: errors by their number, of which 0 is none.
    late_answers: Mutex<Vec<i16>>,
    granted: Mutex<Granted>,
    ended: AtomicBool,
}

/// A request that waits for its answer.
struct Waiting {
    api: i16,
    fault: Option<Fault>,
    asked: Option<Asked>,
}

/// What to do with answers, by correlation id.
type Answers = Mutex<BTreeMap<i32, Waiting>>;

/// A request that is under way on a connection that its client has lost.
struct Late {
    due: Instant,
    before: Api,
    broker: TcpStream,
    frame: Vec<u8>,
}

impl Proxy {
    pub(super) fn start(upstream: &str) -> Result<Self> {
        Self::new(upstream, None)
    }

    /// One that shows every deletion of records.
    pub(super) fn with_witness(
        upstream: &str,
        witness: impl Fn(&[Deletion]) -> Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::new(upstream, Some(Box::new(witness)))
    }

    fn new(upstream: &str, witness: Option<Witness>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("bind the proxy")?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            upstream: upstream.parse().context("the broker's address")?,
            port: address.port(),
            witness,
            armed: Mutex::default(),
            fired: AtomicUsize::new(0),
            late: Mutex::default(),
            late_answers: Mutex::default(),
            granted: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.ended.load(Ordering::Acquire) {
                    break;
                }
                let state = Arc::clone(&accepting);
                std::thread::spawn(move || state.connection(client));
            }
        });
        Ok(Self { address, state })
    }

    /// Leads the scene's application through the proxy.
    pub(super) fn between(&self, scene: &Scene<'_>) -> Result<()> {
        let direct = std::fs::read_to_string(&scene.file)?;
        let through = set(&direct, "bootstrapServers", &self.address());
        Ok(std::fs::write(
            &scene.file,
            through.context("no bootstrapServers in the file")?,
        )?)
    }

    /// The next request of this kind meets the fault.
    pub(super) fn arm(&self, api: Api, fault: Fault) {
        lock(&self.state.armed).insert(api as i16, fault);
    }

    /// Answers to requests of this kind come later on all connections that make them now.
    pub(super) fn hold_answers(&self, api: Api, time: Duration) {
        loop {
            let before = self.fired();
            self.arm(api, Fault::DelayAnswer(time));
            let fires = || {
                if self.fired() > before {
                    Ok(Ok(()))
                } else {
                    Err("none is made".to_owned())
                }
            };
            if wait::until("a request", SECONDS(2), fires).is_err() {
                lock(&self.state.armed).remove(&(api as i16));
                return;
            }
        }
    }

    /// Faults that happened.
    pub(super) fn fired(&self) -> usize {
        self.state.fired.load(Ordering::Acquire)
    }

    /// The errors that requests have met which came late, in the order of their answers; 0 is none.
    pub(super) fn late_answers(&self) -> Vec<i16> {
        lock(&self.state.late_answers).clone()
    }

    /// Where its clients find the broker.
    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Transactional ids with the epochs that the broker gave its clients.
    pub(super) fn epochs(&self) -> Vec<(String, i16)> {
        lock(&self.state.granted).epochs.clone()
    }

    /// Transactions of its clients that the broker committed.
    pub(super) fn commits(&self) -> usize {
        lock(&self.state.granted).commits
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Release);
        // Ends the wait for a connection.
        let _ = TcpStream::connect(self.address);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn connection(&self, client: TcpStream) {
        let Ok(broker) = TcpStream::connect(self.upstream) else {
            return;
        };
        let answers = Answers::default();
        // An error ends the connection, as it would without a proxy.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _ = self.requests(&client, &broker, &answers);
                if is_awaiting_late(&answers) {
                    let _ = client.shutdown(Shutdown::Both);
                } else {
                    end(&client, &broker);
                }
            });
            let _ = self.answers(&client, &broker, &answers);
            end(&client, &broker);
        });
    }

    fn requests(&self, client: &TcpStream, mut broker: &TcpStream, answers: &Answers) -> Result<()> {
        loop {
            let frame = read_frame(client)?;
            let header = frame.get(4..12).context("a request without a header")?;
            let api = i16::from_be_bytes([header[0], header[1]]);
            let correlation = i32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            if api == DELETE_RECORDS
                && let Some(witness) = &self.witness
            {
                let deletions = deletions(&frame).context("a DeleteRecords that cannot be read")?;
                witness(&deletions)?;
            }
            let fault = lock(&self.armed).remove(&api);
            if fault.is_some() {
                self.fired.fetch_add(1, Ordering::AcqRel);
            }
            match fault {
                Some(Fault::LoseRequest) => return Ok(()),
                Some(Fault::LateRequest { after, before }) => {
                    let asked = None;
                    lock(answers).insert(correlation, Waiting { api, fault, asked });
                    lock(&self.late).push(Late {
                        due: Instant::now() + after,
                        before,
                        broker: broker.try_clone()?,
                        frame,
                    });
                    return Ok(());
                }
                Some(Fault::Repeat) => broker.write_all(&frame)?,
                Some(Fault::LoseAnswer | Fault::DelayAnswer(_)) | None => {}
            }
            self.send_late_before(api, &frame);
            let asked = Asked::of(&frame);
            lock(answers).insert(correlation, Waiting { api, fault, asked });
            broker.write_all(&frame)?;
        }
    }

    /// What is late and was to come before such a request gets to the broker, and is answered.
    fn send_late_before(&self, api: i16, frame: &[u8]) {
        if api == Api::Produce as i16 && !is_of_transaction(frame) {
            return;
        }
        let now = Instant::now();
        let due: Vec<_> = lock(&self.late)
            .extract_if(.., |late| late.before as i16 == api && late.due <= now)
            .collect();
        let mut wanted = lock(&self.late_answers).len();
        for mut late in due {
            // An error: the broker has left meanwhile.
            wanted += usize::from(late.broker.write_all(&late.frame).is_ok());
        }
        let _ = wait::until("answers to late requests", SECONDS(10), || {
            match lock(&self.late_answers).len() {
                answers if answers >= wanted => Ok(Ok(())),
                answers => Err(format!("{answers} of {wanted}")),
            }
        });
    }

    fn answers(&self, mut client: &TcpStream, broker: &TcpStream, answers: &Answers) -> Result<()> {
        loop {
            let mut frame = read_frame(broker)?;
            let id = frame.get(4..8).context("an answer without a header")?;
            let correlation = i32::from_be_bytes([id[0], id[1], id[2], id[3]]);
            // The answer to a request that was repeated comes twice; one is enough.
            let Some(Waiting { api, fault, asked }) = lock(answers).remove(&correlation) else {
                continue;
            };
            if let Some(asked) = asked {
                lock(&self.granted).note(asked, &frame);
            }
            match fault {
                Some(Fault::LoseAnswer) => return Ok(()),
                Some(Fault::LateRequest { .. }) => {
                    let error = error_of(api, &frame).context("an answer of another shape")?;
                    lock(&self.late_answers).push(error);
                    return Ok(());
                }
                Some(Fault::DelayAnswer(time)) => {
                    let since = Instant::now();
                    while since.elapsed() < time {
                        wait::pause();
                    }
                }
                Some(Fault::LoseRequest | Fault::Repeat) | None => {}
            }
            if NAME_BROKERS.contains(&api) {
                self.rename(&mut frame);
            }
            // The broker still answers what came before a late request, though nobody listens any more.
            client.write_all(&frame).or_else(|error| {
                if is_awaiting_late(answers) {
                    Ok(())
                } else {
                    Err(error)
                }
            })?;
        }
    }

    /// A broker's address is its name and then its port, in every version of these answers.
    fn rename(&self, frame: &mut [u8]) {
        let name = self.upstream.ip().to_string();
        let port = |port: u16| i32::from(port).to_be_bytes();
        let address = [name.as_bytes(), &port(self.upstream.port())].concat();
        for at in 0..frame.len().saturating_sub(address.len() - 1) {
            if frame[at..].starts_with(&address) {
                frame[at + name.len()..at + address.len()].copy_from_slice(&port(self.port));
            }
        }
    }
}

fn end(client: &TcpStream, broker: &TcpStream) {
    let _ = client.shutdown(Shutdown::Both);
    let _ = broker.shutdown(Shutdown::Both);
}

/// What a `DeleteRecords` request of version 0 or 1, which librdkafka speaks, asks for.
fn deletions(frame: &[u8]) -> Option<Vec<Deletion>> {
    let mut bytes = Bytes(frame.get(12..)?);
    bytes.text()?; // the client's id
    let mut deletions = Vec::new();
    for _ in 0..bytes.i32()? {
        let topic = bytes.text()?;
        for _ in 0..bytes.i32()? {
            deletions.push(Deletion {
                topic: topic.clone(),
                partition: bytes.i32()?,
                before: bytes.i64()?,
            });
        }
    }
    Some(deletions)
}

fn is_awaiting_late(answers: &Answers) -> bool {
    lock(answers)
        .values()
        .any(|waiting| matches!(waiting.fault, Some(Fault::LateRequest { .. })))
}

/// Whether a Produce request has a transactional id, in the latest version that librdkafka 2.12 speaks.
fn is_of_transaction(frame: &[u8]) -> bool {
    // Length, kind, version and correlation id; the client's id with its length; tags.
    let client = frame
        .get(12..14)
        .map_or(0, |length| u16::from_be_bytes([length[0], length[1]]));
    let id = frame.get(14 + usize::from(client) + 1);
    id.is_some_and(|length_and_one| *length_and_one != 0)
}

/// The error of an answer to a request that changes a transaction, in the latest versions that librdkafka 2.12 speaks; that of one
/// partition where each has its own. Of other answers: 0.
fn error_of(api: i16, answer: &[u8]) -> Option<i16> {
    const EACH: [Api; 5] = [
        Api::AddOffsetsToTxn,
        Api::EndTxn,
        Api::AddPartitionsToTxn,
        Api::TxnOffsetCommit,
        Api::Produce,
    ];
    let at = match EACH.into_iter().find(|each| *each as i16 == api) {
        // Behind length, correlation id and throttle time.
        Some(Api::AddOffsetsToTxn | Api::EndTxn) => 12,
        Some(Api::AddPartitionsToTxn) => answer.len().checked_sub(2)?,
        // Before three lists of tags, all empty.
        Some(Api::TxnOffsetCommit) => answer.len().checked_sub(5)?,
        // Behind length, correlation id, tags, number of topics, a topic's name (its length and one), number of partitions,
        // a partition.
        Some(Api::Produce) => 10 + usize::from(*answer.get(10)?) + 1 + 4,
        Some(Api::Fetch | Api::InitProducerId) | None => return Some(0),
    };
    let error = answer.get(at..at + 2)?;
    Some(i16::from_be_bytes([error[0], error[1]]))
}

/// A request or an answer with its length before it.
fn read_frame(mut from: &TcpStream) -> Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let size = usize::try_from(i32::from_be_bytes(length))?;
    ensure!(size <= 256 << 20, "a frame of {size} bytes");
    let mut frame = length.to_vec();
    frame.resize(4 + size, 0);
    from.read_exact(&mut frame[4..])?;
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_answers_and_transactions_of_records_are_read_where_they_are() {
        const ERROR: [u8; 2] = [0, 47];
        let error = |api: Api, body: &[&[u8]]| {
            let answer = [vec![0; 8], body.concat()].concat();
            error_of(api as i16, &answer)
        };
        assert_eq!(error(Api::EndTxn, &[&[0; 4], &ERROR]), Some(47));
        assert_eq!(error(Api::AddOffsetsToTxn, &[&[0; 4], &ERROR]), Some(47));
        let partition = b"\0\0\0\0\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\x03";
        assert_eq!(error(Api::AddPartitionsToTxn, &[partition, &ERROR]), Some(47));
        let offset = b"\0\0\0\0\0\x02\x02t\x02\0\0\0\x03";
        assert_eq!(error(Api::TxnOffsetCommit, &[offset, &ERROR, &[0; 3]]), Some(47));
        let records = b"\0\x02\x05name\x02\0\0\0\x03";
        assert_eq!(error(Api::Produce, &[records, &ERROR, &[0; 30]]), Some(47));
        assert_eq!(error(Api::Produce, &[records]), None);
        assert_eq!(error(Api::Fetch, &[&ERROR]), Some(0));

        let request = |id: &[u8]| [&b"\0\0\0\0\0\0\0\0\0\0\0\0\0\x07rdkafka\0"[..], id].concat();
        assert!(is_of_transaction(&request(b"\x04app")));
        assert!(!is_of_transaction(&request(b"\0")));
    }

    #[test]
    fn deletions_are_read_from_their_request() {
        let name = |text: &str| [&(text.len() as i16).to_be_bytes(), text.as_bytes()].concat();
        let place =
            |partition: i32, before: i64| [&partition.to_be_bytes()[..], &before.to_be_bytes()].concat();
        let frame = [
            vec![0; 12],
            name("worker"),
            1i32.to_be_bytes().to_vec(),
            name("t"),
            2i32.to_be_bytes().to_vec(),
            place(0, 7),
            place(3, 1 << 40),
            60_000i32.to_be_bytes().to_vec(),
        ]
        .concat();
        let deletion = |partition, before| Deletion {
            topic: "t".to_owned(),
            partition,
            before,
        };
        assert_eq!(
            deletions(&frame),
            Some(vec![deletion(0, 7), deletion(3, 1 << 40)])
        );
        assert_eq!(deletions(&frame[..frame.len() - 8]), None);
    }
}
