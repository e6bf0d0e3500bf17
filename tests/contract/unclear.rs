//! What is unclear: answers that are cut, lost, without a code, or from something in between.
//!
//! Whatever may have had its effect is asked for again, and whatever passes by itself stops nobody. A fault of these is seen as
//! a target that waits for a person who has nothing to do.

use std::time::Duration;

use isoform::aws::{Reach, Role};
use isoform::domain::plan::ChangeSetStatus;
use isoform::port::{
    Disposition, Encryption, Error, ObjectStore, Put, StackEngine, StackRef, body,
};

use crate::replayed::*;

fn s3_refusal(status: u16, code: &str) -> Answer {
    let text = format!("<Error><Code>{code}</Code><Message>said so</Message></Error>");
    (status, Vec::new(), text)
}

fn encrypted(algorithm: &str) -> Vec<(&'static str, String)> {
    vec![
        ("etag", "\"e\"".into()),
        ("x-amz-server-side-encryption", algorithm.into()),
    ]
}

#[tokio::test]
async fn an_answer_that_is_cut_is_unavailable_whatever_was_asked() {
    let cut = |_: &str, _| {
        let headers = vec![("content-length", "500".into())];
        (200, headers, "<CreateCha".to_owned())
    };
    let service = saying(cut).await;
    let stacks = service.stacks().await;
    let stack = StackRef::Id(STACK.parse().unwrap());

    let executed = stacks.execute(SET, "t").await;
    let proposed = stacks.propose(&proposal(true)).await.map(|_| ());
    let described = stacks.describe(&stack).await.map(|_| ());

    for answer in [executed, proposed, described] {
        assert!(matches!(answer, Err(Error::Unavailable(_))), "{answer:?}");
    }
    assert_eq!(service.count("ExecuteChangeSet"), 1);
    assert_eq!(service.count("CreateChangeSet"), 1);
}

#[tokio::test]
async fn an_outage_of_sts_passes_and_stops_nobody() {
    for (status, text) in [
        (502, "<html>bad gateway</html>"),
        (200, "<html>hello</html>"),
    ] {
        let service = Service::with(move |_, _| (status, Vec::new(), text.into())).await;
        let role = Role {
            arn: "arn:aws:iam::111111111111:role/apply".into(),
            external_id: None,
        };
        let session = service.session_as(&[role], Reach::default()).await;

        let answer = Service::stacks_of(session).list(None).await.map(|_| ());

        assert!(matches!(answer, Err(Error::Unavailable(_))), "{answer:?}");
        assert!(service.count("AssumeRole") > 0);
    }
}

#[tokio::test]
async fn a_role_that_may_not_be_taken_is_denied() {
    let service = Service::with(|_, _| {
        let (_, headers, body) = refusal("AccessDenied");
        (403, headers, body)
    })
    .await;
    let role = Role {
        arn: "arn:aws:iam::111111111111:role/apply".into(),
        external_id: None,
    };
    let session = service.session_as(&[role], Reach::default()).await;

    let answer = Service::stacks_of(session).list(None).await.map(|_| ());

    assert!(
        matches!(&answer, Err(Error::Denied(text)) if text.contains("AssumeRole")),
        "{answer:?}"
    );
}

