//! The idle poll: a repository that has not moved, asked over smart HTTP and over ssh.
//!
//! The server is `git http-backend` in a process of its own, so that its processor time is not counted. The floor is a
//! hand-written exchange on a kept connection; the peers are Git's own programs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::Context;
use isoform::git::{Auth, Client, Remote, errand, tip};

use crate::Options;
use crate::measure::{Cost, batch, child, print, ratio};
use crate::servers::{HttpServer, Sshd};

/// How many cheap polls are one sample.
const MANY: u32 = 20;
/// How many polls that start a process are one sample.
const FEW: u32 = 4;

/// Serves the repositories of a folder until standard input ends; tells its port, and at every line its traffic.
pub fn serve(root: &str) -> anyhow::Result<()> {
    let server = HttpServer::start(Path::new(root));
    println!("{}", server.address.port());
    for line in std::io::stdin().lines() {
        line?;
        let [requests, received, sent] = server.traffic.so_far();
        println!("{requests} {received} {sent}");
    }
    Ok(())
}

/// The server's process.
pub struct Server {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    pub port: u16,
}

impl Server {
    pub fn start(root: &Path) -> anyhow::Result<Self> {
        let root = root.to_str().context("a path that is text")?;
        let mut process = child(&["git-server", root])?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = process.stdin.take();
        let output = process.stdout.take().context("its output")?;
        let mut output = BufReader::new(output);
        let mut line = String::new();
        output.read_line(&mut line)?;
        Ok(Self {
            process,
            input,
            output,
            port: line.trim().parse()?,
        })
    }

    pub fn url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}/{name}", self.port)
    }

    /// Returns requests, bytes from clients and bytes to them so far.
    fn traffic(&mut self) -> anyhow::Result<[u64; 3]> {
        writeln!(self.input.as_mut().context("its input")?)?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let mut words = line.split_whitespace().map(str::parse);
        let mut next = || anyhow::Ok(words.next().context("a number")??);
        Ok([next()?, next()?, next()?])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It ends when its input does.
        self.input.take();
        let _ = self.process.wait();
    }
}

/// A bare repository with one branch, and many refs of pull requests beside it.
pub fn repository(path: &Path, refs: usize) -> anyhow::Result<()> {
    let repository = git2::Repository::init_bare(path)?;
    let blob = repository.blob(b"isoform: 1\n")?;
    let mut tree = repository.treebuilder(None)?;
    tree.insert("isoform.yaml", blob, 0o100_644)?;
    let tree = repository.find_tree(tree.write()?)?;
    let who = git2::Signature::new("a", "a@example.org", &git2::Time::new(1, 0))?;
    let id = repository.commit(Some("refs/heads/main"), &who, &who, "first", &tree, &[])?;
    let mut packed = String::from("# pack-refs with: peeled fully-peeled sorted \n");
    let mut names: Vec<String> = (1..refs).map(|n| format!("refs/pull/{n}/head")).collect();
    names.sort();
    for name in names {
        packed.push_str(&format!("{id} {name}\n"));
    }
    std::fs::write(path.join("packed-refs"), packed)?;
    std::fs::write(path.join("HEAD"), "ref: refs/heads/main\n")?;
    Ok(())
}

/// An exchange written by hand on a kept connection: what any client must at least do.
struct Raw {
    stream: BufReader<TcpStream>,
    port: u16,
}

impl Raw {
    fn connect(port: u16) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
            port,
        })
    }

    fn exchange(&mut self, line: &str, body: &str) -> anyhow::Result<Vec<u8>> {
        let request = format!(
            "{line} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nGit-Protocol: version=2\r\nContent-Type: application/x-git-upload-pack-request\r\nContent-Length: {}\r\n\r\n{body}",
            self.port,
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            let line = line.trim_end();
            if let Some((name, value)) = line.split_once(": ")
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.parse()?;
            }
            if line.is_empty() {
                break;
            }
        }
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn greeting(&mut self) -> anyhow::Result<()> {
        let line = "GET /origin.git/info/refs?service=git-upload-pack";
        let bytes = self.exchange(line, "")?;
        anyhow::ensure!(bytes.windows(9).any(|w| w == b"version 2"));
        Ok(())
    }

    fn refs(&mut self) -> anyhow::Result<()> {
        let body = "0014command=ls-refs\n0001001fref-prefix refs/heads/main\n0000";
        let bytes = self.exchange("POST /origin.git/git-upload-pack", body)?;
        anyhow::ensure!(bytes.windows(15).any(|w| w == b"refs/heads/main"));
        Ok(())
    }
}

/// Git's own program, without the configuration of whoever runs this.
fn git(home: &Path, arguments: &[&str], ssh: Option<&str>) -> anyhow::Result<()> {
    let mut command = Command::new("git");
    command
        .args(arguments)
        .env("HOME", home)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdout(Stdio::null());
    if let Some(ssh) = ssh {
        command.env("GIT_SSH_COMMAND", ssh);
    }
    anyhow::ensure!(command.status()?.success(), "git {arguments:?}");
    Ok(())
}

/// One thing that is measured, and what it cost each time.
struct Row {
    name: &'static str,
    many: u32,
    costs: Vec<Cost>,
    traffic: [u64; 3],
}

impl Row {
    fn new(name: &'static str, many: u32) -> Self {
        Self {
            name,
            many,
            costs: Vec::new(),
            traffic: [0; 3],
        }
    }

