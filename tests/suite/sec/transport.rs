//! Hostile remotes, spoken to by the real daemon.

use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::measure::{resident_peak_of, run};
use super::servers::*;
use crate::support::{Bench, ISOFORM, PLACEMENTS, all_in_sync, python, text};

/// How much more memory the daemon may have taken after an attack, fetch of ordinary commits included.
const GROWTH_KIB: u64 = 32 << 10;

fn one_stack() -> Bench {
    let bench = Bench::empty(PLACEMENTS);
    bench.write(
        "stack.yaml",
        "Resources: { T: { Type: 'AWS::SNS::Topic' } }\n",
    );
    bench.write(
        "isoform.yaml",
        "isoform: 1\nstacks: { one: { template: stack.yaml, placement: beta } }\n",
    );
    bench
}

/// Makes the daemon follow this URL.
fn follow(bench: &Bench, url: &str, deadline: &str) {
    let path = bench.root.join("config.yaml");
    let config = std::fs::read_to_string(&path).unwrap();
    assert!(config.contains("url: ./origin.git"));
    let source = format!("url: '{url}'\n    deadline: {deadline}");
    std::fs::write(path, config.replace("url: ./origin.git", &source)).unwrap();
}

fn refusal(bench: &Bench) -> String {
    bench.until(|estate| estate["refused"]["example"].is_string())["refused"]["example"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Pushes a commit that changes the stack, so that it can be seen to arrive.
fn push_change(bench: &Bench, number: usize) {
    bench.write(
        "stack.yaml",
        &format!("Resources: {{ T: {{ Type: 'AWS::SNS::Topic', Properties: {{ DisplayName: n{number} }} }} }}\n"),
    );
    bench.push(&format!("change {number}"));
}

#[test]
fn sec_20_hostile_packs_end_and_the_mirror_stays() {
    let mut bench = one_stack();
    bench.push("first");
    let server = HttpServer::start(&bench.root);
    follow(&bench, &server.url("origin.git"), "6s");
    bench.start();
    all_in_sync(&bench.settle(), 1);
    let base = resident_peak_of(bench.pid()).unwrap_or(0);
    let mirror = bench.root.join("state/mirrors/example.git");

    let (large, zeros_of_it) = zeros(4_200_000);
    let (medium, zeros_of_that) = zeros(65_000);
    // A delta of 256 copies of 16 MB each, taken from an object of 16 MB: 4 GB in 30 kB.
    let bomb = {
        let mut delta = [delta_size(medium), delta_size(256 * 0xff_ffff)].concat();
        (0..256).for_each(|_| delta.extend_from_slice(&[0b1111_0000, 0xff, 0xff, 0xff]));
        let base = entry(BLOB, medium, b"", &zeros_of_that);
        let back = ofs(base.len() as u64);
        let bomb = entry(OFS_DELTA, delta.len() as u64, &back, &compress(&delta));
        pack(2, &[base, bomb])
    };
    let delta = [delta_size(1), delta_size(1), vec![1, b'x']].concat();
    let reference = |id: [u8; 20]| entry(REF_DELTA, delta.len() as u64, &id, &compress(&delta));
    let mut flipped = pack(1, &[entry(BLOB, 5, b"", &compress(b"hello"))]);
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    let whole = pack(1, &[entry(BLOB, 5, b"", &compress(b"hello"))]);
    let attacks: Vec<(&str, Vec<u8>)> = vec![
        ("2^31 objects are claimed", pack(1 << 31, &[])),
        (
            "2^31 objects, and one comes",
            pack(1 << 31, &[entry(BLOB, 5, b"", &compress(b"hello"))]),
        ),
        ("a delta bomb", bomb),
        (
            "deltas in a circle",
            pack(2, &[reference([1; 20]), reference([2; 20])]),
        ),
        (
            "the base of a delta is missing",
            pack(1, &[reference([9; 20])]),
        ),
        (
            "an object of a gigabyte",
            pack(1, &[entry(BLOB, large, b"", &zeros_of_it)]),
        ),
        (
            "an object that is larger than it says",
            pack(1, &[entry(BLOB, 5, b"", &zeros_of_that)]),
        ),
        ("a wrong checksum", flipped),
        ("a pack that is cut", whole[..whole.len() - 25].to_vec()),
        ("a good pack without the commit", whole),
        ("no pack at all", b"<html>".to_vec()),
    ];
    for (number, (name, bytes)) in attacks.into_iter().enumerate() {
        server.turn(move |request, stream| {
            if request.is_fetch() {
                begin(stream, "result");
                let _ = send(stream, &pack_answer(request, &bytes));
                end(stream);
            }
            request.is_fetch()
        });
        outlive(&bench, &server, &mirror, base, number, name);
    }
    // Answers that do not end by themselves.
    type Endless = fn(&Request, &mut std::net::TcpStream);
    let endless: [(&str, Endless); 4] = [
        ("one byte a second", |_, stream| {
            begin(stream, "result");
            let _ = send(stream, &packet(b"NAK\n"));
            for byte in pack(1, &[entry(BLOB, 5, b"", &compress(b"hello"))]).repeat(9) {
                if send(stream, &packet(&[1, byte])).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_secs(1));
            }
        }),
        ("silence", |_, stream| {
            begin(stream, "result");
            std::thread::sleep(Duration::from_secs(40));
        }),
        ("progress for ever", |_, stream| {
            begin(stream, "result");
            let _ = send(stream, &packet(b"NAK\n"));
            while send(stream, &packet(b"\x02still counting\r")).is_ok() {}
        }),
        ("slow progress for ever", |_, stream| {
            begin(stream, "result");
            let _ = send(stream, &packet(b"NAK\n"));
            while send(stream, &packet(b"\x02still counting\r")).is_ok() {
                std::thread::sleep(Duration::from_millis(200));
            }
        }),
    ];
    for (number, (name, answer)) in endless.into_iter().enumerate() {
        server.turn(move |request, stream| {
            let fetch = request.is_fetch();
            if fetch {
                answer(request, stream);
            }
            fetch
        });
        outlive(&bench, &server, &mirror, base, 100 + number, name);
    }
}

fn ofs(mut back: u64) -> Vec<u8> {
    let mut out = vec![(back & 0x7f) as u8];
    back >>= 7;
    while back > 0 {
        back -= 1;
        out.push(0x80 | (back & 0x7f) as u8);
        back >>= 7;
    }
    out.reverse();
    out
}

/// Pushes under an attack, sees it refused and nothing harmed, and sees the same push arrive afterwards.
fn outlive(
    bench: &Bench,
    server: &HttpServer,
    mirror: &std::path::Path,
    base: u64,
    number: usize,
    name: &str,
) {
    push_change(bench, number);
    let refused = refusal(bench);
    assert!(refused.starts_with("git.fetch"), "{name}: {refused}");
    let condition = bench.condition("stack/one");
    assert!(condition.starts_with("InSync"), "{name}: {condition}");
    let growth = resident_peak_of(bench.pid())
        .unwrap_or(0)
        .saturating_sub(base);
    assert!(
        growth < GROWTH_KIB,
        "{name}: {growth} KiB more in the daemon"
    );
    server.behave();
    all_in_sync(&bench.settle(), 1);
    let checked = Command::new("git")
        .args([
            "-c",
            "safe.directory=*",
            "--git-dir",
            mirror.to_str().unwrap(),
            "fsck",
            "--full",
        ])
        .output()
        .unwrap();
    assert!(checked.status.success(), "{name}: {}", text(&checked));
    let left: Vec<String> = std::fs::read_dir(packs(mirror))
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|n| !n.starts_with("pack-"))
        .collect();
    assert_eq!(left, [""; 0], "{name}");
}

