//! What must hold, from what committed readers see: G1 (each order's effects once, in order), G3 (nobody commits work of a
//! task that somebody else has gone on with) and that a shortened control log says what the whole one said after every
//! step, stores and changelog at the end.

use std::collections::{BTreeMap, BTreeSet};

use bumpalo::Bump;
use engine::MemoryStore;
use engine::partition::partition_for;
use protocol::{Guarantee, InputPosition, Positions, TaskId, World};
use topology::{Type, Value};

use super::app::{PARTITIONS, Sums, Topic, Windows, added, customer, pairs};
use super::broker::{Broker, Isolation, Place, Record};
use super::client::CONTROL;
use super::volume::Image;

/// A sum of a customer after an order; `None`: deleted.
type Sum = (String, Option<i64>);

/// Follows all topics of the application.
pub(crate) struct Judge {
    kind: Sums,
    guarantee: Guarantee,
    orders: i64,
    next: BTreeMap<Place, i64>,
    repartitioned: BTreeSet<i64>,
    /// Last order of a source partition in a repartition partition.
    last_from: BTreeMap<(i32, i64), i64>,
    /// Per partition: sums of the customers, in the order of the repartition topic, and where they stand.
    expected: BTreeMap<i32, Vec<Sum>>,
    sums: BTreeMap<String, i64>,
    windows: BTreeMap<i32, Windows>,
    /// Of joins: results that were not seen yet, and those that were.
    pairs: BTreeSet<(String, i64)>,
    paired: BTreeSet<(String, i64)>,
    written: BTreeMap<i32, Vec<Sum>>,
    /// Last committed positions.
    positions: BTreeMap<TaskId, Positions>,
    /// What every record of the control log says, those that were deleted since, too.
    world: World,
    /// First offset of the control log when it was last looked at.
    control_low: i64,
    /// Which control log that was.
    control: Option<u32>,
}

impl Judge {
    pub(crate) fn new(kind: Sums, guarantee: Guarantee, orders: i64) -> Self {
        Self {
            kind,
            guarantee,
            orders,
            next: BTreeMap::new(),
            repartitioned: BTreeSet::new(),
            last_from: BTreeMap::new(),
            expected: BTreeMap::new(),
            sums: BTreeMap::new(),
            windows: BTreeMap::new(),
            pairs: match kind {
                Sums::Pairs => pairs(orders),
                Sums::All | Sums::Windows => BTreeSet::new(),
            },
            paired: BTreeSet::new(),
            written: BTreeMap::new(),
            positions: BTreeMap::new(),
            world: World::default(),
            control_low: 0,
            control: None,
        }
    }

    /// Looks at what has become visible.
    pub(crate) fn look(&mut self, broker: &Broker) -> Result<(), String> {
        for partition in 0..PARTITIONS {
            for record in self.news(broker, (Topic::Repartition, partition)) {
                self.repartitioned(partition, &record)?;
            }
        }
        for partition in 0..PARTITIONS {
            for record in self.news(broker, (Topic::Sums, partition)) {
                self.written(partition, &record)?;
            }
        }
        for partition in 0..2 * PARTITIONS {
            for record in self.news(broker, (Topic::Positions, partition)) {
                self.committed(&record)?;
            }
        }
        self.control_log(broker)
    }

    fn control_log(&mut self, broker: &Broker) -> Result<(), String> {
        let fold = |world: &mut World, from| {
            let fetched = broker.fetch(CONTROL, from, usize::MAX, Isolation::Committed);
            for (offset, record) in &fetched.records {
                let record = serde_json::from_slice(record.value.as_deref().unwrap_or_default());
                let record = record.map_err(|error| format!("control log: {error}"))?;
                world.apply(*offset, &record);
            }
            Ok::<_, String>(fetched.next)
        };
        if broker.control() != self.control {
            self.control = broker.control();
            (self.world, self.control_low) = (World::default(), 0);
            self.next.remove(&CONTROL);
        }
        let next = self.next.entry(CONTROL).or_default();
        if broker.last_stable(CONTROL) > *next {
            *next = fold(&mut self.world, *next)?;
        }
        let (low, _) = broker.watermarks(CONTROL);
        if low > self.control_low {
            self.control_low = low;
            let mut left = World::default();
            fold(&mut left, low)?;
            if left != self.world {
                return Err(format!(
                    "G4: from offset {low} the control log says {left:?}, all of it {:?}",
                    self.world
                ));
            }
        }
        Ok(())
    }

