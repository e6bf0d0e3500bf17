//! Tampering with the log of a real daemon is named.

use crate::support::{Bench, python, text};
use crate::world::{one, topic};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// Changes the database with Python's sqlite3, as an attacker with the file would.
fn python_edit(python: &std::path::Path, bench: &Bench, script: &str) {
    let prelude = "import sqlite3, json, hashlib, sys\ndb = sqlite3.connect(sys.argv[1])\n";
    let file = if script.contains("# cloud") {
        "cloud/cloud.db"
    } else {
        "state/isoform.db"
    };
    let output = Command::new(python)
        .args(["-c", &format!("{prelude}{script}\ndb.commit()\n")])
        .arg(bench.root.join(file))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

const RECHAIN: &str = r#"
def canonical(value): return json.dumps(value, sort_keys=True, separators=(',', ':'), ensure_ascii=False).encode()
prev = None
for seq, stream, sseq, at, actor, body, prev_hash, h in db.execute('select seq, stream, stream_seq, at, actor, body, prev_hash, hash from log where seq >= 5 order by seq').fetchall():
    actor = json.loads(actor)
    if seq == 5: actor['display'] = 'somebody else'
    prev_hash = prev or prev_hash
    value = {'actor': actor, 'at': at, 'body': json.loads(body), 'prev_hash': prev_hash, 'seq': seq, 'stream': stream, 'stream_seq': sseq}
    prev = hashlib.sha256(canonical(value)).hexdigest()
    db.execute('update log set actor=?, prev_hash=?, hash=? where seq=?', (json.dumps(actor), prev_hash, prev, seq))
db.execute('update head set hash=?', (prev,))
"#;

const FORGED: &str = r#"
# cloud
rows = db.execute("select name, body from objects where name like 'log/%' order by name").fetchall()
name, segment = rows[-1][0], json.loads(rows[-1][1])
entry = dict(segment['entries'][-1])
entry.update(seq=entry['seq'] + 1, stream_seq=entry['stream_seq'] + 1, prev_hash=entry['hash'])
del entry['hash']
canonical = json.dumps(entry, sort_keys=True, separators=(',', ':'), ensure_ascii=False).encode()
entry['hash'] = hashlib.sha256(canonical).hexdigest()
segment.update(entries=[entry], payloads=[], checkpoints=[])
segment.pop('signature', None)
columns = [c[1] for c in db.execute('pragma table_info(objects)')]
row = dict(zip(columns, db.execute('select * from objects where name = ?', (name,)).fetchone()))
row['name'] = name.rsplit('/', 1)[0] + '/%020d' % entry['seq']
row['body'] = json.dumps(segment).encode()
db.execute('insert into objects (%s) values (%s)' % (','.join(columns), ','.join('?' * len(columns))), list(row.values()))
"#;

#[test]
fn sec_57_tampering_with_a_real_log_is_named() {
    let Some(python) = python("sec_57_tampering_with_a_real_log_is_named") else {
        return;
    };
    let mut bench = Bench::example();
    bench.push("Initial layout");
    bench.start();
    bench.settle();
    bench.stop();
    let good = bench.cli(&["audit", "verify"], 0);
    assert!(
        good.contains("chain verified to checkpoint")
            && good.contains("payloads open")
            && good.contains("the same in the bundle store"),
        "{good}"
    );
    let (state, cloud) = (
        bench.root.join("state/isoform.db"),
        bench.root.join("cloud/cloud.db"),
    );
    // What stands in a write-ahead log would be lost with it when the files are put back.
    for database in ["", "# cloud\n"] {
        let whole = format!("{database}db.execute('pragma wal_checkpoint(truncate)')");
        python_edit(&python, &bench, &whole);
    }
    let (saved_state, saved_cloud) = (
        std::fs::read(&state).unwrap(),
        std::fs::read(&cloud).unwrap(),
    );
    // Without any state: the bundle store and the key that somebody trusts.
    let world = bench.root.join("cloud").display().to_string();
    let alone = ["audit", "verify", "--shipped", "--cloud", &world];
    let said = bench.cli(&alone, 0);
    assert!(
        said.contains("chain verified") && said.contains("from the bundle store alone"),
        "{said}"
    );
    let (_, rest) = said.split_once("its public key is ").unwrap();
    let key = &rest[..64];
    bench.cli(&[&alone[..], &["--key", key]].concat(), 0);
    let other = "0".repeat(64);
    let said = bench.cli(&[&alone[..], &["--key", &other]].concat(), 1);
    assert!(said.contains("another public key"), "{said}");
    for (script, word) in [
        (FORGED, "is not signed"),
        (
            "db.execute(\"update objects set body = cast(replace(cast(body as text), 'Minted', 'Munted') as blob) where name like 'log/%'\") # cloud",
            "unknown variant `Munted`",
        ),
        (
            "# cloud\ndb.execute(\"delete from objects where name = (select max(name) from objects where name like 'log/%')\")",
            "the log was cut",
        ),
    ] {
        python_edit(&python, &bench, script);
        let said = bench.cli(&alone, 1);
        assert!(said.contains(word), "{word}: {said}");
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", cloud.display()));
        }
        std::fs::write(&cloud, &saved_cloud).unwrap();
    }
    let only_state = [
        "audit",
        "verify",
        "--state",
        &bench.root.join("state").display().to_string(),
    ]
    .map(str::to_owned);
    let rechain_unsigned = format!("{RECHAIN}\ndb.execute('delete from checkpoints')");
    for (script, said, with_cloud) in [
        (
            "db.execute(\"update log set at = at + 1 where seq = 7\")",
            "entry 7 was changed",
            true,
        ),
        (
            "db.execute(\"delete from log where seq = 7\")",
            "entry 7 is missing",
            true,
        ),
        (RECHAIN, "the chain was rewritten", true),
        // Whoever can rewrite the chain can remove its checkpoints too; the shipped copy shows it then.
        (
            rechain_unsigned.as_str(),
            "differs from the shipped copy",
            true,
        ),
        // Without the shipped copy the signed checkpoints alone show it.
        (RECHAIN, "the chain was rewritten", false),
        (
            "db.execute(\"delete from log where seq > 20\")",
            "the log was cut",
            true,
        ),
        (
            "db.execute(\"delete from log where seq > 20\")",
            "the log was cut: it ends at entry 20",
            false,
        ),
        (
            "db.execute(\"delete from log where seq > 20\"); db.execute('delete from checkpoints')",
            "the log was cut",
            true,
        ),
        (
            "b = bytearray(db.execute('select body from payloads limit 1').fetchone()[0]); b[-1] ^= 1; db.execute('update payloads set body=? where digest=(select digest from payloads limit 1)', (bytes(b),))",
            "was changed",
            true,
        ),
        // A well-chained entry behind the end, as somebody puts it who may write to the bundle store.
        (FORGED, "is not signed", true),
        (
            "db.execute(\"update objects set body = cast(replace(cast(body as text), 'Minted', 'Munted') as blob) where name like 'log/%'\") # cloud",
            "unknown variant `Munted`",
            true,
        ),
    ] {
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", state.display()));
            let _ = std::fs::remove_file(format!("{}{suffix}", cloud.display()));
        }
        std::fs::write(&state, &saved_state).unwrap();
        std::fs::write(&cloud, &saved_cloud).unwrap();
        python_edit(&python, &bench, script);
        let arguments: Vec<&str> = if with_cloud {
            vec!["audit", "verify"]
        } else {
            only_state.iter().map(String::as_str).collect()
        };
        let found = bench.cli(&arguments, 1);
        assert!(
            found.contains(said),
            "{script}\nshould say `{said}`: {found}"
        );
    }
}

