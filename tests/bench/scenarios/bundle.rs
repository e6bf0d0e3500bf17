//! A large bundle: archive, digest, compress and seal, beside the compressor alone and `tar czf`.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use aws_lc_rs::digest::{Context, SHA256};
use flate2::Compression;
use flate2::write::GzEncoder;
use isoform::domain::bundle;
use isoform::domain::seal::{
    DataKey, EncryptionContext, Encryptor, FrameLength, Header, MessageId, RawAesKey,
};
use isoform::domain::template::{Blob, Files};
use isoform::testing::estate::Shape;

use crate::Options;
use crate::measure::{Started, child, mebibytes, print, ratio, repeated};

/// The files of a tree: a bundle has at most 2,000.
const FILES: usize = 1_900;
/// The size of a large bundle.
const SIZE: usize = 48 << 20;

const WORDS: [&str; 16] = [
    "Type:",
    "Properties:",
    "AWS::SQS::Queue",
    "Name:",
    "!Sub",
    "service",
    "instance",
    "true",
    "Tags:",
    "Value:",
    "Retain",
    "Key:",
    "environment",
    "subnet",
    "policy",
    "Statement:",
];

/// Returns text as templates have it, about so long; the same for the same number.
fn text(number: usize, bytes: usize) -> Vec<u8> {
    let mut state = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut out = Vec::with_capacity(bytes + 64);
    while out.len() < bytes {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let random = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        let _ = writeln!(
            out,
            "{:indent$}{} {}-{:x}",
            "",
            WORDS[random as usize % WORDS.len()],
            WORDS[random as usize / 16 % WORDS.len()],
            random % 9_973,
            indent = random as usize / 256 % 5 * 2
        );
    }
    out.truncate(bytes);
    out
}

fn path(number: usize) -> String {
    format!(
        "instance_infrastructure/part-{:02}/file-{number:06}.yaml",
        number % 40
    )
}

