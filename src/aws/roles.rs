//! Roles in IAM: who may take one. Reads only.

use async_trait::async_trait;
use aws_sdk_iam::error::ProvideErrorMetadata;
use percent_encoding::percent_decode_str;

use super::error;
use super::session::Session;
use crate::port::{Error, Roles};

/// The roles of one account.
pub struct IamRoles {
    client: aws_sdk_iam::Client,
    given: Option<String>,
}

impl IamRoles {
    /// Looks with the rights of a session; `given` is the role that CloudFormation is given here.
    pub fn new(session: &Session, given: Option<String>) -> Self {
        Self {
            client: session.roles(),
            given,
        }
    }
}

#[async_trait]
impl Roles for IamRoles {
    fn given(&self) -> Option<&str> {
        self.given.as_deref()
    }

    async fn trust(&self, role: &str) -> Result<Option<String>, Error> {
        // A name is unique in an account, whatever path stands before it.
        let name = role.rsplit('/').next().unwrap_or_default();
        let answer = match self.client.get_role().role_name(name).send().await {
            Ok(answer) => answer,
            Err(failed) if failed.code() == Some("NoSuchEntity") => return Ok(None),
            Err(failed) => return Err(error::of("GetRole", role, failed)),
        };
        let found = answer
            .role()
            .ok_or_else(|| Error::Untrusted("GetRole told of no role".into()))?;
        // One of that name elsewhere is another one.
        if found.arn() != role {
            return Ok(None);
        }
        let policy = found.assume_role_policy_document().unwrap_or_default();
        Ok(Some(decoded(policy)))
    }
}

/// Reads a policy document, which IAM gives with its signs written as `%xx` (RFC 3986).
fn decoded(text: &str) -> String {
    if text.trim_start().starts_with('{') {
        return text.to_owned();
    }
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::decoded;

    #[test]
    fn a_policy_is_read_as_it_was_written() {
        for (text, expected) in [
            ("%7B%22a%22%3A%20%22%C3%BC%22%7D", "{\"a\": \"ü\"}"),
            ("{\"a\":\"%20\"}", "{\"a\":\"%20\"}"),
            ("%7", "%7"),
            ("%zz%7D", "%zz}"),
            ("", ""),
        ] {
            assert_eq!(decoded(text), expected);
        }
    }
}
