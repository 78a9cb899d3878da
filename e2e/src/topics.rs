//! `streamapp-e2e topics`: creates and deletes topics.

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;

use crate::broker::Broker;

/// What to do with topics.
#[derive(Debug, Subcommand)]
pub(crate) enum Topics {
    /// Create topics with one replica, e.g. `orders.submitted.v1:12`
    Create {
        /// Name and number of partitions
        #[arg(required = true, value_name = "NAME:PARTITIONS", value_parser = parse)]
        topics: Vec<(String, i32)>,
        #[command(flatten)]
        broker: Broker,
    },
    /// Delete topics; those that do not exist are passed over
    Delete {
        /// Names
        #[arg(required = true, value_name = "NAME")]
        topics: Vec<String>,
        #[command(flatten)]
        broker: Broker,
    },
    /// List the topics
    List {
        #[command(flatten)]
        broker: Broker,
    },
}

/// Runs one `topics` command.
pub(crate) fn run(command: &Topics) -> Result<()> {
    match command {
        Topics::Create { topics, broker } => {
            let topics: Vec<(&str, i32)> = topics
                .iter()
                .map(|(name, partitions)| (name.as_str(), *partitions))
                .collect();
            broker.create_topics(&topics)
        }
        Topics::Delete { topics, broker } => {
            broker.delete_topics(&topics.iter().map(String::as_str).collect::<Vec<_>>())
        }
        Topics::List { broker } => {
            let mut names = broker.topic_names()?;
            names.sort();
            names.iter().for_each(|name| println!("{name}"));
            Ok(())
        }
    }
}

fn parse(text: &str) -> Result<(String, i32)> {
    let (name, partitions) = text.rsplit_once(':').context("expected NAME:PARTITIONS")?;
    let partitions: i32 = partitions
        .parse()
        .with_context(|| format!("{partitions:?} is not a number"))?;
    if name.is_empty() || partitions < 1 {
        bail!("expected a name and at least one partition");
    }
    Ok((name.to_owned(), partitions))
}
