//! The queue that EventBridge fills, on SQS.

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{DeleteMessageBatchRequestEntry, QueueAttributeName};

use super::ceiling::{ANSWER, Ceiling};
use super::error;
use super::session::Session;
use crate::domain::model::AccountId;
use crate::port::{Error, HintQueue, Message};

/// The longest that SQS lets a call wait for messages.
const WAIT_SECONDS: i32 = 20;
/// The most that SQS gives at once.
const MOST: i32 = 10;
/// For so long nobody else is given what was taken; whoever died meanwhile has lost nothing.
const HELD_SECONDS: i32 = 60;

/// A queue of hints.
pub struct SqsQueue {
    client: Client,
    url: String,
    arn: String,
}

/// What is seen of a queue.
pub struct QueueFacts {
    /// Its policy; absent where it has none.
    pub policy: Option<String>,
    /// Whether what lies in it is encrypted.
    pub encrypted: bool,
    /// How many messages wait.
    pub waiting: u64,
}

impl SqsQueue {
    /// Opens a queue of an account, in the session's region.
    pub fn new(session: &Session, account: &AccountId, name: &str) -> Self {
        let config =
            aws_sdk_sqs::config::Builder::from(session.config()).interceptor(Ceiling(ANSWER));
        let region = session.region();
        let (partition, suffix) = region.partition();
        let host = match session.config().endpoint_url() {
            Some(endpoint) => endpoint.trim_end_matches('/').to_owned(),
            None => format!("https://sqs.{region}.{suffix}"),
        };
        Self {
            client: Client::from_conf(config.build()),
            url: format!("{host}/{account}/{name}"),
            arn: format!("arn:{partition}:sqs:{region}:{account}:{name}"),
        }
    }

    /// Looks at the queue itself.
    pub async fn facts(&self) -> Result<QueueFacts, Error> {
        let answer = self
            .client
            .get_queue_attributes()
            .queue_url(&self.url)
            .attribute_names(QueueAttributeName::All)
            .send()
            .await
            .map_err(|e| error::of("GetQueueAttributes", &self.arn, e))?;
        let of = |name: QueueAttributeName| answer.attributes().and_then(|a| a.get(&name));
        let own = of(QueueAttributeName::SqsManagedSseEnabled).is_some_and(|on| on == "true");
        Ok(QueueFacts {
            policy: of(QueueAttributeName::Policy)
                .filter(|p| !p.is_empty())
                .cloned(),
            encrypted: own || of(QueueAttributeName::KmsMasterKeyId).is_some(),
            waiting: of(QueueAttributeName::ApproximateNumberOfMessages)
                .and_then(|n| n.parse().ok())
                .unwrap_or_default(),
        })
    }
}

#[async_trait]
impl HintQueue for SqsQueue {
    fn name(&self) -> &str {
        &self.arn
    }

    async fn take(&self) -> Result<Vec<Message>, Error> {
        let answer = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .wait_time_seconds(WAIT_SECONDS)
            .max_number_of_messages(MOST)
            .visibility_timeout(HELD_SECONDS)
            .send()
            .await
            .map_err(|e| error::of("ReceiveMessage", &self.arn, e))?;
        let told = |m: &aws_sdk_sqs::types::Message| {
            Some(Message {
                receipt: m.receipt_handle()?.to_owned(),
                body: m.body().unwrap_or_default().to_owned(),
            })
        };
        Ok(answer.messages().iter().filter_map(told).collect())
    }

    async fn remove(&self, receipts: &[String]) -> Result<(), Error> {
        for some in receipts.chunks(MOST as usize) {
            let mut entries = Vec::new();
            for (index, receipt) in some.iter().enumerate() {
                let entry = DeleteMessageBatchRequestEntry::builder()
                    .id(index.to_string())
                    .receipt_handle(receipt)
                    .build();
                entries.push(entry.map_err(|e| Error::Untrusted(e.to_string()))?);
            }
            // One that is not removed comes again, and is looked at again: nothing is lost.
            self.client
                .delete_message_batch()
                .queue_url(&self.url)
                .set_entries(Some(entries))
                .send()
                .await
                .map_err(|e| error::of("DeleteMessageBatch", &self.arn, e))?;
        }
        Ok(())
    }
}