#[test]
fn sec_24_git_and_dumb_http_are_refused() {
    let bench = one_stack();
    bench.push("first");
    // A real server of the old protocol; the port tells whether anybody came.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    // The program itself: `git daemon` would start it as a child that nobody ends.
    let path = Command::new("git").arg("--exec-path").output().unwrap();
    let path = String::from_utf8(path.stdout).unwrap();
    let mut daemon = Command::new(std::path::Path::new(path.trim()).join("git-daemon"))
        .args([
            "--reuseaddr",
            "--export-all",
            "--listen=127.0.0.1",
            "--verbose",
        ])
        .args([
            format!("--port={port}"),
            format!("--base-path={}", bench.root.display()),
        ])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    follow(&bench, &format!("git://127.0.0.1:{port}/origin.git"), "5s");
    let started = run(Command::new(ISOFORM).args([
        "--config",
        bench.root.join("config.yaml").to_str().unwrap(),
        "run",
    ]));
    daemon.kill().unwrap();
    let said = text(&daemon.wait_with_output().unwrap());
    assert_ne!(started.code, Some(0));
    assert!(started.text.contains("git://"), "{}", started.text);
    assert!(!said.contains("Connection from"), "{said}");

    let mut bench = one_stack();
    bench.push("first");
    let server = HttpServer::start(&bench.root);
    let head = bench.head();
    // The files of the repository, as a web server without Git behind it gives them.
    server.turn(move |request, stream| {
        if request.path.ends_with("info/refs") {
            let body = format!("{head}\trefs/heads/main\n");
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        } else {
            let _ = write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        true
    });
    follow(&bench, &server.url("origin.git"), "5s");
    bench.start();
    let refused = refusal(&bench);
    assert!(refused.contains("dumb http is refused"), "{refused}");
}

#[test]
fn sec_25_five_million_refs_cost_nothing() {
    let mut bench = one_stack();
    bench.push("first");
    let server = HttpServer::start(&bench.root);
    follow(&bench, &server.url("origin.git"), "20s");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    server.turn(move |request, _| {
        if request.holds("command=ls-refs") {
            seen.lock().unwrap().push(request.body.clone());
        }
        false
    });
    bench.start();
    all_in_sync(&bench.settle(), 1);
    let bodies = asked.lock().unwrap().clone();
    assert!(!bodies.is_empty());
    for body in bodies {
        let body = String::from_utf8_lossy(&body).into_owned();
        assert_eq!(body.matches("ref-prefix").count(), 1, "{body}");
        assert!(body.contains("ref-prefix refs/heads/main\n"), "{body}");
    }
    let base = resident_peak_of(bench.pid()).unwrap_or(0);

    // A server that does not care for the prefix, and tells of every ref that it has.
    let flood = |stream: &mut std::net::TcpStream| {
        let id = "a".repeat(40);
        let block: Vec<u8> = (0..1_000)
            .flat_map(|i| packet(format!("{id} refs/heads/branch-{i:08}\n").as_bytes()))
            .collect();
        for _ in 0..5_000 {
            if send(stream, &block).is_err() {
                return;
            }
        }
    };
    server.turn(move |request, stream| {
        let listing = request.holds("command=ls-refs");
        if listing {
            begin(stream, "result");
            flood(stream);
        }
        listing
    });
    let refused = refusal(&bench);
    assert!(
        refused.contains("bytes to a question for one branch"),
        "{refused}"
    );

    // The same when objects are asked for: the process that asks ends, and not the daemon.
    server.turn(move |request, stream| {
        let listing = request.method == "GET" && request.header("Git-Protocol").is_none();
        if listing {
            begin(stream, "advertisement");
            let _ = send(stream, &packet(b"# service=git-upload-pack\n"));
            let _ = send(stream, b"0000");
            flood(stream);
        }
        listing
    });
    push_change(&bench, 1);
    bench.until(|e| {
        e["refused"]["example"]
            .as_str()
            .is_some_and(|r| r.starts_with("git.fetch"))
    });
    let growth = resident_peak_of(bench.pid())
        .unwrap_or(0)
        .saturating_sub(base);
    assert!(growth < GROWTH_KIB, "{growth} KiB more in the daemon");
    assert!(bench.condition("stack/one").starts_with("InSync"));
    server.behave();
    all_in_sync(&bench.settle(), 1);
}

const RELAY: &str = r#"
import datetime, ipaddress, socket, ssl, sys, threading
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
folder, kind, backend = sys.argv[1], sys.argv[2], int(sys.argv[3])
now = datetime.datetime.now(datetime.timezone.utc)
day = datetime.timedelta(days=1)
def name(text): return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
ca_key = ec.generate_private_key(ec.SECP256R1())
ca = (x509.CertificateBuilder().subject_name(name('test ca')).issuer_name(name('test ca')).public_key(ca_key.public_key())
    .serial_number(1).not_valid_before(now - 9 * day).not_valid_after(now + 9 * day)
    .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
    .add_extension(x509.KeyUsage(True, False, False, False, False, True, True, False, False), True)
    .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), False).sign(ca_key, hashes.SHA256()))
