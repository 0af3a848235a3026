//! Account data: what clients keep on the server for themselves, global or for one room.
//!
//! Each piece is the newest fact of its type and room. What replaces a piece that it depends on (tags, the fully read
//! marker) names the position of the one that it has seen and fails with a conflict where there is another, so that two
//! devices never undo each other's changes.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#client-config>

mod cache;
mod tag;
#[cfg(test)]
mod tests;

use std::{collections::HashSet, sync::Arc};

use ruma::{OwnedUserId, RoomId, UserId, push::Ruleset};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

use self::cache::IGNORED_USER_LIST;
pub use self::cache::{AccountDataCache, UserData};
use crate::{
    db::Db,
    error::{Error, Result},
    event::fact::{AccountData, DELETED, FULLY_READ, Fact, INVITE_PERMISSION, Write, blocks_invites},
    ground::position::Position,
    log::{CommitError, Log, Quotas},
    store,
};

/// How often a change is made again on what another device has just set.
const ATTEMPTS: usize = 16;
/// In bytes. An index of `PostgreSQL` holds no more than a few thousand.
const MAX_KIND: usize = 255;
const PUSH_RULES: &str = "m.push_rules";
const PUSH_RULE_KINDS: [&str; 5] = ["override", "content", "room", "sender", "underride"];

/// Everybody's account data. Cheap to clone.
#[derive(Clone)]
pub struct AccountDataOfUsers(Arc<Inner>);

struct Inner {
    db: Db,
    log: Log,
    cache: Arc<AccountDataCache>,
    quotas: Quotas,
}

/// Whether only the server sets account data of this type.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#server-behaviour-12>
pub fn is_managed_by_server(kind: &str) -> bool {
    matches!(kind, FULLY_READ | PUSH_RULES)
}

/// The push rules of a user: as long as nobody can change them, those that everybody begins with.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#predefined-rules>
pub fn push_rules(user_id: &UserId) -> Ruleset {
    Ruleset::server_default(user_id)
}

/// Push rules as clients read them: with every kind, also those of which there is none. Ruma leaves these out, and
/// clients go through them without a look.
pub fn push_rules_json(user_id: &UserId) -> Result<Value> {
    let mut rules = serde_json::to_value(push_rules(user_id)).map_err(Error::broken)?;
    if let Some(rules) = rules.as_object_mut() {
        for kind in PUSH_RULE_KINDS {
            rules.entry(kind).or_insert_with(|| json!([]));
        }
    }
    Ok(rules)
}

/// Push rules as global account data, as which clients get them first.
pub fn push_rules_data(user_id: &UserId) -> Result<Arc<AccountData>> {
    let content = to_raw_value(&json!({ "global": push_rules_json(user_id)? })).map_err(Error::broken)?;
    let (user_id, kind) = (user_id.to_owned(), PUSH_RULES.to_owned());
    Ok(Arc::new(AccountData { user_id, room_id: None, kind, content: content.into() }))
}

impl AccountDataOfUsers {
    /// `cache` has to follow the log.
    pub fn new(db: Db, log: Log, cache: Arc<AccountDataCache>, quotas: Quotas) -> Self {
        Self(Arc::new(Inner { db, log, cache, quotas }))
    }

    /// One piece, unless it was deleted; global where there is no room.
    pub async fn find(
        &self,
        user_id: &UserId,
        room_id: Option<&RoomId>,
        kind: &str,
    ) -> Result<Option<Arc<AccountData>>> {
        let data = self.of_user(user_id).await?.get(room_id, kind).cloned();
        Ok(data.filter(|data| !data.is_deleted()))
    }

