//! `isoform iam`: what AWS must allow, from the configuration alone. Calls nothing.

use std::collections::BTreeSet;

use clap::Args;

use super::client::config_path;
use super::{DONE, Global, show, usage};
use crate::config::{self, Config};
use crate::domain::iam::{DAEMON, Place, Queue, Setup, Store, Taken, documents, template};
use crate::domain::model::AccountId;
use crate::domain::policy::Mode;

#[derive(Args)]
pub(crate) struct IamArgs {
    /// Only what looking needs, whatever the placements may do.
    #[arg(long, value_parser = ["observe"])]
    mode: Option<String>,
    /// Who the daemon itself is: the ARN of its role or user.
    #[arg(long, value_name = "ARN")]
    principal: Option<String>,
    /// Print a CloudFormation template with the roles and bucket policies of this account, a name or an id, instead.
    #[arg(long, value_name = "ACCOUNT")]
    template: Option<String>,
}

/// `isoform iam`
pub(crate) fn iam(global: &Global, args: &IamArgs) -> anyhow::Result<u8> {
    let path = config_path(global);
    let config = Config::load(&path)?;
    let Some(aws) = &config.aws else {
        return Err(usage(format!(
            "{} names the embedded engine, which knows no roles: there is nothing to allow. Take `local` away and name accounts, placements and s3:// bundle stores",
            path.display()
        )));
    };
    if let Some(arn) = &args.principal {
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let good = matches!(parts.as_slice(), ["arn", _, "iam", "", account, name]
            if account.len() == 12 && (name.starts_with("role/") || name.starts_with("user/")));
        if !good {
            return Err(usage(format!(
                "--principal: `{arn}` is not arn:<partition>:iam::<account>:role/<name> or :user/<name>"
            )));
        }
    }
    let mut setup = setup(&config, aws);
    setup.daemon.clone_from(&args.principal);
    setup.observe = args.mode.is_some();
    let documents = documents(&setup);
    let Some(account) = &args.template else {
        show::json(&documents.as_json())?;
        if setup.daemon.is_none() {
            anstream::eprintln!(
                "{DAEMON} stands for what the daemon runs as; --principal <arn> names it"
            );
        }
        return Ok(DONE);
    };
    let account = &account_of(account, &config, &documents.accounts())?;
    let home = aws.stores[&aws.home].region.as_str();
    let template = template(&documents, account, home);
    anstream::println!("{}", serde_json::to_string_pretty(&template)?);
    Ok(DONE)
}

/// Returns the id of an account that is given by its id, or by its name in the configuration.
fn account_of(given: &str, config: &Config, here: &BTreeSet<String>) -> anyhow::Result<String> {
    if here.contains(given) {
        return Ok(given.to_owned());
    }
    let named = config.accounts.get(given).map(AccountId::as_str);
    if let Some(id) = named.filter(|id| here.contains(*id)) {
        return Ok(id.to_owned());
    }
    let shown = here.iter().map(|id| {
        let mut names = config.accounts.iter().filter(|(_, a)| a.as_str() == id);
        let name = names.next().map(|(name, _)| name);
        name.map_or_else(|| id.clone(), |name| format!("{name} ({id})"))
    });
    let shown: Vec<String> = shown.collect();
    Err(usage(format!(
        "--template: the configuration has nothing in the account `{given}`; it has {}",
        shown.join(", ")
    )))
}

fn taken(hop: &config::Hop) -> Taken {
    Taken {
        arn: hop.arn.clone(),
        external_id: hop.external_id.clone(),
    }
}

fn store_of(store: &config::S3Store, seals: bool) -> Store {
    Store {
        bucket: store.bucket.clone(),
        prefix: store.prefix.clone(),
        owner: store.owner.clone(),
        region: store.region.clone(),
        key: store.key.clone(),
        former_keys: store.former_keys.clone(),
        seals,
        role: store.role.as_ref().map(taken),
        locks: store.lock.is_some(),
    }
}

fn setup(config: &Config, aws: &config::Aws) -> Setup {
    let places = config.placements.values().map(|placement| {
        let hands = aws.hands.get(&placement.name).cloned().unwrap_or_default();
        let regions = placement.regions.iter().filter_map(|region| {
            let key = (placement.name.clone(), region.clone());
            Some((region.clone(), aws.serves.get(&key)?.clone()))
        });
        Place {
            account: placement.account.clone(),
            regions: regions.collect(),
            preview: hands.preview.as_ref().map(taken),
            apply: hands.apply.as_ref().map(taken),
            cloudformation: hands.cloudformation,
            acts: placement.mode != Mode::Observe,
            pins: placement.pin_references,
        }
    });
    let stores = aws.stores.iter().map(|(name, store)| {
        // Only what lies in the home store is sealed.
        let seals = *name == aws.home && store.encryption == config::Encryption::ClientKms;
        (name.clone(), store_of(store, seals))
    });
    let shelves = config.shelves.iter().filter_map(|(name, shelf)| {
        let config::ShelfPlace::S3(bucket) = &shelf.place else {
            return None;
        };
        Some((name.to_string(), store_of(bucket, false)))
    });
    Setup {
        shelves: shelves.collect(),
        daemon: None,
        chain: aws.chain.iter().map(taken).collect(),
        tags: aws.session_tags.clone(),
        deployment_tags: aws.deployments.tags,
        source_identity: aws.deployments.source_identity,
        places: places.collect(),
        stores: stores.collect(),
        root: match &config.root {
            config::Root::Kms(root) => Some((root.key.clone(), root.role.as_ref().map(taken))),
            config::Root::File(_) => None,
        },
        signing: match &config.signing {
            Some(config::Signing::Kms(key)) => {
                Some((key.key.clone(), key.role.as_ref().map(taken)))
            }
            Some(config::Signing::Local(_)) | None => None,
        },
        queues: aws
            .queues
            .iter()
            .map(|queue| Queue {
                arn: queue.arn(),
                region: queue.region.clone(),
                role: queue.role.as_ref().map(taken),
            })
            .collect(),
        observe: false,
    }
}
