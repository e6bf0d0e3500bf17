//! Other programs as judges: of the connection, and of what an App signs.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use isoform::clock::Clock;
use isoform::domain::forge::ForgeKind;
use isoform::forge::{Auth, Forges, Settings};
use isoform::port::{Error, Forge};

use super::ForgeWorld;
use super::fakes::github;

fn python(test: &str) -> Option<Command> {
    let Ok(python) = std::env::var("ISOFORM_TEST_PYTHON") else {
        println!("SKIP {test}: ISOFORM_TEST_PYTHON names no Python; run ./tests/run");
        return None;
    };
    Some(Command::new(python))
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn forge(folder: &Path, port: u64, ca: Option<&str>) -> Result<std::sync::Arc<dyn Forge>, Error> {
    let token = folder.join("token");
    isoform::secret_file::write(&token, github::TOKEN.as_bytes()).unwrap();
    let forges = Forges::new(Clock::system()).patient(Duration::from_secs(20));
    forges.open(&Settings {
        kind: ForgeKind::GitHub,
        api: format!("https://127.0.0.1:{port}/api/v3"),
        repository: "acme/platform".into(),
        auth: Auth::Token(token),
        ca: ca.map(|name| folder.join(name)),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_a_server_of_ones_own_is_trusted_by_its_authority_and_by_nothing_less() {
    let Some(mut python) =
        python("sec_a_server_of_ones_own_is_trusted_by_its_authority_and_by_nothing_less")
    else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/forges/tls.py");
    let mut serving = Running(
        python
            .arg(script)
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut line = String::new();
    let out = serving.0.stdout.take().unwrap();
    BufReader::new(out).read_line(&mut line).unwrap();
    let ports: serde_json::Value = serde_json::from_str(&line).unwrap();
    let open = |name: &str, ca| forge(folder.path(), ports[name].as_u64().unwrap(), ca);

    for name in ["good", "tls 1.2"] {
        let answered = open(name, Some("ca.pem")).unwrap().pull(1).await;
        assert!(
            matches!(answered, Err(Error::NotFound(_))),
            "{name}: {answered:?}"
        );
    }
    for (name, ca) in [
        ("good", None),
        ("tls 1.1", Some("ca.pem")),
        ("another host", Some("ca.pem")),
        ("expired", Some("ca.pem")),
        ("own word", Some("ca.pem")),
    ] {
        let refused = open(name, ca).unwrap().pull(1).await;
        assert!(
            matches!(refused, Err(Error::Unavailable(_))),
            "{name}: {refused:?}"
        );
    }

    std::fs::write(folder.path().join("empty.pem"), "nothing\n").unwrap();
    for ca in ["empty.pem", "absent.pem"] {
        let refused = open("good", Some(ca)).err();
        assert!(
            matches!(refused, Some(Error::Refused(_))),
            "{ca}: {refused:?}"
        );
    }
}

const VERIFY: &str = r#"
import base64, json, sys
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
pem, token = sys.stdin.read().split("\0")
public = serialization.load_pem_private_key(pem.encode(), None).public_key()
header, claims, signature = token.split(".")
decode = lambda part: base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
public.verify(decode(signature), f"{header}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256())
print(json.dumps([json.loads(decode(header)), json.loads(decode(claims))]))
"#;

#[tokio::test]
async fn what_an_app_signs_is_taken_by_another_program() {
    let Some(mut python) = python("what_an_app_signs_is_taken_by_another_program") else {
        return;
    };
    let world = super::github::app().await;
    let _ = world.open().pull(1).await;
    let asked = world.fake().asked();
    let signed = asked
        .iter()
        .find(|a| a.path.last().is_some_and(|p| p == "installation"));
    let token = signed
        .unwrap()
        .header("authorization")
        .strip_prefix("Bearer ")
        .unwrap()
        .to_owned();

    let mut verifying = python
        .args(["-c", VERIFY])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = format!("{}\0{token}", github::pem(true));
    verifying
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = verifying.wait_with_output().unwrap();

    assert!(output.status.success());
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let now = super::fakes::BEGINNING.0 / 1000;
    let expected = serde_json::json!([
        { "alg": "RS256", "typ": "JWT" },
        { "iat": now - 60, "exp": now + 540, "iss": github::APP.to_string() },
    ]);
    assert_eq!(told, expected);
}
