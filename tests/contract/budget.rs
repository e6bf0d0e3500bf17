//! What a service that refuses calls for being too many does to the line: it slows that call down, and nothing else.

use isoform::aws::{Budgets, Place, Reach};
use isoform::clock::Clock;
use isoform::domain::model::AccountId;
use isoform::domain::pace::Urgency;
use isoform::port::{Error, StackEngine};

use crate::replayed::{ACCOUNT, Answer, SET, Service, caller, refusal, result, saying};

fn done(query: &str) -> Answer {
    result(query.split('&').next().unwrap_or_default(), "")
}

#[tokio::test]
async fn a_call_too_many_is_made_again_and_is_counted() {
    let service = saying(|call, turn| match turn {
        0 | 1 => refusal("Throttling"),
        _ => done(call),
    })
    .await;
    let budgets = Budgets::new(Clock::system());
    let account: AccountId = ACCOUNT.parse().unwrap();
    let region = "eu-west-1".parse().unwrap();
    let stacks = service.stacks().await;
    let stacks = stacks.within(budgets.of(&account, &region));
    let stacks = stacks.at(Urgency::Run);

    let listed = stacks.list(None).await.map(|page| page.items.len());
    let executed = stacks.execute(SET, "t").await;

    assert_eq!(listed, Ok(0));
    assert_eq!(executed, Ok(()));
    for call in ["ListStacks", "ExecuteChangeSet"] {
        assert_eq!(service.count(call), 3, "{call}");
        let told = budgets.traffic();
        let told = told.iter().find(|t| t.call == call).unwrap();
        assert_eq!((told.made, told.throttled, told.waiting), (3, 2, 0));
        assert!(told.rate.is_some() && told.throttled_at.is_some());
        assert_eq!((&told.account, &told.region), (&account, &region));
    }
}

#[tokio::test]
async fn what_was_refused_for_another_reason_or_lost_is_not_made_again() {
    let service = saying(|call, _| match call.starts_with("ExecuteChangeSet") {
        true => (0, Vec::new(), String::new()),
        false => refusal("AccessDenied"),
    })
    .await;
    let stacks = service.stacks().await;

    let executed = stacks.execute(SET, "t").await;
    let listed = stacks.list(None).await.map(|_| ());

    assert!(
        matches!(executed, Err(Error::Unavailable(_))),
        "{executed:?}"
    );
    assert!(matches!(listed, Err(Error::Denied(_))), "{listed:?}");
    assert_eq!(service.count("ExecuteChangeSet"), 1);
    assert_eq!(service.count("ListStacks"), 1);
}

#[tokio::test]
async fn what_one_account_is_refused_holds_no_other_back() {
    let noisy = saying(|_, _| refusal("ThrottlingException")).await;
    let quiet = Service::with(|call, _| match call.starts_with("GetCallerIdentity") {
        true => caller("222222222222"),
        false => done(call),
    })
    .await;
    let budgets = Budgets::new(Clock::system());
    let region = "eu-west-1".parse().unwrap();
    let stacks = noisy.stacks().await;
    let first = stacks.within(budgets.of(&ACCOUNT.parse().unwrap(), &region));
    let other: AccountId = "222222222222".parse().unwrap();
    let place = Place {
        account: other.clone(),
        service_role: None,
    };
    let session = quiet.session_as(&[], Reach::default()).await;
    let second = isoform::aws::Stacks::new(session, place, Clock::system());
    let second = second.within(budgets.of(&other, &region));
    let refused = tokio::spawn(async move { first.list(None).await.map(|_| ()) });
    while noisy.count("ListStacks") < 2 {
        tokio::task::yield_now().await;
    }

    for _ in 0..50 {
        assert_eq!(second.list(None).await.map(|page| page.items.len()), Ok(0));
    }

    // The first one still waits for its turn, and nothing of the second one was counted against anybody.
    assert!(!refused.is_finished());
    assert!(
        budgets
            .traffic()
            .iter()
            .all(|t| t.account != other || t.throttled == 0)
    );
    refused.abort();
}
