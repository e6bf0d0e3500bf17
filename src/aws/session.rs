//! How AWS is reached, and one account and region of it seen through a chain of roles.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::{TimeoutConfig, TimeoutConfigBuilder};
use aws_config::{BehaviorVersion, ConfigLoader, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_s3::config::IdentityCache;

use super::ceiling::{ANSWER, Ceiling};
use crate::domain::model::{AccountId, Region};
use crate::port::Error;

const CONNECT: Duration = Duration::from_secs(5);
/// From the request to the beginning of its answer; then a call is given up, and its effect is unknown.
const READ: Duration = Duration::from_secs(30);
/// One attempt of a call with a short answer.
pub(super) const ATTEMPT: Duration = Duration::from_secs(60);
/// The shortest life of a role's credentials; they are renewed before they end.
const LIFE: Duration = Duration::from_secs(3600);
/// An object and what surrounds it.
const OBJECT: usize = (256 << 20) + ANSWER;

/// Written down, so that an update of the SDK changes no behaviour by itself.
fn version() -> BehaviorVersion {
    BehaviorVersion::v2026_01_12()
}

/// The region of the daemon's own credentials; every session names its own. The machine's metadata service is not asked: most
/// machines have none, and asking takes seconds.
fn own_region(reach: &Reach) -> RegionProviderChain {
    let home = reach.home.as_ref().map_or("us-east-1", Region::as_str);
    RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
        .or_else(ProfileFileRegionProvider::new())
        .or_else(aws_config::Region::new(home.to_owned()))
}

fn timeouts(reach: &Reach) -> TimeoutConfigBuilder {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .read_timeout(reach.patience.unwrap_or(READ))
}

/// How AWS is reached, for a whole installation.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// Another endpoint for every service: a closed network's, or an emulator's.
    pub endpoint: Option<String>,
    /// Where STS and SSO are asked for the daemon's own credentials, unless environment or profile name a region: a web
    /// identity of one partition is worth nothing in another.
    pub home: Option<Region>,
    /// Endpoints with validated cryptography.
    pub fips: bool,
    /// Endpoints that speak IPv6 too.
    pub dual_stack: bool,
    /// The name of sessions, in CloudTrail beside every call.
    pub session: String,
    /// Tags of sessions: trust policies can ask for them.
    pub tags: BTreeMap<String, String>,
    /// For how long the answer to a call with a short question may not begin; 30 s where nothing is said.
    pub patience: Option<Duration>,
}

/// A role that is taken, with what its trust policy asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Its ARN.
    pub arn: String,
    /// The external id.
    pub external_id: Option<String>,
}

/// How a role is taken for one piece of work: what CloudTrail shows beside every call, and how far its rights reach.
#[derive(Clone, Debug, Default)]
pub struct Errand {
    /// The session's name.
    pub session: String,
    /// Tags beside those of every session.
    pub tags: BTreeMap<String, String>,
    /// What stays with every session that is taken from this one.
    pub source_identity: Option<String>,
    /// A policy that narrows the role's rights.
    pub policy: Option<String>,
}

/// Takes a role for an errand. The SDK's own provider knows no source identity.
#[derive(Debug)]
struct Taking {
    client: aws_sdk_sts::Client,
    role: Role,
    errand: Errand,
}

impl Taking {
    async fn take(&self) -> Result<Credentials, CredentialsError> {
        let tags = self.errand.tags.iter().map(|(key, value)| {
            let tag = aws_sdk_sts::types::Tag::builder().key(key).value(value);
            tag.build().map_err(CredentialsError::invalid_configuration)
        });
        let tags: Vec<_> = tags.collect::<Result<_, _>>()?;
        let answer = self
            .client
            .assume_role()
            .role_arn(&self.role.arn)
            .role_session_name(&self.errand.session)
            .duration_seconds(i32::try_from(LIFE.as_secs()).unwrap_or(3600))
            .set_external_id(self.role.external_id.clone())
            .set_tags((!tags.is_empty()).then_some(tags))
            .set_source_identity(self.errand.source_identity.clone())
            .set_policy(self.errand.policy.clone())
            .send()
            .await
            .map_err(CredentialsError::provider_error)?;
        let given = answer
            .credentials()
            .ok_or_else(|| CredentialsError::unhandled("STS gave no credentials"))?;
        let ends = SystemTime::try_from(*given.expiration())
            .map_err(|_| CredentialsError::unhandled("STS gave credentials without an end"))?;
        Ok(Credentials::new(
            given.access_key_id(),
            given.secret_access_key(),
            Some(given.session_token().to_owned()),
            Some(ends),
            "isoform",
        ))
    }
}

impl ProvideCredentials for Taking {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.take())
    }
}

/// AWS, as the daemon's own credentials see it.
pub struct Aws {
    base: SdkConfig,
    reach: Reach,
}

impl Aws {
    /// Takes credentials from the usual chain: environment, profile, web identity, container, instance.
    ///
    /// Nothing is called before the first call needs credentials. A proxy and a set of trusted certificates come from the
    /// environment.
    pub async fn connect(reach: Reach) -> Self {
        Self::by(aws_config::defaults(version()), reach).await
    }

    /// The same with a loader that somebody prepared, for credentials from elsewhere.
    pub async fn by(loader: ConfigLoader, reach: Reach) -> Self {
        let timeouts = timeouts(&reach).build();
        let mut loader = loader
            .behavior_version(version())
            .region(own_region(&reach))
            .retry_config(RetryConfig::standard().with_max_attempts(3))
            .timeout_config(timeouts);
        // What the environment says stands, unless the configuration says more.
        if reach.fips {
            loader = loader.use_fips(true);
        }
        if reach.dual_stack {
            loader = loader.use_dual_stack(true);
        }
        if let Some(endpoint) = &reach.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        Self {
            base: loader.load().await,
            reach,
        }
    }

