//! Every call that the adapters make, and what its caller must be allowed for it.
//!
//! `isoform iam` writes policies from a list of its own, in `domain/iam`; `tests/contract/permissions.rs` holds the two
//! against each other and this one against the sources. Names of actions:
//! <https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html>

/// A call of an adapter.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Its name in the API.
    pub name: &'static str,
    /// What the caller must be allowed.
    pub actions: &'static [&'static str],
    /// The method of a port that the line would call, where nothing calls it yet: nobody is given what nobody uses.
    pub spare: Option<&'static str>,
}

const fn used(name: &'static str, actions: &'static [&'static str]) -> Call {
    Call {
        name,
        actions,
        spare: None,
    }
}

const fn spare(name: &'static str, method: &'static str, actions: &'static [&'static str]) -> Call {
    Call {
        name,
        actions,
        spare: Some(method),
    }
}

/// All of them.
pub const CALLS: &[Call] = &[
    used(
        "AssumeRole",
        &["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"],
    ),
    // Nobody can be refused it.
    used("GetCallerIdentity", &[]),
    used("ListStacks", &["cloudformation:ListStacks"]),
    used("DescribeStacks", &["cloudformation:DescribeStacks"]),
    used(
        "DescribeStackEvents",
        &["cloudformation:DescribeStackEvents"],
    ),
    used("DescribeEvents", &["cloudformation:DescribeEvents"]),
    used("DescribeChangeSet", &["cloudformation:DescribeChangeSet"]),
    used("ListChangeSets", &["cloudformation:ListChangeSets"]),
    used("GetTemplate", &["cloudformation:GetTemplate"]),
    used("GetStackPolicy", &["cloudformation:GetStackPolicy"]),
    // The template is read with the caller's rights, and the service role is passed.
    used(
        "CreateChangeSet",
        &[
            "cloudformation:CreateChangeSet",
            "iam:PassRole",
            "kms:Decrypt",
            "s3:GetObject",
            "s3:GetObjectVersion",
        ],
    ),
    used("DeleteChangeSet", &["cloudformation:DeleteChangeSet"]),
    used("ExecuteChangeSet", &["cloudformation:ExecuteChangeSet"]),
    used("DeleteStack", &["cloudformation:DeleteStack"]),
    used("SetStackPolicy", &["cloudformation:SetStackPolicy"]),
    used(
        "UpdateTerminationProtection",
        &["cloudformation:UpdateTerminationProtection"],
    ),
    used(
        "GetTemplateSummary",
        &[
            "cloudformation:GetTemplateSummary",
            "kms:Decrypt",
            "s3:GetObject",
            "s3:GetObjectVersion",
        ],
    ),
    // Whether a role is there and lets CloudFormation take it, where a stack is taken over; and `isoform doctor`.
    used("GetRole", &["iam:GetRole"]),
    used("CancelUpdateStack", &["cloudformation:CancelUpdateStack"]),
    used(
        "ContinueUpdateRollback",
        &["cloudformation:ContinueUpdateRollback"],
    ),
    used("RollbackStack", &["cloudformation:RollbackStack"]),
    used("DetectStackDrift", &["cloudformation:DetectStackDrift"]),
    used(
        "DescribeStackDriftDetectionStatus",
        &["cloudformation:DescribeStackDriftDetectionStatus"],
    ),
    used(
        "DescribeStackResourceDrifts",
        &["cloudformation:DescribeStackResourceDrifts"],
    ),
    // The last two where the log is kept by Object Lock.
    used(
        "PutObject",
        &[
            "s3:PutObject",
            "kms:GenerateDataKey",
            "s3:PutObjectRetention",
            "s3:PutObjectLegalHold",
        ],
    ),
    used("GetObject", &["s3:GetObject", "kms:Decrypt"]),
    used("HeadObject", &["s3:GetObject"]),
    // Without it a missing object is answered with 403.
    used("HeadBucket", &["s3:ListBucket"]),
    used("ListObjectsV2", &["s3:ListBucket"]),
    used(
        "DeleteObject",
        &["s3:DeleteObject", "s3:DeleteObjectVersion"],
    ),
    used("GenerateDataKey", &["kms:GenerateDataKey"]),
    used("Decrypt", &["kms:Decrypt"]),
    // Where a placement pins references.
    used("GetParameters", &["ssm:GetParameters"]),
    used("DescribeSecret", &["secretsmanager:DescribeSecret"]),
    used("ReceiveMessage", &["sqs:ReceiveMessage"]),
    used("DeleteMessageBatch", &["sqs:DeleteMessage"]),
    // `isoform doctor` looks with the hands of the daemon.
    used("GetQueueAttributes", &["sqs:GetQueueAttributes"]),
    spare(
        "ReEncrypt",
        "rewrap",
        &["kms:ReEncryptFrom", "kms:ReEncryptTo"],
    ),
    // `isoform doctor` looks at the key that signs with the hands that sign.
    used("DescribeKey", &["kms:DescribeKey"]),
    used("GetPublicKey", &["kms:GetPublicKey"]),
    used("Sign", &["kms:Sign"]),
    // What `isoform doctor` looks at beyond the line: whoever runs it may have rights of their own.
    spare("GetBucketVersioning", "doctor", &["s3:GetBucketVersioning"]),
    spare(
        "GetPublicAccessBlock",
        "doctor",
        &["s3:GetBucketPublicAccessBlock"],
    ),
    spare(
        "GetBucketEncryption",
        "doctor",
        &["s3:GetEncryptionConfiguration"],
    ),
    spare(
        "GetObjectLockConfiguration",
        "doctor",
        &["s3:GetBucketObjectLockConfiguration"],
    ),
    spare("GetBucketPolicy", "doctor", &["s3:GetBucketPolicy"]),
    spare(
        "GetKeyRotationStatus",
        "doctor",
        &["kms:GetKeyRotationStatus"],
    ),
];
