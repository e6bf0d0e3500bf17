//! What forges and networks do to a client.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use isoform::port::Error;
use serde_json::json;

use super::fakes::{Fault, Reply};
use super::{ForgeWorld, MARKER, text};

fn pull(world: &dyn ForgeWorld) -> u64 {
    let mut state = world.fake().state();
    let ana = state.account("ana", false);
    state.open(ana, "raise the count").number
}

pub async fn a_limit_holds_every_call_and_then_they_go_on(world: &dyn ForgeWorld) {
    let number = pull(world);
    for (name, reply, wait) in world.limits() {
        let forge = world.open();
        forge.pull(number).await.unwrap();
        let (pulls, _) = world.routes();
        world.fake().state().fault(pulls, 1, Fault::Instead(reply));

        let refused = forge.open_pulls("main").await;
        assert_eq!(refused, Err(Error::Limited(wait)), "{name}");
        world.fake().asked();
        world.clock().advance(wait / 2);
        let held = [
            forge.pull(number).await.err(),
            forge
                .write_comment(number, MARKER, None, &text("one"))
                .await
                .err(),
            forge.comments(number, 0).await.err(),
        ];
        for error in held {
            assert_eq!(error, Some(Error::Limited(wait - wait / 2)), "{name}");
        }
        assert!(
            world.fake().asked().is_empty(),
            "{name}: something went out"
        );

        world.clock().advance(wait - wait / 2);
        forge.open_pulls("main").await.unwrap();
    }
}

pub async fn what_goes_wrong_is_told_and_the_next_call_works(world: &dyn ForgeWorld) {
    let number = pull(world);
    let forge = world.open();
    forge.pull(number).await.unwrap();
    let html = Reply {
        status: 200,
        headers: vec![("content-type".into(), "text/html".into())],
        body: b"<html>Sign in</html>".to_vec(),
    };
    let page = Reply {
        status: 502,
        headers: Vec::new(),
        body: b"<html>Bad gateway</html>".to_vec(),
    };
    let kind = |e: &Error| match e {
        Error::Unavailable(_) => "unavailable",
        Error::Untrusted(_) => "untrusted",
        Error::Denied(_) => "denied",
        Error::Refused(_) => "refused",
        Error::NotFound(_) => "not found",
        _ => "something else",
    };
    for (fault, expected) in [
        (Fault::Instead(Reply::json(500, &json!({}))), "unavailable"),
        (Fault::Instead(page), "unavailable"),
        (
            Fault::Instead(Reply::json(503, &json!({ "message": "down" }))),
            "unavailable",
        ),
        (Fault::HangUp, "unavailable"),
        (Fault::Lost, "unavailable"),
        (Fault::Cut, "unavailable"),
        (Fault::Garbage, "unavailable"),
        (Fault::Endless, "untrusted"),
        (Fault::Instead(html), "untrusted"),
        (
            Fault::Instead(Reply::json(200, &json!("text"))),
            "untrusted",
        ),
        (
            Fault::Instead(Reply::json(200, &json!({ "number": "one" }))),
            "untrusted",
        ),
        (Fault::Instead(Reply::json(200, &json!(null))), "untrusted"),
        (Fault::Instead(Reply::json(304, &json!(null))), "untrusted"),
        (
            Fault::Instead(Reply::json(403, &json!({ "message": "no" }))),
            "denied",
        ),
        (
            Fault::Instead(Reply::json(404, &json!({ "message": "no" }))),
            "not found",
        ),
        (
            Fault::Instead(Reply::json(410, &json!({ "message": "no" }))),
            "not found",
        ),
        (
            Fault::Instead(Reply::json(400, &json!({ "message": "no" }))),
            "refused",
        ),
        (
            Fault::Instead(Reply::json(409, &json!({ "message": "no" }))),
            "refused",
        ),
        (
            Fault::Instead(Reply::json(422, &json!({ "message": "no" }))),
            "refused",
        ),
    ] {
        let (pulls, _) = world.routes();
        // Another process, so that nothing is remembered.
        let forge = world.open();
        world.fake().state().fault(pulls, 1, fault.clone());

        let error = forge.open_pulls("main").await.unwrap_err();

        assert_eq!(kind(&error), expected, "{error} for {}", short(&fault));
        if matches!(fault, Fault::Endless) {
            assert!(
                error.to_string().contains("more than 8388608 bytes"),
                "{error}"
            );
        }
        assert!(error.to_string().len() < 700, "{error}");
        assert_eq!(forge.open_pulls("main").await.unwrap().len(), 1);
    }
}

fn short(fault: &Fault) -> String {
    format!("{fault:?}").chars().take(120).collect()
}

