use aws_lc_rs::hmac;

use super::*;
use crate::domain::model::hex;

const SECRET: &[u8] = b"correct horse battery staple";

fn tag(secret: &[u8], body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hex(hmac::sign(&key, body).as_ref())
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let three = [0, 1, 2].map(|i| u32::from(chunk.get(i).copied().unwrap_or(0)));
        let bits = three[0] << 16 | three[1] << 8 | three[2];
        for i in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= chunk.len() { letter.into() } else { '=' });
        }
    }
    out
}

/// The headers that a forge sends with a body, for an event where it is said in a header.
fn headers(kind: ForgeKind, event: &str, body: &[u8], secret: &[u8]) -> Vec<(String, String)> {
    let tag = tag(secret, body);
    let pairs: Vec<(&str, String)> = match kind {
        ForgeKind::GitHub => vec![
            ("X-GitHub-Event", event.into()),
            ("X-GitHub-Delivery", "1".into()),
            ("X-Hub-Signature", "sha1=0".into()),
            ("X-Hub-Signature-256", format!("sha256={tag}")),
        ],
        ForgeKind::GitLab => vec![
            ("X-Gitlab-Event", event.into()),
            ("X-Gitlab-Event-UUID", "2".into()),
            ("Idempotency-Key", "1".into()),
            ("X-Gitlab-Token", String::from_utf8(secret.into()).unwrap()),
        ],
        ForgeKind::Gitea => vec![
            ("X-Gitea-Event", event.into()),
            ("X-Forgejo-Event", event.into()),
            ("X-Gitea-Delivery", "1".into()),
            ("X-Gitea-Signature", tag.clone()),
            ("X-Forgejo-Signature", tag),
        ],
        ForgeKind::Bitbucket => vec![
            ("X-Event-Key", event.into()),
            ("X-Hook-UUID", "2".into()),
            ("X-Request-UUID", "1".into()),
            ("X-Hub-Signature", format!("sha256={tag}")),
        ],
    };
    let named = pairs.into_iter().map(|(name, value)| (name.into(), value));
    named.collect()
}

fn ask(
    kind: ForgeKind,
    headers: &[(String, String)],
    body: &[u8],
    secrets: &[&[u8]],
) -> Result<Delivery, Refusal> {
    let borrowed: Vec<(&str, &[u8])> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
    admit(kind, &borrowed, body, secrets)
}

fn deliver(kind: ForgeKind, event: &str, body: &str) -> Result<Delivery, Refusal> {
    let headers = headers(kind, event, body.as_bytes(), SECRET);
    ask(kind, &headers, body.as_bytes(), &[SECRET])
}

fn push(branch: &str) -> News {
    News::Push {
        branches: vec![branch.into()],
    }
}

/// One push of each kind: its event and body, for what is the same everywhere.
const PUSHES: [(ForgeKind, &str, &str); 4] = [
    (
        ForgeKind::GitHub,
        "push",
        r#"{"ref":"refs/heads/main","repository":{"full_name":"Acme/Platform"}}"#,
    ),
    (
        ForgeKind::GitLab,
        "Push Hook",
        r#"{"object_kind":"push","ref":"refs/heads/main","project":{"path_with_namespace":"Acme/Platform"}}"#,
    ),
    (
        ForgeKind::Gitea,
        "push",
        r#"{"ref":"refs/heads/main","repository":{"full_name":"Acme/Platform"}}"#,
    ),
    (
        ForgeKind::Bitbucket,
        "repo:push",
        r#"{"push":{"changes":[{"old":null,"new":{"type":"branch","name":"main"}}]},"repository":{"full_name":"Acme/Platform"}}"#,
    ),
];

