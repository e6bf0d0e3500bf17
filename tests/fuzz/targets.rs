//! What holds for any input at all.

use std::collections::BTreeMap;
use std::io::Write;

use aws_lc_rs::hmac;
use isoform::domain::audit::{self, Entry};
use isoform::domain::bundle;
use isoform::domain::cfn;
use isoform::domain::deployment::History;
use isoform::domain::forge::{ForgeKind, News, Refusal, admit};
use isoform::domain::model::{
    Address, Digest, Finding, PlacementName, Region, Revision, Span, StackName, Timestamp,
    folded_name, parse_duration,
};
use isoform::domain::render;
use isoform::domain::schema::Schema;
use isoform::domain::seal;
use isoform::domain::spec;
use isoform::domain::template::{Blob, Engine, Files, load_bundle, parse_manifest};
use isoform::domain::yaml as read;
use serde_json::{Value, json};

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Findings are for people: few, short, and with places that are in the file.
fn readable(findings: &[Finding], text: &str) {
    assert!(findings.len() <= 2_000, "{} findings", findings.len());
    let lines = text.replace("\r\n", "\n").split(['\n', '\r']).count();
    for finding in findings {
        assert!(!finding.message.is_empty() && !finding.code.is_empty());
        assert!(
            finding.message.len() < 64 << 10,
            "a message of {} bytes",
            finding.message.len()
        );
        if let Some(excerpt) = &finding.place.excerpt {
            assert!(excerpt.chars().count() <= 400);
        }
        if let Some(span) = finding.place.span {
            let Span {
                line,
                column,
                end_line,
                end_column,
            } = span;
            assert!(
                line >= 1 && column >= 1 && (line, column) <= (end_line, end_column),
                "{span:?}"
            );
            assert!(line as usize <= lines + 1, "{span:?} of {lines} lines");
        }
    }
}

fn faults<T>(result: &Result<T, Vec<Finding>>, text: &str) {
    if let Err(findings) = result {
        assert!(!findings.is_empty(), "refused without a word");
        readable(findings, text);
    }
}

/// Tells whether a value is written in JSON as YAML 1.1 reads it back.
fn plain(value: &Value) -> bool {
    match value {
        Value::Number(n) => !n.is_f64(),
        Value::String(text) => text.chars().all(|c| matches!(c, ' '..='~')),
        Value::Array(items) => items.iter().all(plain),
        Value::Object(map) => map
            .iter()
            .all(|(k, v)| k.chars().all(|c| matches!(c, ' '..='~')) && plain(v)),
        Value::Null | Value::Bool(_) => true,
    }
}

pub fn yaml(bytes: &[u8]) {
    let text = text(bytes);
    for limits in [
        read::Limits::SPEC,
        read::Limits::SYNC,
        read::Limits::TEMPLATE,
    ] {
        let result = read::parse("f", &text, &limits);
        faults(&result, &text);
        let Ok(node) = result else { continue };
        let value = node.to_json();
        let written = value.to_string();
        assert!(
            written.len() <= 64 * (limits.bytes + 1_024),
            "{} bytes",
            written.len()
        );
        if !plain(&value) || written.len() > limits.bytes {
            continue;
        }
        // JSON is YAML: what was read is read again from what is written.
        if let Ok(again) = read::parse("f", &written, &limits) {
            assert_eq!(again.to_json(), value);
        }
    }
}

pub fn spec(bytes: &[u8]) {
    let text = text(bytes);
    let _ = spec::spec_kind(&text);
    faults(&spec::parse_environment_spec("f", &text), &text);
    faults(&spec::parse_service_spec("f", &text), &text);
}

pub fn ops(bytes: &[u8]) {
    let text = text(bytes);
    faults(&spec::parse_ops("f", &text), &text);
    faults(&spec::parse_deployment("f", &text), &text);
}

pub fn registration(bytes: &[u8]) {
    let text = text(bytes);
    let (registration, findings) = spec::parse_registration("f", &text);
    readable(&findings, &text);
    assert!(registration.is_some() || findings.iter().any(Finding::is_error));
}