    /// Opens a region through roles, the first taken with the daemon's own credentials.
    pub async fn session(&self, region: &Region, roles: &[Role]) -> Session {
        let name = aws_config::Region::new(region.as_str().to_owned());
        let mut config = self.base.to_builder().region(name).build();
        for role in roles {
            let mut builder = AssumeRoleProvider::builder(&role.arn)
                .session_name(&self.reach.session)
                .session_length(LIFE)
                .configure(&config);
            if !self.reach.tags.is_empty() {
                builder = builder.tags(self.reach.tags.clone());
            }
            if let Some(id) = &role.external_id {
                builder = builder.external_id(id);
            }
            let taken = builder.build().await;
            config = config
                .to_builder()
                .credentials_provider(SharedCredentialsProvider::new(taken))
                .identity_cache(IdentityCache::lazy().build())
                .build();
        }
        Session {
            config,
            region: region.clone(),
        }
    }
}

/// One region with the rights of the last role.
#[derive(Clone)]
pub struct Session {
    config: SdkConfig,
    region: Region,
}

impl Session {
    /// Returns the region.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Takes one more role, for one errand. Nothing is called before a call needs it.
    pub fn take(&self, role: &Role, errand: Errand) -> Self {
        let taking = Taking {
            client: self.tokens(),
            role: role.clone(),
            errand,
        };
        let config = self
            .config
            .to_builder()
            .credentials_provider(SharedCredentialsProvider::new(taking))
            .identity_cache(IdentityCache::lazy().build())
            .build();
        Self {
            config,
            region: self.region.clone(),
        }
    }

    /// Returns what clients are made of, for whom the ports are not enough.
    pub fn config(&self) -> &SdkConfig {
        &self.config
    }

    /// What was said of the whole installation, and an end of every attempt.
    fn timeouts(&self) -> TimeoutConfig {
        let known = self.config.timeout_config().cloned();
        known
            .map_or_else(TimeoutConfig::builder, |t| t.to_builder())
            .operation_attempt_timeout(ATTEMPT)
            .build()
    }

    /// CloudFormation. Whoever counts every try has nothing tried again by the SDK.
    pub(super) fn stacks(&self, counted: bool) -> aws_sdk_cloudformation::Client {
        let mut config = aws_sdk_cloudformation::config::Builder::from(&self.config)
            .timeout_config(self.timeouts())
            .interceptor(Ceiling(ANSWER));
        if counted {
            config = config.retry_config(RetryConfig::disabled());
        }
        aws_sdk_cloudformation::Client::from_conf(config.build())
    }

    pub(super) fn keys(&self) -> aws_sdk_kms::Client {
        let config = aws_sdk_kms::config::Builder::from(&self.config)
            .timeout_config(self.timeouts())
            .interceptor(Ceiling(ANSWER));
        aws_sdk_kms::Client::from_conf(config.build())
    }

    /// S3. Under another endpoint the bucket stands in the path: such a name has no wildcard in DNS.
    pub(super) fn objects(&self) -> aws_sdk_s3::Client {
        let config = aws_sdk_s3::config::Builder::from(&self.config)
            .force_path_style(self.config.endpoint_url().is_some())
            .interceptor(Ceiling(OBJECT));
        aws_sdk_s3::Client::from_conf(config.build())
    }

    pub(super) fn parameters(&self) -> aws_sdk_ssm::Client {
        let config = aws_sdk_ssm::config::Builder::from(&self.config)
            .timeout_config(self.timeouts())
            .interceptor(Ceiling(ANSWER));
        aws_sdk_ssm::Client::from_conf(config.build())
    }

    pub(super) fn secrets(&self) -> aws_sdk_secretsmanager::Client {
        let config = aws_sdk_secretsmanager::config::Builder::from(&self.config)
            .timeout_config(self.timeouts())
            .interceptor(Ceiling(ANSWER));
        aws_sdk_secretsmanager::Client::from_conf(config.build())
    }

    /// IAM, which stands once in a partition, whatever the region.
    pub(super) fn roles(&self) -> aws_sdk_iam::Client {
        let config = aws_sdk_iam::config::Builder::from(&self.config)
            .timeout_config(self.timeouts())
            .interceptor(Ceiling(ANSWER));
        aws_sdk_iam::Client::from_conf(config.build())
    }

    pub(super) fn tokens(&self) -> aws_sdk_sts::Client {
        let config = aws_sdk_sts::config::Builder::from(&self.config)
            .timeout_config(self.timeouts())
            .interceptor(Ceiling(ANSWER));
        aws_sdk_sts::Client::from_conf(config.build())
    }

    /// Makes sure that the credentials are of the account that a placement names.
    pub(super) async fn is_of(&self, account: &AccountId) -> Result<(), Error> {
        let (found, caller) = self.identity().await?;
        if found == *account {
            return Ok(());
        }
        Err(Error::Denied(format!(
            "the credentials are of the account {found} ({caller}), the placement is in {account}"
        )))
    }

    /// Returns whose credentials these are: the account, and the ARN of the user or role.
    pub async fn identity(&self) -> Result<(AccountId, String), Error> {
        let caller = self.caller().await?;
        Ok((caller.account, caller.arn))
    }
}
