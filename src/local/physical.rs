//! Physical ids and attributes: made up, deterministic, and shaped like the real ones.

use serde_json::{Value, json};

use crate::domain::cfn::resource_type;
use crate::domain::model::sha256_hex;

/// Where a resource is.
pub(super) struct Home<'a> {
    pub account: &'a str,
    pub region: &'a str,
    pub stack: &'a str,
}

/// Returns the name that a template gives a resource: its identifier, where all parts of it are properties.
pub(super) fn own_name(kind: &str, properties: &Value) -> Option<String> {
    let parts: Option<Vec<&str>> = resource_type(kind)?
        .identifier()
        .map(|name| properties.get(name).and_then(Value::as_str))
        .collect();
    parts.filter(|p| !p.is_empty()).map(|p| p.join("|"))
}

/// Makes a physical id. `turn` differs for each replacement.
pub(super) fn physical_id(
    home: &Home<'_>,
    logical: &str,
    kind: &str,
    properties: &Value,
    turn: u64,
) -> String {
    let hash = sha256_hex(
        format!(
            "{}|{}|{}|{logical}|{turn}",
            home.account, home.region, home.stack
        )
        .as_bytes(),
    );
    if let Some(name) = own_name(kind, properties) {
        return name;
    }
    let service = kind.split("::").nth(1).unwrap_or_default();
    let name = kind.rsplit("::").next().unwrap_or_default();
    let prefixed = |prefix: &str| format!("{prefix}-{}", &hash[..17]);
    match (service, name) {
        ("EC2", "VPC") => prefixed("vpc"),
        ("EC2", "Subnet") => prefixed("subnet"),
        ("EC2", "SecurityGroup") => prefixed("sg"),
        ("EC2", "RouteTable") => prefixed("rtb"),
        ("EC2", "InternetGateway") => prefixed("igw"),
        ("EC2", "NatGateway") => prefixed("nat"),
        ("EC2", "EIP") => format!(
            "203.0.113.{}",
            u8::from_str_radix(&hash[..2], 16).unwrap_or_default()
        ),
        ("KMS", "Key") => format!(
            "{}-{}-{}-{}-{}",
            &hash[..8],
            &hash[8..12],
            &hash[12..16],
            &hash[16..20],
            &hash[20..32]
        ),
        ("S3", _) => format!("{}-{}-{}", home.stack, logical, &hash[..12])
            .to_lowercase()
            .chars()
            .take(63)
            .collect(),
        ("SNS", "Topic") => arn(
            home,
            "sns",
            &format!("{}-{logical}-{}", home.stack, hash[..12].to_uppercase()),
        ),
        ("ElasticLoadBalancingV2", _) => arn(
            home,
            "elasticloadbalancing",
            &format!(
                "{}/{}/{}",
                name.to_lowercase(),
                short(home.stack, logical),
                &hash[..16]
            ),
        ),
        ("IAM", "ManagedPolicy") => format!(
            "arn:aws:iam::{}:policy/{}-{logical}-{}",
            home.account,
            home.stack,
            hash[..12].to_uppercase()
        ),
        ("ECS", "Service" | "TaskDefinition") => arn(
            home,
            "ecs",
            &format!(
                "{}/{}-{}",
                name.to_lowercase(),
                short(home.stack, logical),
                &hash[..8]
            ),
        ),
        ("SQS", "Queue") => format!(
            "https://sqs.{}.amazonaws.com/{}/{}-{}",
            home.region,
            home.account,
            short(home.stack, logical),
            &hash[..8]
        ),
        _ => format!("{}-{logical}-{}", home.stack, hash[..12].to_uppercase()),
    }
}

fn short(stack: &str, logical: &str) -> String {
    format!("{}-{logical}", stack.chars().take(40).collect::<String>())
}

fn arn(home: &Home<'_>, service: &str, rest: &str) -> String {
    format!("arn:aws:{service}:{}:{}:{rest}", home.region, home.account)
}

/// Makes an attribute of a resource, or `None` where the published schema has no such attribute.
pub(super) fn attribute(
    home: &Home<'_>,
    kind: &str,
    physical: &str,
    properties: &Value,
    name: &str,
) -> Option<Value> {
    if resource_type(kind).is_some_and(|facts| !facts.has_attribute(name)) {
        return None;
    }
    let service = kind.split("::").nth(1).unwrap_or_default().to_lowercase();
    let resource = kind.rsplit("::").next().unwrap_or_default().to_lowercase();
    let hash = sha256_hex(format!("{physical}|{name}").as_bytes());
    if let Some(own) = properties.get(name).filter(|v| v.is_string()) {
        return Some(own.clone());
    }
    let value = match name {
        "Arn" if physical.starts_with("arn:") => physical.to_owned(),
        "Arn" if service == "s3" => format!("arn:aws:s3:::{physical}"),
        "Arn" if service == "iam" => format!("arn:aws:iam::{}:{resource}/{physical}", home.account),
        _ if name.ends_with("Arn") || name.ends_with("ARN") => {
            arn(home, &service, &format!("{resource}/{physical}"))
        }
        "GroupId" => physical.to_owned(),
        "AllocationId" => format!("eipalloc-{}", &hash[..17]),
        "DNSName" => format!("{}.{}.elb.amazonaws.com", &hash[..12], home.region),
        "Endpoint.Address" => format!(
            "{}.{}.{}.amazonaws.com",
            physical.to_lowercase(),
            &hash[..12],
            home.region
        ),
        "Endpoint.Port" => "5432".to_owned(),
        "DomainName" => format!("{physical}.{service}.amazonaws.com"),
        "QueueName" | "TopicName" | "Name" => physical
            .rsplit([':', '/'])
            .next()
            .unwrap_or(physical)
            .to_owned(),
        _ => format!("{physical}-{}", name.replace('.', "-")),
    };
    Some(json!(value))
}