    fn take(
        &mut self,
        server: &mut Server,
        what: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let before = server.traffic()?;
        self.costs.push(batch(self.many, what)?);
        let after = server.traffic()?;
        for (sum, (a, b)) in self.traffic.iter_mut().zip(after.iter().zip(before)) {
            *sum += a - b;
        }
        Ok(())
    }

    fn print(&self) {
        let polls = self.costs.len() as f64 * f64::from(self.many);
        let [requests, received, sent] = self.traffic.map(|n| n as f64 / polls);
        let counts = format!("{requests:.1} requests, {received:.0} bytes out, {sent:.0} bytes in");
        print(self.name, &self.costs, &counts);
    }
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    for refs in [10, 1_000, 10_000] {
        println!("over http, {refs} refs:");
        let folder = tempfile::tempdir()?;
        repository(&folder.path().join("origin.git"), refs)?;
        let mut server = Server::start(folder.path())?;
        let url = server.url("origin.git");
        let home = folder.path();
        let clone = home.join("clone").display().to_string();
        git(home, &["clone", "--quiet", "--bare", &url, &clone], None)?;
        let remote = Remote::new(&url, "main", Auth::default())?;
        let client = Client::new()?;
        let mut raw = Raw::connect(server.port)?;
        let mut poll = || {
            let found = runtime.block_on(tip(&remote, &client))?;
            anyhow::ensure!(found.is_some(), "the branch is gone");
            Ok(())
        };
        // The first question greets the server.
        poll()?;
        let errands = errand::sent();
        let mut floor = Row::new("floor: GET of info/refs, by hand", MANY);
        let mut same = Row::new("floor: the same question, by hand", MANY);
        let mut ours = Row::new("isoform", MANY);
        let mut list = Row::new("peer: git ls-remote URL refs/heads/main", FEW);
        let mut fetch = Row::new("peer: git fetch", FEW);
        for _ in 0..options.repeat {
            floor.take(&mut server, || raw.greeting())?;
            same.take(&mut server, || raw.refs())?;
            ours.take(&mut server, &mut poll)?;
            list.take(&mut server, || {
                git(
                    home,
                    &["ls-remote", "--quiet", &url, "refs/heads/main"],
                    None,
                )
            })?;
            fetch.take(&mut server, || {
                let words = ["--git-dir", &clone, "fetch", "--quiet", &url, "main"];
                git(home, &words, None)
            })?;
        }
        for row in [&floor, &same, &ours, &list, &fetch] {
            row.print();
        }
        println!("processes started by isoform: {}", errand::sent() - errands);
        ratio("isoform to GET of info/refs", &ours.costs, &floor.costs);
        ratio("isoform to the same question", &ours.costs, &same.costs);
        ratio("git ls-remote to isoform", &list.costs, &ours.costs);
        ratio("git fetch to isoform", &fetch.costs, &ours.costs);
    }
    over_ssh(options, &runtime)
}

fn over_ssh(options: &Options, runtime: &tokio::runtime::Runtime) -> anyhow::Result<()> {
    let user = Command::new("id").arg("-un").output()?.stdout;
    let user = String::from_utf8(user)?;
    for refs in [10, 10_000] {
        let folder = tempfile::tempdir()?;
        let home = folder.path();
        let Some(sshd) = Sshd::start(home) else {
            println!("over ssh: not measured, sshd or ssh-keygen is not installed");
            return Ok(());
        };
        println!("over ssh, {refs} refs:");
        repository(&home.join("origin.git"), refs)?;
        let host = std::fs::read_to_string(home.join("host.pub"))?;
        let known = home.join("known");
        std::fs::write(&known, format!("[127.0.0.1]:{} {host}", sshd.port))?;
        let auth = Auth {
            ssh_key: Some(home.join("user")),
            known_hosts: Some(known.clone()),
            ..Auth::default()
        };
        let url = format!(
            "ssh://{}@127.0.0.1:{}{}/origin.git",
            user.trim(),
            sshd.port,
            home.display()
        );
        let ssh = format!(
            "ssh -F none -i {} -o UserKnownHostsFile={} -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes",
            home.join("user").display(),
            known.display()
        );
        let remote = Remote::new(&url, "main", auth)?;
        let client = Client::new()?;
        let mut poll = || {
            let found = runtime.block_on(tip(&remote, &client))?;
            anyhow::ensure!(found.is_some(), "the branch is gone");
            Ok(())
        };
        for tries in 0.. {
            // The server may not listen yet.
            match poll() {
                Ok(()) => break,
                Err(error) if tries == 50 => return Err(error),
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(100)),
            }
        }
        let errands = errand::sent();
        let (mut ours, mut list) = (Vec::new(), Vec::new());
        for _ in 0..options.repeat {
            ours.push(batch(FEW, &mut poll)?);
            list.push(batch(FEW, || {
                git(
                    home,
                    &["ls-remote", "--quiet", &url, "refs/heads/main"],
                    Some(&ssh),
                )
            })?);
        }
        let polls = options.repeat as f64 * f64::from(FEW);
        let started = (errand::sent() - errands) as f64 / polls;
        print("isoform", &ours, &format!("{started:.1} processes started"));
        print("peer: git ls-remote", &list, "");
        ratio("git ls-remote to isoform", &list, &ours);
    }
    Ok(())
}
