//! A process of its own for the C library when it speaks to a remote.
//!
//! libgit2 has no deadline for what it waits for and no bound on what it allocates, and it reads bytes that a stranger
//! wrote. So each exchange over the network is an errand: isoform starts itself, with limits that the system holds, and
//! ends it when its time is up or when nothing has moved for a while. The daemon, with its keys, never sees those bytes;
//! what the errand leaves is a mirror whose objects were checked, or the mirror as it was.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use serde::{Deserialize, Serialize};

use super::pulls::PullRef;
use super::remote::{Auth, Patience, Remote, list_tip};
use super::{Error, Mirror};
use crate::domain::model::Revision;

/// The argument that makes a process an errand.
pub const ARGUMENT: &str = "git-errand";

/// What an errand may allocate. Indexing a pack takes about 100 bytes for each object, and the largest object twice.
const MEMORY: u64 = 384 << 20;
/// The largest file that it may write: a pack with everything in it.
const FILE: u64 = 1 << 30;
/// What is read of its answer.
const ANSWER: u64 = 64 << 10;
/// How much progress text a remote may send.
const CHATTER: u64 = 256 << 10;
/// Most objects of one pack: more is no repository of templates and specs.
const OBJECTS: usize = 2_000_000;

/// What is to be done.
#[derive(Serialize, Deserialize)]
pub(super) enum Task {
    /// Tell where the branch is.
    Tip,
    /// Fetch the branch into a mirror.
    Fetch {
        /// The mirror.
        mirror: PathBuf,
        /// The commit that must be there afterwards.
        wanted: Revision,
    },
    /// Fetch what a pull request would merge, and into what.
    Pull {
        /// The mirror.
        mirror: PathBuf,
        /// The pull request.
        pull: PullRef,
    },
}

#[derive(Serialize, Deserialize)]
struct Errand {
    task: Task,
    url: String,
    branch: String,
    ssh_key: Option<PathBuf>,
    known_hosts: Option<PathBuf>,
    token: Option<PathBuf>,
    user: Option<String>,
    total: Duration,
    still: Duration,
}

#[derive(Serialize, Deserialize)]
enum Answer {
    Done(Option<Revision>),
    Failed(String),
}

static SENT: AtomicU64 = AtomicU64::new(0);

/// Returns how many processes this one has sent on errands.
pub fn sent() -> u64 {
    SENT.load(Ordering::Relaxed)
}

/// Sends a process on an errand and waits for it, no longer than the remote's patience.
pub(super) fn send(remote: &Remote, task: Task) -> Result<Option<Revision>, Error> {
    let errand = Errand {
        task,
        url: remote.url.clone(),
        branch: remote.branch.clone(),
        ssh_key: remote.auth.ssh_key.clone(),
        known_hosts: remote.auth.known_hosts.clone(),
        token: remote.auth.token.clone(),
        user: remote.auth.user.clone(),
        total: remote.patience.total,
        still: remote.patience.still,
    };
    let failed = |error| Error::File("a process for Git".into(), error);
    let text = serde_json::to_vec(&errand).map_err(|e| failed(e.into()))?;
    let mut child = Command::new(program())
        .arg(ARGUMENT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    SENT.fetch_add(1, Ordering::Relaxed);
    if let Some(mut input) = child.stdin.take() {
        // One that died at once is told by its end.
        let _ = input.write_all(&text);
    }
    let answer = wait(&mut child, remote.patience.total).map_err(failed)?;
    let Some(bytes) = answer else {
        return Err(Error::Limit(format!(
            "the remote did not end within {} s",
            remote.patience.total.as_secs()
        )));
    };
    match serde_json::from_slice(&bytes) {
        Ok(Answer::Done(revision)) => Ok(revision),
        Ok(Answer::Failed(message)) => Err(Error::Errand(message)),
        Err(_) => Err(Error::Errand(
            "the process for Git died: the remote sent what it could not bear".into(),
        )),
    }
}

/// The running program, also where its file was replaced meanwhile.
fn program() -> PathBuf {
    let running = PathBuf::from("/proc/self/exe");
    if running.exists() {
        return running;
    }
    std::env::current_exe().unwrap_or_else(|_| "isoform".into())
}

/// Returns everything that a child said, or nothing where its time was up and it was ended.
fn wait(child: &mut Child, total: Duration) -> std::io::Result<Option<Vec<u8>>> {
    let Some(output) = child.stdout.take() else {
        return Ok(None);
    };
    let (said, answer) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = output.take(ANSWER).read_to_end(&mut bytes);
        let _ = said.send(bytes);
    });
    let answer = answer.recv_timeout(total).ok();
    // It ends by itself after its answer; one that does not is not waited for.
    if answer.is_none() {
        child.kill()?;
    }
    child.wait()?;
    Ok(answer)
}

