//! Imports of coupons and members from CSV.

use super::{Field, Holds, Route, Run, optional, required};
use crate::http::import::Import;

const DRY_RUN: Field =
    optional("dry_run", Holds::Flag, "1 = only check; default 1: an import is asked for with 0");

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/elecoupons/import",
        about: "Takes over coupons of another system, each with its id, holder, dates and state; a bad line stops nothing else. \
                The file is the field csv, or the whole body as text/csv with dry_run in the query; 1004 where so many wait for approval [ours]",
        writes: true,
        fields: &[
            required(
                "csv",
                Holds::Csv,
                "at most 32 MiB, UTF-8, UTF-16 with a mark, or GBK. Columns, in any order: id, coupon_id (the definition), member_id, start_date, end_date, create_date (a day or 2018-11-24 10:31:41; default start_date), state (unused 未使用 0, used 已使用 1, voided 已作廢 3), use_date (when it was used or voided), shop_id and user_id (where and by whom; 0 = the member)",
            ),
            DRY_RUN,
        ],
        refusals: &[],
        request: r#"{"csv":"id,coupon_id,member_id,start_date,end_date,state\n900001,1,439,2026-01-01,2026-12-31,unused\n900002,1,439,2026-12-31,2026-01-01,unused\n","dry_run":1}"#,
        data: r#"{"nums":2,"ok_num":1,"bad_num":1,"dry_run":1,"errors":[{"line":3,"field":"end_date","why":"end_date不能早於開始日期"}]}"#,
        run: Run::Import(Import::Coupons),
    },
    Route {
        path: "/member/import",
        about: "Adds members from another system; a bad line stops nothing else. The file is the field csv, or the whole body as \
                text/csv with dry_run in the query. The same file again under the same key, or under none, adds nobody twice [ours]",
        writes: true,
        fields: &[
            required(
                "csv",
                Holds::Csv,
                "at most 32 MiB, UTF-8, UTF-16 with a mark, or GBK. Columns, in any order, none required: id, nickname, headimgurl, member_name, phone, member_card, level_id, shop_id, tag_ids (1;2), birthday, card_end, sex (0, 1, 2)",
            ),
            DRY_RUN,
        ],
        refusals: &[],
        request: r#"{"csv":"id,nickname,tag_ids\n900001,小明,1;2\n900001,小紅,\n","dry_run":1}"#,
        data: r#"{"nums":2,"ok_num":1,"bad_num":1,"dry_run":1,"errors":[{"line":3,"field":"id","why":"id在文件中重複"}]}"#,
        run: Run::Import(Import::Members),
    },
];
