//! Stores and changelogs that do not belong together any more: a volume that comes back when tombstones are gone, a changelog
//! that was made again, one that lost its end. The worker says so, sets the store aside, and has what the changelog holds.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rdkafka::consumer::Consumer as _;

use super::brokers::Own;
use super::clock::{Clock, DAY};
use super::faults::says;
use super::keyed::{changelog, judge, put, scene};
use super::scene::Scene;
use super::system::{Topic, compare};
use super::{Counted, Integration};
use crate::app::App;
use crate::broker::{Isolation, REQUEST};
use crate::check::Guarantee;
use crate::reader::{read_all, wait_still};
use crate::wait;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;
const GUARANTEE: Guarantee = Guarantee::ExactlyOnceV2;

/// A volume comes back that has missed deletions, and their tombstones are compacted away: what was deleted stays deleted.
pub(super) fn old_volume(args: &Integration, name: &str) -> Result<Counted> {
    const GONE: [&str; 3] = ["gone-0", "gone-1", "gone-2"];
    let own = Own::one(args, 19_692)?;
    own.call(&["up", "--set", "log.cleaner.backoff.ms=200"])?;
    let args = own.instead_of(args);
    let scene = scene(&args, name, GUARANTEE, 1)?;
    let clock = Clock::new(&scene.state_dir)?;
    let each = |value: i64| GONE.map(|key| (key, value));
    clock.set(-5 * DAY)?;
    let app = clock.start(scene.launch())?;
    put(&scene, &each(5))?;
    put(&scene, &[("kept", 7)])?;
    app.drain()?;
    let (volume, old) = (volume(&scene), scene.state_dir.join("old"));
    copy(&volume, &old)?;

    let app = clock.start(scene.launch())?;
    put(&scene, &each(-1))?;
    let tombstones = deletions(&scene, &GONE)?;
    ensure!(
        tombstones == GONE.len(),
        "{tombstones} tombstones instead of {}",
        GONE.len()
    );
    compact(&scene, || deletions(&scene, &GONE))?;
    let last = app.drain()?;
    ensure!(last["totals"]["storeWipes"] == 0, "a store was wiped: {last}");

    std::fs::remove_dir_all(&volume)?;
    std::fs::rename(&old, &volume)?;
    clock.set(0)?;
    let app = clock.start(scene.launch())?;
    put(&scene, &each(3))?;
    put(&scene, &[("kept", 2)])?;
    let last = app.drain()?;
    let counted = judge(&scene, 0)?;
    set_aside(&scene, &last, "the store was last caught up 120 hours ago")?;
    std::fs::remove_dir_all(&scene.state_dir)?;
    Ok(counted)
}

/// Records of the changelog with one of these keys, those of transactions that were aborted, too.
fn deletions(scene: &Scene<'_>, keys: &[&str]) -> Result<usize> {
    let mut found = 0;
    let topic = changelog(scene);
    read_all(
        &scene.broker,
        &topic,
        Isolation::Uncommitted,
        SECONDS(30),
        |record| {
            let is_one = keys.iter().any(|key| record.key == Some(key.as_bytes()));
            found += usize::from(is_one && record.value.is_none());
            Ok(())
        },
    )?;
    Ok(found)
}

/// Has the changelog compacted, as time would, until none of the tombstones is left. Segments end while the application writes, so
/// it does.
fn compact(scene: &Scene<'_>, tombstones: impl Fn() -> Result<usize>) -> Result<()> {
    let at_once = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "50"),
        ("min.cleanable.dirty.ratio", "0"),
        ("max.compaction.lag.ms", "1"),
        ("delete.retention.ms", "1"),
    ];
    scene.broker.set_topic_configs(&changelog(scene), &at_once)?;
    wait::until("the tombstones to be gone", SECONDS(60), || {
        let look = || {
            put(scene, &[("tick", 1)])?;
            tombstones()
        };
        match look() {
            Ok(0) => Ok(Ok(())),
            Ok(left) => Err(format!("{left} are left")),
            Err(error) => Err(format!("{error:#}")),
        }
    })
}

/// Somebody deletes a changelog while nothing runs: it is made again, and sums begin anew, for nothing else vouches for them.
pub(super) fn recreated(args: &Integration, name: &str) -> Result<Counted> {
    let scene = scene(args, name, GUARANTEE, 1)?;
    process(&scene, &[("a", 5), ("b", 1)])?;
    scene.broker.delete_topics(&[&changelog(&scene)])?;
    let last = process(&scene, &[("a", 2)])?;
    set_aside(&scene, &last, "the changelog topic was re-created")?;
    let counted = results(&scene, &[("a", 5), ("b", 1), ("a", 2)])?;
    scene.clean()?;
    Ok(counted)
}

/// A broker loses the end of a changelog: the store that has more of it is set aside, and sums go on from what is left.
pub(super) fn cut(args: &Integration, name: &str) -> Result<Counted> {
    let own = Own::one(args, 19_492)?;
    own.call(&["up"])?;
    let args = own.instead_of(args);
    let scene = scene(&args, name, GUARANTEE, 1)?;
    process(&scene, &[("a", 5), ("b", 1)])?;
    // A transaction that is decided may not have its marker yet.
    wait_still(&scene.broker, SECONDS(60))?;
    let all = scene.broker.consumer(&scene.id, Isolation::Uncommitted)?;
    let (_, end) = all.fetch_watermarks(&changelog(&scene), 0, REQUEST)?;
    process(&scene, &[("a", 3), ("c", 4)])?;
    wait_still(&scene.broker, SECONDS(60))?;
    own.lose(&changelog(&scene), end)?;
    let last = process(&scene, &[("a", 2), ("c", 6)])?;
    set_aside(&scene, &last, &format!("the topic ends at {end}"))?;
    let first = [("a", 5), ("b", 1), ("a", 8), ("c", 4)];
    let mut counted = results(&scene, &[&first[..], &[("a", 7), ("c", 6)]].concat())?;
    counted.losses = 1;
    std::fs::remove_dir_all(&scene.state_dir)?;
    Ok(counted)
}

/// A run from its start to its end that processes these records; returns its last words.
fn process(scene: &Scene<'_>, records: &[(&str, i64)]) -> Result<serde_json::Value> {
    let mut app: App = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    put(scene, records)?;
    app.drain()
}

/// Whether these are all results.
fn results(scene: &Scene<'_>, wanted: &[(&str, i64)]) -> Result<Counted> {
    let wanted = wanted.iter().map(|(key, sum)| (key.as_bytes().into(), *sum));
    compare(scene, "out", &Topic::from([(0, wanted.collect())]))
}

/// Whether the worker has set its store aside, once, and said why.
fn set_aside(scene: &Scene<'_>, last: &serde_json::Value, why: &str) -> Result<()> {
    let log = scene.launch().state_dir.join("worker-0/worker.log");
    let text = std::fs::read_to_string(&log).with_context(|| format!("read {}", log.display()))?;
    says(&text, &["store set aside", why])?;
    ensure!(
        last["totals"]["storeWipes"] == 1,
        "one store was to be rebuilt: {last}"
    );
    Ok(())
}

fn volume(scene: &Scene<'_>) -> PathBuf {
    scene.launch().state_dir.join("worker-0").join("state")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let copied = Command::new("cp").arg("-r").args([from, to]).status()?;
    ensure!(copied.success(), "cannot copy {}", from.display());
    Ok(())
}