pub async fn an_answer_that_never_comes_is_not_waited_for(world: &dyn ForgeWorld) {
    let number = pull(world);
    let forge = world.opened(Duration::from_millis(700));
    let (pulls, _) = world.routes();
    world.fake().state().fault(pulls, 1, Fault::Hang);

    let hung = forge.pull(number).await;

    assert!(
        matches!(&hung, Err(Error::Unavailable(why)) if why.contains("in time")),
        "{hung:?}"
    );
}

/// Somebody else's server: counts who comes.
async fn trap() -> (String, Arc<AtomicUsize>, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let seen = count.clone();
    let task = tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            seen.fetch_add(1, Ordering::SeqCst);
        }
    });
    (format!("http://{address}"), count, task)
}

pub async fn sec_a_redirect_is_not_followed(world: &dyn ForgeWorld) {
    let number = pull(world);
    let (elsewhere, came, task) = trap().await;
    let (pulls, comments) = world.routes();
    for status in [301, 302, 303, 307, 308] {
        for route in [pulls, comments] {
            let reply = Reply::json(status, &json!({ "message": "Moved Permanently" }))
                .with("location", format!("{elsewhere}/x"));
            world.fake().state().fault(route, 1, Fault::Instead(reply));
        }
        let forge = world.open();

        let read = forge.pull(number).await;
        let written = forge
            .write_comment(number, MARKER, None, &text("one"))
            .await;

        assert!(matches!(read, Err(Error::Refused(_))), "{status}: {read:?}");
        assert!(
            matches!(written, Err(Error::Refused(_))),
            "{status}: {written:?}"
        );
    }
    assert_eq!(came.load(Ordering::SeqCst), 0);
    task.abort();
}

pub async fn sec_a_page_elsewhere_is_not_asked_for(world: &dyn ForgeWorld) {
    pull(world);
    let (elsewhere, came, task) = trap().await;
    let own = &world.fake().api;
    let (pulls, _) = world.routes();
    let host = own.split('/').take(3).collect::<Vec<_>>().join("/");
    let mut links = vec![
        format!("{elsewhere}/repos?page=2"),
        own.replacen("http://", "http://user:pass@", 1) + "/x",
        own.replacen("http://", "https://", 1) + "/x",
        "not an address".to_owned(),
    ];
    if *own != host {
        links.push(format!("{host}/elsewhere"));
        links.push(format!("{own}/../elsewhere"));
    }
    for link in links {
        let body = json!([]);
        let reply = Reply::json(200, &body).with("link", format!("<{link}>; rel=\"next\""));
        world.fake().state().fault(pulls, 1, Fault::Instead(reply));
        let forge = world.open();
        world.fake().asked();

        let refused = forge.open_pulls("main").await;

        assert!(
            matches!(refused, Err(Error::Untrusted(_))),
            "{link}: {refused:?}"
        );
        assert_eq!(
            world
                .fake()
                .asked()
                .iter()
                .filter(|a| a.raw.contains(pulls))
                .count(),
            1
        );
    }
    assert_eq!(came.load(Ordering::SeqCst), 0);
    task.abort();
}

pub async fn sec_what_is_refused_is_told_without_a_secret(world: &dyn ForgeWorld) {
    let number = pull(world);
    for status in [400, 401, 403, 404, 422, 429, 500] {
        // A forge that repeats what it was sent, for every kind of call, those that fetch a token too.
        world.fake().state().fault("", 1, Fault::Echo(status));
        let first = world.open().pull(number).await.unwrap_err();
        world.clock().advance(Duration::from_secs(7200));
        let forge = world.open();
        forge.pull(number).await.unwrap();
        world.fake().state().fault("", 4, Fault::Echo(status));
        let second = forge.open_pulls("main").await.unwrap_err();
        world.clock().advance(Duration::from_secs(7200));
        let third = forge
            .write_comment(number, MARKER, None, &text("one"))
            .await
            .unwrap_err();
        world.fake().state().forgive();
        world.clock().advance(Duration::from_secs(7200));

        let sent: Vec<String> = world
            .fake()
            .asked()
            .into_iter()
            .flat_map(|a| a.headers.into_values())
            .flat_map(|value| value.split(' ').map(str::to_owned).collect::<Vec<_>>())
            .collect();
        let secrets = world.secrets();
        assert!(
            secrets.iter().any(|s| sent.contains(s)),
            "nothing secret was sent"
        );
        for error in [first, second, third] {
            let told = format!("{error} {error:?}");
            assert!(!error.to_string().contains(['\r', '\n']), "{told}");
            for secret in secrets
                .iter()
                .flat_map(|s| s.lines())
                .filter(|s| s.len() > 8)
            {
                assert!(!told.contains(secret), "{told}");
            }
            // A token for the App itself, which no list holds.
            assert!(!told.contains("eyJ"), "{told}");
        }
    }
}
