//! A burst of webhooks: signed pushes of 10 KB over 32 kept connections, each on disk before it is answered, beside a bare
//! HTTP server that checks the same signature and keeps nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use aws_lc_rs::hmac;
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use isoform::clock::Clock;
use isoform::domain::forge::ForgeKind;
use isoform::domain::model::SourceName;
use isoform::http::webhooks::{Ear, Hears, Webhooks, bind, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::Options;

const CONNECTIONS: usize = 32;
/// How many each connection sends in one sample.
const EACH: usize = 500;
const SECRET: &[u8] = b"a secret of the burst, long enough";

struct Deaf;

impl Ear for Deaf {
    fn branch(&self, _: &SourceName) {}
    fn pull(&self, _: &SourceName, _: Option<u64>) {}
}

fn body() -> String {
    let filler = "x".repeat(10_000);
    format!(
        r#"{{"ref":"refs/heads/main","repository":{{"full_name":"acme/platform"}},"filler":"{filler}"}}"#
    )
}

fn signature(body: &str) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), body.as_bytes());
    let hex: String = tag.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256={hex}")
}

/// What the floor does: the same signature over the same bytes, and nothing else.
async fn floor(headers: HeaderMap, body: Bytes) -> StatusCode {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    let given = headers.get("x-hub-signature-256");
    let given = given.and_then(|v| v.to_str().ok()?.strip_prefix("sha256="));
    let digits = given.unwrap_or_default().as_bytes().chunks(2);
    let bytes: Vec<u8> = digits
        .filter_map(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 16).ok())
        .collect();
    match hmac::verify(&key, &body, &bytes) {
        Ok(()) => StatusCode::ACCEPTED,
        Err(_) => StatusCode::UNAUTHORIZED,
    }
}

/// Sends a burst; returns requests in a second and the time that one of a hundred takes longer than.
async fn burst(address: SocketAddr, sample: usize) -> anyhow::Result<(f64, f64)> {
    let (body, begun) = (Arc::new(body()), Instant::now());
    let signature = signature(&body);
    let mut all = Vec::new();
    for connection in 0..CONNECTIONS {
        let (body, signature) = (body.clone(), signature.clone());
        all.push(tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let mut times = Vec::with_capacity(EACH);
            let mut answer = vec![0; 4096];
            for n in 0..EACH {
                let request = format!(
                    "POST /webhooks/platform HTTP/1.1\r\nHost: x\r\nX-GitHub-Event: push\r\nX-GitHub-Delivery: {sample}-{connection}-{n}\r\nX-Hub-Signature-256: {signature}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                let one = Instant::now();
                stream.write_all(request.as_bytes()).await?;
                let length = stream.read(&mut answer).await?;
                if !answer[..length].starts_with(b"HTTP/1.1 202") {
                    bail!("{}", String::from_utf8_lossy(&answer[..length]));
                }
                times.push(one.elapsed().as_secs_f64());
            }
            Ok(times)
        }));
    }
    let mut times = Vec::new();
    for one in all {
        times.extend(one.await??);
    }
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    let p99 = times[times.len() * 99 / 100];
    Ok((rate, p99 * 1_000.0))
}

/// Measures both in turn.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let secret = folder.path().join("secret");
    isoform::secret_file::write(&secret, SECRET)?;
    let hears = Hears {
        kind: ForgeKind::GitHub,
        repository: "acme/platform".into(),
        branch: "main".into(),
        secrets: vec![secret],
    };
    let servers = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let clients = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let journal = folder.path().join("journal");
    let (ours, bare) = servers.block_on(async {
        let sources = BTreeMap::from([("platform".parse().context("a name")?, hears)]);
        let webhooks = Webhooks::open(sources, &journal, Clock::system(), Arc::new(Deaf))?;
        let listener = bind("127.0.0.1:0".parse()?).await?;
        let ours = listener.local_addr()?;
        tokio::spawn(serve(listener, webhooks, CancellationToken::new()));
        let listener = bind("127.0.0.1:0".parse()?).await?;
        let bare = listener.local_addr()?;
        let router = Router::new().route("/webhooks/platform", post(floor));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok::<_, anyhow::Error>((ours, bare))
    })?;
    println!(
        "a burst of {} signed pushes of 10 KB over {CONNECTIONS} connections",
        CONNECTIONS * EACH
    );
    let mut ratios = Vec::new();
    for sample in 0..options.repeat {
        let (floor, floor_p99) = clients.block_on(burst(bare, sample))?;
        let (rate, p99) = clients.block_on(burst(ours, sample))?;
        println!(
            "  bare {floor:>7.0}/s p99 {floor_p99:>5.2} ms   isoform {rate:>7.0}/s p99 {p99:>5.2} ms   {:.0} %",
            100.0 * rate / floor
        );
        ratios.push(rate / floor);
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "  median: {:.0} % of the bare server",
        100.0 * ratios[ratios.len() / 2]
    );
    Ok(())
}
