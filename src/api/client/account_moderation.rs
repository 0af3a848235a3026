//! Locking and suspending accounts, for administrators.
//!
//! Every node goes by the change before the request is answered, and the account's clients learn of it with their next
//! request.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-administration>

use ruma::api::client::admin::{
    is_user_locked::v1::{Request as IsLocked, Response as Locked},
    is_user_suspended::v1::{Request as IsSuspended, Response as Suspended},
    lock_user::v1::{Request as SetLocked, Response as LockedNow},
    suspend_user::v1::{Request as SetSuspended, Response as SuspendedNow},
};

use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
    people::account::Restriction,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint::<IsLocked, _, _>(is_locked)
        .endpoint::<SetLocked, _, _>(set_locked)
        .endpoint::<IsSuspended, _, _>(is_suspended)
        .endpoint::<SetSuspended, _, _>(set_suspended)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1adminlockuserid>
async fn is_locked(app: App, call: Call<IsLocked>) -> ApiResult<Locked> {
    let locked = app.accounts.is_restricted(&call.caller, &call.request.user_id, Restriction::Locked).await?;
    Ok(Locked::new(locked))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv1adminlockuserid>
async fn set_locked(app: App, call: Call<SetLocked>) -> ApiResult<LockedNow> {
    let SetLocked { user_id, locked, .. } = call.request;
    app.accounts.restrict(&call.caller, &user_id, Restriction::Locked, locked).await?;
    Ok(LockedNow::new(locked))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1adminsuspenduserid>
async fn is_suspended(app: App, call: Call<IsSuspended>) -> ApiResult<Suspended> {
    let suspended = app.accounts.is_restricted(&call.caller, &call.request.user_id, Restriction::Suspended).await?;
    Ok(Suspended::new(suspended))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv1adminsuspenduserid>
async fn set_suspended(app: App, call: Call<SetSuspended>) -> ApiResult<SuspendedNow> {
    let SetSuspended { user_id, suspended, .. } = call.request;
    app.accounts.restrict(&call.caller, &user_id, Restriction::Suspended, suspended).await?;
    Ok(SuspendedNow::new(suspended))
}