#[tokio::test]
async fn what_a_head_does_not_say_is_asked_with_a_get() {
    for (got, expected) in [
        (s3_refusal(400, "InvalidObjectState"), Disposition::Stall),
        (
            s3_refusal(400, "KMS.DisabledException"),
            Disposition::WaitFor(Duration::from_secs(60)),
        ),
        (s3_refusal(400, "RequestTimeout"), Disposition::Retry),
        ((206, Vec::new(), "x".to_owned()), Disposition::Retry),
    ] {
        let service = Service::with(move |call, _| {
            if call.starts_with("HEAD") {
                return (400, Vec::new(), String::new());
            }
            got.clone()
        })
        .await;

        let seen = service.store(Encryption::Store).await.head("a").await;

        let error = seen.expect_err("a HEAD that fails is no answer");
        assert_eq!(error.disposition(), expected, "{error}");
        assert!(
            !matches!(error, Error::Untrusted(_) | Error::NotFound(_)),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_bucket_is_gone_only_when_s3_says_so() {
    for (status, expected, word) in [
        (404, Disposition::Stall, "does not exist"),
        (301, Disposition::Stall, "us-west-2"),
        (400, Disposition::Retry, ""),
        (503, Disposition::Retry, ""),
    ] {
        let service = Service::with(move |call, _| {
            if call.starts_with("HEAD /bucket/x") {
                return (404, Vec::new(), String::new());
            }
            let region = vec![("x-amz-bucket-region", "us-west-2".into())];
            (status, region, String::new())
        })
        .await;

        let seen = service.store(Encryption::Store).await.head("a").await;

        let error = seen.expect_err("it is not known that nothing is there");
        assert_eq!(error.disposition(), expected, "{status}: {error}");
        assert!(error.to_string().contains(word), "{status}: {error}");
    }
}

#[tokio::test]
async fn an_object_that_is_there_already_must_be_encrypted_too() {
    for (algorithm, exists) in [(Some("AES256"), true), (None, false)] {
        let service = Service::with(move |call, _| {
            if call.starts_with("PUT") {
                return s3_refusal(412, "PreconditionFailed");
            }
            let headers = algorithm.map(encrypted).unwrap_or_default();
            (200, headers, String::new())
        })
        .await;
        let store = service.store(Encryption::Store).await;

        let answer = store.put("a", body("x"), &Put::default()).await;

        match answer {
            Err(Error::Exists(_)) => assert!(exists, "it is not encrypted"),
            Err(Error::Untrusted(_)) => assert!(!exists, "it is encrypted"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn the_stores_own_key_does_not_open_what_anybodys_key_closed() {
    let service = Service::with(|_, _| {
        let mut headers = encrypted("aws:kms");
        headers.push(("x-amz-server-side-encryption-aws-kms-key-id", KEY.into()));
        (200, headers, "x".into())
    })
    .await;

    let seen = service.store(Encryption::Store).await.head("a").await;

    assert!(matches!(seen, Err(Error::Untrusted(_))), "{seen:?}");
}

#[tokio::test]
async fn a_large_object_has_the_time_that_it_needs() {
    // Longer than a call may be silent, and it never is.
    let service = Service::with(|_, _| {
        std::thread::sleep(Duration::from_millis(900));
        (200, encrypted("AES256"), String::new())
    })
    .await;
    let reach = Reach {
        patience: Some(Duration::from_millis(200)),
        ..Reach::default()
    };
    let session = service.session_as(&[], reach).await;
    let store = Service::store_of(&session, Encryption::Store);

    let answer = store
        .put("a", body(vec![7; 1 << 20]), &Put::default())
        .await;

    assert!(answer.is_ok(), "{answer:?}");
}

#[tokio::test]
async fn every_object_is_asked_for_by_its_owner() {
    let service = Service::with(|call, _| {
        let headers = encrypted("AES256");
        match call {
            _ if call.contains("list-type=2") => {
                xml("<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
            }
            "HEAD /bucket/x/gone" => (404, Vec::new(), String::new()),
            "PUT /bucket/x/taken?x-id=PutObject" => s3_refusal(412, "PreconditionFailed"),
            // It is not encrypted: it goes again.
            "PUT /bucket/x/plain?x-id=PutObject" => (200, Vec::new(), String::new()),
            "HEAD /bucket/x/unclear" => (400, Vec::new(), String::new()),
            _ => (200, headers, String::new()),
        }
    })
    .await;
    let store = service.store(Encryption::Store).await;
    let options = Put::default();
    let put = |key: &'static str| store.put(key, body("x"), &options);

    put("a").await.unwrap();
    assert!(put("taken").await.is_err());
    assert!(put("plain").await.is_err());
    store.get("a", None).await.map(|_| ()).unwrap();
    store.head("a").await.unwrap();
    assert_eq!(store.head("gone").await.unwrap(), None);
    assert!(store.head("unclear").await.is_err());
    store.list("", None).await.unwrap();
    store.delete("a").await.unwrap();

    let heads = service.heads.lock().unwrap();
    assert!(heads.len() >= 12, "{heads:?}");
    for head in heads.iter() {
        assert!(
            head.contains(&format!("\r\nx-amz-expected-bucket-owner: {ACCOUNT}\r\n")),
            "{head}"
        );
    }
}

#[tokio::test]
async fn a_detection_that_failed_found_nothing_out() {
    let service = saying(|call, _| match call.split('&').next().unwrap_or_default() {
        "DetectStackDrift" => result("DetectStackDrift", "<StackDriftDetectionId>d</StackDriftDetectionId>"),
        "DescribeStackDriftDetectionStatus" => result(
            "DescribeStackDriftDetectionStatus",
            &format!("<StackId>{STACK}</StackId><StackDriftDetectionId>d</StackDriftDetectionId><DetectionStatus>DETECTION_FAILED</DetectionStatus><DetectionStatusReason>Failed to detect drift on resource [Q]</DetectionStatusReason><Timestamp>2026-01-01T00:00:00Z</Timestamp>"),
        ),
        _ => result("DescribeStackResourceDrifts", "<StackResourceDrifts/>"),
    })
    .await;

    let answer = service.stacks().await.drift(&STACK.parse().unwrap()).await;

    assert!(
        matches!(&answer, Err(Error::Refused(text)) if text.contains("resource [Q]")),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_refused_read_names_the_bucket_and_what_has_to_be_allowed() {
    let disabled = s3_refusal(400, "KMS.DisabledException");
    let denied = s3_refusal(403, "AccessDenied");
    let service = Service::with(move |call, _| {
        if call.contains("list-type=2") || call.contains("/denied") {
            denied.clone()
        } else {
            disabled.clone()
        }
    })
    .await;
    let store = service.store(Encryption::Key(KEY.into())).await;

    let listed = store.list("", None).await.map(|_| ()).unwrap_err();
    let denied = store.get("denied", None).await.map(|_| ()).unwrap_err();
    let disabled = store.get("a", None).await.map(|_| ()).unwrap_err();

    for (error, words) in [
        (&listed, ["s3:ListBucket", "arn:aws:s3:::bucket"]),
        (&denied, ["s3:GetObject", "arn:aws:s3:::bucket/x/denied"]),
        (&disabled, ["kms:Decrypt", KEY]),
    ] {
        let said = error.to_string();
        assert!(words.iter().all(|w| said.contains(w)), "{said}");
    }
    assert!(matches!(listed, Error::Denied(_)), "{listed:?}");
    assert!(matches!(disabled, Error::KeyUnavailable(_)), "{disabled:?}");
}

#[tokio::test]
async fn a_listing_of_change_sets_keeps_to_its_stack_and_one_without_names_is_not_trusted() {
    let summary = |stack: &str, name: &str, status: &str| {
        format!(
            "<member><StackId>{stack}</StackId><ChangeSetId>{SET}</ChangeSetId><ChangeSetName>{name}</ChangeSetName><Status>{status}</Status><ExecutionStatus>AVAILABLE</ExecutionStatus></member>"
        )
    };
    let other = STACK.replace("orders", "other");
    let service = saying(move |call, _| {
        let items = if call.contains("NextToken=more") {
            summary(STACK, "", "CREATE_COMPLETE").replace("<ChangeSetName></ChangeSetName>", "")
        } else {
            summary(STACK, "ours", "CREATE_COMPLETE")
                + &summary(&other, "theirs", "CREATE_COMPLETE")
        };
        let items = format!("<Summaries>{items}</Summaries><NextToken>more</NextToken>");
        result("ListChangeSets", &items)
    })
    .await;
    let (stacks, stack) = (service.stacks().await, STACK.parse().unwrap());

    let page = stacks.change_sets(&stack, None).await.unwrap();
    let broken = stacks.change_sets(&stack, page.next.as_deref()).await;

    let names: Vec<&str> = page.items.iter().map(|s| s.name.as_str()).collect();
    assert_eq!((names, page.next.as_deref()), (vec!["ours"], Some("more")));
    assert_eq!(page.items[0].status, ChangeSetStatus::Available);
    assert!(matches!(broken, Err(Error::Untrusted(_))), "{broken:?}");
}

#[tokio::test]
async fn one_change_set_too_many_is_told_from_every_other_refusal() {
    let service = saying(|_, _| refusal("LimitExceededException")).await;
    let stacks = service.stacks().await;

    let answer = stacks.propose(&proposal(true)).await;

    assert!(matches!(answer, Err(Error::TooMany(_))), "{answer:?}");
    assert_eq!(service.count("CreateChangeSet"), 1);
}
