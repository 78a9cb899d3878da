//! `streamapp-e2e cluster-demo`: the main job in a cluster, with faults, judged by the checker.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use report::Report;

use super::app::{App, READY};
use super::kubectl::eventually;
use super::place::{Options, Setting};
use crate::demo::{
    APPLICATION, Figures, INPUT, OUTPUT, Stream, describe, initialisations, judge, new_topics, orders, say,
    wait_for_all,
};
use crate::hit::Evidence;

const NAMESPACE: &str = "streamapp-demo";
const PODS: u32 = 3;

/// Streams orders through three pods on Kubernetes, kills pods, processes and the operator, and checks every record
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Demo {
    #[command(flatten)]
    options: Options,
    /// How many orders
    #[arg(long, default_value_t = 200_000)]
    orders: u64,
    /// Orders a second
    #[arg(long, default_value_t = 5_000)]
    rate: u64,
    /// The same seed gives the same orders
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

/// Runs the demo; answers whether the checker found nothing.
pub(crate) fn run(args: &Demo) -> Result<bool> {
    let report = Report::begin("demo", args.seed);
    let started = Instant::now();
    match play(args, started) {
        Ok((passed, figures)) => {
            report.end(passed, &figures)?;
            look_around();
            println!("{}", figures.line(passed));
            Ok(passed)
        }
        Err(error) => {
            eprintln!("demo: {error:#}");
            look_around();
            let figures = Figures {
                pods: Some(PODS),
                orders: args.orders,
                seconds: started.elapsed().as_secs(),
                ..Figures::default()
            };
            report.end(false, &figures)?;
            println!("demo: FAIL {error}");
            Ok(false)
        }
    }
}

fn play(args: &Demo, started: Instant) -> Result<(bool, Figures)> {
    let broker = &args.options.broker;
    let broker_log = args.options.broker_dir.join("broker.log");
    if !args.options.no_install {
        say(
            "1/7",
            "helm upgrade --install of charts/streamapp-crds and charts/streamapp-operator",
        );
    }
    let setting = Setting::prepare(&args.options)?;
    say(
        "2/7",
        "clean slate: namespace, topics and stores of an earlier demo go",
    );
    setting.remove_namespace(NAMESPACE)?;
    new_topics(broker)?;
    setting.cluster.create_namespace(NAMESPACE)?;
    let fences_before = initialisations(&broker_log)?;
    let app = the_app(&setting)?;
    say(
        "3/7",
        &format!(
            "kubectl apply -n {NAMESPACE} -f {} with {PODS} replicas; kubectl wait --for=condition=Ready",
            args.options.file.display()
        ),
    );
    app.apply()?;
    setting.cluster.kubectl_waits(&[
        "wait",
        "-n",
        NAMESPACE,
        &format!("streamapp/{}", app.name),
        "--for=condition=Ready",
        &format!("--timeout={}s", READY.as_secs()),
    ])?;
    app.wait_ready()?;
    let first_initialisations = initialisations(&broker_log)? - fences_before;
    let uids_before = app.identities()?;
    say(
        "4/7",
        &format!(
            "streaming {} orders at {} a second, about {} s",
            args.orders,
            args.rate,
            args.orders / args.rate.max(1)
        ),
    );
    let stream = Stream::start(orders(broker, args.orders, args.rate, args.seed));
    let (evidence, wiped_before) = faults(args, &setting, &app, &stream)?;
    stream.finish(&|| app.progress())?;
    say("6/7", "waiting until everything is processed");
    wait_for_all(broker)?;
    app.wait_ready()?;
    say("7/7", "checking every record against an independent model");
    let store_wipes = wiped_before + app.total("storeWipes")?;
    let (right, judged) = judge(broker)?;
    // A pod that was replaced, and each container that was started again.
    let restarts = app
        .identities()?
        .iter()
        .map(|(_, uid, restarts)| {
            restarts + u64::from(uids_before.iter().all(|(_, before, _)| before != uid))
        })
        .sum();
    let figures = Figures {
        pods: Some(PODS),
        restarts,
        fences: initialisations(&broker_log)? - fences_before - first_initialisations,
        store_wipes,
        seconds: started.elapsed().as_secs(),
        evidence,
        ..judged
    };
    let hit = figures.restarts >= 2 && figures.evidence.len() == 2 && figures.orders == args.orders;
    Ok((right && hit && figures.store_wipes == 0, figures))
}

/// The example under its own names.
fn the_app(setting: &Setting) -> Result<App<'_>> {
    let id = &setting.example["spec"]["applicationId"];
    ensure!(
        id == APPLICATION,
        "the example's applicationId is {id}, not {APPLICATION}"
    );
    let name = setting.example["metadata"]["name"].as_str();
    Ok(App {
        setting,
        namespace: NAMESPACE.to_owned(),
        name: name.context("the example has no name")?.to_owned(),
        id: APPLICATION.to_owned(),
        input: INPUT.to_owned(),
        output: OUTPUT.to_owned(),
        broker: setting.options.broker.clone(),
        replicas: PODS,
    })
}

