//! A test's own topics, file and state directory, and the pieces of its plot.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use super::{Counted, Integration};
use crate::app::Launch;
use crate::bench::subjects::set;
use crate::broker::{Broker, REQUEST};
use crate::check::along::Along;
use crate::check::evidence::Topic;
use crate::check::verdict::{Repeats, Section};
use crate::check::{Check, Example, Formats, Guarantee, Report, check, check_purged};
use crate::drained::{WaitDrained, run as wait_drained};
use crate::generate::{Generate, KeyedBy, run as generate, send};
use crate::hit::Target;
use crate::orders::{ABORTED, BASE_MS, Orders};

/// Partitions of input and output.
pub(super) const PARTITIONS: i32 = 6;

/// One test's world.
pub(super) struct Scene<'a> {
    pub(super) args: &'a Integration,
    pub(super) broker: Broker,
    pub(super) id: String,
    pub(super) topology: Example,
    pub(super) guarantee: Guarantee,
    pub(super) file: PathBuf,
    pub(super) state_dir: PathBuf,
}

/// The file with more fields on its stream.
pub(super) fn with_stream_fields(text: &str, fields: &[&str]) -> String {
    let line = text
        .lines()
        .find(|line| line.trim_start().starts_with("timestamp:"))
        .unwrap_or_default();
    let indent: String = line.chars().take_while(|c| *c == ' ').collect();
    let lines = fields.iter().map(|field| format!("\n{indent}{field}"));
    text.replace(line, &format!("{line}{}", lines.collect::<String>()))
}

/// The first faults, in words.
fn examples(sections: &[Section]) -> Vec<&String> {
    let examples = sections.iter().flat_map(|section| &section.examples);
    examples.take(5).collect()
}

impl<'a> Scene<'a> {
    /// Topics, file and directory, all new.
    pub(super) fn new(
        args: &'a Integration,
        name: &str,
        topology: Example,
        guarantee: Guarantee,
    ) -> Result<Self> {
        let scene = Self::without_topics(args, name, topology, guarantee)?;
        scene.create_topics()?;
        Ok(scene)
    }

    /// Creates input and output.
    pub(super) fn create_topics(&self) -> Result<()> {
        self.broker
            .create_topics(&[(&self.input(), PARTITIONS), (&self.output(), PARTITIONS)])
    }

    /// A topology of its own: `file` names APPLICATION, BOOTSTRAP and GUARANTEE, `topics` are its topics without the application's
    /// id.
    pub(super) fn of_file(
        args: &'a Integration,
        name: &str,
        guarantee: Guarantee,
        file: &str,
        topics: &[&str],
        partitions: i32,
    ) -> Result<Self> {
        let scene = Self::without_topics(args, name, Example::Stateless, guarantee)?;
        let values = [
            ("APPLICATION", scene.id.as_str()),
            ("BOOTSTRAP", &scene.broker.bootstrap),
            ("GUARANTEE", guarantee.name()),
        ];
        let text = values.iter().try_fold(file.to_owned(), |text, (place, value)| {
            ensure!(text.contains(place), "the file has no {place}");
            Ok(text.replace(place, value))
        })?;
        std::fs::write(&scene.file, text).context("write the StreamApp file")?;
        let names: Vec<_> = topics
            .iter()
            .map(|topic| format!("{}-{topic}", scene.id))
            .collect();
        let topics: Vec<_> = names.iter().map(|name| (name.as_str(), partitions)).collect();
        scene.broker.create_topics(&topics)?;
        Ok(scene)
    }

    /// A producer for what the generator cannot write.
    pub(super) fn producer(&self, settings: &[(&str, &str)]) -> Result<BaseProducer> {
        let mut config = self.broker.config();
        config
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random");
        for (name, value) in settings {
            config.set(*name, *value);
        }
        config.create().context("cannot make a producer")
    }