key = ec.generate_private_key(ec.SECP256R1())
host = 'elsewhere.example' if kind == 'name' else 'localhost'
start, end = (now - 5 * day, now - 2 * day) if kind == 'expired' else (now - day, now + 5 * day)
issuer, signer = (name(host), key) if kind == 'self' else (ca.subject, ca_key)
leaf = (x509.CertificateBuilder().subject_name(name(host)).issuer_name(issuer).public_key(key.public_key())
    .serial_number(2).not_valid_before(start).not_valid_after(end)
    .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), False)
    .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
    .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), False)
    .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False).sign(signer, hashes.SHA256()))
pem = serialization.Encoding.PEM
open(folder + '/ca.pem', 'wb').write(ca.public_bytes(pem))
open(folder + '/leaf.pem', 'wb').write(leaf.public_bytes(pem) + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
if kind == 'old':
    context.set_ciphers('ALL:@SECLEVEL=0')
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
if kind == 'twelve': context.maximum_version = ssl.TLSVersion.TLSv1_2
context.load_cert_chain(folder + '/leaf.pem')
listener = socket.create_server(('127.0.0.1', 0))
print(listener.getsockname()[1], flush=True)
def copy(a, b):
    try:
        while True:
            data = a.recv(65536)
            if not data: break
            b.sendall(data)
    except OSError: pass
    try: b.shutdown(socket.SHUT_WR)
    except OSError: pass
def one(raw):
    try: tls = context.wrap_socket(raw, server_side=True)
    except (OSError, ssl.SSLError): return
    plain = socket.create_connection(('127.0.0.1', backend))
    threading.Thread(target=copy, args=(plain, tls), daemon=True).start()
    copy(tls, plain)
while True:
    raw, _ = listener.accept()
    threading.Thread(target=one, args=(raw,), daemon=True).start()
"#;

#[test]
fn sec_22_bad_certificates_and_old_tls_are_refused() {
    let Some(python) = python("sec_22_bad_certificates_and_old_tls_are_refused") else {
        return;
    };
    for kind in ["good", "expired", "name", "self", "old", "untrusted"] {
        let mut bench = one_stack();
        bench.push("first");
        let server = HttpServer::start(&bench.root);
        let mut relay = Command::new(&python)
            .args(["-c", RELAY, bench.root.to_str().unwrap(), kind])
            .arg(server.address.port().to_string())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(bench.root.join("relay.log")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = std::io::BufReader::new(relay.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        let port: u16 = line.trim().parse().unwrap_or_else(|_| {
            panic!(
                "{}",
                std::fs::read_to_string(bench.root.join("relay.log")).unwrap()
            )
        });
        follow(
            &bench,
            &format!("https://localhost:{port}/origin.git"),
            "20s",
        );
        if kind != "untrusted" {
            let ca = bench.root.join("ca.pem").display().to_string();
            bench.environment.push(("SSL_CERT_FILE".to_owned(), ca));
        }
        bench.start();
        if kind == "good" {
            // Otherwise every refusal below would prove nothing.
            all_in_sync(&bench.settle(), 1);
        } else {
            let refused = refusal(&bench);
            assert!(refused.starts_with("git.unreachable"), "{kind}: {refused}");
            assert_eq!(
                bench.estate()["targets"].as_array().map_or(0, Vec::len),
                0,
                "{kind}"
            );
        }
        bench.kill();
        relay.kill().unwrap();
        relay.wait().unwrap();
    }
}

#[test]
fn sec_21_a_repository_over_ssh_is_followed_with_its_known_key_only() {
    let mut bench = one_stack();
    bench.push("first");
    let Some(sshd) = Sshd::start(&bench.root) else {
        println!(
            "SKIP sec_21_a_repository_over_ssh_is_followed_with_its_known_key_only: sshd or ssh-keygen is not installed"
        );
        return;
    };
    let user = Command::new("id").arg("-un").output().unwrap();
    let user = String::from_utf8(user.stdout).unwrap();
    let url = format!(
        "ssh://{}@127.0.0.1:{}{}",
        user.trim(),
        sshd.port,
        bench.root.join("origin.git").display()
    );
    let auth = "20s\n    auth: { ssh_key: './user', known_hosts: './known' }";
    follow(&bench, &url, auth);
    let host = std::fs::read_to_string(bench.root.join("host.pub")).unwrap();
    let known = bench.root.join("known");
    // A key of the same kind that is another one.
    let other = std::fs::read_to_string(bench.root.join("user.pub")).unwrap();
    std::fs::write(&known, format!("[127.0.0.1]:{} {other}", sshd.port)).unwrap();
    bench.start();
    let refused = refusal(&bench);
    assert!(refused.contains("HOSTKEY_UNKNOWN"), "{refused}");
    std::fs::write(&known, format!("[127.0.0.1]:{} {host}", sshd.port)).unwrap();
    all_in_sync(&bench.settle(), 1);
    bench.stop();
}

/// What a client of this version is told by a server, without looking at its certificate.
const CLIENT: &str = r#"
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.set_ciphers('ALL:@SECLEVEL=0')
context.minimum_version = ssl.TLSVersion.TLSv1_1
print(context.wrap_socket(socket.create_connection(('127.0.0.1', int(sys.argv[1])))).version())
"#;

/// A service that says who its caller is, whatever it is asked.
fn identity() -> u16 {
    use std::io::{Read, Write};

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        const SAID: &str = "<GetCallerIdentityResponse><GetCallerIdentityResult><Account>333333333333</Account><Arn>arn:aws:iam::333333333333:user/u</Arn></GetCallerIdentityResult></GetCallerIdentityResponse>";
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
                let (mut kept, mut more) = (Vec::new(), [0; 4096]);
                while !kept.windows(4).any(|w| w == b"\r\n\r\n") {
                    match stream.read(&mut more) {
                        Ok(read @ 1..) => kept.extend_from_slice(&more[..read]),
                        _ => return,
                    }
                }
                let length = SAID.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{SAID}"
                );
            });
        }
    });
    port
}

