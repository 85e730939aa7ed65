//! The directory: members, levels, tags, employees.

use super::{BEFORE, Field, Holds, LIMIT, MAX_ID, PAGE, Route, Run, optional, required};
use crate::http::directory::{DIRECTIONS, Directory, SHOP_ORDER, USER_ORDER};

const MEMBER_ID: Field = required("id", Holds::Id, "會員ID");
const EMPLOYEE_ID: Field = required("id", Holds::Id, "員工ID");
const LEVEL_ID: Field = required("id", Holds::Id, "會員等級ID");
const TAG_ID: Field = required("id", Holds::Id, "標簽ID");
const NEW_ID: Field = optional("id", Holds::Id, "its id, if it is to be this one");

macro_rules! member_fields {
    ($id:expr $(, $more:expr)*) => {
        &[
            $id,
            optional("nickname", Holds::Text(100), "the name he shows"),
            optional("headimgurl", Holds::Text(500), "his picture"),
            optional("member_name", Holds::Text(100), "his name"),
            optional("phone", Holds::Text(30), "his telephone"),
            optional("member_card", Holds::Text(50), "the number of his card"),
            optional("level_id", Holds::Int(0, MAX_ID), "his level"),
            optional("shop_id", Holds::Int(0, MAX_ID), "his shop"),
            optional("tag_ids", Holds::Ints(MAX_ID), "his tags, at most 500"),
            optional("birthday", Holds::Day, "his birthday"),
            optional("card_end", Holds::Day, "the last day of his card"),
            optional("sex", Holds::Int(0, 2), "0 unknown, 1 male, 2 female"),
            optional("user_id", Holds::Int(0, MAX_ID), "the employee who looks after him"),
            $($more),*
        ]
    };
}

macro_rules! employee_fields {
    ($($first:expr),*) => {
        &[
            $($first,)*
            optional("phone", Holds::Text(30), "his telephone"),
            optional("state", Holds::Flag, "1 works here, 0 has left; a new one works here"),
            optional("identity", Holds::Text(50), "the number of his identity card"),
            optional("entry_date", Holds::Day, "his first day"),
            optional("leave_date", Holds::Day, "his last day; 2099-01-01 until it is known"),
            optional("office_id", Holds::Int(0, MAX_ID), "the office that he holds; 0 = none"),
            optional("is_manager", Holds::Flag, "1 manages the shop where he works; only operators make managers"),
        ]
    };
}

macro_rules! member {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            r#"{"id":439,"phone":"13800000000","member_name":"王小明","member_card":"8888","join_date":"2018-11-01 00:00:00","user_id":1000,"sex":1,"birthday":"1990-02-28","age":28,"state":1,"level":{"id":1,"name":"普通會員","url":""},"shop_id":1,"tag_ids":"1","card_end":"2019-12-31","wechat_user":{"nickname":"小明","headimgurl":""},"members_tags":[{"id":1,"tag_name":"常客","color":"red"}]}"#,
            $after
        )
    };
}

