//! Requests and answers that are lost, late or repeated by a [`Proxy`] between a worker and the broker: whatever becomes of a
//! request, each record counts once.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::crash::eventually;
use super::handover::total;
use super::proxy::{Api, Fault, Proxy};
use super::scene::Scene;
use super::{Counted, Integration, Test};
use crate::app::{App, tasks};
use crate::check::along::Along;
use crate::check::{Example, Guarantee};
use crate::wait;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

pub(super) fn tests(args: &Integration) -> Vec<Test<'_>> {
    let mut tests: Vec<Test<'_>> = Vec::new();
    for guarantee in Guarantee::ALL {
        let short = guarantee.short();
        for (topology, state) in [
            (Example::OrdersRisk, "stateful"),
            (Example::Stateless, "stateless"),
        ] {
            let name = format!("proxy-{state}-{short}");
            tests.push((
                name.clone(),
                Box::new(move || faults(args, &name, topology, guarantee)),
            ));
            let name = format!("proxy-late-{state}-{short}");
            tests.push((
                name.clone(),
                Box::new(move || late(args, &name, topology, guarantee)),
            ));
        }
    }
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
        let lag: u64 = tasks(&status).filter_map(|task| task["lag"].as_u64()).sum();
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
    let along = scene.read_along(&["out"])?;
    let proxy = Proxy::start(&scene.broker.bootstrap)?;
    proxy.between(&scene)?;
    let mut app = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    let mut written = 0;
    for (done, (api, fault)) in plan.iter().enumerate() {
        let wanted = if *api == Api::InitProducerId {
            // It is sent when a producer was lost.
            proxy.arm(Api::EndTxn, Fault::LoseAnswer);
            2
        } else {
            1
        };
        let (before, rebuilds) = (proxy.fired(), total(&app, 0, "producerRebuilds")?);
        proxy.arm(*api, *fault);
        scene.orders(written, ORDERS, 0, None)?;
        written += ORDERS;
        eventually(&format!("fault {done}: {api:?} {fault:?}"), || {
            Ok(proxy.fired() >= before + wanted)
        })
        .with_context(|| format!("worker: {:?}", app.status(0)))?;
        if fault.leaves_no_answer() && costs_the_producer(*api, guarantee) {
            rebuilt(&app, rebuilds).with_context(|| format!("fault {done}: {api:?} {fault:?}"))?;
            // While it acquires, it writes to the control log only: the next fault would meet that, not a transaction.
            app.wait_running(1, SECONDS(60))?;
        }
    }
    end(&scene, &proxy, app, along, written)
}

/// Whether a request without an answer leaves the worker's producer in doubt: those of its transactions do. Under
/// `at_least_once` records of sinks are written outside of them.
fn costs_the_producer(api: Api, guarantee: Guarantee) -> bool {
    match (api, guarantee) {
        (Api::Fetch, _) | (Api::Produce, Guarantee::AtLeastOnce) => false,
        (
            Api::InitProducerId
            | Api::AddPartitionsToTxn
            | Api::AddOffsetsToTxn
            | Api::EndTxn
            | Api::TxnOffsetCommit,
            _,
        )
        | (Api::Produce, Guarantee::ExactlyOnceV2) => true,
    }
}

/// Waits until the worker has made its producers anew.
fn rebuilt(app: &App, before: u64) -> Result<()> {
    eventually("the producers to be made anew", || {
        Ok(total(app, 0, "producerRebuilds")? > before)
    })
}

/// Everything was right, and producers were made anew no more often than faults happened.
fn end(scene: &Scene<'_>, proxy: &Proxy, app: App, along: Along, written: u64) -> Result<Counted> {
    scene.wait_drained(SECONDS(120))?;
    ensure!(app.events("died") == 0, "the worker died: {}", app.words());
    let status = app.status(0)?;
    ensure!(status["totals"]["storeWipes"] == 0, "{status}");
    let rebuilds = total(&app, 0, "producerRebuilds")?;
    let fired = u64::try_from(proxy.fired())?;
    ensure!(
        rebuilds <= fired,
        "{fired} faults happened, and producers were made anew {rebuilds} times: {status}"
    );
    app.drain()?;
    let mut counted = scene.check(written, 0)?;
    counted.faults = fired;
    counted += scene.judge_along(along)?;
    scene.clean()?;
    Ok(counted)
}

/// Each kind of request of a transaction gets to the broker seconds after its connection broke, when the worker has long gone on;
/// then answers come later than any call waits for them.
fn late(args: &Integration, name: &str, topology: Example, guarantee: Guarantee) -> Result<Counted> {
    /// Orders a second: a transaction is open nearly all the time.
    const RATE: u64 = 1_000;
    /// `INVALID_PRODUCER_EPOCH`.
    const FENCED: i16 = 47;
    const UNDER_WAY: Duration = Duration::from_secs(3);
    /// A call is given up after 13 seconds: a request's time-out or a transaction's, and three.
    const HELD: Duration = Duration::from_secs(30);
    // Where it would do most harm to a later transaction of the same producer: the end, amid its records; its records and
    // offsets, when all of it is there but the end; what would begin one, before it begins.
    let late = [
        (Api::EndTxn, Api::Produce),
        (Api::TxnOffsetCommit, Api::EndTxn),
        (Api::AddPartitionsToTxn, Api::AddPartitionsToTxn),
        (Api::AddOffsetsToTxn, Api::AddPartitionsToTxn),
        (Api::Produce, Api::EndTxn),
    ];
    let scene = Scene::new(args, name, topology, guarantee)?;
    let along = scene.read_along(&["out"])?;
    // With one producer, those transactions are its own.
    scene.write_file(|text| text.replace("  threads: 2\n", "  threads: 1\n"))?;
    let proxy = Proxy::start(&scene.broker.bootstrap)?;
    proxy.between(&scene)?;
    let mut app = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    let (written, ()) = scene.orders_while(RATE, || {
        for (api, before) in late {
            let fault = Fault::LateRequest {
                after: UNDER_WAY,
                before,
            };
            let answers = proxy.late_answers().len();
            let rebuilds = meet(&app, &proxy, api, fault)?;
            if costs_the_producer(api, guarantee) {
                rebuilt(&app, rebuilds).with_context(|| format!("{api:?}"))?;
            }
            eventually(&format!("{api:?} to come late"), || {
                Ok(proxy.late_answers().len() > answers)
            })?;
            let error = proxy.late_answers().pop().unwrap_or_default();
            ensure!(
                error == FENCED || !costs_the_producer(api, guarantee),
                "{api:?} of a producer that is given up was answered with error {error}"
            );
        }
        for api in [Api::EndTxn, Api::TxnOffsetCommit] {
            let rebuilds = meet(&app, &proxy, api, Fault::DelayAnswer(HELD))?;
            let since = Instant::now();
            rebuilt(&app, rebuilds).with_context(|| format!("{api:?}"))?;
            ensure!(
                since.elapsed() < HELD,
                "{api:?} was waited for until it was answered"
            );
        }
        Ok(())
    })?;
    end(&scene, &proxy, app, along, written)
}

/// Waits until a request has met a fault; says how often producers had been made anew before.
fn meet(app: &App, proxy: &Proxy, api: Api, fault: Fault) -> Result<u64> {
    let (fired, rebuilds) = (proxy.fired(), total(app, 0, "producerRebuilds")?);
    proxy.arm(api, fault);
    eventually(&format!("{api:?} {fault:?}"), || Ok(proxy.fired() > fired))?;
    Ok(rebuilds)
}