    /// Puts `content` in place of whatever there is. Types that the server manages are the caller's to refuse.
    /// `M_USER_LIMIT_EXCEEDED` where the user would have more than they may: the log counts it.
    pub async fn set(
        &self,
        user_id: &UserId,
        room_id: Option<&RoomId>,
        kind: &str,
        content: Box<RawValue>,
    ) -> Result<()> {
        if kind.len() > MAX_KIND || kind.contains('\0') {
            let message = format!("A type of account data has at most {MAX_KIND} bytes and no NUL character");
            return Err(Error::invalid_param(message));
        }
        // Applied by other clients of theirs, such a list would hide their own words from them.
        if room_id.is_none() && kind == IGNORED_USER_LIST && cache::listed_users(&content).any(|user| user == user_id) {
            return Err(Error::invalid_param("Nobody can ignore themselves: leave yourself off the list"));
        }
        let data = AccountData {
            user_id: user_id.to_owned(),
            room_id: room_id.map(ToOwned::to_owned),
            kind: kind.to_owned(),
            content: content.into(),
        };
        // An empty content is written in one way, by which the database finds what was deleted.
        let content = if data.is_deleted() { nothing()?.into() } else { data.content };
        let write = Write::fact(Fact::AccountData(AccountData { content, ..data }.into()));
        self.0.log.append(write.within(self.0.quotas.account_data(user_id))).await?;
        Ok(())
    }

    /// Deletes a piece, if there is one. An empty content is left of it, by which clients that knew it see that it is
    /// gone.
    ///
    /// <https://github.com/matrix-org/matrix-spec-proposals/pull/3391>
    pub async fn delete(&self, user_id: &UserId, room_id: Option<&RoomId>, kind: &str) -> Result<()> {
        if self.find(user_id, room_id, kind).await?.is_none() {
            return Ok(());
        }
        self.set(user_id, room_id, kind, nothing()?).await
    }

    /// Sets what `change` makes of the content as it is; again if another device was faster. Nothing is set where
    /// it makes nothing.
    async fn change(
        &self,
        user_id: &UserId,
        room_id: Option<&RoomId>,
        kind: &str,
        change: impl Fn(Option<&RawValue>) -> Result<Option<Box<RawValue>>>,
    ) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let found = store::account_data::find(&mut self.0.db.read().await?, user_id, room_id, kind).await?;
            let Some(content) = change(found.as_ref().map(|(_, data)| &*data.content))? else { return Ok(()) };
            let data = AccountData {
                user_id: user_id.to_owned(),
                room_id: room_id.map(ToOwned::to_owned),
                kind: kind.to_owned(),
                content: content.into(),
            };
            let expected = found.map_or(Position::START, |(at, _)| at);
            let write = Write::fact(Fact::AccountData(data.replacing(expected)));
            match self.0.log.append(write.within(self.0.quotas.account_data(user_id))).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Unavailable(format!("{kind} is being changed from elsewhere")))
    }

    /// Whom a user ignores.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#ignoring-users>
    pub async fn ignored(&self, user_id: &UserId) -> Result<Arc<HashSet<OwnedUserId>>> {
        Ok(self.of_user(user_id).await?.ignored())
    }

    /// Whether a user takes no invitations.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#invite-permission>
    pub async fn blocks_invites(&self, user_id: &UserId) -> Result<bool> {
        let data = self.find(user_id, None, INVITE_PERMISSION).await?;
        Ok(data.is_some_and(|data| blocks_invites(data.content.get())))
    }

    /// Everything of a user as it is now, from memory where it is there.
    pub async fn of_user(&self, user_id: &UserId) -> Result<Arc<UserData>> {
        if let Some(data) = self.0.cache.find(user_id) {
            return Ok(data);
        }
        loop {
            let mut snapshot = self.0.log.tail().snapshot(&self.0.db).await?;
            let rows: Vec<_> = store::account_data::list_since(&mut snapshot, user_id, Position::START)
                .await?
                .into_iter()
                .map(|(at, data)| (at, Arc::new(data)))
                .collect();
            let position = snapshot.close().await;
            let remember = |missed: &[_]| self.0.cache.remember(user_id, position, &rows, missed);
            if let Some(data) = self.0.log.tail().catch_up(position, remember) {
                return Ok(data);
            }
        }
    }
}

/// What is left of a piece that was deleted.
fn nothing() -> Result<Box<RawValue>> {
    RawValue::from_string(DELETED.to_owned()).map_err(Error::broken)
}