/// Does the errand that standard input describes, and answers on standard output. Never returns.
pub fn run() -> ! {
    let mut text = Vec::new();
    let read = std::io::stdin().take(ANSWER).read_to_end(&mut text);
    let answer = match (read, serde_json::from_slice::<Errand>(&text)) {
        (Ok(_), Ok(errand)) => match limits().and_then(|()| errand.run()) {
            Ok(revision) => Answer::Done(revision),
            Err(error) => Answer::Failed(plain(&error)),
        },
        _ => Answer::Failed("this command is for isoform itself".into()),
    };
    give(&answer)
}

/// Writes an error, with what running out of memory means here.
fn plain(error: &Error) -> String {
    match error {
        Error::Git { source, .. } if source.message().contains("Out of memory") => format!(
            "the remote sent what takes more than {} MB of memory",
            MEMORY >> 20
        ),
        // libgit2 says it in words of its own, whatever the check of the certificate said.
        Error::Git { source, .. } if source.message().contains("ssh hostkey") => {
            "HOSTKEY_UNKNOWN: the host key is not in the known hosts of this source".into()
        }
        _ if TEXTS.load(Ordering::Relaxed) > CHATTER => {
            format!("the remote sent more than {CHATTER} bytes of progress text")
        }
        other => other.to_string(),
    }
}

fn give(answer: &Answer) -> ! {
    let text = serde_json::to_vec(answer).unwrap_or_default();
    let written = std::io::stdout()
        .write_all(&text)
        .and_then(|()| std::io::stdout().flush());
    std::process::exit(i32::from(written.is_err()))
}

fn limits() -> Result<(), Error> {
    let failed = |e: rustix::io::Errno| Error::File("limits of a process".into(), e.into());
    for (resource, most) in [
        (Resource::Data, MEMORY),
        (Resource::Fsize, FILE),
        (Resource::Core, 0),
    ] {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, limit).map_err(failed)?;
    }
    // A daemon that was killed leaves no errand behind.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed)
}

impl Errand {
    fn run(self) -> Result<Option<Revision>, Error> {
        let auth = Auth {
            ssh_key: self.ssh_key,
            known_hosts: self.known_hosts,
            token: self.token,
            user: self.user,
        };
        let mut remote = Remote::new(&self.url, &self.branch, auth)
            .map_err(|error| Error::Protocol(error.to_string()))?;
        remote.patience = Patience {
            total: self.total,
            still: self.still,
        };
        watch(self.still);
        match self.task {
            Task::Tip => list_tip(&remote),
            Task::Fetch { mirror, wanted } => Mirror::open(&mirror)?
                .fetch_here(&remote, &wanted)
                .map(|()| None),
            Task::Pull { mirror, pull } => Mirror::open(&mirror)?
                .fetch_pull_here(&remote, &pull)
                .map(|()| None),
        }
    }
}

/// What has come so far: bytes of text, and steps of a transfer. Both only grow.
static TEXTS: AtomicU64 = AtomicU64::new(0);
static STEPS: AtomicU64 = AtomicU64::new(0);

fn moved() -> u64 {
    TEXTS.load(Ordering::Relaxed) + STEPS.load(Ordering::Relaxed)
}

/// Ends the process when nothing has moved for a while: the library would wait for ever.
fn watch(still: Duration) {
    std::thread::spawn(move || {
        let (_nobody, silence) = mpsc::channel::<()>();
        let mut before = moved();
        loop {
            let _ = silence.recv_timeout(still);
            let now = moved();
            if now == before {
                give(&Answer::Failed(format!(
                    "the remote sent nothing of use for {} s",
                    still.as_secs()
                )));
            }
            before = now;
        }
    });
}

/// Counts what comes during an errand, and says when it is too much.
#[derive(Default)]
pub(super) struct Meter {
    chatter: u64,
}

impl Meter {
    /// Takes progress text; says whether to go on.
    pub fn text(&mut self, bytes: usize) -> bool {
        self.chatter += bytes as u64;
        TEXTS.fetch_add(bytes as u64, Ordering::Relaxed);
        self.chatter <= CHATTER
    }

    /// Takes the state of a transfer; says whether to go on. A byte a second is not counted as moving.
    pub fn transfer(&mut self, progress: &git2::Progress<'_>) -> bool {
        let done = progress.received_bytes() / (16 << 10)
            + progress.indexed_objects()
            + progress.indexed_deltas();
        STEPS.fetch_max(done as u64, Ordering::Relaxed);
        progress.total_objects() <= OBJECTS && progress.received_bytes() as u64 <= FILE
    }
}
