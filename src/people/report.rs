//! Reports: what users bring to the attention of the moderators. They are kept for the operator, who reads them with
//! `hearth admin list-reports`.
//!
//! Nobody is notified of one but by a line in the log. A report holds identifiers and the reason, no content: that may
//! be gone, or hidden, by the time it is read.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#reporting-content>

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, UserId, api::error::ErrorKind};
use serde::Serialize;

use crate::{
    db::Db,
    error::{Error, Result},
    ground::{clock::Clock, random::Random},
    log::Quotas,
    room::Rooms,
    store::{self, usage::DAY},
};

/// The longest reason, in bytes.
const MAX_REASON: usize = 8_192;

/// Everything that was reported. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reports {
    db: Db,
    rooms: Rooms,
    clock: Clock,
    random: Random,
    quotas: Quotas,
}

/// What somebody reports.
#[derive(Clone, Debug)]
pub(crate) enum Subject {
    Event(OwnedRoomId, OwnedEventId),
    Room(OwnedRoomId),
    User(OwnedUserId),
}

/// A report as operators read it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// When it came in, in milliseconds since the Unix epoch.
    pub received_ts: i64,
    pub reporter: OwnedUserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_id: Option<OwnedRoomId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<OwnedEventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<OwnedUserId>,
    pub reason: String,
}

impl Reports {
    pub(crate) fn new(db: Db, rooms: Rooms, clock: Clock, random: Random, quotas: Quotas) -> Self {
        Self { db, rooms, clock, random, quotas }
    }

    /// Keeps a report.
    ///
    /// An event has to be one that the reporter sees in a room that they are in, else `M_NOT_FOUND`. Rooms and users
    /// are not looked up: nobody finds out by reporting them whether they exist.
    pub(crate) async fn add(&self, reporter: &UserId, subject: Subject, reason: String) -> Result<()> {
        if reason.len() > MAX_REASON {
            return Err(Error::refused(ErrorKind::TooLarge, format!("A reason has at most {MAX_REASON} bytes")));
        }
        if reason.contains('\0') {
            return Err(Error::invalid_param("A reason contains no NUL character"));
        }
        let (mut room_id, mut event_id, mut user_id) = (None, None, None);
        match subject {
            Subject::Event(room, event) => {
                let not_found = || Error::not_found("There is no such event in a room that you are in");
                let mut reading = match self.rooms.open(&room, reporter).await {
                    Err(Error::Refused { kind: ErrorKind::Forbidden, .. }) => return Err(not_found()),
                    opened => opened?,
                };
                if !reading.sight.is_member() || self.rooms.find_event(&mut reading, &event).await?.is_none() {
                    return Err(not_found());
                }
                (room_id, event_id) = (Some(room), Some(event));
            }
            Subject::Room(room) => room_id = Some(room),
            Subject::User(user) => user_id = Some(user),
        }
        let report = store::report::ReportRow {
            id: self.random.token(16),
            reporter: reporter.to_owned(),
            room_id,
            event_id,
            user_id,
            reason,
            received_ts: i64::from(self.clock.now().get()),
        };
        let mut tx = self.db.begin().await?;
        // Locked, so that two at once don't outgrow the quota together.
        store::account::lock(&mut tx, reporter).await?;
        let has = store::report::count(&mut tx, reporter, report.received_ts - DAY).await?;
        let message =
            |most| format!("You have reported {most} things within a day, as many as you may: wait until tomorrow");
        self.quotas.check(reporter, |quotas| quotas.reports_per_day, has, message)?;
        store::report::insert(&mut tx, &report).await?;
        tx.commit().await?;
        tracing::info!(%reporter, "something was reported: hearth admin list-reports shows it");
        Ok(())
    }
}

/// The newest reports, newest first.
pub(crate) async fn list(db: &Db, limit: u32) -> Result<Vec<Report>> {
    let reports = store::report::list(&mut db.read().await?, i64::from(limit)).await?;
    let shown = |report: store::report::ReportRow| {
        let store::report::ReportRow { reporter, room_id, event_id, user_id, reason, received_ts, .. } = report;
        Report { received_ts, reporter, room_id, event_id, user_id, reason }
    };
    Ok(reports.into_iter().map(shown).collect())
}
