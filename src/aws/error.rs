//! What an error of AWS means in the words of the ports. The only place that knows codes of errors.
//!
//! A code decides, never a text. Two rules stand above the table: whatever may have had its effect is `Unavailable`, so that
//! the line asks before it repeats; and what is unknown is never "not there".

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sts::config::http::HttpResponse;
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_smithy_http::endpoint::error::{InvalidEndpointError, ResolveEndpointError};

use super::ceiling::is_too_large;
use crate::port::Error;

/// A longer text of a service is cut.
const TEXT: usize = 2000;

/// Gives an error of a call its meaning; `what` names the thing that the call was about.
pub(super) fn of<E>(call: &str, what: &str, error: SdkError<E, HttpResponse>) -> Error
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    meaning(call, what, &error)
}

/// Tells whether a call was refused because there were too many.
pub(super) fn is_throttle<E>(error: &SdkError<E, HttpResponse>) -> bool
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    meaning("", "", error) == Error::Throttled
}

/// Tells whether a read that failed so is worth another try at once.
pub(super) fn passes<E>(error: &SdkError<E, HttpResponse>) -> bool
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    // Whoever gives credentials has tried for itself.
    let given = match error {
        SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_) => {
            credentials("", error).is_none()
        }
        _ => true,
    };
    given && matches!(meaning("", "", error), Error::Unavailable(_))
}

fn meaning<E>(call: &str, what: &str, error: &SdkError<E, HttpResponse>) -> Error
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    match error {
        SdkError::TimeoutError(_) => Error::Unavailable(format!("{call}: no answer in time")),
        SdkError::ConstructionFailure(_) => {
            let why = credentials(call, error);
            why.unwrap_or_else(|| Error::Refused(format!("{call}: {}", chain(error))))
        }
        // Which endpoint is asked follows from the configuration and nothing else: it is as wrong the next time.
        SdkError::DispatchFailure(_) if causes(error).any(is_about_the_endpoint) => {
            let said = chain(error);
            Error::Refused(format!(
                "{call}: there is no endpoint to ask: {said}; correct the region, or `endpoint`, `fips` and `dual_stack` under `aws`"
            ))
        }
        SdkError::DispatchFailure(_) => {
            let why = credentials(call, error);
            why.unwrap_or_else(|| Error::Unavailable(format!("{call}: {}", chain(error))))
        }
        // More than any answer has is nobody's lost connection.
        SdkError::ResponseError(_) if causes(error).any(is_too_large) => {
            Error::Untrusted(format!("{call}: {}", chain(error)))
        }
        SdkError::ResponseError(context) => {
            let status = context.raw().status().as_u16();
            of_status(call, status, &chain(error))
        }
        SdkError::ServiceError(context) => {
            let status = context.raw().status().as_u16();
            let text = context.err().message().unwrap_or_default();
            of_code(call, what, context.err().code(), text, status)
        }
        _ => Error::Unavailable(format!("{call}: {}", chain(error))),
    }
}

