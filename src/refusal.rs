//! Every way in which a command is refused, with its code and its words.
//!
//! One table: the codes are those of the HTTP contract (docs/api.md), the texts stand here in three languages, and
//! nothing else in the program knows either. A refusal is a business answer, not a failure.

mod url;
mod wording;

use std::fmt;

pub use url::BadUrl;
pub use wording::{Language, Wording};

/// Why a command was refused. The names say why; [`Refusal::code`] is what the wire says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 310: no member or employee has this id.
    NoSuchMember,
    /// 401: a field cannot be accepted, and why.
    Field {
        /// The field's name in the request.
        field: &'static str,
        /// What is wrong with it.
        why: Wrong,
    },
    /// 1003: wrong name, password or code, or too many tries: the same answer.
    SignInRefused,
    /// 1004: somebody else must approve it.
    NeedsApproval,
    /// 2001: no such coupon, or not the caller's: the same answer.
    NoSuchCoupon,
    /// 2002
    NoSuchDefinition,
    /// 2003: no such shop, the shop is closed, or the QR is not ours.
    NoSuchShop,
    /// 2004: no such redemption, or not the caller's.
    NoSuchRedemption,
    /// 2005: no such rule, group, send or partner.
    NoSuchRule,
    /// 2006
    NoSuchOrder,
    /// 1002: a partner's coupon is returned by an operator's word only.
    ReturnNotAllowed,
    /// 1002: nobody gives a right that he has not himself.
    RightNotHeld,
    /// 1002: nobody approves what he may have proposed himself, or what its proposer is not allowed any more.
    NotAnother,
    /// 3001
    AlreadyUsed {
        /// The redemption that used it.
        redemption_id: i64,
        /// When, in Unix milliseconds.
        at_ms: i64,
        /// Where.
        shop_id: i64,
    },
    /// 3002
    NotAtThisShop,
    /// 3003
    BeingGiven,
    /// 3004
    Voided,
    /// 3005
    AlreadyReviewed,
    /// 3006
    NotUsedYet,
    /// 3007: staff must redeem it.
    NotSelfRedeemable,
    /// 3008
    NotGivable,
    /// 3009: given away, no longer the caller's to use.
    GivenAway,
    /// 3010: the shop's QR must be scanned.
    ScanRequired,
    /// 3011
    OrderCancelled,
    /// 3012: reversed already, or too late.
    NotReversible,
    /// 4001
    NotStarted,
    /// 4002
    Expired,
    /// 4003
    WrongWeekday,
    /// 5001
    SoldOut,
    /// 5002
    LimitReached,
    /// 5003
    LevelNotEligible,
    /// 5004: a cash coupon counts only from a higher amount on.
    AmountTooLow,
    /// 5005
    NotCombinable,
    /// 5006: switched off, ended, or the member's card has no end.
    NotOnOffer,
    /// 6001: the idempotency key was used with another body.
    KeyReused,
    /// 6003: the id that the ledger chose for something new has a stream already; the next one may not.
    IdTaken,
    /// 6004: the key before the one that signs is still to sign as well.
    KeyRotatedLately,
    /// 7001
    WrongGiftCode {
        /// Tries left before the gift locks.
        attempts_left: u32,
    },
    /// 7002
    GiftLocked,
    /// 7003
    NothingToReceive,
    /// 7004
    OwnGift,
    /// 7005: wrong, used or lapsed.
    WrongCounterCode,
    /// 9001: ten failed gift codes within an hour.
    TooManyAttempts,
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It is needed and not there.
    Required,
    /// Not a whole number.
    NotANumber,
    /// A number outside its range.
    OutOfRange {
        /// The smallest.
        min: i64,
        /// The largest.
        max: i64,
    },
    /// A text with too many characters.
    TooLong {
        /// The most.
        max: usize,
    },
    /// A text with too few characters.
    TooShort {
        /// The least.
        min: usize,
    },
    /// Not a name to sign in with.
    NotAName,
    /// A text with characters that cannot be kept.
    ControlCharacters,
    /// A list with too many entries.
    TooMany {
        /// The most.
        max: usize,
    },
    /// Not a text.
    NotAText,
    /// Not a list of whole numbers.
    NotAList,
    /// Not a JSON list of objects; where that ends, if it is a text: the column, from 1.
    NotRows {
        /// 0 = it is JSON, but of another shape.
        column: usize,
    },
    /// Something inside a field: where, and what.
    Within {
        /// `goods[2].price`
        path: String,
        /// What is wrong there.
        why: Box<Wrong>,
    },
    /// More than the rule behind it grants.
    NotGranted,
    /// A list that has an entry twice.
    Twice,
    /// Not a day like 2018-11-01.
    NotADay,
    /// Not an amount with at most two decimals.
    NotMoney,
    /// The end lies before the start.
    EndBeforeStart,
    /// The id is taken.
    Taken,
    /// It was imported before.
    ImportedAlready,
    /// An import brings an id that this ledger may give to another: its own are those below.
    OwnIds {
        /// The first that is not its own.
        below: i64,
    },
    /// An import has it twice.
    TwiceInFile,
    /// It lies in the future.
    InTheFuture,
    /// Not one of the states that a coupon can be in.
    NotAState,
    /// Not a day, nor a day with its time.
    NotATime,
    /// Neither a position of the log, nor a day or a time.
    NotAnInstant,
    /// The log has no such position.
    NoSuchPosition {
        /// Its last; 0 = it has no events.
        last: i64,
    },
    /// Nothing had been recorded by then.
    BeforeTheLog {
        /// When the first event was recorded, local time.
        first: String,
    },
    /// What this names is not answered from events alone.
    NotFromEvents,
    /// Whoever this names may not call it, or is nobody.
    NotACaller,
    /// A file that is no text in UTF-8, UTF-16 or GBK.
    NotText,
    /// A table without this column.
    NoColumn(&'static str),
    /// A table with a column that nobody knows.
    UnknownColumn(String),
    /// A table with a column twice.
    ColumnTwice(&'static str),
    /// A line with more or fewer cells than the header.
    CellCount {
        /// The header's.
        columns: usize,
    },
    /// It cannot be given together with another field.
    NotTogetherWith(&'static str),
    /// Not one of these words.
    NotOneOf(&'static [&'static str]),
    /// There is room for no more shops.
    NoMoreShops {
        /// The most.
        max: i64,
    },
    /// Not an address of the merchant's own pages.
    NotOurPage,
    /// Members have it.
    InUse,
    /// Somebody who works here holds it.
    Held,
    /// Not the number of a right.
    NotARight,
    /// Not an Ed25519 public key.
    NotAPublicKey,
    /// Not an address that is spoken to.
    Url(BadUrl),
    /// The personal data of whom it names was erased.
    Erased,
    /// It has come to its end.
    Ended,
    /// The same was asked a moment ago.
    Repeated,
    /// An unlimited stock cannot be made smaller.
    StockUnlimited,
    /// Stock cannot fall below what is issued.
    StockBelowIssued {
        /// How many are issued.
        issued: i64,
    },
    /// An idempotency key of another shape.
    NotAKey,
    /// Not a token of this ledger.
    NotAToken,
    /// The body cannot be read.
    BodyUnreadable,
    /// The body is too large.
    BodyTooLarge,
    /// The body came too slowly.
    BodyTooSlow,
    /// The body is of another content type.
    BodyType,
}

impl Wrong {
    /// What to tell the caller about this field.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "one table: each line three languages")]
    pub fn text(&self, field: &str, language: Language) -> String {
        let [traditional, simplified, english] = match self {
            Self::Required => {
                [format!("{field}不能為空"), format!("{field}不能为空"), format!("{field} is required")]
            }
            Self::NotANumber => [
                format!("{field}必須是數字"),
                format!("{field}必须是数字"),
                format!("{field} must be a whole number"),
            ],
            Self::OutOfRange { min, max } => [
                format!("{field}必須在{min}到{max}之間"),
                format!("{field}必须在{min}到{max}之间"),
                format!("{field} must be between {min} and {max}"),
            ],
            Self::TooLong { max } => [
                format!("{field}不能超過{max}個字"),
                format!("{field}不能超过{max}个字"),
                format!("{field} must not be longer than {max} characters"),
            ],
            Self::TooShort { min } => [
                format!("{field}不能少於{min}個字"),
                format!("{field}不能少于{min}个字"),
                format!("{field} must not be shorter than {min} characters"),
            ],
            Self::NotAName => [
                format!("{field}必須是1到64個字母、數字、.、_或-，且以字母或數字開頭"),
                format!("{field}必须是1到64个字母、数字、.、_或-，且以字母或数字开头"),
                format!(
                    "{field} must be 1 to 64 letters, digits, ., _ or -, and begin with a letter or digit"
                ),
            ],
            Self::ControlCharacters => [
                format!("{field}含有控制字元"),
                format!("{field}含有控制字符"),
                format!("{field} contains control characters"),
            ],
            Self::TooMany { max } => [
                format!("{field}不能超過{max}項"),
                format!("{field}不能超过{max}项"),
                format!("{field} must not have more than {max} entries"),
            ],
            Self::NotAText => [
                format!("{field}必須是字串"),
                format!("{field}必须是字符串"),
                format!("{field} must be a text"),
            ],
            Self::NotAList => [
                format!("{field}必須是數字列表"),
                format!("{field}必须是数字列表"),
                format!("{field} must be a list of whole numbers"),
            ],
            Self::NotRows { column: 0 } => [
                format!("{field}必須是JSON物件的列表"),
                format!("{field}必须是JSON对象的列表"),
                format!("{field} must be a JSON list of objects"),
            ],
            Self::NotRows { column } => [
                format!("{field}不是JSON：第{column}個字元有誤"),
                format!("{field}不是JSON：第{column}个字符有误"),
                format!("{field} is no JSON: see character {column}"),
            ],
            Self::Within { path, why } => return why.text(path, language),
            Self::NotGranted => [
                format!("{field}超出規則所贈"),
                format!("{field}超出规则所赠"),
                format!("{field} is more than the rule grants"),
            ],
            Self::Twice => {
                [format!("{field}有重複"), format!("{field}有重复"), format!("{field} has an entry twice")]
            }
            Self::NotADay => [
                format!("{field}必須是日期，如2018-11-01"),
                format!("{field}必须是日期，如2018-11-01"),
                format!("{field} must be a day like 2018-11-01"),
            ],
            Self::NotMoney => [
                format!("{field}必須是金額，最多兩位小數"),
                format!("{field}必须是金额，最多两位小数"),
                format!("{field} must be an amount with at most two decimals"),
            ],
            Self::EndBeforeStart => [
                format!("{field}不能早於開始日期"),
                format!("{field}不能早于开始日期"),
                format!("{field} must not be before the start"),
            ],
            Self::Taken => [format!("{field}已存在"), format!("{field}已存在"), format!("{field} is taken")],
            Self::ImportedAlready => [
                format!("{field}已導入過"),
                format!("{field}已导入过"),
                format!("{field} was imported already"),
            ],
            Self::OwnIds { below } => [
                format!("小於{below}的{field}由本帳本分配"),
                format!("小于{below}的{field}由本账本分配"),
                format!("{field}s below {below} are this ledger's own"),
            ],
            Self::TwiceInFile => [
                format!("{field}在文件中重複"),
                format!("{field}在文件中重复"),
                format!("{field} is in the file twice"),
            ],
            Self::InTheFuture => [
                format!("{field}不能晚於現在"),
                format!("{field}不能晚于现在"),
                format!("{field} must not lie in the future"),
            ],
            Self::NotAState => [
                format!("{field}必須是未使用、已使用或已作廢"),
                format!("{field}必须是未使用、已使用或已作废"),
                format!("{field} must be unused, used or voided"),
            ],
            Self::NotATime => [
                format!("{field}必須是日期或時間，如2018-11-01或2018-11-01 10:31:41"),
                format!("{field}必须是日期或时间，如2018-11-01或2018-11-01 10:31:41"),
                format!("{field} must be a day or a time like 2018-11-01 10:31:41"),
            ],
            Self::NotAnInstant => [
                format!("{field}必須是位置、日期或時間，如1200、2018-11-24或2018-11-24 10:31:41"),
                format!("{field}必须是位置、日期或时间，如1200、2018-11-24或2018-11-24 10:31:41"),
                format!(
                    "{field} must be a position, a day or a time, like 1200, 2018-11-24 or 2018-11-24 10:31:41"
                ),
            ],
            Self::NoSuchPosition { last } => [
                format!("{field}：日誌的最後位置是{last}"),
                format!("{field}：日志的最后位置是{last}"),
                format!("{field} names no event: the log ends at position {last}"),
            ],
            Self::BeforeTheLog { first } => [
                format!("{field}早於第一個事件（{first}）"),
                format!("{field}早于第一个事件（{first}）"),
                format!("{field} lies before the first event, which was recorded at {first}"),
            ],
            Self::NotFromEvents => [
                format!("{field}不能僅由事件回答"),
                format!("{field}不能仅由事件回答"),
                format!("{field} names nothing that is answered from events alone"),
            ],
            Self::NotACaller => [
                format!("{field}必須是可調用該接口的身份，如member:439或operator"),
                format!("{field}必须是可调用该接口的身份，如member:439或operator"),
                format!("{field} must be someone who may call this, like member:439 or operator"),
            ],
            Self::NotText => [
                format!("{field}不是UTF-8、UTF-16或GBK文字"),
                format!("{field}不是UTF-8、UTF-16或GBK文本"),
                format!("{field} is not a text in UTF-8, UTF-16 or GBK"),
            ],
            Self::NoColumn(column) => [
                format!("{field}缺少{column}列"),
                format!("{field}缺少{column}列"),
                format!("{field} has no column {column}"),
            ],
            Self::UnknownColumn(column) => [
                format!("{field}有未知的列：{column}"),
                format!("{field}有未知的列：{column}"),
                format!("{field} has an unknown column: {column}"),
            ],
            Self::ColumnTwice(column) => [
                format!("{field}的{column}列重複"),
                format!("{field}的{column}列重复"),
                format!("{field} has the column {column} twice"),
            ],
            Self::CellCount { columns } => [
                format!("該行應有{columns}列"),
                format!("该行应有{columns}列"),
                format!("the line must have {columns} cells"),
            ],
            Self::NotTogetherWith(other) => [
                format!("{field}不能與{other}同時使用"),
                format!("{field}不能与{other}同时使用"),
                format!("{field} cannot be given together with {other}"),
            ],
            Self::Url(why) => return why.text(field, language),
            Self::NotOneOf(words) => {
                let words = words.join(", ");
                [
                    format!("{field}必須是其中之一：{words}"),
                    format!("{field}必须是其中之一：{words}"),
                    format!("{field} must be one of: {words}"),
                ]
            }
            Self::NoMoreShops { max } => [
                format!("門店已達上限{max}家"),
                format!("门店已达上限{max}家"),
                format!("there are {max} shops already, the most that may be opened"),
            ],
            Self::NotOurPage => [
                format!("{field}不是本商家的頁面"),
                format!("{field}不是本商家的页面"),
                format!("{field} must be a page of the merchant's own"),
            ],
            Self::InUse => [
                "仍有會員使用，不能刪除".to_owned(),
                "仍有会员使用，不能删除".to_owned(),
                "members have it: it cannot be deleted".to_owned(),
            ],
            Self::Held => [
                "仍有員工擔任，不能刪除".to_owned(),
                "仍有员工担任，不能删除".to_owned(),
                "employees hold it: it cannot be deleted".to_owned(),
            ],
            Self::NotAPublicKey => [
                format!("{field}必須是Ed25519公鑰（base64或十六進位）"),
                format!("{field}必须是Ed25519公钥（base64或十六进制）"),
                format!("{field} must be an Ed25519 public key, in base64 or hexadecimal"),
            ],
            Self::NotARight => [
                format!("{field}含有不存在的權限"),
                format!("{field}含有不存在的权限"),
                format!("{field} names a right that does not exist"),
            ],
            Self::Erased => [
                "會員資料已刪除，不能修改".to_owned(),
                "会员资料已删除，不能修改".to_owned(),
                "the member's data was erased and cannot be changed".to_owned(),
            ],
            Self::Ended => {
                [format!("{field}已結束"), format!("{field}已结束"), format!("{field} has ended already")]
            }
            Self::Repeated => [
                format!("十分鐘內已有相同操作，確認再次執行請傳{field}=1"),
                format!("十分钟内已有相同操作，确认再次执行请传{field}=1"),
                format!("the same was started within ten minutes: {field}=1 starts it again"),
            ],
            Self::StockUnlimited => [
                "庫存不限量，不能減少".to_owned(),
                "库存不限量，不能减少".to_owned(),
                "the stock is unlimited and cannot be made smaller".to_owned(),
            ],
            Self::StockBelowIssued { issued } => [
                format!("庫存不能少於已發放的{issued}"),
                format!("库存不能少于已发放的{issued}"),
                format!("the stock cannot fall below the {issued} issued"),
            ],
            Self::NotAKey => [
                format!("{field}必須是6到64個字母、數字、_或-"),
                format!("{field}必须是6到64个字母、数字、_或-"),
                format!("{field} must be 6 to 64 letters, digits, _ or -"),
            ],
            Self::NotAToken => [
                format!("{field}不是本帳本的令牌"),
                format!("{field}不是本账本的令牌"),
                format!("{field} is not a token of this ledger"),
            ],
            Self::BodyUnreadable => [
                "請求內容無法解析".to_owned(),
                "请求内容无法解析".to_owned(),
                "the body cannot be read".to_owned(),
            ],
            Self::BodyTooLarge => {
                ["請求內容過大".to_owned(), "请求内容过大".to_owned(), "the body is too large".to_owned()]
            }
            Self::BodyTooSlow => [
                "請求內容接收逾時".to_owned(),
                "请求内容接收超时".to_owned(),
                "the body did not arrive in time".to_owned(),
            ],
            Self::BodyType => [
                "僅接受application/json或application/x-www-form-urlencoded".to_owned(),
                "仅接受application/json或application/x-www-form-urlencoded".to_owned(),
                "only application/json and application/x-www-form-urlencoded are accepted".to_owned(),
            ],
        };
        match language {
            Language::Traditional => traditional,
            Language::Simplified => simplified,
            Language::English => english,
        }
    }
}

macro_rules! wordings {
    ($($name:ident = $code:literal, $traditional:literal, $simplified:literal, $english:literal;)*) => {
        $(#[doc = concat!("Code ", $code, ": ", $english)]
        pub const $name: Wording = Wording { code: $code, text: [$traditional, $simplified, $english] };)*
        /// Every code that the server answers, in order.
        pub const ALL_WORDINGS: &[&Wording] = &[$(&$name),*];
    };
}

wordings! {
    NO_SUCH_MEMBER = 310, "會員或員工不存在", "会员或员工不存在", "no such member or employee";
    BAD_PARAMETERS = 401, "參數錯誤", "参数错误", "bad parameters";
    NOT_SIGNED_IN = 1001, "未登錄或登錄已過期", "未登录或登录已过期", "not signed in, or the token has expired";
    NOT_ALLOWED = 1002, "無權限", "无权限", "not allowed for this caller";
    SIGN_IN_REFUSED = 1003, "登錄被拒絕或已鎖定", "登录被拒绝或已锁定", "sign-in refused or locked";
    WAITS_FOR_APPROVAL = 1004, "待他人批准", "待他人批准", "waits for approval";
    NO_SUCH_COUPON = 2001, "電子券不存在", "电子券不存在", "no such coupon, or not yours";
    NO_SUCH_DEFINITION = 2002, "電子券定義不存在", "电子券定义不存在", "no such coupon definition";
    NO_SUCH_SHOP = 2003, "門店不存在、已關閉或二維碼無效", "门店不存在、已关闭或二维码无效", "no such shop, shop closed, or not our QR";
    NO_SUCH_REDEMPTION = 2004, "核銷記錄不存在", "核销记录不存在", "no such redemption, or not yours";
    NO_SUCH_RULE = 2005, "規則、分組、投放或商家不存在", "规则、分组、投放或商家不存在", "no such rule, group, send or partner";
    NO_SUCH_ORDER = 2006, "訂單不存在", "订单不存在", "no such order";
    ALREADY_USED = 3001, "電子券已使用", "电子券已使用", "already used";
    NOT_AT_THIS_SHOP = 3002, "該門店不可使用此電子券", "该门店不可使用此电子券", "not redeemable at this shop";
    BEING_GIVEN = 3003, "電子券正在贈送中", "电子券正在赠送中", "being given away";
    VOIDED = 3004, "電子券已作廢", "电子券已作废", "voided";
    ALREADY_REVIEWED = 3005, "已評價", "已评价", "already reviewed";
    NOT_USED_YET = 3006, "電子券尚未使用", "电子券尚未使用", "not used yet";
    NOT_SELF_REDEEMABLE = 3007, "此電子券須由員工核銷", "此电子券须由员工核销", "not self-redeemable: staff must redeem it";
    NOT_GIVABLE = 3008, "此電子券不可贈送", "此电子券不可赠送", "may not be given away";
    GIVEN_AWAY = 3009, "電子券已送出", "电子券已送出", "given away: no longer yours to use";
    SCAN_REQUIRED = 3010, "請掃描門店核銷二維碼", "请扫描门店核销二维码", "the shop's QR must be scanned";
    ORDER_CANCELLED = 3011, "訂單已取消", "订单已取消", "order already cancelled";
    NOT_REVERSIBLE = 3012, "核銷無法撤銷", "核销无法撤销", "cannot be reversed: already reversed, or too late";
    NOT_STARTED = 4001, "電子券未到使用時間", "电子券未到使用时间", "not started yet";
    EXPIRED = 4002, "電子券已過期", "电子券已过期", "expired";
    WRONG_WEEKDAY = 4003, "今日不可使用", "今日不可使用", "not usable on this weekday";
    SOLD_OUT = 5001, "電子券庫存不足", "电子券库存不足", "sold out";
    LIMIT_REACHED = 5002, "已達領取上限", "已达领取上限", "per-member limit reached";
    LEVEL_NOT_ELIGIBLE = 5003, "會員等級不符", "会员等级不符", "member level not eligible";
    AMOUNT_TOO_LOW = 5004, "訂單金額不足", "订单金额不足", "order amount too low";
    NOT_COMBINABLE = 5005, "電子券不可疊加使用", "电子券不可叠加使用", "may not be combined";
    NOT_ON_OFFER = 5006, "電子券不可領取", "电子券不可领取", "not on offer";
    KEY_REUSED = 6001, "冪等鍵已用於其他請求", "幂等键已用于其他请求", "idempotency key used with another body";
    CHANGED_MEANWHILE = 6003, "資料已變更，請重試", "资料已变更，请重试", "changed meanwhile, try again";
    KEY_ROTATED_LATELY = 6004, "簽名密鑰在三十天內已更換過", "签名密钥在三十天内已更换过", "the signing key was replaced within the last thirty days";
    WRONG_GIFT_CODE = 7001, "驗證碼錯誤", "验证码错误", "wrong gift code";
    GIFT_LOCKED = 7002, "驗證碼錯誤次數過多，贈送已鎖定", "验证码错误次数过多，赠送已锁定", "gift locked after five wrong codes";
    NOTHING_TO_RECEIVE = 7003, "沒有可接收的電子券", "没有可接收的电子券", "nothing to receive here";
    OWN_GIFT = 7004, "不能接收自己贈送的電子券", "不能接收自己赠送的电子券", "cannot receive your own gift";
    WRONG_COUNTER_CODE = 7005, "核銷碼錯誤、已使用或已失效", "核销码错误、已使用或已失效", "counter code wrong, used or lapsed";
    TOO_MANY_REQUESTS = 9001, "請求過於頻繁", "请求过于频繁", "too many requests";
    UNAVAILABLE = 9002, "服務暫時不可用，請以相同冪等鍵重試", "服务暂时不可用，请以相同幂等键重试", "temporarily unavailable, retry with the same key";
    WECHAT_UNAVAILABLE = 9003, "微信服務不可用", "微信服务不可用", "WeChat unavailable";
    NO_SUCH_ROUTE = 9004, "接口不存在", "接口不存在", "no such route or method";
    INTERNAL = 9999, "系統錯誤", "系统错误", "internal error";
}

impl Refusal {
    /// The code and words of this refusal.
    #[must_use]
    pub fn wording(&self) -> &'static Wording {
        match self {
            Self::NoSuchMember => &NO_SUCH_MEMBER,
            Self::Field { .. } => &BAD_PARAMETERS,
            Self::SignInRefused => &SIGN_IN_REFUSED,
            Self::NeedsApproval => &WAITS_FOR_APPROVAL,
            Self::NoSuchCoupon => &NO_SUCH_COUPON,
            Self::NoSuchDefinition => &NO_SUCH_DEFINITION,
            Self::NoSuchShop => &NO_SUCH_SHOP,
            Self::NoSuchRedemption => &NO_SUCH_REDEMPTION,
            Self::NoSuchRule => &NO_SUCH_RULE,
            Self::NoSuchOrder => &NO_SUCH_ORDER,
            Self::ReturnNotAllowed | Self::RightNotHeld | Self::NotAnother => &NOT_ALLOWED,
            Self::AlreadyUsed { .. } => &ALREADY_USED,
            Self::NotAtThisShop => &NOT_AT_THIS_SHOP,
            Self::BeingGiven => &BEING_GIVEN,
            Self::Voided => &VOIDED,
            Self::AlreadyReviewed => &ALREADY_REVIEWED,
            Self::NotUsedYet => &NOT_USED_YET,
            Self::NotSelfRedeemable => &NOT_SELF_REDEEMABLE,
            Self::NotGivable => &NOT_GIVABLE,
            Self::GivenAway => &GIVEN_AWAY,
            Self::ScanRequired => &SCAN_REQUIRED,
            Self::OrderCancelled => &ORDER_CANCELLED,
            Self::NotReversible => &NOT_REVERSIBLE,
            Self::NotStarted => &NOT_STARTED,
            Self::Expired => &EXPIRED,
            Self::WrongWeekday => &WRONG_WEEKDAY,
            Self::SoldOut => &SOLD_OUT,
            Self::LimitReached => &LIMIT_REACHED,
            Self::LevelNotEligible => &LEVEL_NOT_ELIGIBLE,
            Self::AmountTooLow => &AMOUNT_TOO_LOW,
            Self::NotCombinable => &NOT_COMBINABLE,
            Self::NotOnOffer => &NOT_ON_OFFER,
            Self::KeyReused => &KEY_REUSED,
            Self::IdTaken => &CHANGED_MEANWHILE,
            Self::KeyRotatedLately => &KEY_ROTATED_LATELY,
            Self::WrongGiftCode { .. } => &WRONG_GIFT_CODE,
            Self::GiftLocked => &GIFT_LOCKED,
            Self::NothingToReceive => &NOTHING_TO_RECEIVE,
            Self::OwnGift => &OWN_GIFT,
            Self::WrongCounterCode => &WRONG_COUNTER_CODE,
            Self::TooManyAttempts => &TOO_MANY_REQUESTS,
        }
    }

    /// The `code` of the answer.
    #[must_use]
    pub fn code(&self) -> i64 {
        self.wording().code
    }

    /// A 401 on one field.
    #[must_use]
    pub fn field(field: &'static str, why: Wrong) -> Self {
        Self::Field { field, why }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Field { field, why } => why.text(field, Language::English),
            _ => self.wording().text(Language::English).to_owned(),
        };
        write!(f, "{text} ({})", self.code())
    }
}

impl std::error::Error for Refusal {}
