//! A draft: a proposal for one of the tokens after the newest one.

use super::rejection::Distribution;

/// A proposed token.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// The token.
    pub token: u32,
    /// The distribution that it was drawn from, for [`DecodeMode::Rejection`](super::DecodeMode::Rejection); without
    /// it, all of the probability is on the token.
    pub distribution: Option<Distribution>,
}

impl From<u32> for Draft {
    fn from(token: u32) -> Self {
        Self {
            token,
            distribution: None,
        }
    }
}