pub fn sync(bytes: &[u8]) {
    let text = text(bytes);
    let (sync, findings) = spec::parse_sync("isoform.yaml", &text, None);
    readable(&findings, &text);
    let (_, again) = spec::parse_sync("isoform.yaml", &text, None);
    assert_eq!(findings, again, "the same file has the same faults");
    let fragment = spec::Fragment {
        folder: "a/b",
        defaults: &sync.defaults,
    };
    let (_, findings) = spec::parse_sync("a/b/isoform.yaml", &text, Some(fragment));
    readable(&findings, &text);
    for stack in &sync.stacks {
        assert!(!stack.template.starts_with('/') && !stack.template.split('/').any(|p| p == ".."));
    }
}

pub fn manifest(bytes: &[u8]) {
    let text = text(bytes);
    let (manifest, findings) = parse_manifest("f", &text);
    readable(&findings, &text);
    assert!(manifest.is_some() || findings.iter().any(Finding::is_error));
    let schema = "schema: {format: {openapi: '3.0.0'}, environment_input_type: A, types: {A: {type: object, properties: {x: {type: string}}}}}";
    let files: Files = [
        ("schema/schema.yaml", schema.as_bytes()),
        ("infrastructure/manifest.yaml", bytes),
        ("infrastructure/cloudformation.yaml", b"Resources: {}\n"),
    ]
    .into_iter()
    .map(|(path, bytes)| (path.to_owned(), Blob::new(bytes)))
    .collect();
    let (bundle, _) = load_bundle(&files, "");
    let part = bundle.and_then(|b| b.infrastructure);
    // Other engines render nothing and name no file.
    if let Some(part) = part.filter(|p| p.engine == Engine::Jinja) {
        assert!(
            files.contains_key(&part.file),
            "a part outside of its bundle: {}",
            part.file
        );
    }
}

pub fn schema(bytes: &[u8]) {
    let all = text(bytes);
    // A schema, and the values of a spec behind a line of its own.
    let (schema, values) = all.split_once("\n=====\n").unwrap_or((&all, "x: 1\n"));
    let (parsed, findings) = Schema::parse("s", schema);
    readable(&findings, schema);
    let Some(parsed) = parsed else {
        assert!(findings.iter().any(Finding::is_error));
        return;
    };
    let Ok(node) = read::parse("v", values, &read::Limits::SPEC) else {
        return;
    };
    for input in parsed
        .environment
        .iter()
        .chain(&parsed.service)
        .chain(&parsed.pipeline)
    {
        let (filled, findings) =
            input.effective("v", values, Some(&node), node.to_json(), node.span);
        readable(&findings, values);
        // What defaults have filled in is not filled in again.
        let (again, _) = input.effective("v", values, Some(&node), filled.clone(), node.span);
        assert_eq!(again, filled);
    }
}

pub fn template(bytes: &[u8]) {
    let text = text(bytes);
    let result = cfn::parse_template("f", &text);
    faults(&result, &text);
    let Ok(template) = result else { return };
    assert!(template.resources.len() <= cfn::Limit::RESOURCES);
    let mut order = template
        .order()
        .expect("a template with a circle is refused");
    order.sort();
    assert_eq!(
        order,
        template.resources.keys().cloned().collect::<Vec<_>>()
    );
    let _ = template.capabilities();
    let given = BTreeMap::from([("P".to_owned(), "a".to_owned())]);
    let _ = cfn::bind_parameters(&template, &given, &|_| "secret".into());
}

pub fn archive(bytes: &[u8]) {
    let limits = bundle::Limits {
        entries: 50,
        bytes: 1 << 20,
        path: 200,
    };
    // Most of what a mutation does to compressed bytes ends at their checksum, so the input is what is compressed.
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    for archive in [packed.finish().unwrap(), bytes.to_vec()] {
        let Ok(files) = bundle::unpack(&archive, &limits) else {
            continue;
        };
        let total: usize = files.values().map(|b| b.bytes.len()).sum();
        assert!(files.len() <= limits.entries && total as u64 <= limits.bytes);
        for path in files.keys() {
            assert!(bundle::check_path(path, &limits).is_ok(), "{path:?}");
        }
        let again = bundle::pack(&files).unwrap();
        let roomy = bundle::Limits {
            entries: 60,
            ..limits
        };
        let read = bundle::unpack(&again, &roomy).unwrap();
        assert_eq!(read, files);
        assert_eq!(bundle::digest(&read), bundle::digest(&files));
    }
}

