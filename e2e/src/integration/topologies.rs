//! Topologies that are replaced: stores come and go while the others go on exactly-once, and one that is to be kept in another way
//! is refused.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::faults::{stateful, status_says, streamapp};
use super::scene::PARTITIONS;
use super::{Counted, Integration};
use crate::broker::Isolation;
use crate::reader::read_all;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;
/// Orders of each round.
const ROUND: u64 = 1_000;

/// A store is added, taken away, and comes back: nobody loses or repeats anything, and what it held is there again.
pub(super) fn store_added(args: &Integration, name: &str) -> Result<Counted> {
    let scene = stateful(args, name)?;
    let counts = format!("{}-counts", scene.id);
    scene.broker.create_topics(&[(&counts, PARTITIONS)])?;
    let with_counts = |text: String| {
        let pipeline = "    pipelines:
      - name: counts
        from: orders
        steps:
          - groupByKey: {}
          - count: {store: orders-by-key}
          - toStream: {}
        to: {topic: COUNTS, value: {serde: Long}}
";
        text.replace("    pipelines:\n", &pipeline.replace("COUNTS", &counts))
    };
    for round in 0..4 {
        scene.write_file(|text| if round % 2 == 1 { with_counts(text) } else { text })?;
        scene.process(round * ROUND, ROUND)?;
    }
    let mut last = BTreeMap::<Box<[u8]>, i64>::new();
    read_all(
        &scene.broker,
        &counts,
        Isolation::Committed,
        SECONDS(60),
        |record| {
            let value = record.value.context("a count without value")?;
            let count = i64::from_be_bytes(value.try_into().context("a count that is no Long")?);
            last.insert(record.key.unwrap_or_default().into(), count);
            Ok(())
        },
    )?;
    let counted = u64::try_from(last.values().sum::<i64>())?;
    ensure!(
        counted == 2 * ROUND,
        "{counted} orders were counted, not {}",
        2 * ROUND
    );
    let report = scene.check(4 * ROUND, 0)?;
    scene.clean()?;
    Ok(report)
}

/// A store whose values have another type is refused, on its volume and without it, and the old topology goes on.
pub(super) fn store_changed(args: &Integration, name: &str) -> Result<Counted> {
    let scene = stateful(args, name)?;
    scene.process(0, ROUND)?;
    let before = scene.file.with_extension("before.yaml");
    std::fs::copy(&scene.file, &before)?;
    scene.write_file(|text| {
        text.replace("initial: \"0\"", "initial: \"0.0\"")
            .replace(
                "aggregate + value.amountInCents",
                "aggregate + double(value.amountInCents)",
            )
            .replace("value >= 1000000", "value >= 1000000.0")
    })?;
    for with_volume in [true, false] {
        if !with_volume {
            std::fs::remove_dir_all(scene.launch().state_dir.join("worker-0").join("state"))?;
        }
        let app = scene.launch().start()?;
        status_says(&app, &["StoreChanged", "exposure-by-customer", "streamapp plan"])?;
        app.drain()?;
    }
    let files = [&scene.file, &before].map(|file| file.display().to_string());
    let (code, said) = streamapp(args, &["plan", &files[0], "--offline", &files[1]])?;
    let wanted = "store `exposure-by-customer`: its values are double, before int";
    ensure!(code == 4 && said.contains(wanted), "exit code {code}: {said}");
    scene.write_file(|text| text)?;
    scene.process(ROUND, ROUND)?;
    let mut report = scene.check(2 * ROUND, 0)?;
    report.losses = 1;
    scene.clean()?;
    Ok(report)
}
