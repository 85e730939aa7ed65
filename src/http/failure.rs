//! Why a call has no answer but a refusal, and how that goes over the wire: the one place where errors become answers.

use std::time::{Duration, Instant};

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};

use super::wechat;
use crate::access::Denied;
use crate::erasure::ErasureError;
use crate::ledger::ExecuteError;
use crate::ledger::writer::WriteError;
use crate::refusal::{self, Language, Refusal, Wording, Wrong};
use crate::statistics::ask::AskError;
use crate::store::StoreError;
use crate::wechat::NoOpenid;

/// When something is at the earliest said not to be there, counted from the request: far longer than it takes to find out.
const NOT_THERE_AFTER: Duration = Duration::from_millis(5);

/// Why a call has no answer but a refusal.
#[derive(Debug)]
pub enum Failure {
    /// 1001
    NotSignedIn,
    /// 1002
    NotAllowed,
    /// 1003, with the seconds until another try is let through.
    SignInRefused(Option<u32>),
    /// 401 on fields.
    Fields(Vec<(&'static str, Wrong)>),
    /// 401 on the body, with the HTTP status that says what is wrong with it.
    Body(StatusCode, Wrong),
    /// A code with a sentence of its own.
    Said(&'static Wording, String),
    /// 1004: it is proposed, and this is what waits.
    Waits {
        /// Where to find it.
        data: Value,
        /// Whether it had been proposed already.
        replayed: bool,
    },
    /// A refusal that is the replay of an earlier answer.
    Replayed(Refusal),
    /// What the ledger says.
    Execute(ExecuteError),
    /// 1003, 9001 or 9003: what WeChat says, or does not.
    Wechat(NoOpenid),
    /// 9004: the path names nothing.
    NotThere,
    /// 9002: the erasure is in the log, and is finished by and by.
    NotErased(ErasureError),
    /// 9002: it goes on, and the same key tells later what became of it.
    TooSlow,
    /// 9002: a statistic is being counted from the log's beginning; which.
    BeingCounted(&'static str),
    /// 9001, with when to ask again, in seconds.
    TooOften(u32),
    /// 9999
    Panicked,
}

impl From<ErasureError> for Failure {
    fn from(error: ErasureError) -> Self {
        match error {
            ErasureError::Execute(error) => Self::Execute(error),
            error => Self::NotErased(error),
        }
    }
}

impl From<NoOpenid> for Failure {
    fn from(error: NoOpenid) -> Self {
        Self::Wechat(error)
    }
}

impl From<Denied> for Failure {
    fn from(Denied: Denied) -> Self {
        Self::NotAllowed
    }
}

impl From<ExecuteError> for Failure {
    fn from(error: ExecuteError) -> Self {
        Self::Execute(error)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Execute(refusal.into())
    }
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Store(error) => error.into(),
            AskError::BeingCounted(statistic) => Self::BeingCounted(statistic),
            error @ (AskError::NotKept(_) | AskError::TooMany) => {
                Self::Said(&refusal::BAD_PARAMETERS, error.to_string())
            }
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Execute(error.into())
    }
}

/// A refusal on the wire.
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) wording: &'static Wording,
    pub(super) info: Option<Value>,
    pub(super) data: Value,
    pub(super) retry_after_s: Option<u32>,
    pub(super) replayed: bool,
}

impl Refused {
    pub(super) fn new(status: StatusCode, wording: &'static Wording) -> Self {
        Self { status, wording, info: None, data: Value::Null, retry_after_s: None, replayed: false }
    }

    pub(super) fn unavailable() -> Self {
        Self { retry_after_s: Some(1), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, &refusal::UNAVAILABLE) }
    }

    fn business(refusal: &Refusal, language: Language) -> Self {
        let mut refused = Self::new(StatusCode::OK, refusal.wording());
        match refusal {
            Refusal::Field { field, why } => {
                refused.info = Some(json!({ *field: why.text(field, language) }));
            }
            Refusal::AlreadyUsed { redemption_id, at_ms, shop_id } => {
                refused.data = json!({"id": redemption_id, "create_date": at_ms / 1000, "shop_id": shop_id});
            }
            Refusal::WrongGiftCode { attempts_left } => {
                refused.data = json!({"attempts_left": attempts_left});
            }
            Refusal::ReturnNotAllowed | Refusal::RightNotHeld | Refusal::NotAnother => {
                refused.status = StatusCode::FORBIDDEN;
            }
            Refusal::TooManyAttempts => {
                refused.status = StatusCode::TOO_MANY_REQUESTS;
                refused.retry_after_s = Some(600);
            }
            _ => {}
        }
        refused
    }
}

