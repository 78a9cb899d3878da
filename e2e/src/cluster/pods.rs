//! Worker and operator pods, their processes as this machine sees them, and the workers' status documents.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::kubectl::Cluster;
use crate::app::{read_status, signal};
use crate::bench::process::cpu_seconds;

/// The port of a worker's status document.
const PORT: u16 = 8080;

/// One pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) address: String,
    /// Restarts of its containers.
    pub(super) restarts: u64,
}

/// What must not change while nobody touches a pod: its uid and its restarts.
pub(super) type Identity = (String, String, u64);

impl Pod {
    /// Reads the parts that matter here.
    pub(super) fn of(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let restarts = object["status"]["containerStatuses"].as_array().map_or(0, |all| {
            all.iter()
                .map(|container| container["restartCount"].as_u64().unwrap_or(0))
                .sum()
        });
        Self {
            namespace: text(&object["metadata"]["namespace"]),
            name: text(&object["metadata"]["name"]),
            uid: text(&object["metadata"]["uid"]),
            address: text(&object["status"]["podIP"]),
            restarts,
        }
    }

    pub(super) fn identity(&self) -> Identity {
        (self.name.clone(), self.uid.clone(), self.restarts)
    }

    /// The worker's status document: from the pod's address where this machine reaches it, else through the API server.
    pub(super) fn status(&self, cluster: &Cluster) -> Result<Value> {
        let body = match self.read_directly() {
            Ok(body) => body,
            Err(_) => cluster.kubectl(&[
                "get",
                "--raw",
                &format!(
                    "/api/v1/namespaces/{}/pods/{}:{PORT}/proxy/status",
                    self.namespace, self.name
                ),
            ])?,
        };
        serde_json::from_str(&body).with_context(|| format!("the status of pod {} is no JSON", self.name))
    }

    fn read_directly(&self) -> Result<String> {
        read_status(SocketAddr::new(self.address.parse()?, PORT))
    }

    /// Takes the pod out of the API at once, as after the loss of its node; its process may live on for a moment.
    pub(super) fn force_delete(&self, cluster: &Cluster) -> Result<()> {
        cluster
            .kubectl(&[
                "delete",
                "pod",
                "-n",
                &self.namespace,
                &self.name,
                "--force",
                "--grace-period=0",
                "--wait=false",
            ])
            .map(|_| ())
    }

    /// The worker process of this pod.
    pub(super) fn worker(&self) -> Result<Process> {
        Process::with(&format!("STREAMAPP_POD_UID={}", self.uid), "streamapp-worker")
            .with_context(|| format!("pod {} (uid {}) has no worker process", self.name, self.uid))
    }

    /// The operator process of this pod.
    pub(super) fn operator(&self) -> Result<Process> {
        Process::with(&format!("POD_UID={}", self.uid), "streamapp-operator")
            .with_context(|| format!("pod {} (uid {}) has no operator process", self.name, self.uid))
    }
}

/// A process of a pod. The node is a process id namespace inside this machine's: its processes have numbers here, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// Clock ticks since boot: a number that is used again has another start.
    started: u64,
}

impl Process {
    /// The process with this line in its environment and this word in its command line.
    fn with(variable: &str, program: &str) -> Option<Self> {
        let found = |pid: &u32| {
            let contains = |file: &str, test: &dyn Fn(&[u8]) -> bool| {
                std::fs::read(format!("/proc/{pid}/{file}"))
                    .is_ok_and(|bytes| bytes.split(|byte| *byte == 0).any(test))
            };
            let word = |part: &[u8]| String::from_utf8_lossy(part).contains(program);
            contains("cmdline", &word) && contains("environ", &|line| line == variable.as_bytes())
        };
        std::fs::read_dir("/proc")
            .ok()?
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(found)
            .find_map(|pid| {
                let process = Self {
                    pid,
                    started: stat(pid)?.started,
                };
                process.alive().then_some(process)
            })
    }

    /// Whether it still runs; a zombie does not.
    pub(super) fn alive(self) -> bool {
        stat(self.pid).is_some_and(|now| now.started == self.started && !matches!(now.state, 'Z' | 'X'))
    }

    /// CPU time that it has used.
    pub(super) fn cpu_seconds(self) -> Result<f64> {
        anyhow::ensure!(self.alive(), "process {} has ended", self.pid);
        cpu_seconds(self.pid).context("the process has ended")
    }

    /// Sends a signal, if it is still this process.
    pub(super) fn signal(self, number: i32) -> Result<()> {
        anyhow::ensure!(self.alive(), "process {} has ended", self.pid);
        signal(self.pid, number)
    }

    /// The process that holds a container's task and would report its end: the runtime's shim.
    pub(super) fn shim(self) -> Result<Self> {
        let parent = stat(self.pid).context("the worker has ended")?.parent;
        let name = std::fs::read_to_string(format!("/proc/{parent}/comm"))?;
        anyhow::ensure!(
            name.starts_with("containerd-shim"),
            "the parent of the worker is {}, not the runtime's shim",
            name.trim()
        );
        let started = stat(parent).context("the shim has ended")?.started;
        Ok(Self { pid: parent, started })
    }
}

struct Stat {
    state: char,
    parent: u32,
    started: u64,
}

/// State, parent and start time: fields 3, 4 and 22 of proc(5)'s `stat`; the name before them may hold anything.
fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&text)
}

fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_its_environment_and_ends() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .env("STREAMAPP_POD_UID", "uid-of-a-test")
            .spawn()
            .unwrap();
        let found = loop {
            // Until the child has become `sleep`, it is this program.
            if let Some(process) = Process::with("STREAMAPP_POD_UID=uid-of-a-test", "sleep") {
                break process;
            }
        };
        assert_eq!(found.pid, child.id());
        assert!(Process::with("STREAMAPP_POD_UID=uid-of-a", "sleep").is_none());
        found.signal(libc::SIGKILL).unwrap();
        child.wait().unwrap();
        assert!(!found.alive());
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = "7 (a) b) S 3 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.state, stat.parent, stat.started), ('S', 3, 4711));
    }

    #[test]
    fn restarts_are_summed_over_containers() {
        let object = serde_json::json!({
            "metadata": {"namespace": "n", "name": "a-0", "uid": "u"},
            "status": {"podIP": "10.244.0.9", "containerStatuses": [{"restartCount": 2}, {"restartCount": 1}]},
        });
        assert_eq!(
            Pod::of(&object),
            Pod {
                namespace: "n".to_owned(),
                name: "a-0".to_owned(),
                uid: "u".to_owned(),
                address: "10.244.0.9".to_owned(),
                restarts: 3,
            }
        );
    }
}