#[test]
fn what_each_forge_tells_is_named() {
    use ForgeKind::{Bitbucket, GitHub, GitLab, Gitea};
    let pull = News::Pull(7);
    let comment = News::Comment { pull: 7 };
    let repository = r#""repository":{"id":1,"full_name":"acme/platform"}"#;
    let project = r#""project":{"id":5,"path_with_namespace":"acme/platform"}"#;
    let table = [
        (
            GitHub,
            "ping",
            r#""zen":"Keep it","hook":{"type":"Repository"}"#,
            News::Ping,
        ),
        (
            GitHub,
            "push",
            r#""ref":"refs/heads/feat/a","after":"1","commits":[{"id":"1","added":["a"]}]"#,
            push("feat/a"),
        ),
        (
            GitHub,
            "push",
            r#""ref":"refs/heads/main","deleted":true,"after":"0000","commits":[]"#,
            push("main"),
        ),
        (GitHub, "push", r#""ref":"refs/tags/v1""#, News::Other),
        (
            GitHub,
            "pull_request",
            r#""action":"synchronize","number":7,"pull_request":{"number":7,"head":{"ref":"x"}}"#,
            pull.clone(),
        ),
        (
            GitHub,
            "issue_comment",
            r#""action":"created","issue":{"number":7,"pull_request":{"url":"u"}},"comment":{"id":1}"#,
            comment.clone(),
        ),
        (
            GitHub,
            "issue_comment",
            r#""action":"edited","issue":{"number":7,"pull_request":{"url":"u"}}"#,
            News::Other,
        ),
        (
            GitHub,
            "issue_comment",
            r#""action":"deleted","issue":{"number":7,"pull_request":{"url":"u"}}"#,
            News::Other,
        ),
        (
            GitHub,
            "issue_comment",
            r#""action":"created","issue":{"number":7}"#,
            News::Other,
        ),
        (
            GitHub,
            "pull_request_review",
            r#""action":"submitted","pull_request":{"number":7}"#,
            News::Other,
        ),
        (
            GitHub,
            "something_new",
            r#""ref":7,"number":"x""#,
            News::Other,
        ),
        (
            GitLab,
            "Push Hook",
            r#""object_kind":"push","event_name":"push","ref":"refs/heads/main","commits":[]"#,
            push("main"),
        ),
        (
            GitLab,
            "Tag Push Hook",
            r#""object_kind":"tag_push","ref":"refs/tags/v1""#,
            News::Other,
        ),
        (
            GitLab,
            "Merge Request Hook",
            r#""object_kind":"merge_request","object_attributes":{"id":99,"iid":7,"action":"update"}"#,
            pull.clone(),
        ),
        (
            GitLab,
            "Note Hook",
            r#""object_kind":"note","object_attributes":{"id":1,"noteable_type":"MergeRequest","action":"create","system":false},"merge_request":{"id":99,"iid":7}"#,
            comment.clone(),
        ),
        (
            GitLab,
            "Note Hook",
            r#""object_kind":"note","object_attributes":{"noteable_type":"MergeRequest"},"merge_request":{"iid":7}"#,
            comment.clone(),
        ),
        (
            GitLab,
            "Note Hook",
            r#""object_kind":"note","object_attributes":{"noteable_type":"MergeRequest","action":"update"},"merge_request":{"iid":7}"#,
            News::Other,
        ),
        (
            GitLab,
            "Note Hook",
            r#""object_kind":"note","object_attributes":{"noteable_type":"MergeRequest","system":true},"merge_request":{"iid":7}"#,
            News::Other,
        ),
        (
            GitLab,
            "Note Hook",
            r#""object_kind":"note","object_attributes":{"noteable_type":"Issue"},"issue":{"iid":7}"#,
            News::Other,
        ),
        (
            GitLab,
            "Pipeline Hook",
            r#""object_kind":"pipeline","object_attributes":{"iid":"odd"}"#,
            News::Other,
        ),
        (
            Gitea,
            "push",
            r#""secret":"","ref":"refs/heads/main","commits":null"#,
            push("main"),
        ),
        (
            Gitea,
            "pull_request",
            r#""action":"synchronized","number":7,"pull_request":{"id":3,"number":7}"#,
            pull.clone(),
        ),
        (
            Gitea,
            "issue_comment",
            r#""action":"created","issue":{"number":7,"pull_request":null},"is_pull":true"#,
            comment.clone(),
        ),
        (
            Gitea,
            "issue_comment",
            r#""action":"created","issue":{"number":7,"pull_request":{"merged":false}},"is_pull":true"#,
            comment.clone(),
        ),
        (
            Gitea,
            "issue_comment",
            r#""action":"created","issue":{"number":7,"pull_request":null},"is_pull":false"#,
            News::Other,
        ),
        (
            Gitea,
            "issue_comment",
            r#""action":"edited","issue":{"number":7},"is_pull":true"#,
            News::Other,
        ),
        (Gitea, "release", r#""action":"published""#, News::Other),
        (
            Bitbucket,
            "repo:push",
            r#""push":{"changes":[{"new":{"type":"branch","name":"feat/a"},"old":null}]}"#,
            push("feat/a"),
        ),
        (
            Bitbucket,
            "repo:push",
            r#""push":{"changes":[{"new":null,"old":{"type":"branch","name":"gone"}},{"new":{"type":"tag","name":"v1"},"old":null},{"new":{"type":"branch","name":"main"}}]}"#,
            News::Push {
                branches: vec!["gone".into(), "main".into()],
            },
        ),
        (
            Bitbucket,
            "repo:push",
            r#""push":{"changes":[{"new":{"type":"tag","name":"v1"}}]}"#,
            News::Other,
        ),
        (
            Bitbucket,
            "pullrequest:updated",
            r#""pullrequest":{"id":7,"state":"OPEN"}"#,
            pull,
        ),
        (
            Bitbucket,
            "pullrequest:comment_created",
            r#""pullrequest":{"id":7},"comment":{"id":1}"#,
            comment,
        ),
        (
            Bitbucket,
            "pullrequest:comment_updated",
            r#""pullrequest":{"id":7}"#,
            News::Other,
        ),
        (
            Bitbucket,
            "pullrequest:comment_deleted",
            r#""pullrequest":{"id":7}"#,
            News::Other,
        ),
        (Bitbucket, "repo:fork", r#""fork":{}"#, News::Other),
    ];

    for (kind, event, fields, news) in table {
        let named = if kind == GitLab { project } else { repository };
        let body = format!("{{{fields},{named}}}");

        let delivery = deliver(kind, event, &body);

        let expected = Delivery {
            id: Some("1".into()),
            repository: Some("acme/platform".into()),
            news,
        };
        assert_eq!(delivery, Ok(expected), "{kind} {event} {body}");
    }
}

#[test]
fn a_hook_of_an_organisation_names_no_repository() {
    let ping = deliver(
        ForgeKind::GitHub,
        "ping",
        r#"{"zen":"z","organization":{}}"#,
    );

    assert_eq!(ping.unwrap().repository, None);
}

#[test]
fn sec_26_what_is_not_signed_under_a_secret_is_refused() {
    for (kind, event, body) in PUSHES {
        let good = headers(kind, event, body.as_bytes(), SECRET);
        let without = |name: &str| -> Vec<_> {
            let kept = good.iter().filter(|(n, _)| !n.eq_ignore_ascii_case(name));
            kept.cloned().collect()
        };
        let body = body.as_bytes();

        assert!(ask(kind, &good, body, &[SECRET]).is_ok(), "{kind}");
        assert_eq!(ask(kind, &[], body, &[SECRET]), Err(Refusal::Unsigned));
        assert_eq!(
            ask(kind, &good, body, &[b"another secret"]),
            Err(Refusal::BadSignature)
        );
        assert_eq!(ask(kind, &good, body, &[]), Err(Refusal::BadSignature));
        // Whoever signs with nothing knows no secret, even where somebody configured nothing.
        let empty = headers(kind, event, body, b"");
        assert_eq!(ask(kind, &empty, body, &[b""]), Err(Refusal::BadSignature));
        assert_eq!(
            ask(kind, &empty, body, &[b"", SECRET]),
            Err(Refusal::BadSignature)
        );
        // A header that comes twice, whichever of the two is right, and however it is spelt.
        for (name, _) in &good {
            let read = matches!(
                name.to_lowercase().as_str(),
                "x-hub-signature-256" | "x-gitlab-token" | "x-gitea-signature" | "x-event-key"
            );
            let mut doubled = good.clone();
            doubled.push((name.to_uppercase(), "0".into()));
            let refused = ask(kind, &doubled, body, &[SECRET]);
            assert!(
                !read || matches!(refused, Err(Refusal::BadHeader(_))),
                "{name}: {refused:?}"
            );
        }
        let signature = match kind {
            ForgeKind::GitHub => "x-hub-signature-256",
            ForgeKind::Bitbucket => "x-hub-signature",
            ForgeKind::GitLab => "x-gitlab-token",
            ForgeKind::Gitea => "x-gitea-signature",
        };
        let left = ask(kind, &without(signature), body, &[SECRET]);
        if kind == ForgeKind::Gitea {
            assert!(left.is_ok(), "Forgejo's own header is enough: {left:?}");
        } else {
            assert_eq!(left, Err(Refusal::Unsigned), "{kind}");
        }
    }
}

#[test]
fn sec_26_the_signature_is_of_the_bytes_that_came() {
    for (kind, event, body) in PUSHES {
        if kind == ForgeKind::GitLab {
            continue; // A secret token signs nothing.
        }
        let good = headers(kind, event, body.as_bytes(), SECRET);
        let again: serde_json::Value = serde_json::from_str(body).unwrap();
        let again = serde_json::to_string_pretty(&again).unwrap();

        let refused = ask(kind, &good, again.as_bytes(), &[SECRET]);

        assert_eq!(refused, Err(Refusal::BadSignature), "{kind}");
    }
}

#[test]
fn sec_26_a_signature_with_sha_1_is_none() {
    let (kind, event, body) = PUSHES[0];
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, SECRET);
    let sha1 = hex(hmac::sign(&key, body.as_bytes()).as_ref());
    let mut headers = vec![
        ("X-GitHub-Event".to_owned(), event.to_owned()),
        ("X-Hub-Signature".to_owned(), format!("sha1={sha1}")),
    ];

    let alone = ask(kind, &headers, body.as_bytes(), &[SECRET]);
    headers.push(("X-Hub-Signature-256".into(), format!("sha1={sha1}")));
    let in_its_place = ask(kind, &headers, body.as_bytes(), &[SECRET]);

    assert_eq!(alone, Err(Refusal::Unsigned));
    assert_eq!(in_its_place, Err(Refusal::BadSignature));
}

#[test]
fn sec_26_what_is_no_signature_is_refused() {
    let (kind, event, body) = PUSHES[0];
    let right = tag(SECRET, body.as_bytes());
    for wrong in [
        String::new(),
        "sha256=".into(),
        right.clone(),
        format!("sha256={}", &right[..62]),
        format!("sha256={right}00"),
        format!("sha256= {right}"),
        format!("SHA256={right}"),
        format!(
            "sha256={}",
            right.replace(|c: char| c.is_ascii_digit(), "g")
        ),
    ] {
        let headers = [
            ("X-GitHub-Event".to_owned(), event.to_owned()),
            ("X-Hub-Signature-256".to_owned(), wrong.clone()),
        ];
        let refused = ask(kind, &headers, body.as_bytes(), &[SECRET]);
        assert_eq!(refused, Err(Refusal::BadSignature), "{wrong:?}");
    }
}

#[test]
fn either_of_two_secrets_admits_during_a_rotation() {
    for (kind, event, body) in PUSHES {
        for used in [SECRET, b"the one that comes next"] {
            let headers = headers(kind, event, body.as_bytes(), used);
            let both: [&[u8]; 2] = [SECRET, b"the one that comes next"];

            let delivery = ask(kind, &headers, body.as_bytes(), &both);

            assert_eq!(delivery.map(|d| d.news), Ok(push("main")), "{kind}");
        }
    }
}

#[test]
fn the_two_signatures_of_forgejo_must_agree() {
    let (kind, event, body) = PUSHES[2];
    for wrong in ["X-Gitea-Signature", "X-Forgejo-Signature"] {
        let mut headers = headers(kind, event, body.as_bytes(), SECRET);
        for (name, value) in &mut headers {
            if name == wrong {
                *value = tag(b"a guess", body.as_bytes());
            }
        }

        let refused = ask(kind, &headers, body.as_bytes(), &[SECRET]);

        assert_eq!(refused, Err(Refusal::BadSignature), "{wrong}");
    }
}

#[test]
fn a_signing_token_of_gitlab_decides_where_it_is_known() {
    let (kind, _, body) = PUSHES[1];
    let key = [7u8; 32];
    let token = format!("whsec_{}", base64(&key));
    let sign = |key: &[u8], text: &str| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        format!("v1,{}", base64(hmac::sign(&key, text.as_bytes()).as_ref()))
    };
    let deliver = |signature: String, extra: &[(&str, &str)], secrets: &[&[u8]]| {
        let mut headers = vec![
            ("webhook-id".to_owned(), "msg_1".to_owned()),
            ("webhook-timestamp".into(), "1760000000".into()),
            ("webhook-signature".into(), signature),
        ];
        headers.extend(extra.iter().map(|(n, v)| ((*n).into(), (*v).into())));
        ask(kind, &headers, body.as_bytes(), secrets)
    };
    let right = sign(&key, &format!("msg_1.1760000000.{body}"));
    let token = token.as_bytes();
    let plain = std::str::from_utf8(SECRET).unwrap();

    let admitted = deliver(right.clone(), &[], &[token]).unwrap();
    assert_eq!(admitted.id.as_deref(), Some("msg_1"));
    // During a rotation of the token GitLab's format has room for several.
    assert!(deliver(format!("v1,AAAA {right}"), &[], &[token]).is_ok());
    for wrong in [
        sign(&key, body),
        sign(&key, &format!("msg_2.1760000000.{body}")),
        sign(b"another key", &format!("msg_1.1760000000.{body}")),
        right.replace("v1,", "v1a,"),
        String::new(),
    ] {
        let refused = deliver(
            wrong.clone(),
            &[("X-Gitlab-Token", plain)],
            &[token, SECRET],
        );
        assert_eq!(refused, Err(Refusal::BadSignature), "{wrong}");
    }
    // A hook with both, of which only the secret token was configured here.
    assert!(deliver(right, &[("X-Gitlab-Token", plain)], &[SECRET]).is_ok());
    let alone = ask(
        kind,
        &[("webhook-signature".into(), "v1,AAAA".into())],
        body.as_bytes(),
        &[token],
    );
    assert_eq!(alone, Err(Refusal::BadHeader("webhook-id")));
}

#[test]
fn an_id_is_printable_and_short() {
    let (kind, event, body) = PUSHES[0];
    let mut all = headers(kind, event, body.as_bytes(), SECRET);
    for (given, kept) in [
        ("72d3162e-cc78", Some("72d3162e-cc78".to_owned())),
        ("a\u{1b}[31m b\n", Some("a[31mb".to_owned())),
        ("", None),
        (" \u{e9}", None),
        (&"x".repeat(500), Some("x".repeat(128))),
    ] {
        all[1].1 = given.to_owned();

        let delivery = ask(kind, &all, body.as_bytes(), &[SECRET]).unwrap();

        assert_eq!(delivery.id, kept, "{given:?}");
    }
}

#[test]
fn sec_28_hostile_bodies_are_refused_by_every_decoder() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let everywhere = [
        "",
        "null",
        "7",
        "\"push\"",
        "[]",
        "{",
        "\u{feff}{}",
        "{}trailing",
        "payload=%7B%7D",
        &deep,
        &deep[..100_000],
        r#"{"repository":{"full_name":"a/b"},"repository":{"full_name":"c/d"},"project":1}"#,
        r#"{"repository":["a/b"],"project":["a/b"]}"#,
        r#"{"repository":{"full_name":null},"project":{"path_with_namespace":null}}"#,
        r#"{"repository":{"full_name":7},"project":{"path_with_namespace":7}}"#,
        r#"{"repository":{"full_name":""},"project":{"path_with_namespace":""}}"#,
        r#"{"repository":{"full_name":"a/b\u0000"},"project":{"path_with_namespace":"a/b\n"}}"#,
        r#"{"repository":{"full_name":"\ud800"},"project":{"path_with_namespace":"\ud800"}}"#,
        r#"{"repository":{},"project":{}}"#,
    ];
    for (kind, event, _) in PUSHES {
        for event in [event, "something else"] {
            for body in everywhere {
                let refused = deliver(kind, event, body);
                assert!(
                    matches!(refused, Err(Refusal::BadBody(_))),
                    "{kind} {event} {:.80}: {refused:?}",
                    body
                );
            }
        }
    }
    let long = format!(r#"{{"ref":"refs/heads/{}""#, "x".repeat(2_000));
    let repository = r#""repository":{"full_name":"a/b"},"project":{"path_with_namespace":"a/b"}"#;
    let one_by_one = [
        (ForgeKind::GitHub, "push", "{"),
        (ForgeKind::GitHub, "push", r#"{"ref":null"#),
        (ForgeKind::GitHub, "push", r#"{"ref":["refs/heads/main"]"#),
        (ForgeKind::GitHub, "push", r#"{"ref":"refs/heads/""#),
        (ForgeKind::GitHub, "push", r#"{"ref":"refs/heads/a\u0007""#),
        (ForgeKind::GitHub, "push", &long),
        (ForgeKind::GitHub, "pull_request", r#"{"number":7"#),
        (ForgeKind::GitHub, "pull_request", r#"{"pull_request":null"#),
        (ForgeKind::GitHub, "pull_request", r#"{"pull_request":[7]"#),
        (
            ForgeKind::GitHub,
            "pull_request",
            r#"{"pull_request":{"number":-7}"#,
        ),
        (
            ForgeKind::GitHub,
            "pull_request",
            r#"{"pull_request":{"number":7.5}"#,
        ),
        (
            ForgeKind::GitHub,
            "pull_request",
            r#"{"pull_request":{"number":"7"}"#,
        ),
        (
            ForgeKind::GitHub,
            "pull_request",
            r#"{"pull_request":{"number":0}"#,
        ),
        (
            ForgeKind::GitHub,
            "pull_request",
            r#"{"pull_request":{"number":18446744073709551616}"#,
        ),
        (
            ForgeKind::GitHub,
            "issue_comment",
            r#"{"action":"created","issue":{}"#,
        ),
        (
            ForgeKind::GitHub,
            "issue_comment",
            r#"{"issue":{"number":7,"pull_request":{}}"#,
        ),
        (ForgeKind::GitLab, "", r#"{"object_kind":7"#),
        (ForgeKind::GitLab, "", r#"{"object_kind":"push""#),
        (ForgeKind::GitLab, "", r#"{"object_kind":"push","ref":{}"#),
        (ForgeKind::GitLab, "", r#"{"object_kind":"merge_request""#),
        (
            ForgeKind::GitLab,
            "",
            r#"{"object_kind":"merge_request","object_attributes":{"iid":0}"#,
        ),
        (
            ForgeKind::GitLab,
            "",
            r#"{"object_kind":"merge_request","object_attributes":[1]"#,
        ),
        (
            ForgeKind::GitLab,
            "",
            r#"{"object_kind":"note","object_attributes":{"noteable_type":"MergeRequest"}"#,
        ),
        (
            ForgeKind::GitLab,
            "",
            r#"{"object_kind":"note","object_attributes":{"system":"no"}"#,
        ),
        (ForgeKind::Gitea, "push", "{"),
        (ForgeKind::Gitea, "pull_request", r#"{"number":7"#),
        (
            ForgeKind::Gitea,
            "issue_comment",
            r#"{"action":"created","issue":{"number":7},"is_pull":"yes""#,
        ),
        (ForgeKind::Bitbucket, "repo:push", r#"{"push":{}"#),
        (
            ForgeKind::Bitbucket,
            "repo:push",
            r#"{"push":{"changes":null}"#,
        ),
        (
            ForgeKind::Bitbucket,
            "repo:push",
            r#"{"push":{"changes":[]}"#,
        ),
        (
            ForgeKind::Bitbucket,
            "repo:push",
            r#"{"push":{"changes":[null]}"#,
        ),
        (
            ForgeKind::Bitbucket,
            "repo:push",
            r#"{"push":{"changes":[{}]}"#,
        ),
        (
            ForgeKind::Bitbucket,
            "repo:push",
            r#"{"push":{"changes":[{"new":{"type":"branch"}}]}"#,
        ),
        (
            ForgeKind::Bitbucket,
            "repo:push",
            r#"{"push":{"changes":[{"new":{"type":"branch","name":""}}]}"#,
        ),
        (ForgeKind::Bitbucket, "pullrequest:created", "{"),
        (
            ForgeKind::Bitbucket,
            "pullrequest:created",
            r#"{"pullrequest":{"id":"7"}"#,
        ),
        (
            ForgeKind::Bitbucket,
            "pullrequest:comment_created",
            r#"{"pullrequest":{"id":0}"#,
        ),
    ];
    for (kind, event, fields) in one_by_one {
        let comma = if fields == "{" { "" } else { "," };
        let body = format!("{fields}{comma}{repository}}}");
        let refused = deliver(kind, event, &body);
        assert!(
            matches!(refused, Err(Refusal::BadBody(_))),
            "{kind} {event} {body:.200}: {refused:?}"
        );
    }
}

#[test]
fn sec_28_what_is_not_named_is_skipped_however_deep() {
    let deep = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
    for (kind, event, body) in PUSHES {
        let body = format!("{},\"commits\":{deep}}}", &body[..body.len() - 1]);

        let delivery = deliver(kind, event, &body).unwrap();

        assert_eq!(delivery.news, push("main"), "{kind}");
    }
}

#[test]
fn a_missing_event_is_said_by_its_header() {
    for (kind, name) in [
        (ForgeKind::GitHub, "x-github-event"),
        (ForgeKind::Gitea, "x-gitea-event"),
        (ForgeKind::Bitbucket, "x-event-key"),
    ] {
        let mut headers = headers(kind, "push", b"{}", SECRET);
        headers.retain(|(n, _)| !n.to_lowercase().contains("event"));

        let refused = ask(kind, &headers, b"{}", &[SECRET]);

        assert_eq!(refused, Err(Refusal::BadHeader(name)));
    }
    let (kind, event, body) = PUSHES[2];
    let mut contradicting = headers(kind, event, body.as_bytes(), SECRET);
    contradicting[1].1 = "pull_request".into();
    assert_eq!(
        ask(kind, &contradicting, body.as_bytes(), &[SECRET]),
        Err(Refusal::BadHeader("x-forgejo-event"))
    );
}

#[test]
fn a_refusal_quotes_nothing_of_the_body() {
    let body = r#"{"secret":"hunter2","ref":{"hunter2":"hunter2"},"repository":"hunter2"}"#;

    let refused = deliver(ForgeKind::Gitea, "push", body).unwrap_err();

    assert!(!refused.to_string().contains("hunter2"), "{refused}");
    assert!(refused.to_string().contains("line 1"), "{refused}");
}

#[test]
fn a_form_is_refused_with_a_hint() {
    let refused = deliver(ForgeKind::GitHub, "push", "payload=%7B%22ref%22").unwrap_err();

    assert!(
        refused.to_string().contains("application/json"),
        "{refused}"
    );
}

#[test]
fn sec_30_names_in_a_body_are_data_and_nothing_else() {
    for name in [
        ".*",
        "(?:a+)+$",
        "../../etc/passwd",
        "https://elsewhere.example/a/b?c=d#e",
        "refs/heads/refs/heads/main",
        "--upload-pack=touch",
        "%2e%2e%2f",
        "$(id)`id`",
        "\u{202e}niam",
    ] {
        let spelt = serde_json::to_string(name).unwrap();
        let body = format!(
            r#"{{"ref":"refs/heads/{}","repository":{{"full_name":{spelt}}}}}"#,
            &spelt[1..spelt.len() - 1]
        );

        let delivery = deliver(ForgeKind::GitHub, "push", &body).unwrap();

        assert_eq!(delivery.repository.as_deref(), Some(name));
        assert_eq!(delivery.news, push(name));
    }
}
