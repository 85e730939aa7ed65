//! Signing in and out, passwords, second factors, accounts.

use super::{BEFORE, Field, Holds, LIMIT, MAX_ID, PAGE, Route, Run, optional, required};
use crate::http::account::{Account, Open, ROLES};
use crate::sign_in::{MAX_NAME, MAX_PASSWORD};

const NAME: Field = required("name", Holds::Text(MAX_NAME as i64), "the name that one signs in with");

macro_rules! code {
    () => {
        r#"{"id":7,"code":"ac1.7.1.AAAAAAAAAAAAAAAAAAAAAA","url":"https://coupons.example/setup#ac1.7.1.AAAAAAAAAAAAAAAAAAAAAA","expires_date":1795408200}"#
    };
}

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/user/login",
        about: "Signs in. The session's token stands in the answer and in a cookie; whoever uses the cookie sends csrf as \
                x-csrf-token with every POST. expires_date is the latest end in Unix seconds; an operator's and an \
                auditor's session also ends after 30 idle minutes. Why it is refused is told to nobody; once locked, \
                Retry-After says for how long",
        writes: false,
        fields: &[
            NAME,
            required("password", Holds::Text(MAX_PASSWORD as i64), "the password"),
            optional("totp", Holds::Text(10), "the second factor's six digits, where one is asked"),
        ],
        refusals: &[1003],
        request: r#"{"name":"boss","password":"correct horse battery"}"#,
        data: r#"{"token":"cs1.…","csrf":"…","expires_date":1795449600,"id":7,"name":"boss","role":"operator","user_id":0}"#,
        run: Run::Open(Open::Login),
    },
    Route {
        path: "/user/setpassword",
        about: "Chooses a password by a code, once; a setup code makes the first operator's account. Every session ends",
        writes: true,
        fields: &[
            required("code", Holds::Text(200), "the code: what follows # in the link"),
            required(
                "password",
                Holds::Text(MAX_PASSWORD as i64),
                "the new password, at least 10 characters",
            ),
            optional(
                "name",
                Holds::Text(MAX_NAME as i64),
                "the name to sign in with, where there is none yet or it is to be another",
            ),
        ],
        refusals: &[1003],
        request: r#"{"code":"ac1.7.1.AAAAAAAAAAAAAAAAAAAAAA","password":"correct horse battery","name":"boss"}"#,
        data: r#"{"id":7,"name":"boss"}"#,
        run: Run::Open(Open::SetPassword),
    },
    Route {
        path: "/user/logout",
        about: "Ends the session that it is called with, at once on every server; a token is cut short instead, which every \
                server knows within a minute",
        writes: false,
        fields: &[],
        refusals: &[],
        request: "{}",
        data: "1",
        run: Run::Account(Account::Logout),
    },
    Route {
        path: "/user/logouteverywhere",
        about: "Ends every session of one's account, at once on every server [ours]",
        writes: true,
        fields: &[],
        refusals: &[310],
        request: "{}",
        data: r#"{"id":7}"#,
        run: Run::Account(Account::LogoutEverywhere),
    },
    Route {
        path: "/user/editpassword",
        about: "Chooses another password. Every session ends, this one too",
        writes: true,
        fields: &[
            required(
                "old",
                Holds::Text(MAX_PASSWORD as i64),
                "the password until now; wrong ones count as tries to sign in",
            ),
            required("new", Holds::Text(MAX_PASSWORD as i64), "the new one, at least 10 characters"),
        ],
        refusals: &[310, 1003],
        request: r#"{"old":"correct horse battery","new":"wrong horse battery"}"#,
        data: r#"{"id":7}"#,
        run: Run::Account(Account::EditPassword),
    },
    Route {
        path: "/user/resetpassword",
        about: "Gives out a link by which somebody chooses another password within 30 minutes, once. His old one holds no \
                longer, and every session of his ends",
        writes: true,
        fields: &[
            optional("id", Holds::Id, "員工ID"),
            optional("name", Holds::Text(MAX_NAME as i64), "instead of id: the name that he signs in with"),
            optional(
                "totp_off",
                Holds::Flag,
                "1 = no second factor is asked of him any more: he has lost it",
            ),
        ],
        refusals: &[310],
        request: r#"{"id":1000}"#,
        data: code!(),
        run: Run::Account(Account::ResetPassword),
    },
    Route {
        path: "/user/totp",
        about: "The secret of a second factor (RFC 6238) and the URL that apps read, until it is asked for; state 1 = one is \
                asked, and its secret is shown no more [ours]",
        writes: false,
        fields: &[],
        refusals: &[310],
        request: "{}",
        data: r#"{"state":0,"secret":"GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ","url":"otpauth://totp/coupon-ledger:boss?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=coupon-ledger"}"#,
        run: Run::Account(Account::Totp),
    },
    Route {
        path: "/user/totpon",
        about: "Asks for the second factor from now on, if the code is one of it [ours]",
        writes: true,
        fields: &[required("code", Holds::Text(10), "the six digits that the app shows")],
        refusals: &[310, 1003],
        request: r#"{"code":"123456"}"#,
        data: r#"{"state":1}"#,
        run: Run::Account(Account::TotpOn),
    },
    Route {
        path: "/user/totpoff",
        about: "Asks for no second factor any more [ours]",
        writes: true,
        fields: &[required(
            "password",
            Holds::Text(MAX_PASSWORD as i64),
            "the password; wrong ones count as tries to sign in",
        )],
        refusals: &[310, 1003],
        request: r#"{"password":"correct horse battery"}"#,
        data: r#"{"state":0}"#,
        run: Run::Account(Account::TotpOff),
    },
    Route {
        path: "/account/add",
        about: "Creates an account and gives out a link by which its owner chooses his password within 30 minutes [ours]",
        writes: true,
        fields: &[
            NAME,
            required("role", Holds::OneOf(ROLES), "what its owner is"),
            optional("user_id", Holds::Int(1, MAX_ID), "the employee whose it is, where it is one's"),
        ],
        refusals: &[310],
        request: r#"{"name":"clerk","role":"employee","user_id":1000}"#,
        data: code!(),
        run: Run::Account(Account::Add),
    },
    Route {
        path: "/account/list",
        about: "Every account, newest id first [ours]",
        writes: false,
        fields: &[PAGE, LIMIT, BEFORE],
        refusals: &[],
        request: "{}",
        data: r#"[{"id":7,"name":"boss","role":"operator","user_id":0,"state":1,"has_password":1,"totp":0}]"#,
        run: Run::Account(Account::List),
    },
    Route {
        path: "/account/state",
        about: "Lets an account be used or not; when not, every session of it ends at once [ours]",
        writes: true,
        fields: &[
            required("id", Holds::Id, "the account's id"),
            required("state", Holds::Flag, "1 on, 0 off"),
        ],
        refusals: &[310],
        request: r#"{"id":7,"state":1}"#,
        data: r#"{"id":7,"state":1}"#,
        run: Run::Account(Account::State),
    },
    Route {
        path: "/account/subject",
        about: "Lets in whom a provider of OpenID Connect names so, by /oidc/login; without subject nobody any more. An account has \
                one link at a time, and a subject one account [ours]",
        writes: true,
        fields: &[
            required("id", Holds::Id, "the account's id"),
            required("issuer", Holds::Text(255), "the provider's issuer, as --oidc-issuer says it"),
            optional("subject", Holds::Text(255), "sub in the provider's id tokens"),
        ],
        refusals: &[310],
        request: r#"{"id":7,"issuer":"https://login.example","subject":"248289761001"}"#,
        data: r#"{"id":7,"linked":1}"#,
        run: Run::Account(Account::Subject),
    },
];