/// Kills a worker process, then the operator's leader, then force-deletes a pod; the workers at work. Also answers how
/// many stores the ended processes had wiped: their counts end with them.
fn faults(args: &Demo, setting: &Setting, app: &App<'_>, stream: &Stream) -> Result<(Vec<Evidence>, u64)> {
    let look = || app.progress();
    let seconds = args.orders / args.rate.max(1);
    let wipes = |ordinal| -> Result<u64> {
        let status = app.pod(ordinal)?.status(&setting.cluster)?;
        status["totals"]["storeWipes"]
            .as_u64()
            .context("the status has no storeWipes")
    };
    stream.tell_until(&look, seconds / 6);
    let mut wiped = wipes(1)?;
    let (process, first) = app.kill_at_work(1)?;
    say(
        "5/7",
        &format!(
            "kill -9 of the worker in {}-1 (pid {}) {}",
            app.name,
            first.pid,
            describe(&first)
        ),
    );
    app.wait_running_again(1, process)?;
    say("   ", "the worker runs again, its store kept");

    stream.tell_until(&look, seconds / 3);
    let operator = setting.operator();
    let leader = operator.leader()?;
    leader.force_delete(&setting.cluster)?;
    say("5/7", &format!("the operator's leader {} is killed", leader.name));
    wiped += wipes(0)?;
    let (process, second) = app.force_delete_at_work(0)?;
    say(
        "5/7",
        &format!(
            "kubectl delete pod {}-0 --force --grace-period=0 {}",
            app.name,
            describe(&second)
        ),
    );
    app.wait_running_again(0, process)?;
    say("   ", "a new pod runs its tasks, on the same volume");
    let next = eventually("another operator pod to lead", READY, || {
        let next = operator.leader()?;
        ensure!(next.uid != leader.uid, "{} still holds the Lease", leader.name);
        Ok(next)
    })?;
    say(
        "   ",
        &format!("the operator goes on: {} holds the Lease", next.name),
    );
    Ok((vec![first, second], wiped))
}

fn look_around() {
    println!();
    println!("The cluster and the broker still run. Look around (eval \"$(e2e/cluster env)\" first):");
    println!("  kubectl get streamapp -n {NAMESPACE} -o wide          one line for each application");
    println!("  kubectl describe streamapp -n {NAMESPACE}             conditions, workers, events");
    println!("  kubectl get all,pvc,secret -n {NAMESPACE}             what the operator made of it");
    println!("  kubectl explain streamapp.spec                          what can be set");
    println!("  kubectl logs -n streamapp-system deployment/streamapp-operator");
    println!(
        "  make figures                                            the figures of this run (reports/demo.json)"
    );
    println!("  kubectl delete namespace {NAMESPACE}                  stop the application");
    println!("  make clean                                              stop everything, remove everything");
    println!();
}
