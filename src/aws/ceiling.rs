//! How large an answer may be: beyond it the answer is cut off and the call fails, before memory does.

use aws_sdk_sts::config::interceptors::BeforeDeserializationInterceptorContextMut;
use aws_sdk_sts::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_sts::error::BoxError;
use aws_smithy_types::body::SdkBody;
use http_body_util::{BodyExt, LengthLimitError, Limited};

/// Answers of the query and JSON services: a page of DescribeStacks is 1 MB, a change set with values a few more.
pub(super) const ANSWER: usize = 32 << 20;

/// An answer that is larger than any.
#[derive(Debug, thiserror::Error)]
#[error("the answer has more than {0} bytes")]
struct TooLarge(usize);

/// Tells whether a cause of an error is that an answer was cut off.
pub(super) fn is_too_large(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.is::<TooLarge>()
}

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
            return Err(TooLarge(self.0).into());
        }
        let limit = self.0;
        let body = Limited::new(response.take_body(), limit).map_err(move |error| {
            if error.is::<LengthLimitError>() {
                return BoxError::from(TooLarge(limit));
            }
            error
        });
        *response.body_mut() = SdkBody::from_body_1_x(body);
        Ok(())
    }
}