/// What comes out at the end: counted and hashed, as a store wants it, and kept nowhere.
struct Sink(Context, u64);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        self.1 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Begins a sealed message as isoform begins one, with a key that is nobody's.
fn sealing() -> anyhow::Result<Encryptor<Sink>> {
    let context = EncryptionContext::from([("isoform:kind".to_owned(), "bundle".to_owned())]);
    let data_key = DataKey::from_slice(&[7; 32])?;
    let wrapped = RawAesKey::new("bench", "bench", &[9; 32])?.wrap(&data_key, [3; 12], &context)?;
    let header = Header {
        message_id: MessageId::new([5; 32]),
        context,
        encrypted_data_keys: vec![wrapped],
        frame_length: FrameLength::default(),
    };
    Ok(Encryptor::new(
        Sink(Context::new(&SHA256), 0),
        data_key,
        &header,
    )?)
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    let files: Files = (0..FILES)
        .map(|n| (path(n), Blob::new(text(n, SIZE / FILES))))
        .collect();
    let bytes: usize = files.values().map(|b| b.bytes.len()).sum();
    println!("{} files, {}", files.len(), mebibytes(bytes as u64));

    // The floor compresses what is one piece already, into memory that is there already.
    let plain = {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, blob) in &files {
            let mut header = tar::Header::new_ustar();
            header.set_size(blob.bytes.len() as u64);
            tar.append_data(&mut header, path, &blob.bytes[..])?;
        }
        tar.into_inner()?
    };
    let folder = tempfile::tempdir()?;
    for (path, blob) in &files {
        let path = folder.path().join("tree").join(path);
        std::fs::create_dir_all(path.parent().unwrap_or(&path))?;
        std::fs::write(path, &blob.bytes)?;
    }
    let mut room = Vec::with_capacity(plain.len());
    let mut costs: BTreeMap<&str, Vec<crate::measure::Cost>> = BTreeMap::new();
    let (mut sealed, mut compressed) = (0, 0);
    for _ in 0..options.repeat {
        let mut measure = |name, what: &mut dyn FnMut() -> anyhow::Result<()>| {
            let started = Started::now();
            what()?;
            costs.entry(name).or_default().push(started.cost());
            anyhow::Ok(())
        };
        measure("floor", &mut || {
            room.clear();
            let mut gz = GzEncoder::new(std::mem::take(&mut room), Compression::new(6));
            gz.write_all(&plain)?;
            room = gz.finish()?;
            compressed = room.len();
            Ok(())
        })?;
        measure("isoform", &mut || {
            std::hint::black_box(bundle::digest(&files));
            let all = files.iter().map(|(path, blob)| (path, &blob.bytes));
            let sink = bundle::write(all, sealing()?)?.finish()?;
            std::hint::black_box(sink.0.finish());
            sealed = sink.1;
            Ok(())
        })?;
        measure("unsealed", &mut || {
            std::hint::black_box(bundle::digest(&files));
            let all = files.iter().map(|(path, blob)| (path, &blob.bytes));
            let sink = bundle::write(all, Sink(Context::new(&SHA256), 0))?;
            std::hint::black_box(sink.0.finish());
            Ok(())
        })?;
        measure("tar", &mut || {
            let tar = Command::new("tar")
                .args(["czf", "-", "tree"])
                .current_dir(folder.path())
                .stdout(Stdio::null())
                .status()?;
            anyhow::ensure!(tar.success(), "tar");
            Ok(())
        })?;
    }
    let rate = |name: &str| {
        let cpu = crate::measure::median(&costs[name]).cpu;
        format!(
            "{:.0} MB/s of tar by cpu",
            plain.len() as f64 / 1e6 / cpu.as_secs_f64()
        )
    };
    let out = |bytes: u64| format!("{}, {} out", rate("isoform"), mebibytes(bytes));
    print(
        "floor: the compressor alone, level 6",
        &costs["floor"],
        &format!("{}, {} out", rate("floor"), mebibytes(compressed as u64)),
    );
    print(
        "isoform: digest, archive, compress, seal",
        &costs["isoform"],
        &out(sealed),
    );
    print(
        "the same without sealing",
        &costs["unsealed"],
        &rate("unsealed"),
    );
    print("peer: tar czf", &costs["tar"], &rate("tar"));
    ratio(
        "the compressor alone to isoform",
        &costs["floor"],
        &costs["isoform"],
    );
    ratio("unsealed to sealed", &costs["unsealed"], &costs["isoform"]);
    ratio("tar czf to isoform", &costs["tar"], &costs["isoform"]);
    let digest = repeated(options.repeat, || Ok(bundle::digest(&files)))?;
    print("of that: the digest of the files", &digest, "");
    println!("peak memory of a process of its own, files made one after the other:");
    for size in ["5", "50", "500"] {
        let said = child(&["bundle", size])?.output()?;
        anyhow::ensure!(said.status.success(), "the child for {size} MB");
        print!("{}", String::from_utf8_lossy(&said.stdout));
    }
    unchanged()
}

/// Archives, compresses and seals files that are made while they are written, and tells the peak of memory.
pub fn packed(size: &str) -> anyhow::Result<()> {
    let size: usize = size.parse()?;
    let each = 25 << 10;
    let before = crate::measure::peak();
    let files = (0..(size << 20) / each).map(|n| (format!("part-{n:06}.yaml"), text(n, each)));
    let sink = bundle::write(files, sealing()?)?.finish()?;
    println!(
        "{size:>5} MB: peak {}, {} before the first file; {} out",
        mebibytes(crate::measure::peak()),
        mebibytes(before),
        mebibytes(sink.1)
    );
    Ok(())
}

/// A daemon whose templates have not changed: what it reads of them for a look, and for a push of a spec.
fn unchanged() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let folder = tempfile::tempdir()?;
        let mut daemon = crate::daemon::Running::of(folder.path(), Shape::small(4, 4)).await?;
        for what in ["a look, the source has not moved", "a push of one spec"] {
            if what.starts_with("a push") {
                daemon.estate.touch(1)?;
            }
            daemon.stub.take_calls();
            daemon.stub.take_read();
            daemon.look().await?;
            let calls = daemon.stub.take_calls();
            let of = |name: &str| calls.get(name).copied().unwrap_or_default();
            println!(
                "unchanged bundles, {what}: {} bytes read, {} heads, {} gets",
                daemon.stub.take_read(),
                of("HeadObject"),
                of("GetObject")
            );
        }
        daemon.stop().await
    })
}
