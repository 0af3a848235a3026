//! Publishing addresses at identity servers, and withdrawing them.
//!
//! Who published what and where is remembered, so that it can be withdrawn with the account: a row is gone when the
//! identity server has forgotten the address, not before. What could not be withdrawn with the account is tried again
//! for a while, which takes no token of the user's. No database transaction is open while an identity server is asked.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3account3pidbind>

use std::{collections::BTreeSet, time::Duration};

use futures_util::{StreamExt as _, stream};
use ruma::{ClientSecret, OwnedUserId, SessionId, UserId, thirdparty::Medium};

use super::{Threepids, canonical, deactivated, proof::before};
use crate::{
    error::Result,
    store::{
        account,
        threepid::{self as store, Binding},
    },
};

/// How many identity servers are asked at once, and for how long they may keep somebody waiting altogether.
const AT_ONCE: usize = 4;
const PATIENCE: Duration = Duration::from_secs(30);

/// For how long after its deactivation an account's addresses are withdrawn, and how many at a time.
const WITHDRAWN_FOR: Duration = Duration::from_hours(7 * 24);
const WITHDRAWN_TOGETHER: i64 = 100;

/// What an identity server knows a client and a session by.
#[derive(Clone, Copy)]
pub(crate) struct Credentials<'a> {
    pub(crate) id_server: &'a str,
    pub(crate) id_access_token: &'a str,
    pub(crate) sid: &'a SessionId,
    pub(crate) client_secret: &'a ClientSecret,
}

impl Threepids {
    /// Has an identity server publish the address that was proved to it.
    pub(crate) async fn bind(&self, user_id: &UserId, credentials: Credentials<'_>) -> Result<()> {
        let Credentials { id_server, id_access_token, sid, client_secret } = credentials;
        let server = self.0.identity.get(id_server)?;
        let bound = server.bind(id_access_token, sid.as_str(), client_secret.as_str(), user_id).await?;
        let medium = Medium::from(bound.medium);
        // However the server spells it, it is found again by how clients do.
        let address = canonical(&medium, &bound.address).unwrap_or(bound.address);
        let id_server = server.name().to_owned();
        let binding = Binding { medium: medium.as_str().to_owned(), address, id_server };
        let mut tx = self.0.db.begin().await?;
        let account = account::lock(&mut tx, user_id).await?;
        // It is published by now, so it is written down in any case.
        store::insert_binding(&mut tx, user_id, &binding).await?;
        tx.commit().await?;
        if account.is_some_and(|account| !account.deactivated) {
            return Ok(());
        }
        self.unbind_all(user_id, vec![binding]).await;
        Err(deactivated())
    }

    /// Has an identity server forget an address: the one that is named, else each at which it was published. False if
    /// there is none, or it does not know how to forget.
    pub(crate) async fn unbind(
        &self,
        user_id: &UserId,
        medium: &Medium,
        address: &str,
        id_server: Option<&str>,
    ) -> Result<bool> {
        let address = canonical(medium, address)?;
        let bindings = match id_server {
            Some(id_server) => vec![self.binding(medium, address, id_server)],
            None => self.list_bindings_of(user_id, medium.as_str(), &address).await?,
        };
        let mut all = !bindings.is_empty();
        for binding in &bindings {
            all &= self.unbind_one(user_id, binding).await?;
        }
        Ok(all)
    }

    /// What has to be withdrawn with an account: what was published, or from the server that is named every address.
    pub(crate) async fn list_published(&self, user_id: &UserId, id_server: Option<&str>) -> Result<Vec<Binding>> {
        let mut conn = self.0.db.read().await?;
        let bindings = store::list_bindings(&mut conn, user_id).await?;
        let Some(id_server) = id_server else { return Ok(bindings) };
        let own = store::list(&mut conn, user_id).await?.into_iter().map(|own| (own.medium, own.address));
        let all: BTreeSet<_> = bindings.into_iter().map(|bound| (bound.medium, bound.address)).chain(own).collect();
        let binding = |(medium, address)| Binding { medium, address, id_server: id_server.to_owned() };
        Ok(all.into_iter().map(binding).collect())
    }

    /// Withdraws what was published, as far as the identity servers go along. Returns whether all of them did.
    pub(crate) async fn unbind_all(&self, user_id: &UserId, bindings: Vec<Binding>) -> bool {
        self.unbind_each(bindings.into_iter().map(|binding| (user_id.to_owned(), binding)).collect()).await
    }

    /// Withdraws some of what deactivated accounts have left published, because an identity server or this one was not
    /// well at that time. To be called now and then.
    pub(crate) async fn withdraw_left(&self) -> Result<()> {
        let since = before(self.now(), WITHDRAWN_FOR);
        let mut tx = self.0.db.begin().await?;
        store::delete_left_bindings(&mut tx, since).await?;
        tx.commit().await?;
        let left = store::list_left_bindings(&mut self.0.db.read().await?, since, WITHDRAWN_TOGETHER).await?;
        self.unbind_each(left).await;
        Ok(())
    }

    async fn unbind_each(&self, published: Vec<(OwnedUserId, Binding)>) -> bool {
        let asked = stream::iter(published)
            .map(|(user_id, binding)| async move {
                let unbound = self.unbind_one(&user_id, &binding).await;
                unbound.unwrap_or_else(|error| {
                    tracing::info!(identity_server = binding.id_server, %error, "an address could not be withdrawn");
                    false
                })
            })
            .buffer_unordered(AT_ONCE)
            .fold(true, |all, unbound| async move { all && unbound });
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or(false)
    }

    /// Asks one identity server, and deletes the row once it has forgotten the address.
    async fn unbind_one(&self, user_id: &UserId, binding: &Binding) -> Result<bool> {
        let server = self.0.identity.get(&binding.id_server)?;
        let unbound = server.unbind(user_id, &binding.medium, &binding.address).await?;
        if unbound {
            let mut tx = self.0.db.begin().await?;
            store::delete_binding(&mut tx, user_id, binding).await?;
            tx.commit().await?;
        }
        Ok(unbound)
    }

    /// Where one address is published.
    pub(super) async fn list_bindings_of(&self, user_id: &UserId, medium: &str, address: &str) -> Result<Vec<Binding>> {
        let bindings = store::list_bindings(&mut self.0.db.read().await?, user_id).await?;
        Ok(bindings.into_iter().filter(|bound| bound.medium == medium && bound.address == address).collect())
    }

    pub(super) fn binding(&self, medium: &Medium, address: String, id_server: &str) -> Binding {
        // As the operator spells it, where they trust it.
        let id_server = self.0.identity.get(id_server).map_or(id_server.to_owned(), |server| server.name().to_owned());
        Binding { medium: medium.as_str().to_owned(), address, id_server }
    }
}
