//! A code with its words, and the languages that there are.

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

/// A code of the contract with its text in Traditional Chinese, Simplified Chinese and English.
#[derive(Debug)]
pub struct Wording {
    /// The `code` of the answer.
    pub code: i64,
    /// Its `info`, by language.
    pub text: [&'static str; 3],
}

impl Wording {
    /// Whether it says that something is not there, which is also said of what is another's.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        matches!(self.code, 310 | 2001..=2999 | 7003)
    }

    /// The text in the language asked for.
    #[must_use]
    pub fn text(&self, language: Language) -> &'static str {
        let [traditional, simplified, english] = self.text;
        match language {
            Language::Traditional => traditional,
            Language::Simplified => simplified,
            Language::English => english,
        }
    }
}
