use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::*;
use crate::consumer::{Consumer, Isolation, millis};

/// Again and again, since what a failed attempt frees twice is found at the next one at the earliest.
#[test]
fn a_client_that_librdkafka_cannot_make_is_an_error() {
    let settings = settings(
        "127.0.0.1:1",
        &[
            ("security.protocol", "ssl"),
            ("ssl.ca.location", "/nowhere/ca.pem"),
        ],
    );
    for _ in 0..100 {
        for (kind, own) in [
            (Kind::Producer, ("enable.idempotence", "true")),
            (Kind::Consumer, ("group.id", "g")),
        ] {
            let made = Client::new(kind, &settings, &[own]);
            let error = made.err().unwrap().to_string();
            assert!(error.contains("ssl.ca.location"), "{error}");
        }
    }
}

#[test]
fn an_offset_that_is_gone_is_an_error_whatever_the_user_sets() {
    let wanted = [
        ("auto.offset.reset", "error", "earliest"),
        ("enable.auto.commit", "false", "true"),
        ("enable.auto.offset.store", "false", "true"),
        ("enable.partition.eof", "true", "false"),
        ("isolation.level", "read_committed", "read_uncommitted"),
    ];
    let users = wanted.map(|(name, _, users)| (name, users));
    let settings = settings("127.0.0.1:1", &users);
    let consumer = Consumer::new(&settings, "g", Isolation::ReadCommitted, 64).unwrap();
    for (name, own, _) in wanted {
        assert_eq!(property(&consumer, name), own, "{name}");
    }
}

#[test]
fn a_broker_is_known_by_the_name_of_its_thread_however_long() {
    let long = "sandbox-cluster-dual-role-0.sandbox-kafka-brokers.streaming.svc:9092/0";
    assert!(is_of_broker("127.0.0.1:9092/1") && is_of_broker("sasl_ssl://kafka:9093/bootstrap"));
    assert!(is_of_broker(&long[..63]));
    assert!(!is_of_broker(":0/internal") && !is_of_broker("GroupCoordinator"));
}

/// As a broker answers that has just started: its cluster has no brokers. librdkafka is told not to look for them by itself,
/// which it does not do reliably either.
#[test]
fn brokers_that_were_forgotten_are_found_again() {
    let broker = Broker::start();
    let address = format!("127.0.0.1:{}", broker.port);
    let settings = settings(&address, &[("metadata.recovery.strategy", "none")]);
    let consumer = Consumer::new(&settings, "g", Isolation::ReadCommitted, 64).unwrap();
    let wait = |brokers: i32| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while consumer.poll(Duration::ZERO).is_ok() && brokers_told(&consumer) != Some(brokers) {
            assert!(
                Instant::now() < deadline,
                "no answer that there are {brokers} brokers"
            );
        }
    };
    wait(1);
    broker.is_listed.store(false, Ordering::Release);
    wait(0);
    broker.is_listed.store(true, Ordering::Release);
    wait(1);
}

fn settings(bootstrap_servers: &str, properties: &[(&str, &str)]) -> Settings {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Settings {
        bootstrap_servers: bootstrap_servers.to_owned(),
        properties: properties.iter().map(own).collect(),
    }
}

/// What librdkafka goes by.
fn property(consumer: &Consumer, name: &str) -> String {
    let (name, mut value) = (text("name", name).unwrap(), [0 as c_char; 64]);
    let mut size = value.len();
    // SAFETY: handle and name are live; librdkafka NUL-terminates what it writes within the buffer.
    unsafe {
        let conf = sys::rd_kafka_conf(consumer.raw());
        let result = sys::rd_kafka_conf_get(conf, name.as_ptr(), value.as_mut_ptr(), &raw mut size);
        assert_eq!(result, sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK);
        CStr::from_ptr(value.as_ptr()).to_string_lossy().into_owned()
    }
}

/// How many brokers the cluster has, if anyone says so within a moment.
fn brokers_told(consumer: &Consumer) -> Option<i32> {
    let mut answer = std::ptr::null();
    let timeout = millis(Duration::from_millis(200));
    // SAFETY: the handle is live; the answer is ours and destroyed once.
    unsafe {
        let code = sys::rd_kafka_metadata(consumer.raw(), 1, std::ptr::null_mut(), &raw mut answer, timeout);
        (code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| {
            let brokers = (*answer).broker_cnt;
            sys::rd_kafka_metadata_destroy(answer);
            brokers
        })
    }
}

/// Speaks as much of Kafka's protocol as it takes to be found: `ApiVersions` 0 and `Metadata` 1.
struct Broker {
    port: u16,
    /// Whether it says that it belongs to the cluster.
    is_listed: Arc<AtomicBool>,
}

const METADATA: i16 = 3;
const API_VERSIONS: i16 = 18;
const UNSUPPORTED_VERSION: i16 = 35;

impl Broker {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let is_listed = Arc::new(AtomicBool::new(true));
        let listed = Arc::clone(&is_listed);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, listed) = (stream.unwrap(), Arc::clone(&listed));
                std::thread::spawn(move || serve(stream, port, &listed));
            }
        });
        Self { port, is_listed }
    }
}

/// Until the client leaves.
fn serve(mut stream: TcpStream, port: u16, is_listed: &AtomicBool) -> Option<()> {
    loop {
        let mut size = [0; 4];
        stream.read_exact(&mut size).ok()?;
        let mut request = vec![0; usize::try_from(i32::from_be_bytes(size)).ok()?];
        stream.read_exact(&mut request).ok()?;
        let short = |at: usize| i16::from_be_bytes([request[at], request[at + 1]]);
        let mut answer = request[4..8].to_vec(); // the correlation id
        match (short(0), short(2)) {
            (METADATA, _) => metadata(port, is_listed.load(Ordering::Acquire), &mut answer),
            (API_VERSIONS, version) => api_versions(version, &mut answer),
            (api, _) => panic!("nobody asks for {api}"),
        }
        let size = i32::try_from(answer.len()).ok()?.to_be_bytes();
        stream.write_all(&[&size, &*answer].concat()).ok()?;
    }
}

fn api_versions(version: i16, answer: &mut Vec<u8>) {
    let error = if version == 0 { 0 } else { UNSUPPORTED_VERSION };
    answer.extend(error.to_be_bytes());
    answer.extend(2i32.to_be_bytes());
    let versions = [[METADATA, 1, 1], [API_VERSIONS, 0, 0]];
    answer.extend(versions.concat().into_iter().flat_map(i16::to_be_bytes));
}

fn metadata(port: u16, is_listed: bool, answer: &mut Vec<u8>) {
    answer.extend(i32::from(is_listed).to_be_bytes());
    if is_listed {
        answer.extend(1i32.to_be_bytes()); // its id
        answer.extend(b"\0\x09127.0.0.1");
        answer.extend(i32::from(port).to_be_bytes());
        answer.extend((-1i16).to_be_bytes()); // no rack
    }
    answer.extend((-1i32).to_be_bytes()); // no controller
    // A topic without partitions. An answer without brokers and topics is ignored, and one so short that its size says too
    // little of the memory that it takes is refused.
    answer.extend(1i32.to_be_bytes());
    answer.extend(0i16.to_be_bytes()); // no error
    answer.extend(100i16.to_be_bytes());
    answer.extend([b't'; 100]);
    answer.push(0); // not internal
    answer.extend(0i32.to_be_bytes()); // no partitions
}
