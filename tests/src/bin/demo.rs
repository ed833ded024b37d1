//! The story in under a minute, on real input: a worker in plain Python indexes the licence texts of this machine,
//! one message a file, scaled from zero and back; some files fail once, one message is poison, one HTTP call wakes the
//! worker again. The result is held against a plain sequential computation of the same thing.
//!
//! `AMQP_URL` names a broker to use; without it one of its own is started and removed again.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "the demo speaks to a person and reads AMQP_URL"
)]

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode};
use std::time::Duration;
use suite::programs;
use testkit::{Amqp, Broker, http, unique};
use tokio::time::{Instant, sleep};

/// A machine under load is slow; a demo that takes longer than this has failed.
const PATIENCE: Duration = Duration::from_mins(2);
/// A file that does not exist: no attempt can help it.
const POISON: &str = "/no/such/file";
/// The word that the HTTP call asks for.
const WORD: &str = "license";

type Counts = BTreeMap<String, u64>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match tell().await {
        Ok(last_line) => {
            println!("{last_line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("demo: failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn tell() -> anyhow::Result<String> {
    let files = licence_files()?;
    let index = Scratch::new()?;
    let (broker, url) = broker().await?;
    let queue = unique("licence-index");
    let kubedaemon = Kubedaemon::start(&queue, &url, index.path()).await?;
    say("the worker is at zero: no process runs, nothing is paid for");

    let amqp = Amqp::connect(&url).await;
    let began = Instant::now();
    let mut published: Vec<&str> = files.iter().map(String::as_str).collect();
    published.insert(published.len() / 2, POISON);
    say(&format!(
        "publishing {} messages: a licence text each, and one poison",
        published.len()
    ));
    let messages = published
        .iter()
        .map(|path| (*path, lapin::BasicProperties::default()));
    amqp.publish_many(&queue, messages).await;

    let most = kubedaemon.until_settled(published.len()).await?;
    say(&format!(
        "all settled after {:.1} s, by up to {most} processes",
        began.elapsed().as_secs_f64()
    ));
    kubedaemon.until_zero().await?;
    say("back at zero");

    let (answer, wake) = kubedaemon.call(&format!("/words/{WORD}")).await?;
    say(&format!(
        "an HTTP call found it at zero and was answered {answer:?} after {} ms",
        wake.as_millis()
    ));
    let dead = amqp.get_all(&format!("{queue}.dead")).await;
    let counts = kubedaemon.counts().await?;
    kubedaemon.until_zero().await?;
    kubedaemon.stop().await?;

    say("computing the same thing one file after the other, to compare");
    let expected = sequential(&files)?;
    let outcome = Outcome::check(&files, &expected, index.path())?;
    let total: u64 = expected.values().filter_map(|counts| counts.get(WORD)).sum();
    ensure!(
        answer == total.to_string(),
        "the index says {answer} times {WORD:?}, the sequential count {total}"
    );
    let letters: Vec<String> = dead.iter().map(testkit::Message::text).collect();
    ensure!(
        letters == [POISON],
        "the dead letters are {letters:?}, and should be the poison alone"
    );
    for suffix in ["", ".dead"] {
        amqp.delete(&format!("{queue}{suffix}")).await;
    }
    drop(broker);

    let (lost, duplicates) = (outcome.lost.len(), outcome.duplicates);
    ensure!(lost == 0, "{lost} files are not in the index: {:?}", outcome.lost);
    ensure!(
        counts.done + counts.dead == published.len() as u64,
        "{counts:?} do not add up to {}",
        published.len()
    );
    Ok(format!(
        "demo: published={} settled={} dead={} lost={lost} duplicates={duplicates} replicas=0>{most}>0 wake_ms={}",
        published.len(),
        counts.done + counts.dead,
        counts.dead,
        wake.as_millis()
    ))
}

fn say(text: &str) {
    println!("demo: {text}");
}

/// Every licence text on the machine, each file once.
fn licence_files() -> anyhow::Result<Vec<String>> {
    let copyrights = fs::read_dir("/usr/share/doc")?
        .flatten()
        .map(|entry| entry.path().join("copyright"));
    let licences = fs::read_dir("/usr/share/common-licenses")?
        .flatten()
        .map(|entry| entry.path());
    let real: BTreeSet<PathBuf> = copyrights
        .chain(licences)
        .filter_map(|path| path.canonicalize().ok())
        .filter(|path| path.is_file())
        .collect();
    let files: Vec<String> = real
        .iter()
        .filter_map(|path| path.to_str().map(str::to_owned))
        .collect();
    ensure!(
        !files.is_empty(),
        "there are no licence texts under /usr/share; this is meant for Debian"
    );
    Ok(files)
}

/// The broker that `AMQP_URL` names, or one of our own.
async fn broker() -> anyhow::Result<(Option<Broker>, String)> {
    if let Some(url) = std::env::var("AMQP_URL").ok().filter(|url| !url.is_empty()) {
        say("using the broker of AMQP_URL");
        return Ok((None, url));
    }
    say("starting a RabbitMQ of its own, on its own port and directory");
    let broker = Broker::try_start("").await?;
    let url = broker.url().to_owned();
    Ok((Some(broker), url))
}

/// The plain program: file after file, word after word.
fn sequential(files: &[String]) -> anyhow::Result<BTreeMap<&str, Counts>> {
    let mut all = BTreeMap::new();
    for file in files {
        let mut counts = Counts::new();
        let text = fs::read(file)?.to_ascii_lowercase();
        for word in text
            .split(|byte| !byte.is_ascii_lowercase())
            .filter(|word| !word.is_empty())
        {
            *counts
                .entry(String::from_utf8_lossy(word).into_owned())
                .or_default() += 1;
        }
        all.insert(file.as_str(), counts);
    }
    Ok(all)
}

struct Outcome {
    lost: Vec<String>,
    duplicates: usize,
}

impl Outcome {
    /// Reads what the workers stored and holds every count against the sequential one.
    fn check(files: &[String], expected: &BTreeMap<&str, Counts>, index: &Path) -> anyhow::Result<Self> {
        let mut stored = BTreeSet::new();
        for entry in fs::read_dir(index)?.flatten() {
            if entry
                .path()
                .extension()
                .is_none_or(|extension| extension != "json")
            {
                continue;
            }
            let document: Value = serde_json::from_slice(&fs::read(entry.path())?)?;
            let path = document["path"]
                .as_str()
                .context("a result names its file")?
                .to_owned();
            let counts: Counts = serde_json::from_value(document["words"].clone())?;
            let wanted = expected
                .get(path.as_str())
                .with_context(|| format!("{path} was not asked for"))?;
            ensure!(counts == *wanted, "the words of {path} were counted differently");
            stored.insert(path);
        }
        let accepted = fs::read_to_string(index.join("accepted.log"))?;
        let duplicates = accepted.lines().count() - accepted.lines().collect::<BTreeSet<_>>().len();
        let lost = files
            .iter()
            .filter(|file| !stored.contains(*file))
            .cloned()
            .collect();
        Ok(Self { lost, duplicates })
    }
}

/// `kubedaemon run` as a user runs it, with its output shown as it comes.
struct Kubedaemon {
    child: Child,
    admin: String,
    url: String,
}

#[derive(Debug, Clone, Copy)]
struct Totals {
    done: u64,
    dead: u64,
}

impl Kubedaemon {
    async fn start(queue: &str, broker: &str, index: &Path) -> anyhow::Result<Self> {
        let (port, admin) = (programs::free_port(), programs::free_port());
        let worker = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/licence-index/worker.py");
        let mut command = programs::command("kubedaemon");
        command.args([
            "run",
            "--name",
            "licence-index",
            "--queue",
            queue,
            "--port",
            &port.to_string(),
        ]);
        command.args(["--admin", &format!("127.0.0.1:{admin}")]);
        command.args([
            "--max-replicas",
            "4",
            "--messages-per-replica",
            "50",
            "--concurrency",
            "4",
            "--cool-down",
            "2s",
        ]);
        command
            .args(["--retry-backoff", "500ms..2s", "--", "python3"])
            .arg(worker);
        command.env("KUBEDAEMON_BROKER", broker).env("INDEX_DIR", index);
        let shown: Vec<String> = command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        say(&format!("$ kubedaemon {}", shown.join(" ")));
        let kubedaemon = Self {
            child: command.spawn().context("kubedaemon cannot be started")?,
            admin: format!("http://127.0.0.1:{admin}"),
            url: format!("http://127.0.0.1:{port}"),
        };
        // The autoscaler makes the queue: at zero nobody else would, and the first message must not be lost.
        kubedaemon
            .until("kubedaemon watches the queue", |worker| {
                worker["waiting"].is_u64()
            })
            .await?;
        Ok(kubedaemon)
    }

    async fn worker(&self) -> Option<Value> {
        let response = http::get(&format!("{}/status", self.admin)).await.ok()?;
        let document: Value = serde_json::from_str(&response.text()).ok()?;
        document["workers"].get(0).cloned()
    }

    async fn until(&self, what: &str, mut is_so: impl FnMut(&Value) -> bool) -> anyhow::Result<()> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if self.worker().await.is_some_and(|worker| is_so(&worker)) {
                return Ok(());
            }
            sleep(Duration::from_millis(20)).await;
        }
        bail!("waited {} s in vain until {what}", PATIENCE.as_secs())
    }

    /// The most replicas seen on the way.
    async fn until_settled(&self, count: usize) -> anyhow::Result<usize> {
        let mut most = 0;
        self.until("every message is settled", |worker| {
            most = most.max(replicas(worker));
            worker["done"].as_u64().unwrap_or(0) + worker["dead"].as_u64().unwrap_or(0) >= count as u64
        })
        .await?;
        Ok(most)
    }

    async fn until_zero(&self) -> anyhow::Result<()> {
        self.until("the worker is back at zero", |worker| {
            replicas(worker) == 0 && worker["state"] == "zero"
        })
        .await
    }

    async fn counts(&self) -> anyhow::Result<Totals> {
        let worker = self.worker().await.context("kubedaemon does not answer")?;
        let total = |name: &str| worker[name].as_u64().unwrap_or(0);
        Ok(Totals {
            done: total("done"),
            dead: total("dead"),
        })
    }

    async fn call(&self, path: &str) -> anyhow::Result<(String, Duration)> {
        let began = Instant::now();
        let response = http::get(&format!("{}{path}", self.url)).await?;
        ensure!(
            response.status == 200,
            "the call was answered {}: {}",
            response.status,
            response.text()
        );
        Ok((response.text(), began.elapsed()))
    }

    /// Ctrl-C, as a user ends it.
    async fn stop(mut self) -> anyhow::Result<()> {
        signal(&self.child, Signal::INT)?;
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "kubedaemon ended with {status}");
                return Ok(());
            }
            sleep(Duration::from_millis(20)).await;
        }
        bail!("kubedaemon does not end on Ctrl-C")
    }
}

impl Drop for Kubedaemon {
    /// After a failure: the second signal stops the workers at once.
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _both_sent = signal(&self.child, Signal::INT).and_then(|()| signal(&self.child, Signal::INT));
            let _ended = self.child.wait();
        }
    }
}

fn signal(child: &Child, signal: Signal) -> anyhow::Result<()> {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .context("kubedaemon has a process id")?;
    Ok(kill_process(pid, signal)?)
}

fn replicas(worker: &Value) -> usize {
    worker["replicas"].as_array().map_or(0, Vec::len)
}

/// A directory that is gone when the demo is.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(unique("kubedaemon-demo"));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _removed_or_never_there = fs::remove_dir_all(&self.0);
    }
}