#[test]
fn what_audit_verify_is_given_is_never_passed_over() {
    let mut bench = one(&topic("one"));
    bench.stop();
    let here = bench.root.join("root.key").display().to_string();
    let of = |more: &[&str]| -> Vec<String> {
        let all = ["audit", "verify"].iter().chain(more);
        all.map(|word| (*word).to_owned()).collect()
    };
    let mut refused: Vec<Vec<String>> = ["--file", "--state", "--cloud", "--root-key"]
        .map(|option| of(&[option, "/nowhere/at/all"]))
        .into();
    for (option, value) in [
        ("--owner", "333333333333"),
        ("--region", "us-east-1"),
        ("--sse-key", "arn:aws:kms:us-east-1:333333333333:key/k"),
        ("--role", "arn:aws:iam::333333333333:role/r"),
    ] {
        refused.push(of(&["--shipped", option, value]));
    }
    refused.push(of(&["--file", &here, "--root-key", &here]));
    refused.push(of(&["--file", &here, "--cloud", &here]));
    refused.push(of(&["--shipped", "s3://bucket/x", "--cloud", &here]));
    for arguments in &refused {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        bench.cli(&words, 64);
    }

    // The chain needs no key: one that cannot be read is told of, and holds nothing up.
    let said = bench.cli(&["audit", "verify"], 0);
    assert!(said.contains("payloads open"), "{said}");
    std::fs::set_permissions(&here, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = bench.cli(&["audit", "verify"], 0);
    assert!(
        said.contains("payloads are not checked") && said.contains("chain verified"),
        "{said}"
    );
    bench.cli(&["audit", "verify", "--root-key", &here], 1);
}
