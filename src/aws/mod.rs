//! AWS behind the ports: CloudFormation, S3, KMS, SQS, roles of IAM, and versions of parameters and secrets, each for one account
//! and region.
//!
//! [`Aws`] knows how AWS is reached and takes roles; a [`Session`] is one account and region seen through a chain of them. What an
//! error of AWS means is said in one place, `error`, how often it is called in another, `budget`, and how large an answer may be in another, `ceiling`. The room knows
//! ports and words of the domain, and nothing of the daemon's state or of the embedded engine. Start reading at `session`.
//! `docs/guides/aws.md` says what is proved against emulators and what is not.

mod budget;
pub mod calls;
mod ceiling;
mod error;
mod examine;
mod keys;
mod objects;
mod probe;
mod queue;
mod roles;
mod session;
mod stacks;
mod versions;

pub use budget::{Budget, Budgets};
pub use examine::{BucketFacts, Caller, KeyFacts, SigningFacts};
pub use keys::KmsKeys;
pub use objects::{Bucket, S3Objects};
pub use probe::StackFacts;
pub use queue::{QueueFacts, SqsQueue};
pub use roles::IamRoles;
pub use session::{Aws, Errand, Reach, Role, Session};
pub use stacks::{Place, Stacks};
pub use versions::AwsVersions;