pub fn sealed(bytes: &[u8]) {
    let key = seal::RawAesKey::new("isoform", "local-1", &[9; 32]).unwrap();
    let context = seal::EncryptionContext::from([("kind".to_owned(), "bundle".to_owned())]);
    let data_key = || seal::DataKey::from_slice(&[7; 32]).unwrap();
    let header = seal::Header {
        message_id: seal::MessageId::new([5; 32]),
        encrypted_data_keys: vec![key.wrap(&data_key(), [3; 12], &context).unwrap()],
        context,
        frame_length: seal::FrameLength::new(16).unwrap(),
    };
    let limits = seal::Limits::default();
    // Whatever the input is: it opens to what was sealed, or not at all.
    let plain = &bytes[..bytes.len().min(200)];
    let good = seal::seal(plain, data_key(), &header).unwrap();
    let (_, opened) = seal::open(&good[..], &key, &limits).unwrap();
    assert_eq!(&opened[..], plain);
    let at = bytes
        .first()
        .map_or(0, |b| usize::from(*b) * good.len() / 256);
    let mut bad = good.clone();
    bad[at] ^= bytes.get(1).map_or(1, |b| b | 1);
    assert!(
        seal::open(&bad[..], &key, &limits).is_err(),
        "byte {at} does not count"
    );
    assert!(
        seal::open(&good[..at], &key, &limits).is_err(),
        "cut at {at}"
    );
    // The input itself as a message.
    if let Ok(message) = seal::Sealed::parse(bytes, &limits) {
        assert!(
            message.header().encrypted_data_keys.len() <= usize::from(limits.encrypted_data_keys)
        );
        let _ = seal::serialize_context(&message.header().context);
    }
    let _ = seal::open(bytes, &key, &limits);
}

pub fn log_entry(bytes: &[u8]) {
    let mut entries: Vec<Entry> = Vec::new();
    for line in bytes.split(|b| *b == b'\n') {
        let Ok(entry) = serde_json::from_slice::<Entry>(line) else {
            continue;
        };
        let written = serde_json::to_vec(&entry).unwrap();
        let again: Entry = serde_json::from_slice(&written).unwrap();
        assert_eq!(again.canonical(), entry.canonical());
        assert_eq!(again.computed_hash(), entry.computed_hash());
        let _ = (entry.binds_the_future(), entry.payloads());
        entries.push(entry);
    }
    let signature = |_: &[u8], signature: &str| signature == "good";
    let verdict = audit::verify(&entries, &[], &signature);
    if let Ok(verified) = &verdict {
        assert_eq!(verified.entries, entries.len() as u64);
        // A chain that verifies does not verify with one entry changed.
        if let Some(last) = entries.last_mut() {
            last.at = Timestamp(last.at.0.wrapping_add(1));
            assert!(audit::verify(&entries, &[], &signature).is_err());
        }
    }
    let mut histories: BTreeMap<String, History> = BTreeMap::new();
    for event in entries.iter().filter_map(Entry::event) {
        let name = event.target.to_string();
        let history = histories
            .entry(name)
            .or_insert_with(|| History::new(event.target.clone()));
        // What may not follow is refused, and changes nothing that would make the next one panic.
        let _ = history.record(&event);
    }
}

pub fn render(bytes: &[u8]) {
    let all = text(bytes);
    let (template, data) = all.split_once("\n=====\n").unwrap_or((&all, "{}"));
    let data: Value = serde_json::from_str(data).unwrap_or_else(|_| {
        json!({ "environment": { "name": "e", "inputs": { "a": 1, "b": "x,y", "c": [1, 2], "d": { "k": "v" } }, "outputs": {} }, "service": { "name": "s" } })
    });
    // Little fuel: what `~` and `+` can take before it is out grows with its square.
    let limits = render::Limits {
        fuel: 5_000,
        output: 64 << 10,
        ..render::Limits::default()
    };
    let first = render::render("t", template, &data, &limits);
    match &first {
        Ok(rendered) => {
            assert!(rendered.text.len() <= limits.output);
            readable(&rendered.notes, template);
            assert!(
                render::check("t", template).is_ok(),
                "what renders is a template"
            );
        }
        Err(finding) => readable(std::slice::from_ref(finding), template),
    }
    let second = render::render("t", template, &data, &limits);
    assert_eq!(
        first.map(|r| r.text).ok(),
        second.map(|r| r.text).ok(),
        "the same inputs give the same bytes"
    );
}