    /// The application's workers, to be caught at work.
    pub(super) fn target<'t>(&'t self, input: &'t str, written: &'t str) -> Target<'t> {
        Target {
            broker: &self.broker,
            application_id: &self.id,
            input,
            written,
        }
    }

    /// As [`Self::new`], on another broker or before there is one.
    pub(super) fn without_topics(
        args: &'a Integration,
        name: &str,
        topology: Example,
        guarantee: Guarantee,
    ) -> Result<Self> {
        // The process id keeps runs on one broker apart; at the end, so that no test's id is the beginning of another's.
        let id = format!("it-{name}-{}", std::process::id());
        let state_dir = args.state_dir.join(&id);
        if state_dir.exists() {
            std::fs::remove_dir_all(&state_dir)?;
        }
        std::fs::create_dir_all(&state_dir)?;
        let file = state_dir.join("app.yaml");
        let scene = Self {
            args,
            broker: args.broker.clone(),
            id,
            topology,
            guarantee,
            file,
            state_dir,
        };
        scene.write_file(|text| text)?;
        Ok(scene)
    }

    pub(super) fn input(&self) -> String {
        format!("{}-in", self.id)
    }

    pub(super) fn output(&self) -> String {
        format!("{}-out", self.id)
    }

    /// Writes the example with this scene's names, changed by `edit`.
    pub(super) fn write_file(&self, edit: impl FnOnce(String) -> String) -> Result<()> {
        let (example, output) = match self.topology {
            Example::OrdersRisk => ("examples/orders-risk/app.yaml", "risk.decisions.v1"),
            Example::Stateless => ("examples/orders-risk/stateless.yaml", "orders.scored.v1"),
        };
        let text = std::fs::read_to_string(example).with_context(|| format!("read {example}"))?;
        let text = text
            .replace("orders.submitted.v1", &self.input())
            .replace(output, &self.output());
        let values = [
            ("applicationId", self.id.as_str()),
            ("bootstrapServers", &self.broker.bootstrap),
            ("guarantee", self.guarantee.name()),
        ];
        let text = values.iter().try_fold(text, |text, (key, value)| {
            set(&text, key, value).with_context(|| format!("{example} has no line for {key}"))
        })?;
        std::fs::write(&self.file, edit(text)).context("write the StreamApp file")
    }

    pub(super) fn launch(&self) -> Launch {
        Launch {
            program: self.args.streamapp.clone(),
            file: self.file.clone(),
            workers: 1,
            state_dir: self.state_dir.join("app"),
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// Writes orders `first..first + count`.
    pub(super) fn orders(&self, first: u64, count: u64, rate: u64, bad_at: Option<u64>) -> Result<()> {
        generate(&Generate {
            broker: self.broker.clone(),
            topic: self.input(),
            keyed_by: KeyedBy::Order,
            count,
            first,
            rate,
            customers: 200,
            max_amount_cents: 200_000,
            seed: 7,
            bad_at,
            quiet: true,
        })
        .map(|_| ())
    }

    /// Writes orders in a transaction and aborts it: nothing may follow from them.
    pub(super) fn abort_orders(&self, first: u64, count: u64) -> Result<()> {
        let orders = Orders {
            seed: 7,
            customers: 200,
            max_amount_cents: 200_000,
        };
        let (topic, id) = (self.input(), format!("{}-aborter", self.id));
        let producer = self.producer(&[("transactional.id", &id)])?;
        producer.init_transactions(REQUEST)?;
        producer.begin_transaction()?;
        let (mut key, mut value) = (String::new(), String::new());
        for index in ABORTED + first..ABORTED + first + count {
            Orders::write_key(index, &mut key);
            orders.write_value(index, &mut value);
            let timestamp = BASE_MS.saturating_add_unsigned(index);
            let record = BaseRecord::to(&topic)
                .key(&key)
                .payload(&value)
                .timestamp(timestamp);
            send(&producer, record)?;
        }
        producer.flush(REQUEST)?;
        Ok(producer.abort_transaction(REQUEST)?)
    }

    /// Writes orders `first..first + count` while something happens.
    pub(super) fn orders_beside(
        &self,
        first: u64,
        count: u64,
        rate: u64,
        happens: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        std::thread::scope(|scope| {
            let orders = scope.spawn(|| self.orders(first, count, rate, None));
            happens()?;
            orders
                .join()
                .map_err(|_| anyhow::anyhow!("the generator panicked"))?
        })
    }

    /// Writes orders for as long as something happens; returns how many, and its result.
    pub(super) fn orders_while<T>(&self, rate: u64, happens: impl FnOnce() -> Result<T>) -> Result<(u64, T)> {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let orders = scope.spawn(|| -> Result<u64> {
                let mut written = 0;
                while !done.load(Ordering::Acquire) {
                    self.orders(written, rate, rate, None)?;
                    written += rate;
                }
                Ok(written)
            });
            let result = happens();
            done.store(true, Ordering::Release);
            let written = orders
                .join()
                .map_err(|_| anyhow::anyhow!("the generator panicked"))?;
            Ok((written?, result?))
        })
    }

    /// A run from its start to its end that processes orders `first..first + count`.
    pub(super) fn process(&self, first: u64, count: u64) -> Result<()> {
        let mut app = self.launch().start()?;
        app.wait_running(1, Duration::from_secs(60))?;
        self.orders(first, count, 0, None)?;
        self.wait_drained(Duration::from_secs(60))?;
        app.drain().map(|_| ())
    }

    pub(super) fn wait_drained(&self, deadline: Duration) -> Result<()> {
        wait_drained(&WaitDrained {
            broker: self.broker.clone(),
            application_id: self.id.clone(),
            topics: vec![self.input()],
            repartitions: match self.topology {
                Example::OrdersRisk => vec!["exposure-by-customer".to_owned()],
                Example::Stateless => Vec::new(),
            },
            deadline: deadline.as_secs(),
        })
    }

    /// The checker's verdict on everything this scene's application did.
    pub(super) fn check(&self, orders: u64, malformed: u64) -> Result<Counted> {
        self.counted(orders, check(&self.evidence(malformed))?)
    }

    /// The same with the records of the repartition topic, which are deleted.
    pub(super) fn check_purged(&self, orders: u64, repartition: Topic) -> Result<Counted> {
        self.counted(orders, check_purged(&self.evidence(0), repartition)?)
    }

    fn evidence(&self, malformed: u64) -> Check {
        Check {
            broker: self.broker.clone(),
            topology: self.topology,
            application_id: self.id.clone(),
            guarantee: self.guarantee,
            input: self.input(),
            output: Some(self.output()),
            formats: Formats::Streamapp,
            store: "exposure-by-customer".to_owned(),
            malformed,
            deadline: 60,
            json: None,
        }
    }

    fn counted(&self, orders: u64, report: Report) -> Result<Counted> {
        let verdict = &report.verdict;
        if !verdict.passed() {
            bail!("the checker found faults: {:?}", examples(&verdict.sections));
        }
        if verdict.orders != orders {
            bail!("{} orders were judged, {orders} were written", verdict.orders);
        }
        let again = verdict.total(|section| section.duplicates);
        let (duplicates, repeats) = match self.guarantee.sinks() {
            Repeats::Forbidden => (again, 0),
            Repeats::Allowed => (0, again),
        };
        Ok(Counted {
            records: verdict.orders,
            duplicates,
            repeats,
            missing: verdict.total(|section| section.missing),
            wrong: verdict.total(|section| section.wrong),
            out_of_order: verdict.total(|section| section.out_of_order),
            aborted_reads: verdict.total(|section| section.aborted_reads),
            ..Counted::default()
        })
    }

    /// A second reader of these topics (named without the application's id), from now on.
    pub(super) fn read_along(&self, topics: &[&str]) -> Result<Along> {
        let names = topics.iter().map(|topic| format!("{}-{topic}", self.id));
        Along::start(&self.broker, names.collect())
    }

    /// What the second reader saw must be what is there at the end.
    pub(super) fn judge_along(&self, along: Along) -> Result<Counted> {
        let sections = along.judge(Duration::from_secs(60))?;
        let total = |count: fn(&Section) -> u64| sections.iter().map(count).sum();
        let counted = Counted {
            out_of_order: total(|section| section.out_of_order),
            precommitted_reads: total(|section| section.precommitted_reads),
            unseen: total(|section| section.unseen),
            ..Counted::default()
        };
        if !sections.iter().all(Section::passed) {
            bail!(
                "a reader saw something else while {} ran: {counted}: {:?}",
                self.id,
                examples(&sections)
            );
        }
        Ok(counted)
    }

    /// Removes the scene's topics and files; a test that failed leaves them to be looked at.
    pub(super) fn clean(&self) -> Result<()> {
        let names = self.broker.topic_names()?;
        let prefix = format!("{}-", self.id);
        let ours: Vec<_> = names
            .iter()
            .filter(|name| name.starts_with(&prefix))
            .map(String::as_str)
            .collect();
        self.broker.delete_topics(&ours)?;
        std::fs::remove_dir_all(&self.state_dir).context("remove the test's directory")
    }
}