impl Failure {
    /// The one place where errors become answers; what is our fault is logged here, once.
    pub(super) fn answer(&self, language: Language, request_id: &str) -> Refused {
        match self {
            Self::NotSignedIn => Refused::new(StatusCode::UNAUTHORIZED, &refusal::NOT_SIGNED_IN),
            Self::NotAllowed => Refused::new(StatusCode::FORBIDDEN, &refusal::NOT_ALLOWED),
            Self::SignInRefused(retry_after_s) => Refused {
                retry_after_s: *retry_after_s,
                ..Refused::new(StatusCode::OK, &refusal::SIGN_IN_REFUSED)
            },
            Self::NotThere => Refused::new(StatusCode::NOT_FOUND, &refusal::NO_SUCH_ROUTE),
            Self::TooSlow => Refused::unavailable(),
            Self::BeingCounted(statistic) => Refused {
                info: Some(format!("{statistic} is being counted").into()),
                ..Refused::unavailable()
            },
            Self::TooOften(retry_after_s) => Refused {
                retry_after_s: Some(*retry_after_s),
                ..Refused::new(StatusCode::TOO_MANY_REQUESTS, &refusal::TOO_MANY_REQUESTS)
            },
            Self::Wechat(error) => wechat::refused(error, request_id),
            Self::NotErased(error) => {
                tracing::error!(%error, request_id, "an erasure is in the log but not finished");
                Refused::unavailable()
            }
            Self::Panicked => {
                tracing::error!(request_id, "a handler panicked");
                Refused::internal(request_id)
            }
            Self::Fields(errors) => {
                let info =
                    errors.iter().map(|(field, why)| ((*field).to_owned(), why.text(field, language).into()));
                Refused {
                    info: Some(Value::Object(info.collect())),
                    ..Refused::new(StatusCode::OK, &refusal::BAD_PARAMETERS)
                }
            }
            Self::Body(status, why) => Refused {
                info: Some(json!({"body": why.text("body", language)})),
                ..Refused::new(*status, &refusal::BAD_PARAMETERS)
            },
            Self::Said(wording, sentence) => {
                Refused { info: Some(sentence.as_str().into()), ..Refused::new(StatusCode::OK, wording) }
            }
            Self::Waits { data, replayed } => Refused {
                data: data.clone(),
                replayed: *replayed,
                ..Refused::new(StatusCode::OK, &refusal::WAITS_FOR_APPROVAL)
            },
            Self::Replayed(refusal) => Refused { replayed: true, ..Refused::business(refusal, language) },
            Self::Execute(error) => match error {
                ExecuteError::Refused(refusal) => Refused::business(refusal, language),
                ExecuteError::Conflict => Refused::new(StatusCode::OK, &refusal::CHANGED_MEANWHILE),
                ExecuteError::Busy
                | ExecuteError::ShuttingDown
                | ExecuteError::Write(
                    WriteError::Unavailable(_) | WriteError::Unknown(_) | WriteError::Closed,
                ) => Refused::unavailable(),
                ExecuteError::Read(source) => {
                    tracing::error!(request_id, error = %source, "the ledger cannot be read");
                    match source.as_ref() {
                        StoreError::Corrupt { .. } => Refused::internal(request_id),
                        _ => Refused::unavailable(),
                    }
                }
                ExecuteError::Write(WriteError::Rejected(_))
                | ExecuteError::Corrupt(_)
                | ExecuteError::Encode(_) => {
                    tracing::error!(request_id, %error, "internal error");
                    Refused::internal(request_id)
                }
            },
        }
    }
}

impl Refused {
    /// What it says to people, or field by field.
    pub(super) fn info(&self, language: Language) -> Value {
        self.info.clone().unwrap_or_else(|| self.wording.text(language).into())
    }

    /// Waits until it may be told. What is another's is said not to be there, and its stream takes longer to read than none:
    /// whoever asks must not see the difference.
    pub(super) async fn wait_until_due(&self, started: Instant) {
        if self.wording.is_absence() {
            tokio::time::sleep_until((started + NOT_THERE_AFTER).into()).await;
        }
    }

    /// The answer with what it tells clients in its head.
    pub(super) fn headed(&self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.replayed {
            headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
        }
        response
    }

    fn internal(request_id: &str) -> Self {
        Self {
            data: json!({"request_id": request_id}),
            ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, &refusal::INTERNAL)
        }
    }
}