pub fn names(bytes: &[u8]) {
    let text = text(bytes);
    for name in text.lines() {
        let folded = folded_name(name);
        assert_eq!(folded_name(&folded), folded, "{name:?}");
        if bundle::check_path(name, &bundle::Limits::default()).is_ok() {
            assert!(!name.starts_with('/') && !name.split('/').any(|p| p == ".." || p.is_empty()));
        }
        if let Ok(duration) = parse_duration(name) {
            assert_eq!(
                parse_duration(&format!("{}ms", duration.as_millis())),
                Ok(duration)
            );
        }
        macro_rules! same_when_printed {
            ($($kind:ty)*) => {$(
                if let Ok(value) = name.parse::<$kind>() {
                    assert_eq!(value.to_string().parse::<$kind>().ok(), Some(value), "{name:?}");
                }
            )*};
        }
        same_when_printed!(Address Digest Revision Region StackName PlacementName spec::TemplateRef);
    }
}

/// A delivery: a line that is the event, a line that is a guess at the signature, and the body.
fn webhook(kind: ForgeKind, bytes: &[u8]) {
    const SECRET: &[u8] = b"the secret of this webhook";
    let mut parts = bytes.splitn(3, |b| *b == b'\n');
    let mut part = || parts.next().unwrap_or_default();
    let (event, guess, body) = (part(), part(), part());
    let (named, signed) = match kind {
        ForgeKind::GitHub => ("x-github-event", "x-hub-signature-256"),
        ForgeKind::GitLab => ("x-gitlab-event", "x-gitlab-token"),
        ForgeKind::Gitea => ("x-gitea-event", "x-gitea-signature"),
        ForgeKind::Bitbucket => ("x-event-key", "x-hub-signature"),
    };
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    let mac = hmac::sign(&key, body);
    let tag: String = mac.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    let right = match kind {
        ForgeKind::GitHub | ForgeKind::Bitbucket => format!("sha256={tag}"),
        ForgeKind::Gitea => tag,
        ForgeKind::GitLab => String::from_utf8_lossy(SECRET).into_owned(),
    };
    let deliver = |signature: &[u8], secret: &[u8]| {
        let headers: [(&str, &[u8]); 3] = [(named, event), (signed, signature), ("x-odd", guess)];
        admit(kind, &headers, body, &[secret])
    };

    // Only who knows the secret is heard, whatever is asked.
    assert!(guess == right.as_bytes() || deliver(guess, SECRET).is_err());
    assert_eq!(
        deliver(right.as_bytes(), b"another"),
        Err(Refusal::BadSignature)
    );
    let name = |text: &str| {
        assert!(!text.is_empty() && text.len() <= 1024 && !text.chars().any(char::is_control));
    };
    match deliver(right.as_bytes(), SECRET) {
        Ok(delivery) => {
            delivery.repository.as_deref().map(name);
            let named = match delivery.news {
                News::Push { branches } => {
                    assert!(!branches.is_empty());
                    branches.iter().for_each(|branch| name(branch));
                    true
                }
                News::Pull(number) | News::Comment { pull: number } => {
                    assert_ne!(number, 0);
                    true
                }
                News::Ping | News::Other => false,
            };
            assert!(!named || delivery.repository.is_some(), "news of nothing");
        }
        Err(Refusal::BadBody(why)) => assert!(why.len() < 200, "{why}"),
        Err(Refusal::BadHeader(header)) => assert_eq!(header, named),
        Err(refusal) => panic!("the signature is right, and still {refusal:?}"),
    }
}

pub fn webhook_github(bytes: &[u8]) {
    webhook(ForgeKind::GitHub, bytes);
}

pub fn webhook_gitlab(bytes: &[u8]) {
    webhook(ForgeKind::GitLab, bytes);
}

pub fn webhook_gitea(bytes: &[u8]) {
    webhook(ForgeKind::Gitea, bytes);
}

pub fn webhook_bitbucket(bytes: &[u8]) {
    webhook(ForgeKind::Bitbucket, bytes);
}
