//! How large an answer may be: beyond it the answer is cut off and the call fails, before memory does.

use aws_sdk_sts::config::interceptors::BeforeDeserializationInterceptorContextMut;
use aws_sdk_sts::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_sts::error::BoxError;
use aws_smithy_types::body::SdkBody;
use http_body_util::Limited;

/// Answers of the query and JSON services: a page of DescribeStacks is 1 MB, a change set with values a few more.
pub(super) const ANSWER: usize = 32 << 20;

/// Cuts answers off at a number of bytes.
#[derive(Debug)]
pub(super) struct Ceiling(pub usize);

impl Intercept for Ceiling {
    fn name(&self) -> &'static str {
        "Ceiling"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response_mut();
        let announced = response
            .headers()
            .get("content-length")
            .and_then(|l| l.parse::<u64>().ok());
        if announced.is_some_and(|length| length > self.0 as u64) {
            return Err(format!("the answer has more than {} bytes", self.0).into());
        }
        let body = response.take_body();
        *response.body_mut() = SdkBody::from_body_1_x(Limited::new(body, self.0));
        Ok(())
    }
}
