//! Who sent a delivery: the signature over its bytes as they came, in constant time.

use aws_lc_rs::{constant_time, hmac};

use super::ForgeKind;
use super::delivery::{Headers, Refusal};
use crate::domain::model::{unbase64, unhex};

/// How many signatures of one delivery are looked at, where a forge may send several.
const MOST_SIGNATURES: usize = 8;

/// Checks that whoever sent a body knows one of the secrets.
///
/// Every secret is tried whatever the others said, so that the time tells neither which one it was nor how near a guess
/// came. A secret without a byte is nobody's.
pub(super) fn check(
    kind: ForgeKind,
    headers: &Headers<'_>,
    body: &[u8],
    secrets: &[&[u8]],
) -> Result<(), Refusal> {
    let known = match kind {
        // SHA-1, which GitHub still sends beside it, is not looked at.
        // https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
        ForgeKind::GitHub => {
            let given = headers.one("x-hub-signature-256")?;
            let given = given.ok_or(Refusal::Unsigned)?;
            signed(given, "sha256=", body, secrets)
        }
        // https://support.atlassian.com/bitbucket-cloud/docs/manage-webhooks
        ForgeKind::Bitbucket => {
            let given = headers.one("x-hub-signature")?;
            let given = given.ok_or(Refusal::Unsigned)?;
            signed(given, "sha256=", body, secrets)
        }
        // Forgejo sends the same under both names. https://forgejo.org/docs/latest/user/webhooks
        ForgeKind::Gitea => {
            let gitea = headers.one("x-gitea-signature")?;
            let forgejo = headers.one("x-forgejo-signature")?;
            // Gitea sends the header without a value for a hook that has no secret.
            let given = [gitea, forgejo].into_iter().flatten();
            let given: Vec<&[u8]> = given.filter(|g| !g.is_empty()).collect();
            if given.is_empty() {
                return Err(Refusal::Unsigned);
            }
            given
                .iter()
                .fold(true, |all, one| signed(one, "", body, secrets) & all)
        }
        // A hook may have both. Where a signing token is known its signature decides, and the secret token only elsewhere.
        ForgeKind::GitLab => {
            let keys: Vec<Vec<u8>> = secrets.iter().filter_map(|s| signing_token(s)).collect();
            match headers.one("webhook-signature")? {
                Some(given) if !keys.is_empty() => standard(given, headers, body, &keys)?,
                _ => {
                    let given = headers.one("x-gitlab-token")?;
                    token(given.ok_or(Refusal::Unsigned)?, secrets)
                }
            }
        }
    };
    if known {
        Ok(())
    } else {
        Err(Refusal::BadSignature)
    }
}

/// HMAC-SHA-256 of the body, in hexadecimal behind a prefix.
fn signed(given: &[u8], prefix: &str, body: &[u8], secrets: &[&[u8]]) -> bool {
    let tag = std::str::from_utf8(given)
        .ok()
        .and_then(|text| unhex(text.strip_prefix(prefix)?));
    tag.is_some_and(|tag| any(secrets, |secret| verify(secret, &[body], &tag)))
}

/// The secret itself, which is what GitLab sends for a hook with a secret token.
///
/// <https://docs.gitlab.com/user/project/integrations/webhooks/>: the comparison is of two HMACs, so that it takes as long for a
/// guess of any length.
fn token(given: &[u8], secrets: &[&[u8]]) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"isoform: a token of a webhook");
    let given = hmac::sign(&key, given);
    any(secrets, |secret| {
        let known = hmac::sign(&key, secret);
        constant_time::verify_slices_are_equal(known.as_ref(), given.as_ref()).is_ok()
    })
}

/// Returns the key that a signing token of GitLab spells.
fn signing_token(secret: &[u8]) -> Option<Vec<u8>> {
    unbase64(std::str::from_utf8(secret).ok()?.strip_prefix("whsec_")?)
}

/// What GitLab sends for a hook with a signing token: HMAC-SHA-256 over id, time and body as
/// <https://www.standardwebhooks.com> says, which <https://gitlab.com/gitlab-org/gitlab/-/merge_requests/230944> follows.
///
/// The time is not held against a clock: a delivery that comes again is found by its id, and tells nothing new.
fn standard(
    given: &[u8],
    headers: &Headers<'_>,
    body: &[u8],
    keys: &[Vec<u8>],
) -> Result<bool, Refusal> {
    let told = |name| headers.one(name)?.ok_or(Refusal::BadHeader(name));
    let (id, time) = (told("webhook-id")?, told("webhook-timestamp")?);
    let parts = [id, b".", time, b".", body];
    let Ok(given) = std::str::from_utf8(given) else {
        return Ok(false);
    };
    let tags: Vec<Vec<u8>> = given
        .split(' ')
        .take(MOST_SIGNATURES)
        .filter_map(|one| unbase64(one.strip_prefix("v1,")?))
        .collect();
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    Ok(tags.iter().fold(false, |known, tag| {
        any(&keys, |key| verify(key, &parts, tag)) | known
    }))
}

/// Asks every secret, and does not stop at the first that agrees.
fn any(secrets: &[&[u8]], agrees: impl Fn(&[u8]) -> bool) -> bool {
    secrets.iter().fold(false, |known, secret| {
        (agrees(secret) & !secret.is_empty()) | known
    })
}

fn verify(secret: &[u8], parts: &[&[u8]], tag: &[u8]) -> bool {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    for part in parts {
        context.update(part);
    }
    constant_time::verify_slices_are_equal(context.sign().as_ref(), tag).is_ok()
}