/// Gives a code its meaning. S3 says `KMS.` before what KMS said to it.
fn of_code(call: &str, what: &str, code: Option<&str>, text: &str, status: u16) -> Error {
    let Some(code) = code else {
        return of_status(call, status, text);
    };
    let said = if text.is_empty() {
        format!("{call}: {code}")
    } else {
        format!("{call}: {code}: {}", cut(text))
    };
    match code.strip_prefix("KMS.").unwrap_or(code) {
        // S3 says the same code whether it was refused itself or was refused the key; only its text tells which.
        "AccessDenied" | "AccessDeniedException"
            if KEY_CALLS.contains(&call) || code.starts_with("KMS.") || text.contains(" kms:") =>
        {
            Error::KeyUnavailable(format!(
                "{said}; allow {}{}",
                key_action(call),
                of_key(what)
            ))
        }
        "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "BandwidthLimitExceeded"
        | "SlowDown"
        | "ProvisionedThroughputExceededException"
        | "TransactionInProgressException"
        | "PriorRequestNotComplete"
        | "EC2ThrottledException" => Error::Throttled,
        "AccessDenied"
        | "AccessDeniedException"
        | "UnauthorizedOperation"
        | "NotAuthorized"
        | "AuthFailure"
        | "OptInRequired"
        | "InvalidAccessKeyId"
        | "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "RegionDisabledException" => Error::Denied(said),
        "RequestTimeTooSkewed" | "RequestInTheFuture" => {
            Error::Denied(format!("{said}; set this machine's clock"))
        }
        // A role's credentials are renewed before they end by this machine's clock, so that waiting helps. Those of the
        // environment are renewed by nobody here; the text says what has expired.
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" | "TokenRefreshRequired" => {
            Error::Unavailable(said)
        }
        // Refused with 400, and only the way there was at fault. Sums are taken here before anything is sent.
        "RequestTimeout"
        | "RequestTimeoutException"
        | "IncompleteBody"
        | "BadDigest"
        | "XAmzContentSHA256Mismatch"
        | "IDPCommunicationError" => Error::Unavailable(said),
        // Keys: what comes back when somebody enables the key or cancels its deletion.
        "DisabledException" | "KMSInvalidStateException" => Error::KeyUnavailable(format!(
            "{said}; {} needs the key to be enabled{}",
            key_action(call),
            of_key(what)
        )),
        // What cannot be opened now and will not be later. A person must act.
        "InvalidCiphertextException"
        | "IncorrectKeyException"
        | "InvalidGrantTokenException"
        | "InvalidKeyUsageException"
        | "InvalidObjectState" => Error::Denied(said),
        "KeyUnavailableException" | "KMSInternalException" | "DependencyTimeoutException" => {
            Error::Unavailable(said)
        }
        // A bucket that is not there says nothing of its objects: it is no empty bucket.
        "NoSuchBucket" => Error::Refused(said),
        "NoSuchEntity"
        | "NoSuchKey"
        | "NoSuchVersion"
        | "ChangeSetNotFound"
        | "ChangeSetNotFoundException" => Error::NotFound(what.to_owned()),
        "NotFoundException" => Error::KeyUnavailable(format!(
            "{said}; the key{} may have been deleted",
            of_key(what)
        )),
        "PreconditionFailed" | "AlreadyExistsException" => Error::Exists(what.to_owned()),
        "ConditionalRequestConflict" | "OperationAborted" | "OperationInProgressException" => {
            Error::Busy(said)
        }
        // Of the key service it is about keys, of which none is made here.
        "LimitExceededException" => Error::TooMany(said),
        "TokenAlreadyExistsException" => Error::AlreadyAccepted,
        "InsufficientCapabilitiesException" => Error::Incapable(said),
        // It always comes with a text, and says by it whether a stack is there: without one it was garbled on the way.
        "ValidationError" if text.is_empty() => Error::Unavailable(said),
        "InternalFailure"
        | "InternalError"
        | "InternalServiceException"
        | "ServiceUnavailable"
        | "ServiceFailure" => Error::Unavailable(said),
        _ if status >= 500 || status == 429 => of_status(call, status, text),
        _ => Error::Refused(said),
    }
}

/// Calls of the key service itself.
const KEY_CALLS: [&str; 5] = [
    "GenerateDataKey",
    "Decrypt",
    "ReEncrypt",
    "Sign",
    "GetPublicKey",
];

/// What a caller must be allowed on a key for a call.
fn key_action(call: &str) -> &'static str {
    match call {
        "GenerateDataKey" | "PutObject" => "kms:GenerateDataKey",
        "ReEncrypt" => "kms:ReEncryptFrom and kms:ReEncryptTo",
        "Sign" => "kms:Sign",
        "GetPublicKey" => "kms:GetPublicKey",
        "DescribeKey" => "kms:DescribeKey",
        _ => "kms:Decrypt",
    }
}

/// Names the key, where the call was about one.
fn of_key(what: &str) -> String {
    if what.starts_with("arn:") && what.contains(":kms:") {
        format!(" on {what}")
    } else {
        String::new()
    }
}

/// An answer without a code: from something in between, or from a service that has gone wrong.
fn of_status(call: &str, status: u16, text: &str) -> Error {
    let said = format!("{call}: HTTP {status} {}", cut(text));
    match status {
        429 => Error::Throttled,
        401 | 403 => Error::Denied(said),
        // An answer that was cut or garbled after the service had done what was asked, or a gateway that gave up. So is a refusal
        // whose words were lost on the way: asked once more it is refused in words.
        200..=299 | 400 | 408 | 412 | 500.. => Error::Unavailable(said),
        _ => Error::Untrusted(said),
    }
}

/// Finds out whether a call failed for want of credentials, and whether waiting helps.
fn credentials<E>(call: &str, error: &SdkError<E, HttpResponse>) -> Option<Error>
where
    E: std::error::Error + 'static,
{
    let mut kind = None;
    for cause in causes(error) {
        if let Some(found) = cause.downcast_ref::<CredentialsError>() {
            kind = Some(found);
        }
        // Whole, so that an outage of STS is told from a refusal by the answer that it gave.
        if let Some(taking) = cause.downcast_ref::<SdkError<AssumeRoleError, HttpResponse>>() {
            return Some(meaning("AssumeRole", "the role", taking));
        }
    }
    let text = format!("{call}: no credentials: {}", chain(error));
    Some(match kind? {
        CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_) => {
            Error::Denied(text)
        }
        _ => Error::Unavailable(text),
    })
}

fn is_about_the_endpoint(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.is::<ResolveEndpointError>() || cause.is::<InvalidEndpointError>()
}

fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

