//! What writing to rooms does, through [`super::Rooms`] on a real database.

mod account;
mod alias;
mod cache;
mod create;
mod membership;
mod nodes;
mod notice;
mod residency;
mod send;
mod upgrade;

use ruma::RoomId;

use super::world::RoomWorld;
use crate::{
    db::{args, statements},
    error::{Error, Result},
    event::Stored,
    ground::position::Order,
    store,
};

statements! {
    SET_PROFILE = "INSERT INTO profiles (user_id, field, value) VALUES ($1, $2, $3)
        ON CONFLICT (user_id, field) DO UPDATE SET value = excluded.value";
    SET_ACCOUNT_DATA = "INSERT INTO account_data (user_id, room_id, type, content, position) VALUES ($1, $2, $3, $4, 1)";
    COUNT_ROOMS = "SELECT COUNT(*) FROM rooms";
}

/// The error code of a refusal.
fn errcode<T: std::fmt::Debug>(result: Result<T>) -> String {
    match result.unwrap_err() {
        Error::Refused { kind, .. } => kind.errcode().to_string(),
        other => panic!("not a refusal: {other:?}"),
    }
}

impl RoomWorld {
    /// Everything that happened in a room, oldest first: each event was built on the one before.
    pub(super) async fn one_chain(&self, room_id: &RoomId) -> Vec<Stored> {
        let events = self.events(room_id).await;
        for (before, event) in events.iter().zip(&events[1..]) {
            assert_eq!(event.pdu.prev_events(), [before.pdu.event_id()]);
        }
        events
    }

    /// Everything that was said in a room, oldest first.
    async fn events(&self, room_id: &RoomId) -> Vec<Stored> {
        let mut conn = self.db.read().await.unwrap();
        store::event::list_forward(&mut conn, room_id, Order::START, Order::END, 10_000).await.unwrap()
    }

    async fn count_rooms(&self) -> i64 {
        self.db.read().await.unwrap().find(&COUNT_ROOMS, args![]).await.unwrap().unwrap().get(0).unwrap()
    }

    async fn set_displayname(&self, user: &str, name: &str) {
        let mut tx = self.db.begin().await.unwrap();
        let (user, json) = (super::world::user(user), serde_json::json!(name).to_string());
        tx.execute(&SET_PROFILE, args![&user, "displayname", &json]).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn set_account_data(&self, user: &str, room_id: &str, kind: &str, content: serde_json::Value) {
        let mut tx = self.db.begin().await.unwrap();
        let (user, json) = (super::world::user(user), content.to_string());
        tx.execute(&SET_ACCOUNT_DATA, args![&user, room_id, kind, &json]).await.unwrap();
        tx.commit().await.unwrap();
    }
}