    fn news(&mut self, broker: &Broker, place: Place) -> Vec<Record> {
        let next = self.next.entry(place).or_default();
        if broker.last_stable(place) == *next {
            return Vec::new();
        }
        let fetched = broker.fetch(place, *next, usize::MAX, Isolation::Committed);
        *next = fetched.next;
        fetched.records.into_iter().map(|(_, record)| record).collect()
    }

    fn repartitioned(&mut self, partition: i32, record: &Record) -> Result<(), String> {
        let number = record.timestamp;
        let customer = customer(number);
        if record.key.as_deref() != Some(customer.as_bytes()) {
            return Err(format!(
                "G1: order {number} was repartitioned as {:?}",
                record.key
            ));
        }
        if !self.repartitioned.insert(number) {
            return Err(format!("G1: order {number} was repartitioned twice"));
        }
        let from = (partition, number % i64::from(PARTITIONS));
        if let Some(before) = self.last_from.insert(from, number)
            && before > number
        {
            return Err(format!("G1: order {number} was repartitioned after {before}"));
        }
        let expected = self.expected.entry(partition).or_default();
        match self.kind {
            Sums::All => {
                let sum = added(self.sums.get(&customer).copied(), number);
                match sum {
                    Some(sum) => self.sums.insert(customer.clone(), sum),
                    None => self.sums.remove(&customer),
                };
                expected.push((customer, sum));
            }
            Sums::Windows => {
                let closed = self.windows.entry(partition).or_default().add(number);
                expected.extend(closed.into_iter().map(|(customer, sum)| (customer, Some(sum))));
            }
            // In which order they come depends on which of two topics was read first.
            Sums::Pairs => {}
        }
        Ok(())
    }

    fn written(&mut self, partition: i32, record: &Record) -> Result<(), String> {
        let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
        let value = record.value.as_deref().map(|value| {
            let bytes = value.try_into().unwrap_or_default();
            i64::from_be_bytes(bytes)
        });
        let found = (key, value);
        if self.kind == Sums::Pairs {
            return self.paired(found);
        }
        let written = self.written.entry(partition).or_default();
        let expected = self.expected.entry(partition).or_default();
        let holds = match self.guarantee {
            Guarantee::ExactlyOnceV2 => expected.get(written.len()) == Some(&found),
            // They may repeat, not lie.
            Guarantee::AtLeastOnce => expected.contains(&found),
        };
        if !holds {
            let at = written.len();
            return Err(format!(
                "G1: result {at} of partition {partition} is {found:?}, wanted {:?}",
                expected.get(at)
            ));
        }
        written.push(found);
        Ok(())
    }

    /// Each pair is joined once.
    fn paired(&mut self, (customer, value): Sum) -> Result<(), String> {
        let found = (customer, value.unwrap_or(-1));
        let is_new = self.pairs.remove(&found);
        let is_again = self.paired.contains(&found);
        if !is_new && (!is_again || self.guarantee == Guarantee::ExactlyOnceV2) {
            let what = if is_again { "came again" } else { "is no pair" };
            return Err(format!("G1: the result {found:?} {what}"));
        }
        self.paired.insert(found);
        Ok(())
    }

    fn committed(&mut self, record: &Record) -> Result<(), String> {
        let document = serde_json::from_slice(record.value.as_deref().unwrap_or_default());
        let positions: Positions = document.map_err(|error| format!("positions: {error}"))?;
        let last = self.transactions(&positions.task);
        if positions.transaction != last + 1 {
            return Err(format!(
                "G3: transaction {} of {} came after {last}",
                positions.transaction, positions.task
            ));
        }
        self.positions.insert(positions.task.clone(), positions);
        Ok(())
    }

    /// Whether every order has had all its effects.
    pub(crate) fn is_complete(&self) -> bool {
        let orders = usize::try_from(self.orders).unwrap_or(0);
        self.repartitioned.len() == orders
            && self.pairs.is_empty()
            && (0..PARTITIONS).all(|partition| {
                let expected = self.expected.get(&partition).map_or(&[][..], Vec::as_slice);
                let written = self.written.get(&partition).map_or(&[][..], Vec::as_slice);
                match self.guarantee {
                    Guarantee::ExactlyOnceV2 => expected.len() == written.len(),
                    Guarantee::AtLeastOnce => expected.iter().all(|sum| written.contains(sum)),
                }
            })
    }