/// Every text of a chain of errors, without repeating one.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    for cause in causes(error) {
        let text = cause.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    if texts.is_empty() {
        texts.push(error.to_string());
    }
    cut(&texts.join(": "))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(TEXT) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::Disposition;

    fn meant(code: &str, status: u16) -> Error {
        of_code("Call", "a thing", Some(code), "text", status)
    }

    #[test]
    fn a_code_has_one_meaning() {
        for (code, status, expected) in [
            ("Throttling", 400, Error::Throttled),
            ("SlowDown", 503, Error::Throttled),
            ("NoSuchKey", 404, Error::NotFound("a thing".into())),
            ("ChangeSetNotFound", 404, Error::NotFound("a thing".into())),
            ("PreconditionFailed", 412, Error::Exists("a thing".into())),
            (
                "AlreadyExistsException",
                400,
                Error::Exists("a thing".into()),
            ),
            ("TokenAlreadyExistsException", 400, Error::AlreadyAccepted),
            (
                "InsufficientCapabilitiesException",
                400,
                Error::Incapable("Call: InsufficientCapabilitiesException: text".into()),
            ),
        ] {
            assert_eq!(meant(code, status), expected, "{code}");
        }
    }

    #[test]
    fn what_a_person_must_mend_stalls_and_what_passes_is_tried_again() {
        for code in [
            "AccessDenied",
            "InvalidCiphertextException",
            "ValidationError",
            "InsufficientCapabilitiesException",
            "LimitExceededException",
            "RequestTimeTooSkewed",
        ] {
            assert_eq!(meant(code, 400).disposition(), Disposition::Stall, "{code}");
        }
        for (code, status) in [
            ("InternalFailure", 500),
            ("ExpiredToken", 400),
            ("KeyUnavailableException", 500),
            ("SomethingNew", 503),
        ] {
            assert_eq!(
                meant(code, status).disposition(),
                Disposition::Retry,
                "{code}"
            );
        }
    }

    #[test]
    fn a_key_that_cannot_be_used_is_named_with_what_is_missing() {
        let key = "arn:aws:kms:eu-west-1:111111111111:key/k";
        for (call, code, text, action) in [
            ("Decrypt", "AccessDeniedException", "no", "kms:Decrypt"),
            (
                "GenerateDataKey",
                "DisabledException",
                "no",
                "kms:GenerateDataKey",
            ),
            (
                "Decrypt",
                "KMSInvalidStateException",
                "pending deletion",
                "kms:Decrypt",
            ),
            ("GetObject", "KMS.DisabledException", "no", "kms:Decrypt"),
            (
                "PutObject",
                "AccessDenied",
                "not authorized to perform: kms:GenerateDataKey on resource",
                "kms:GenerateDataKey",
            ),
        ] {
            let error = of_code(call, key, Some(code), text, 400);

            let Error::KeyUnavailable(said) = &error else {
                panic!("{call} {code}: {error:?}");
            };
            assert!(said.contains(action) && said.contains(key), "{said}");
            assert!(matches!(error.disposition(), Disposition::WaitFor(_)));
        }
        let plain = of_code(
            "GetObject",
            "a/b",
            Some("AccessDenied"),
            "Access Denied",
            403,
        );
        assert!(matches!(plain, Error::Denied(_)), "{plain:?}");
    }

    #[test]
    fn what_the_sdk_would_try_again_is_tried_again() {
        use aws_runtime::retries::classifiers::{THROTTLING_ERRORS, TRANSIENT_ERRORS};

        // Of CloudFormation and KMS that one is a quota.
        let passing = THROTTLING_ERRORS.iter().chain(TRANSIENT_ERRORS);
        for code in passing.filter(|c| **c != "LimitExceededException") {
            assert_ne!(meant(code, 400).disposition(), Disposition::Stall, "{code}");
        }
        for code in ["IncompleteBody", "BadDigest", "IDPCommunicationError"] {
            assert_eq!(meant(code, 400).disposition(), Disposition::Retry, "{code}");
        }
    }

    #[test]
    fn a_bucket_that_is_gone_is_not_an_empty_one() {
        assert!(matches!(meant("NoSuchBucket", 404), Error::Refused(_)));
    }

    #[test]
    fn an_answer_without_a_code_is_judged_by_its_status() {
        assert_eq!(of_status("Call", 429, ""), Error::Throttled);
        assert!(matches!(of_status("Call", 502, ""), Error::Unavailable(_)));
        for refused in [400, 412] {
            let said = of_status("Call", refused, "");
            assert!(matches!(said, Error::Unavailable(_)), "{refused}");
        }
        assert!(matches!(of_status("Call", 403, ""), Error::Denied(_)));
        assert!(matches!(of_status("Call", 404, "<"), Error::Untrusted(_)));
        assert!(matches!(of_status("Call", 200, "<"), Error::Unavailable(_)));
    }

    #[test]
    fn a_refusal_whose_words_were_lost_is_asked_for_again() {
        let garbled = of_code("Call", "x", Some("ValidationError"), "", 400);
        assert!(matches!(garbled, Error::Unavailable(_)));
        let said = of_code("Call", "x", Some("ValidationError"), "why", 400);
        assert!(matches!(said, Error::Refused(_)));
    }

    #[test]
    fn a_long_text_is_cut() {
        assert!(cut(&"é".repeat(5000)).chars().count() == TEXT + 1);
    }
}