#[test]
fn sec_22_aws_is_spoken_to_over_tls_1_2_or_newer_and_under_a_known_authority_only() {
    let name = "sec_22_aws_is_spoken_to_over_tls_1_2_or_newer_and_under_a_known_authority_only";
    let Some(python) = python(name) else {
        return;
    };
    let backend = identity();
    for (kind, speaks, accepted) in [
        ("good", "TLSv1.3", true),
        ("twelve", "TLSv1.2", true),
        ("old", "TLSv1.1", false),
        ("untrusted", "TLSv1.3", false),
        ("name", "TLSv1.3", false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let mut relay = Command::new(&python)
            .args(["-c", RELAY, root.to_str().unwrap(), kind])
            .arg(backend.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = std::io::BufReader::new(relay.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        let port = line.trim();
        let client = Command::new(&python)
            .args(["-c", CLIENT, port])
            .output()
            .unwrap();
        // Otherwise a refusal would prove nothing.
        assert_eq!(
            String::from_utf8_lossy(&client.stdout).trim(),
            speaks,
            "{kind}: {}",
            String::from_utf8_lossy(&client.stderr)
        );
        let config = format!(
            "isoform: 1
aws: {{ endpoint: 'https://localhost:{port}' }}
accounts: {{ a: {{ id: '333333333333' }} }}
placements: {{ a: {{ account: a, regions: [us-east-1] }} }}
bundle_stores: {{ b: {{ url: 's3://acme-us', owner: '333333333333', region: us-east-1, encryption: sse-s3 }} }}
state: {{ path: state, key: 'file:root.key' }}
"
        );
        std::fs::write(root.join("config.yaml"), config).unwrap();
        let mut doctor = Command::new(crate::support::ISOFORM);
        doctor
            .args(["--config", root.join("config.yaml").to_str().unwrap()])
            .arg("doctor")
            .env("AWS_ACCESS_KEY_ID", "AKID")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .env_remove("HTTPS_PROXY")
            .env_remove("https_proxy");
        if kind != "untrusted" {
            doctor.env("SSL_CERT_FILE", root.join("ca.pem"));
        }

        let said = crate::support::text(&doctor.output().unwrap());

        assert_eq!(
            said.contains("user/u in the account 333333333333"),
            accepted,
            "{kind}: {said}"
        );
        assert_eq!(
            said.contains("look at the network: DNS"),
            !accepted,
            "{kind}: {said}"
        );
        relay.kill().unwrap();
        relay.wait().unwrap();
    }
}
