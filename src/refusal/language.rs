//! The languages that a caller is answered in.

/// The language of a refusal's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// Traditional Chinese, the default.
    #[default]
    Traditional,
    /// `Accept-Language: zh-CN`
    Simplified,
    /// `Accept-Language: en`
    English,
}
