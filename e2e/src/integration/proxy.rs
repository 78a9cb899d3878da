//! A proxy between a worker and the broker that loses, delays or repeats single requests and answers, and the tests with it:
//! whatever becomes of a request, each record counts once.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::crash::eventually;
use super::scene::Scene;
use super::{Counted, Integration, Test};
use crate::bench::subjects::set;
use crate::check::{Example, Guarantee};
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
}

/// A proxy on a port of its own. Brokers' addresses in answers become its own, so that clients stay with it.
pub(super) struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    upstream: SocketAddr,
    port: u16,
    armed: Mutex<BTreeMap<i16, Fault>>,
    fired: AtomicUsize,
    ended: AtomicBool,
}

/// What to do with answers, by correlation id.
type Answers = Mutex<BTreeMap<i32, (i16, Option<Fault>)>>;

impl Proxy {
    pub(super) fn start(upstream: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("bind the proxy")?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            upstream: upstream.parse().context("the broker's address")?,
            port: address.port(),
            armed: Mutex::default(),
            fired: AtomicUsize::new(0),
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
        let through = set(&direct, "bootstrapServers", &self.address.to_string());
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
    fn hold_answers(&self, api: Api, time: Duration) {
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
                end(&client, &broker);
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
            let fault = lock(&self.armed).remove(&api);
            if fault.is_some() {
                self.fired.fetch_add(1, Ordering::AcqRel);
            }
            match fault {
                Some(Fault::LoseRequest) => return Ok(()),
                Some(Fault::Repeat) => broker.write_all(&frame)?,
                Some(Fault::LoseAnswer | Fault::DelayAnswer(_)) | None => {}
            }
            lock(answers).insert(correlation, (api, fault));
            broker.write_all(&frame)?;
        }
    }

    fn answers(&self, mut client: &TcpStream, broker: &TcpStream, answers: &Answers) -> Result<()> {
        loop {
            let mut frame = read_frame(broker)?;
            let id = frame.get(4..8).context("an answer without a header")?;
            let correlation = i32::from_be_bytes([id[0], id[1], id[2], id[3]]);
            // The answer to a request that was repeated comes twice; one is enough.
            let Some((api, fault)) = lock(answers).remove(&correlation) else {
                continue;
            };
            match fault {
                Some(Fault::LoseAnswer) => return Ok(()),
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
            client.write_all(&frame)?;
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

pub(super) fn tests(args: &Integration) -> Vec<Test<'_>> {
    let test = |(guarantee, short): (Guarantee, &str), topology: Example| -> Test<'_> {
        let state = match topology {
            Example::OrdersRisk => "stateful",
            Example::Stateless => "stateless",
        };
        let name = format!("proxy-{state}-{short}");
        (
            name.clone(),
            Box::new(move || faults(args, &name, topology, guarantee)),
        )
    };
    let guarantees = [(Guarantee::ExactlyOnceV2, "eos"), (Guarantee::AtLeastOnce, "alo")];
    let topologies = [Example::OrdersRisk, Example::Stateless];
    let all = guarantees
        .into_iter()
        .flat_map(|g| topologies.map(|topology| (g, topology)));
    let mut tests: Vec<_> = all
        .map(|(guarantee, topology)| test(guarantee, topology))
        .collect();
    let name = "proxy-records-that-do-not-arrive";
    tests.push((name.to_owned(), Box::new(move || not_arriving(args, name))));
    tests
}

/// A client waits for answers that do not come, longer than the worker lets it: what it does not see is told all the same, and
/// new clients read it.
fn not_arriving(args: &Integration, name: &str) -> Result<Counted> {
    const ORDERS: u64 = 200;
    const HELD: Duration = Duration::from_secs(59);
    let scene = Scene::new(args, name, Example::OrdersRisk, Guarantee::ExactlyOnceV2)?;
    let proxy = Proxy::start(&scene.broker.bootstrap)?;
    proxy.between(&scene)?;
    let mut app = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    scene.orders(0, ORDERS, 0, None)?;
    scene.wait_drained(SECONDS(60))?;
    let before = Instant::now();
    proxy.hold_answers(Api::Fetch, HELD);
    scene.orders(ORDERS, ORDERS, 0, None)?;
    wait::until("the lag to be told", SECONDS(20), || {
        let status = app.status(0).map_err(|error| error.to_string())?;
        let lags = status["tasks"].as_array().into_iter().flatten();
        let lag: u64 = lags.filter_map(|task| task["lag"].as_u64()).sum();
        if lag >= ORDERS {
            Ok(Ok(()))
        } else {
            Err(status.to_string())
        }
    })?;
    scene.wait_drained(SECONDS(60))?;
    ensure!(before.elapsed() < HELD, "the answers came before new clients did");
    ensure!(app.events("died") == 0, "the worker died: {}", app.words());
    app.drain()?;
    let mut counted = scene.check(ORDERS * 2, 0)?;
    counted.faults = u64::try_from(proxy.fired())?;
    scene.clean()?;
    Ok(counted)
}

/// Every kind of request of a transaction meets every fault, while orders come in.
fn faults(args: &Integration, name: &str, topology: Example, guarantee: Guarantee) -> Result<Counted> {
    const ORDERS: u64 = 200;
    let plan = Api::TRANSACTIONAL.into_iter().flat_map(|api| {
        let faults = [
            Fault::LoseRequest,
            Fault::LoseAnswer,
            Fault::Repeat,
            Fault::DelayAnswer(SECONDS(2)),
        ];
        faults.map(|fault| (api, fault))
    });
    // Longer than a worker waits: it goes on while the broker has long decided.
    let late = (Api::EndTxn, Fault::DelayAnswer(SECONDS(12)));
    let plan: Vec<_> = plan.chain([late]).collect();
    let scene = Scene::new(args, name, topology, guarantee)?;
    let proxy = Proxy::start(&scene.broker.bootstrap)?;
    proxy.between(&scene)?;
    let mut app = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    let mut written = 0;
    // Each lost answer to a request that changes a transaction costs the producer.
    let mut doubts = 0;
    for (done, (api, fault)) in plan.iter().enumerate() {
        let wanted = if *api == Api::InitProducerId {
            // It is sent when a producer was lost.
            proxy.arm(Api::EndTxn, Fault::LoseAnswer);
            2
        } else {
            1
        };
        if *fault == Fault::LoseAnswer && !matches!(api, Api::Fetch) {
            doubts += 1;
        }
        let before = proxy.fired();
        proxy.arm(*api, *fault);
        scene.orders(written, ORDERS, 0, None)?;
        written += ORDERS;
        eventually(&format!("fault {done}: {api:?} {fault:?}"), || {
            Ok(proxy.fired() >= before + wanted)
        })
        .with_context(|| format!("worker: {:?}", app.status(0)))?;
    }
    scene.wait_drained(SECONDS(120))?;
    ensure!(app.events("died") == 0, "the worker died: {}", app.words());
    let status = app.status(0)?;
    ensure!(status["totals"]["storeWipes"] == 0, "{status}");
    let rebuilds = status["totals"]["producerRebuilds"].as_u64().unwrap_or(0);
    let fired = u64::try_from(proxy.fired())?;
    ensure!(
        rebuilds >= doubts && rebuilds <= fired,
        "{doubts} requests were never answered, {fired} faults happened, and producers were made anew {rebuilds} times: {status}"
    );
    app.drain()?;
    let mut counted = scene.check(written, 0)?;
    counted.faults = fired;
    scene.clean()?;
    Ok(counted)
}
