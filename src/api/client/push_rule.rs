//! Push rules. As long as nobody can change them, everybody has those that they begin with.
//!
//! They are read-only and the same for everybody, but not empty: clients work out from them which messages they ring
//! for.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#push-rules-api>

use ruma::{
    UserId,
    api::client::push::{
        PushRule, get_pushrule::v3 as get_pushrule, get_pushrule_actions::v3 as get_pushrule_actions,
        get_pushrule_enabled::v3 as get_pushrule_enabled, get_pushrules_all::v3 as get_pushrules_all,
        get_pushrules_global_scope::v3 as get_pushrules_global_scope,
    },
    push::{AnyPushRule, AnyPushRuleRef, RuleKind},
};
use serde_json::json;

use crate::{
    api::{
        error::ApiResult,
        extract::Call,
        json::{AsJson, Json},
        route::Endpoints,
    },
    app::App,
    error::{Error, Result},
    people::account_data::{push_rules, push_rules_json},
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint::<AsJson<get_pushrules_all::Request>, _, _>(all)
        .endpoint::<AsJson<get_pushrules_global_scope::Request>, _, _>(global)
        .endpoint::<get_pushrule::Request, _, _>(one)
        .endpoint::<get_pushrule_actions::Request, _, _>(actions)
        .endpoint::<get_pushrule_enabled::Request, _, _>(enabled)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrules>
async fn all(_: App, call: Call<AsJson<get_pushrules_all::Request>>) -> ApiResult<Json> {
    Ok(Json::from(json!({ "global": push_rules_json(&call.caller.user_id)? })))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobal>
async fn global(_: App, call: Call<AsJson<get_pushrules_global_scope::Request>>) -> ApiResult<Json> {
    Ok(Json::from(push_rules_json(&call.caller.user_id)?))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobalkindruleid>
async fn one(_: App, call: Call<get_pushrule::Request>) -> ApiResult<get_pushrule::Response> {
    let get_pushrule::Request { kind, rule_id, .. } = call.request;
    let rule = match find(&call.caller.user_id, kind, &rule_id)? {
        AnyPushRule::Override(rule) | AnyPushRule::Underride(rule) => PushRule::from(rule),
        AnyPushRule::Content(rule) => rule.into(),
        AnyPushRule::Room(rule) => rule.into(),
        AnyPushRule::Sender(rule) => rule.into(),
        _ => return Err(unknown(&rule_id).into()),
    };
    Ok(get_pushrule::Response::new(rule))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobalkindruleidactions>
async fn actions(_: App, call: Call<get_pushrule_actions::Request>) -> ApiResult<get_pushrule_actions::Response> {
    let get_pushrule_actions::Request { kind, rule_id, .. } = call.request;
    let rule = find(&call.caller.user_id, kind, &rule_id)?;
    Ok(get_pushrule_actions::Response::new(rule.as_ref().actions().to_vec()))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobalkindruleidenabled>
async fn enabled(_: App, call: Call<get_pushrule_enabled::Request>) -> ApiResult<get_pushrule_enabled::Response> {
    let get_pushrule_enabled::Request { kind, rule_id, .. } = call.request;
    let rule = find(&call.caller.user_id, kind, &rule_id)?;
    Ok(get_pushrule_enabled::Response::new(rule.as_ref().enabled()))
}

/// A rule of a user, by its kind and identifier.
///
/// An identifier alone does not name a rule: two kinds may each have one of that name.
fn find(user_id: &UserId, kind: RuleKind, rule_id: &str) -> Result<AnyPushRule> {
    let rules = push_rules(user_id);
    rules.get(kind, rule_id).map(AnyPushRuleRef::to_owned).ok_or_else(|| unknown(rule_id))
}

fn unknown(rule_id: &str) -> Error {
    Error::not_found(format!("You have no push rule {rule_id} of this kind"))
}
