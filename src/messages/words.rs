//! What messages say, in three languages. Nothing else in the program knows these texts.

use super::MessageKind;
use crate::refusal::Language;

/// What a message is about, for people.
#[derive(Clone, Copy, Debug)]
pub(super) struct About<'a> {
    /// The coupon's title.
    pub coupon: &'a str,
    /// Its last day, `2018-11-01`.
    pub end_date: &'a str,
    /// The name that whoever received it shows; empty where it is not to be told, or nobody knows.
    pub other: &'a str,
}

/// The title of a message, the same for every member.
pub(super) fn title(kind: MessageKind, language: Language) -> &'static str {
    let [traditional, simplified, english] = match kind {
        MessageKind::Sent => ["您收到新電子券", "您收到新电子券", "You have a new coupon"],
        MessageKind::GiftReceived => {
            ["贈送的電子券已被領取", "赠送的电子券已被领取", "Your gift was received"]
        }
        MessageKind::GiftLapsed => ["贈送的電子券已退回", "赠送的电子券已退回", "Your gift came back"],
        MessageKind::Expiring => ["電子券即將到期", "电子券即将到期", "Your coupon ends soon"],
        MessageKind::Birthday => ["生日快樂", "生日快乐", "Happy birthday"],
        MessageKind::Level => ["會員等級電子券", "会员等级电子券", "A coupon for your new level"],
    };
    match language {
        Language::Traditional => traditional,
        Language::Simplified => simplified,
        Language::English => english,
    }
}

/// What a message says.
pub(super) fn content(kind: MessageKind, about: About<'_>, language: Language) -> String {
    let About { coupon, end_date, other } = about;
    let or = |somebody: &'static str| if other.is_empty() { somebody } else { other };
    match (language, kind) {
        (Language::Traditional, MessageKind::Sent) => {
            format!("您收到電子券「{coupon}」，有效期至{end_date}。")
        }
        (Language::Traditional, MessageKind::GiftReceived) => {
            format!("{}已領取您贈送的電子券「{coupon}」。", or("對方"))
        }
        (Language::Traditional, MessageKind::GiftLapsed) => {
            format!("您贈送的電子券「{coupon}」逾時無人領取，已退回給您，有效期至{end_date}。")
        }
        (Language::Traditional, MessageKind::Expiring) => {
            format!("您的電子券「{coupon}」將於{end_date}到期，請盡快使用。")
        }
        (Language::Traditional, MessageKind::Birthday) => {
            format!("祝您生日快樂！送您電子券「{coupon}」，有效期至{end_date}。")
        }
        (Language::Traditional, MessageKind::Level) => {
            format!("您已升至新的會員等級，送您電子券「{coupon}」，有效期至{end_date}。")
        }
        (Language::Simplified, MessageKind::Sent) => {
            format!("您收到电子券「{coupon}」，有效期至{end_date}。")
        }
        (Language::Simplified, MessageKind::GiftReceived) => {
            format!("{}已领取您赠送的电子券「{coupon}」。", or("对方"))
        }
        (Language::Simplified, MessageKind::GiftLapsed) => {
            format!("您赠送的电子券「{coupon}」逾时无人领取，已退回给您，有效期至{end_date}。")
        }
        (Language::Simplified, MessageKind::Expiring) => {
            format!("您的电子券「{coupon}」将于{end_date}到期，请尽快使用。")
        }
        (Language::Simplified, MessageKind::Birthday) => {
            format!("祝您生日快乐！送您电子券「{coupon}」，有效期至{end_date}。")
        }
        (Language::Simplified, MessageKind::Level) => {
            format!("您已升至新的会员等级，送您电子券「{coupon}」，有效期至{end_date}。")
        }
        (Language::English, MessageKind::Sent) => {
            format!("You have received the coupon “{coupon}”, valid until {end_date}.")
        }
        (Language::English, MessageKind::GiftReceived) => {
            format!("{} has received the coupon “{coupon}” that you gave.", or("Somebody"))
        }
        (Language::English, MessageKind::GiftLapsed) => {
            format!(
                "Nobody received the coupon “{coupon}” that you gave; it is yours again, valid until {end_date}."
            )
        }
        (Language::English, MessageKind::Expiring) => {
            format!("Your coupon “{coupon}” ends on {end_date}.")
        }
        (Language::English, MessageKind::Birthday) => {
            format!("Happy birthday! Here is the coupon “{coupon}” for you, valid until {end_date}.")
        }
        (Language::English, MessageKind::Level) => {
            format!(
                "You have reached a new level; here is the coupon “{coupon}” for it, valid until {end_date}."
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_message_says_something_of_its_own_in_every_language() {
        let about = About { coupon: "十元券", end_date: "2026-12-01", other: "" };
        let mut said = BTreeSet::new();
        for language in [Language::Traditional, Language::Simplified, Language::English] {
            for kind in MessageKind::ALL {
                let content = content(kind, about, language);
                assert!(content.contains("十元券") && !content.contains('{'), "{content}");
                assert_eq!(content.contains("2026-12-01"), kind != MessageKind::GiftReceived, "{content}");
                said.insert(content);
                said.insert(format!("title: {language:?} {}", title(kind, language)));
            }
        }
        assert_eq!(said.len(), 2 * 3 * MessageKind::ALL.len());
    }

    #[test]
    fn who_received_a_gift_is_named_where_his_name_is_known() {
        let about = |other| About { coupon: "券", end_date: "", other };
        let said = |other| content(MessageKind::GiftReceived, about(other), Language::Traditional);
        assert_eq!(said("小明"), "小明已領取您贈送的電子券「券」。");
        assert_eq!(said(""), "對方已領取您贈送的電子券「券」。");
    }
}
