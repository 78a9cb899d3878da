//! Headers of records, through a repartition topic, to those of results.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rdkafka::message::{Header, Headers as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _};

use super::crash::{drain_crashed, environment, eventually};
use super::scene::{PARTITIONS, Scene};
use super::system::drained;
use super::{Counted, Integration};
use crate::broker::Isolation;
use crate::check::Guarantee;
use crate::generate::send;
use crate::reader::read_all;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;
/// Written at once; so many until the worker has died.
const BATCH: u64 = 100;
const WORDS: u64 = 7;

/// Each count has the trace of the record that made it, also when the worker is killed in between.
pub(super) fn carried(args: &Integration, name: &str) -> Result<Counted> {
    let file = include_str!("headers.yaml");
    let guarantee = Guarantee::ExactlyOnceV2;
    let scene = Scene::of_file(args, name, guarantee, file, &["words", "counts"], PARTITIONS)?;
    let mut launch = scene.launch();
    let crash_at = ["after-output:16".to_owned()];
    launch.environment = environment(&scene, &crash_at);
    let mut app = launch.start()?;
    app.wait_running(1, SECONDS(60))?;
    let records = Cell::new(0);
    eventually("the worker to die", || {
        write(&scene, records.get()..records.get() + BATCH)?;
        records.set(records.get() + BATCH);
        Ok(app.events("died") > 0)
    })?;
    let records = records.get();
    drained(&scene, &["words"], &["counts"])?;
    let kills = drain_crashed(app, &crash_at)?;
    let mut counts = BTreeMap::<Vec<u8>, u64>::new();
    let mut traces = vec![false; usize::try_from(records)?];
    let topic = format!("{}-counts", scene.id);
    read_all(
        &scene.broker,
        &topic,
        Isolation::Committed,
        SECONDS(60),
        |record| {
            let word = record.key.context("a count without word")?;
            let count = counts.entry(word.to_vec()).or_default();
            *count += 1;
            let value = record.value.context("a word without count")?;
            ensure!(value == count.to_be_bytes(), "{word:?}: {value:?} is not {count}");
            let headers = record.headers.context("a count without headers")?;
            let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
            let found: Vec<_> = headers
                .iter()
                .map(|header| (header.key, text(header.value)))
                .collect();
            let [("count", said), ("trace", trace)] = found.as_slice() else {
                anyhow::bail!("headers {found:?}");
            };
            ensure!(*said == count.to_string(), "{said} is not {count}");
            let number: u64 = trace.parse()?;
            ensure!(
                word_of(number).as_bytes() == word,
                "{trace} is no record of {word:?}"
            );
            let seen = traces
                .get_mut(usize::try_from(number)?)
                .context("no such record")?;
            ensure!(!std::mem::replace(seen, true), "{trace} was counted twice");
            Ok(())
        },
    )?;
    ensure!(traces.iter().all(|seen| *seen), "records are missing");
    scene.clean()?;
    Ok(Counted {
        kills,
        records,
        ..Counted::default()
    })
}

fn word_of(number: u64) -> String {
    format!("word-{}", number % WORDS)
}

/// One trace that is replaced by a later header, and one without a value.
fn write(scene: &Scene<'_>, numbers: Range<u64>) -> Result<()> {
    let producer = scene.producer(&[])?;
    let topic = format!("{}-words", scene.id);
    for number in numbers {
        let (word, trace) = (word_of(number), number.to_string());
        let header = |key, value| Header { key, value };
        let headers = OwnedHeaders::new()
            .insert(header("trace", Some("old")))
            .insert(header("gone", None))
            .insert(header("trace", Some(trace.as_str())));
        let key = number.to_be_bytes();
        send(
            &producer,
            BaseRecord::to(&topic).key(&key).payload(&word).headers(headers),
        )?;
    }
    Ok(producer.flush(SECONDS(30))?)
}
