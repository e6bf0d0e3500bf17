//! The session of one deployment: what it is called, what it carries, and how far its rights reach.

use serde_json::json;

use crate::aws::Errand;
use crate::config;
use crate::domain::model::{AccountId, Region};
use crate::port::Purpose;

/// How long a session's name and a source identity are at most:
/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>
const NAME: usize = 64;

/// Writes what STS is told of a deployment.
pub(super) fn errand(
    aws: &config::Aws,
    account: &AccountId,
    region: &Region,
    by_service_role: bool,
    purpose: &Purpose,
) -> Errand {
    let deployments = aws.deployments;
    let mut tags = aws.session_tags.clone();
    if deployments.tags {
        tags.insert("isoform:target".into(), purpose.target.to_string());
        tags.insert("isoform:commit".into(), purpose.revision.to_string());
    }
    // The commit stands first: a long address is cut.
    let work = plain(&format!("{}.{}", purpose.revision.short(), purpose.target));
    let narrow = || policy(account, region, by_service_role, purpose);
    Errand {
        session: cut(&format!("{}.{work}", aws.session)),
        tags,
        source_identity: deployments.source_identity.then(|| cut(&work)),
        policy: deployments.narrow.then(narrow),
    }
}

/// Writes a text in the letters that STS takes.
fn plain(text: &str) -> String {
    let fits = |c: char| match c {
        '/' => '.',
        c if c.is_ascii_alphanumeric() || "_=,.@-".contains(c) => c,
        _ => '-',
    };
    text.chars().map(fits).collect()
}

fn cut(text: &str) -> String {
    text.chars().take(NAME).collect()
}