    /// The task's last transaction.
    pub(crate) fn transactions(&self, task: &TaskId) -> u64 {
        self.positions
            .get(task)
            .map_or(0, |positions| positions.transaction)
    }

    /// Next offsets of a task's inputs.
    pub(crate) fn inputs(&self, task: &TaskId) -> Option<&[InputPosition]> {
        self.positions
            .get(task)
            .map(|positions| positions.inputs.as_slice())
    }

    /// How far it has come, for people.
    pub(crate) fn progress(&self) -> String {
        let written: usize = self.written.values().map(Vec::len).sum();
        format!(
            "{} of {} orders repartitioned, {written} results",
            self.repartitioned.len(),
            self.orders
        )
    }

    /// Results so far.
    pub(crate) fn results(&self) -> u64 {
        let written: usize = self.written.values().map(Vec::len).sum();
        u64::try_from(written + self.paired.len()).unwrap_or(u64::MAX)
    }

    /// G1 and G2 for the state: the changelog holds the sums, and the owner's store holds the changelog.
    pub(crate) fn state(&self, broker: &Broker, partition: i32, store: &Image) -> Result<(), String> {
        let place = (Topic::Changelog, partition);
        let mut changelog = MemoryStore::default();
        for (_, record) in broker.fetch(place, 0, usize::MAX, Isolation::Committed).records {
            changelog.apply(&record.key.unwrap_or_default(), record.value.as_deref());
        }
        if changelog != store.content {
            return Err(format!(
                "the store of partition {partition} is {:?}, its changelog {changelog:?}",
                store.content
            ));
        }
        if self.kind == Sums::Pairs {
            return self.kept(partition, &changelog);
        }
        let arena = Bump::new();
        let mut found = BTreeMap::new();
        for (key, value) in &changelog.values {
            // The stream time of windows.
            if key.is_empty() {
                continue;
            }
            let decoded = engine::row::decode_timestamped(&Type::Int, value, &arena);
            let (_, Value::Int(sum)) = decoded.map_err(|error| format!("changelog: {error}"))? else {
                return Err("the changelog holds something that is no sum".to_owned());
            };
            found.insert(key.clone(), sum);
        }
        let wanted: BTreeMap<_, _> = match self.kind {
            Sums::All => {
                let customers: BTreeSet<_> = self.expected.get(&partition).into_iter().flatten().collect();
                let sums = self.sums.iter();
                let sums = sums.filter(|(customer, _)| customers.iter().any(|(of, _)| of == *customer));
                sums.map(|(customer, sum)| (customer.clone().into_bytes(), *sum))
                    .collect()
            }
            Sums::Windows => {
                let windows = self.windows.get(&partition).into_iter();
                let open = windows.flat_map(|windows| &windows.open);
                let row = |((start, customer), sum): (&(i64, String), &i64)| {
                    let start = (start ^ i64::MIN).to_be_bytes();
                    ([&start[..], customer.as_bytes()].concat(), *sum)
                };
                open.map(row).collect()
            }
            Sums::Pairs => BTreeMap::new(),
        };
        if found == wanted {
            Ok(())
        } else {
            Err(format!(
                "the changelog of partition {partition} holds {found:?}, wanted {wanted:?}"
            ))
        }
    }

    /// A join keeps each order of both sides, in two rows each, and stream time.
    fn kept(&self, partition: i32, changelog: &MemoryStore) -> Result<(), String> {
        let is_here = |order: &i64| partition_for(customer(*order).as_bytes(), PARTITIONS) == partition;
        let here = (0..self.orders).filter(is_here);
        let sides: usize = here.map(|order| if order % 2 == 0 { 2 } else { 1 }).sum();
        let (found, wanted) = (changelog.values.len(), if sides > 0 { 1 + 2 * sides } else { 0 });
        if found == wanted {
            Ok(())
        } else {
            Err(format!(
                "the changelog of partition {partition} has {found} rows, wanted {wanted}"
            ))
        }
    }
}