macro_rules! employee {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            r#"{"id":1000,"name":"店員","code":"","token":"","phone":"","identity":"","entry_date":"2018-11-01","leave_date":"2099-01-01","shop_id":1,"state":1,"wechat_user_id":0,"shop_name":"人民路店","office_id":0,"office_title":"","is_manager":0}"#,
            $after
        )
    };
}

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/member/add",
        about: "Adds a member to the directory [ours]",
        writes: true,
        fields: member_fields!(optional("id", Holds::Id, "his id, if it is to be this one")),
        refusals: &[],
        request: r#"{"id":439,"nickname":"小明","level_id":1}"#,
        data: r#"{"id":439}"#,
        run: Run::Directory(Directory::MemberAdd),
    },
    Route {
        path: "/member/edit",
        about: "Changes of a member what is sent, and leaves the rest; tag_ids replaces all his tags",
        writes: true,
        fields: member_fields!(
            MEMBER_ID,
            optional("level", Holds::Int(0, MAX_ID), "the manual's name of level_id here")
        ),
        refusals: &[310],
        request: r#"{"id":439,"phone":"13800000000","tag_ids":"1"}"#,
        data: r#"{"id":439}"#,
        run: Run::Directory(Directory::MemberEdit),
    },
    Route {
        path: "/member/get",
        about: "One member; state 0 where his personal data was erased",
        writes: false,
        fields: &[MEMBER_ID],
        refusals: &[310],
        request: r#"{"id":439}"#,
        data: member!("", ""),
        run: Run::Directory(Directory::MemberGet),
    },
    Route {
        path: "/member/info",
        about: "One member with his tags, and how many coupons he has in each state",
        writes: false,
        fields: &[required("member_id", Holds::Id, "會員ID")],
        refusals: &[310],
        request: r#"{"member_id":439}"#,
        data: member!(
            r#"{"info":"#,
            r#","myTags":[{"id":1,"tag":1,"member_id":439,"tag_name":"常客","color_detail":"red"}],"coupons":{"unused":3,"used":1,"expired":0}}"#
        ),
        run: Run::Directory(Directory::MemberInfo),
    },
    Route {
        path: "/member/list",
        about: "Members, newest id first: those whose texts begin as asked, and who have the level, shop and tag [ours]",
        writes: false,
        fields: &[
            PAGE,
            LIMIT,
            BEFORE,
            optional("phone", Holds::Text(30), "how the telephone number begins"),
            optional("member_card", Holds::Text(50), "how the number of the card begins"),
            optional("name", Holds::Text(100), "how the name or the nickname begins"),
            optional("level_id", Holds::Int(0, MAX_ID), "0 = any"),
            optional("shop_id", Holds::Int(0, MAX_ID), "0 = any"),
            optional("tag_id", Holds::Int(0, MAX_ID), "0 = any"),
        ],
        refusals: &[],
        request: r#"{"page":1,"limit":10,"phone":"1380000"}"#,
        data: member!("[", "]"),
        run: Run::Directory(Directory::MemberList),
    },
    Route {
        path: "/member/erase",
        about: "Erases a member's personal data and the texts of his reviews for good; his coupons stay. Once erased, the first date and reason are answered [ours]",
        writes: true,
        fields: &[MEMBER_ID, required("reason", Holds::Text(200), "why")],
        refusals: &[310],
        request: r#"{"id":439,"reason":"會員要求"}"#,
        data: r#"{"id":439,"create_date":1543290243,"reason":"會員要求"}"#,
        run: Run::Directory(Directory::MemberErase),
    },
    Route {
        path: "/member/unbindwechat",
        about: "Unbinds a member from WeChat: nobody signs in as him through it until it is bound again. Tokens that were given before hold until their end [ours]",
        writes: true,
        fields: &[MEMBER_ID],
        refusals: &[310],
        request: r#"{"id":439}"#,
        data: r#"{"id":439}"#,
        run: Run::Directory(Directory::WechatUnbind),
    },
    Route {
        path: "/wechat/openid",
        about: "獲取Openid: who the member is to WeChat, by app [ours]",
        writes: false,
        fields: &[],
        refusals: &[],
        request: "{}",
        data: r#"[{"appid":"wx0123456789abcdef","openid":"oGZUI0egBJY1zhBYw2KhdUfwVJJE"}]"#,
        run: Run::Directory(Directory::WechatOpenids),
    },
    Route {
        path: "/memberlevel/getlist",
        about: "Member levels, newest id first",
        writes: false,
        fields: &[PAGE, LIMIT, BEFORE],
        refusals: &[],
        request: r#"{"page":1,"limit":10}"#,
        data: r#"[{"id":1,"name":"普通會員","url":"","remark":"註冊即得"}]"#,
        run: Run::Directory(Directory::LevelList),
    },
    Route {
        path: "/memberlevel/info",
        about: "One member level; powerList is empty, because a level's rights are not the ledger's",
        writes: false,
        fields: &[LEVEL_ID],
        refusals: &[2005],
        request: r#"{"id":1}"#,
        data: r#"{"id":1,"name":"普通會員","url":"","remark":"註冊即得","powerList":[]}"#,
        run: Run::Directory(Directory::LevelInfo),
    },
    Route {
        path: "/memberlevel/add",
        about: "Adds a member level",
        writes: true,
        fields: &[
            NEW_ID,
            required("name", Holds::Text(100), "its name"),
            optional("url", Holds::Text(500), "its picture"),
            required("remark", Holds::Text(500), "for the merchant"),
        ],
        refusals: &[],
        request: r#"{"name":"普通會員","url":"","remark":"註冊即得"}"#,
        data: r#"{"id":1}"#,
        run: Run::Directory(Directory::LevelAdd),
    },
    Route {
        path: "/memberlevel/edit",
        about: "Changes a member level; url and remark stay where they are not sent",
        writes: true,
        fields: &[
            LEVEL_ID,
            required("name", Holds::Text(100), "its name"),
            optional("url", Holds::Text(500), "its picture"),
            optional("remark", Holds::Text(500), "for the merchant"),
        ],
        refusals: &[2005],
        request: r#"{"id":1,"name":"銀卡會員"}"#,
        data: r#"{"id":1}"#,
        run: Run::Directory(Directory::LevelEdit),
    },
    Route {
        path: "/memberlevel/del",
        about: "Deletes a member level; 401 on id while members have it",
        writes: true,
        fields: &[LEVEL_ID],
        refusals: &[2005],
        request: r#"{"id":2}"#,
        data: "1",
        run: Run::Directory(Directory::LevelDelete),
    },
    Route {
        path: "/tag/getlist",
        about: "Every tag, newest id first [ours]",
        writes: false,
        fields: &[PAGE, LIMIT, BEFORE],
        refusals: &[],
        request: "{}",
        data: r#"[{"id":1,"tag_name":"常客","color":"red"}]"#,
        run: Run::Directory(Directory::TagList),
    },
    Route {
        path: "/tag/add",
        about: "Adds a tag [ours]",
        writes: true,
        fields: &[
            NEW_ID,
            required("tag_name", Holds::Text(50), "its name"),
            optional("color", Holds::Text(30), "its colour"),
        ],
        refusals: &[],
        request: r#"{"tag_name":"常客","color":"red"}"#,
        data: r#"{"id":1}"#,
        run: Run::Directory(Directory::TagAdd),
    },
    Route {
        path: "/tag/edit",
        about: "Changes of a tag what is sent [ours]",
        writes: true,
        fields: &[
            TAG_ID,
            optional("tag_name", Holds::Text(50), "its name"),
            optional("color", Holds::Text(30), "its colour"),
        ],
        refusals: &[2005],
        request: r#"{"id":1,"color":"green"}"#,
        data: r#"{"id":1}"#,
        run: Run::Directory(Directory::TagEdit),
    },
    Route {
        path: "/tag/del",
        about: "Deletes a tag and takes it from its members [ours]",
        writes: true,
        fields: &[TAG_ID],
        refusals: &[2005],
        request: r#"{"id":1}"#,
        data: "1",
        run: Run::Directory(Directory::TagDelete),
    },
    Route {
        path: "/user/add",
        about: "Adds an employee to the directory; 1002 where he would get a right that the caller has not himself [ours]",
        writes: true,
        fields: employee_fields!(
            optional("id", Holds::Id, "his id, if it is to be this one"),
            required("name", Holds::Text(100), "his name"),
            required("shop_id", Holds::Id, "where he works")
        ),
        refusals: &[2003, 2005],
        request: r#"{"id":1000,"name":"店員","shop_id":1}"#,
        data: r#"{"id":1000}"#,
        run: Run::Directory(Directory::EmployeeAdd),
    },
    Route {
        path: "/user/edit",
        about: "Changes of an employee what is sent, and leaves the rest; 1002 where he would get a right that the caller has not himself. It counts with his next request [ours]",
        writes: true,
        fields: employee_fields!(
            EMPLOYEE_ID,
            optional("name", Holds::Text(100), "his name"),
            optional("shop_id", Holds::Id, "where he works")
        ),
        refusals: &[310, 2003, 2005],
        request: r#"{"id":1000,"phone":"13900000000","leave_date":"2018-12-31"}"#,
        data: r#"{"id":1000}"#,
        run: Run::Directory(Directory::EmployeeEdit),
    },
    Route {
        path: "/user/info",
        about: "One employee",
        writes: false,
        fields: &[EMPLOYEE_ID],
        refusals: &[310],
        request: r#"{"id":1000}"#,
        data: employee!("", ""),
        run: Run::Directory(Directory::EmployeeInfo),
    },
    Route {
        path: "/user/list",
        about: "The employees of a shop or of all, newest id first unless they are to be sorted",
        writes: false,
        fields: &[
            PAGE,
            LIMIT,
            required("shop_id", Holds::Int(0, MAX_ID), "門店ID; 0 = all"),
            optional("key", Holds::OneOf(USER_ORDER), "what to sort by; default id"),
            optional("order", Holds::OneOf(DIRECTIONS), "default normal: newest id first, whatever the key"),
        ],
        refusals: &[],
        request: r#"{"page":1,"limit":10,"shop_id":1,"key":"name","order":"asc"}"#,
        data: employee!("[", "]"),
        run: Run::Directory(Directory::EmployeeList),
    },
    Route {
        path: "/user/getlist",
        about: "Every shop with who works there, newest id first",
        writes: false,
        fields: &[PAGE, LIMIT, BEFORE],
        refusals: &[],
        request: "{}",
        data: r#"[{"id":1,"shop_name":"人民路店","userList":[{"id":1000,"name":"店員"}]}]"#,
        run: Run::Directory(Directory::EmployeesByShop),
    },
    Route {
        path: "/user/shoplist",
        about: "The shops, newest id first unless they are to be sorted",
        writes: false,
        fields: &[
            PAGE,
            LIMIT,
            optional("key", Holds::OneOf(SHOP_ORDER), "what to sort by; default id"),
            optional("order", Holds::OneOf(DIRECTIONS), "default normal: newest id first, whatever the key"),
        ],
        refusals: &[],
        request: r#"{"page":1,"limit":10,"key":"id","order":"normal"}"#,
        data: r#"[{"id":2,"shop_name":"人民路店","title":"","address":"人民路1號","phone":"020-88888888","state":1,"user_id":1000}]"#,
        run: Run::Directory(Directory::ShopList),
    },
];