/// The rights of a role are met with this one: of CloudFormation, only what concerns the stack. What else the role may do, reading
/// templates and passing the service role, stays as it is.
fn policy(
    account: &AccountId,
    region: &Region,
    by_service_role: bool,
    purpose: &Purpose,
) -> String {
    let (partition, _) = region.partition();
    let head = format!("arn:{partition}:cloudformation:{region}:{account}");
    let stack = &purpose.stack;
    let mut resources = vec![
        format!("{head}:stack/{stack}/*"),
        // The ARN of a change set does not name its stack, and nobody else makes change sets of these names.
        format!("{head}:changeSet/if-*"),
    ];
    if !by_service_role {
        // Nested stacks are made with the caller's rights then, under names that begin with that of the stack.
        resources.push(format!("{head}:stack/{stack}-*/*"));
    }
    json!({
        "Version": "2012-10-17",
        "Statement": [
            { "Effect": "Allow", "Action": "cloudformation:*", "Resource": resources },
            // They name no stack: one a template, the other, which everybody who watches here shares, nothing at all.
            { "Effect": "Allow", "Action": ["cloudformation:GetTemplateSummary", "cloudformation:ListStacks"], "Resource": "*" },
            // A template with a transform asks for it by an ARN of its own.
            { "Effect": "Allow", "Action": "cloudformation:CreateChangeSet", "Resource": format!("arn:{partition}:cloudformation:{region}:aws:transform/*") },
            { "Effect": "Allow", "NotAction": "cloudformation:*", "Resource": "*" },
        ],
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Deployments, raw};

    const FILE: &str = r#"
isoform: 1
aws: { session_tags: { team: platform } }
accounts: { prod: { id: "333333333333", roles: { apply: act } } }
placements: { prod: { account: prod, regions: [us-east-1], mode: auto } }
sources: { p: { url: /srv/p.git, may: { services: ["*"], placements: [prod] } } }
bundle_stores: { us: { url: "s3://acme-us", owner: "333333333333", region: us-east-1, encryption: sse-s3 } }
state: { path: state, key: "file:root.key" }
"#;

    fn of(deployments: Deployments, target: &str, by_service_role: bool) -> Errand {
        let file: raw::File = serde_yaml::from_str(FILE).unwrap();
        let config = Config::resolve(&file, std::path::Path::new("/x")).unwrap();
        let aws = config::Aws {
            deployments,
            ..config.aws.unwrap()
        };
        let purpose = Purpose {
            target: target.parse().unwrap(),
            stack: "orders-prod".parse().unwrap(),
            revision: "9f3c1e2".repeat(6)[..40].parse().unwrap(),
        };
        let (account, region) = (
            "333333333333".parse().unwrap(),
            "us-east-1".parse().unwrap(),
        );
        errand(&aws, &account, &region, by_service_role, &purpose)
    }

    #[test]
    fn a_session_carries_target_and_commit_only_as_it_is_configured() {
        let all = Deployments {
            tags: true,
            source_identity: true,
            narrow: true,
        };

        let nothing = of(Deployments::default(), "svc/orders/prod", true);
        let everything = of(all, "svc/orders/prod@us-east-1", true);

        assert_eq!(nothing.tags.len(), 1);
        assert_eq!((nothing.source_identity, nothing.policy), (None, None));
        assert_eq!(
            everything.session,
            "isoform.9f3c1e2.svc.orders.prod@us-east-1"
        );
        assert_eq!(
            everything.source_identity.as_deref(),
            Some("9f3c1e2.svc.orders.prod@us-east-1")
        );
        assert_eq!(
            everything.tags["isoform:target"],
            "svc/orders/prod@us-east-1"
        );
        assert_eq!(everything.tags["isoform:commit"].len(), 40);
        assert_eq!(everything.tags["team"], "platform");
    }

    #[test]
    fn what_is_too_long_for_sts_is_cut_behind_the_commit() {
        let all = Deployments {
            source_identity: true,
            ..Deployments::default()
        };
        let long = format!("svc/{}/prod", "o".repeat(90));

        let errand = of(all, &long, true);

        let identity = errand.source_identity.unwrap();
        assert_eq!((identity.len(), errand.session.len()), (64, 64));
        assert!(identity.starts_with("9f3c1e2.svc.ooo"));
    }

    #[test]
    fn a_narrowed_session_reaches_one_stack() {
        let narrow = Deployments {
            narrow: true,
            ..Deployments::default()
        };
        for (by_service_role, nested) in [(true, false), (false, true)] {
            let policy = of(narrow, "svc/orders/prod", by_service_role)
                .policy
                .unwrap();

            let head = "arn:aws:cloudformation:us-east-1:333333333333";
            assert!(policy.contains(&format!("{head}:stack/orders-prod/*")));
            assert_eq!(policy.contains("stack/orders-prod-*/*"), nested);
            assert!(!policy.contains("stack/*"), "{policy}");
            assert!(policy.len() < 2048, "STS takes no more");
        }
    }

    #[test]
    fn a_narrowed_session_does_everything_that_one_deployment_calls() {
        let narrow = Deployments {
            narrow: true,
            ..Deployments::default()
        };
        let policy = of(narrow, "svc/orders/prod", true).policy.unwrap();
        let policy: serde_json::Value = serde_json::from_str(&policy).unwrap();
        let head = "arn:aws:cloudformation:us-east-1:333333333333";
        let fits = |pattern: &str, what: &str| match pattern.strip_suffix('*') {
            Some(begin) => what.starts_with(begin),
            None => pattern == what,
        };
        let all = |value: &serde_json::Value| -> Vec<String> {
            let all = value
                .as_array()
                .map_or(std::slice::from_ref(value), Vec::as_slice);
            all.iter()
                .filter_map(|v| v.as_str())
                .map(str::to_owned)
                .collect()
        };
        let may = |action: &str, resource: &str| {
            let statements = policy["Statement"].as_array().unwrap().iter();
            statements.filter(|s| s["Effect"] == "Allow").any(|s| {
                all(&s["Action"]).iter().any(|a| fits(a, action))
                    && all(&s["Resource"]).iter().any(|r| fits(r, resource))
            })
        };
        let stack = format!("{head}:stack/orders-prod/0b1c");
        let change_set = format!("{head}:changeSet/if-1/0b1c");
        let transform = "arn:aws:cloudformation:us-east-1:aws:transform/Serverless-2016-10-31";

        for call in crate::aws::calls::CALLS {
            let actions = call
                .actions
                .iter()
                .filter(|a| a.starts_with("cloudformation:"));
            for action in actions {
                let on: &[&str] = match *action {
                    // They name no stack.
                    "cloudformation:ListStacks" | "cloudformation:GetTemplateSummary" => &["*"],
                    // A template with a transform asks for the transform beside the stack.
                    "cloudformation:CreateChangeSet" => &[&stack, transform],
                    "cloudformation:DescribeChangeSet" | "cloudformation:DescribeEvents" => {
                        &[&stack, &change_set]
                    }
                    _ => &[&stack],
                };
                for on in on {
                    assert!(may(action, on), "{action} on {on}");
                }
            }
        }
        assert!(!may("cloudformation:ExecuteChangeSet", transform));
        assert!(!may(
            "cloudformation:DeleteStack",
            &format!("{head}:stack/other/0b1c")
        ));
    }
}
