//! Hints: what a queue says makes isoform look, and nothing that it says is believed.

use std::sync::Mutex;

use async_trait::async_trait;
use isoform::domain::model::{AccountId, StackName, SyncResult};
use isoform::port::{Error, HintQueue, Message};

use crate::growth::{Running, settled};

#[derive(Default)]
struct Queue {
    messages: Mutex<Vec<Message>>,
    removed: Mutex<Vec<String>>,
}

impl Queue {
    fn put(&self, body: String) {
        let mut messages = self.messages.lock().unwrap();
        let receipt = messages.len().to_string();
        messages.push(Message { receipt, body });
    }

    fn about(&self, stack: &str) {
        self.put(format!(
            r#"{{"detail":{{"stack-id":"{stack}","status-details":{{"status":"DELETE_COMPLETE"}}}}}}"#
        ));
    }
}

#[async_trait]
impl HintQueue for Queue {
    fn name(&self) -> &str {
        "a queue"
    }

    async fn take(&self) -> Result<Vec<Message>, Error> {
        Ok(std::mem::take(&mut self.messages.lock().unwrap()))
    }

    async fn remove(&self, receipts: &[String]) -> Result<(), Error> {
        self.removed.lock().unwrap().extend_from_slice(receipts);
        Ok(())
    }
}

async fn results(running: &Running) -> Vec<(String, SyncResult)> {
    let report = running.line.estate().await.unwrap();
    let targets = report.targets.into_iter();
    targets
        .map(|t| (t.stack_name.unwrap_or_default(), t.condition.result))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_shows_what_somebody_else_has_done_before_the_next_sweep() {
    let all = settled(2, 2).await;
    let (running, stub) = (&all.running, all.running.stub.clone());
    running.line.sweep().await.unwrap();
    let ids = stub.ids();
    let first: &(StackName, String) = &ids[0];
    let account: AccountId = first.1.split(':').nth(4).unwrap().parse().unwrap();
    stub.meddle(&account);
    stub.take_calls();
    let queue = Queue::default();
    // Three words about one stack, one about a stack of nobody here, and two that are no hints.
    (0..3).for_each(|_| queue.about(&first.1));
    queue.about("arn:aws:cloudformation:us-east-1:999999999999:stack/theirs/1");
    queue.put("rm -rf /".into());
    queue.put(r#"{"detail":{"stack-id":"*"}}"#.into());

    assert_eq!(running.line.hear(&queue).await, Ok(6));

    assert_eq!(running.line.counts.hints(), [1, 1, 2]);
    assert_eq!(queue.removed.lock().unwrap().len(), 6);
    let mut seen = Vec::new();
    for _ in 0..3000 {
        seen = results(running).await;
        if seen.iter().any(|(_, r)| *r == SyncResult::Drifted) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    // It says that the stack is deleted; the stack says that somebody has changed it. The others wait for the sweep.
    let drifted: Vec<&String> = seen
        .iter()
        .filter(|(_, r)| *r == SyncResult::Drifted)
        .map(|(name, _)| name)
        .collect();
    assert_eq!(drifted, [first.0.as_str()]);
    let mut calls = stub.take_calls();
    calls.remove("PutObject");
    assert_eq!(calls, [("DescribeStacks", 1)].into());
    all.running.stop().await;
}
