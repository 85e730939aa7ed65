//! What is wrong with an address that somebody names to be spoken to.

use super::Language;

/// Why an address is not spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadUrl {
    /// It is no `https://host/path`, or names a user.
    NotOne,
    /// It is not https.
    NotHttps,
    /// It leads to this machine or into the merchant's own network.
    Inside,
}

impl BadUrl {
    pub(super) fn text(self, field: &str, language: Language) -> String {
        let [traditional, simplified, english] = match self {
            Self::NotOne => [
                "必須是網址，如https://erp.example/coupons，不含用戶名和#",
                "必须是网址，如https://erp.example/coupons，不含用户名和#",
                " must be a URL like https://erp.example/coupons, without a user and without #",
            ],
            Self::NotHttps => ["必須以https://開頭", "必须以https://开头", " must begin with https://"],
            Self::Inside => [
                "指向內部網絡，未獲許可",
                "指向内部网络，未获许可",
                " leads into the network of the server, which is not allowed",
            ],
        };
        let text = match language {
            Language::Traditional => traditional,
            Language::Simplified => simplified,
            Language::English => english,
        };
        format!("{field}{text}")
    }
}
