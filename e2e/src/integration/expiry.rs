//! What a broker forgets: producer ids, transactional ids, the group's offsets. Its times are shortened from days to
//! seconds here.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::brokers::Own;
use super::faults::{status_says, streamapp};
use super::handover::total;
use super::scene::{PARTITIONS, Scene};
use super::{Counted, Integration};
use crate::app::signal;
use crate::broker::{Broker, REQUEST};
use crate::check::{Example, Guarantee};
use crate::wait;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;
const PORT: u16 = 19_992;
/// After so much idleness every id is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(10);
const SETTINGS: [&str; 6] = [
    "transactional.id.expiration.ms=4000",
    "transaction.remove.expired.transaction.cleanup.interval.ms=1000",
    "producer.id.expiration.ms=3000",
    "producer.id.expiration.check.interval.ms=1000",
    "offsets.retention.minutes=1",
    "offsets.retention.check.interval.ms=2000",
];

/// Orders come in bursts with so much time between them that the ids of the workers' producers are forgotten; one burst is
/// cut short by a kill. Then the application is stopped until the group's offsets are forgotten, too.
pub(super) fn of_ids_and_offsets(args: &Integration, name: &str) -> Result<Counted> {
    const BURST: u64 = 1_000;
    let own = Own::one(args, PORT)?;
    let mut up = vec!["up"];
    up.extend(SETTINGS.iter().flat_map(|setting| ["--set", setting]));
    own.call(&up)?;
    let mut scene = Scene::without_topics(args, name, Example::OrdersRisk, Guarantee::ExactlyOnceV2)?;
    scene.broker = Broker {
        bootstrap: format!("127.0.0.1:{PORT}"),
    };
    scene.write_file(|text| text)?;
    scene.create_topics()?;
    let mut app = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    let mut written = 0;
    let burst = |written: &mut u64| -> Result<()> {
        scene.orders(*written, BURST, 0, None)?;
        *written += BURST;
        scene.wait_drained(SECONDS(60))
    };
    burst(&mut written)?;
    idle();
    burst(&mut written)?;
    ensure!(
        total(&app, 0, "producerRebuilds")? > 0,
        "no id was forgotten: {}",
        app.words()
    );
    idle();
    let before = app.pid(0)?;
    scene.orders(written, BURST, 0, None)?;
    written += BURST;
    signal(before, libc::SIGKILL)?;
    app.wait_successor(0, before)?;
    scene.wait_drained(SECONDS(60))?;
    app.drain()?;
    wait_forgotten(&scene)?;
    let mut app = scene.launch().start()?;
    status_says(&app, &["OffsetsLost", "--restore"])?;
    let file = scene.file.display().to_string();
    let (code, said) = streamapp(args, &["offsets", &file, "--restore"])?;
    ensure!(code == 0, "exit code {code}: {said}");
    app.wait_running(1, SECONDS(60))?;
    burst(&mut written)?;
    let last = app.drain()?;
    ensure!(last["totals"]["storeWipes"] == 0, "a store was wiped: {last}");
    let mut counted = scene.check(written, 0)?;
    counted.kills = 1;
    // Ids, twice, and offsets.
    counted.losses = 3;
    std::fs::remove_dir_all(&scene.state_dir)?;
    Ok(counted)
}

/// That time passes is what it waits for.
fn idle() {
    let until = Instant::now() + FORGOTTEN;
    while Instant::now() < until {
        wait::pause();
    }
}

fn wait_forgotten(scene: &Scene<'_>) -> Result<()> {
    let consumer: BaseConsumer = scene.broker.config().set("group.id", &scene.id).create()?;
    wait::until("the group's offsets to expire", SECONDS(180), || {
        let mut inputs = TopicPartitionList::new();
        // Those of one topic may go a moment after those of the other.
        for topic in [
            scene.input(),
            format!("{}-exposure-by-customer-repartition", scene.id),
        ] {
            inputs.add_partition_range(&topic, 0, PARTITIONS - 1);
        }
        let committed = consumer
            .committed_offsets(inputs, REQUEST)
            .map_err(|error| error.to_string())?;
        let known = committed
            .elements()
            .iter()
            .filter(|input| input.offset() != Offset::Invalid)
            .count();
        if known == 0 {
            Ok(Ok(()))
        } else {
            Err(format!("{known} are there"))
        }
    })
}
