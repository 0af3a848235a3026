//! A user's delayed events, page by page: first what is scheduled, in the order in which it is to be sent, then what
//! has ended, the latest first.
//!
//! A token names the last event of the page before, so that events which are sent or scheduled between two pages move
//! nothing.

use std::{fmt, str::FromStr};

use ruma::UserId;

use super::{DelayedEvent, DelayedEvents, store};
use crate::error::{Error, Result};

/// How many events come in a page: all that are scheduled, where the operator has not changed their number.
const PAGE: usize = 100;

/// What of it somebody wants to see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StatusFilter {
    pub(crate) scheduled: bool,
    pub(crate) finalised: bool,
}

/// A page of a user's delayed events.
#[derive(Debug, Default)]
pub(crate) struct DelayedEventsPage {
    pub(crate) scheduled: Vec<DelayedEvent>,
    pub(crate) finalised: Vec<DelayedEvent>,
    /// Where the next page begins, if there is more.
    pub(crate) next: Option<String>,
}

/// How far somebody has read: after an event at a time, in milliseconds since the Unix epoch.
enum DelayedEventToken {
    Scheduled(i64, String),
    Finalised(i64, String),
}

impl DelayedEvents {
    /// A page that begins at a token of an earlier one, or at the beginning.
    pub(crate) async fn page(
        &self,
        user_id: &UserId,
        which: StatusFilter,
        from: Option<&str>,
    ) -> Result<DelayedEventsPage> {
        let place = from.map(DelayedEventToken::from_str).transpose()?;
        let (after, before) = match place {
            None => (Some((i64::MIN, String::new())), (i64::MAX, String::new())),
            // What has ended comes behind all that is scheduled, so it is still whole.
            Some(DelayedEventToken::Scheduled(ts, delay_id)) => (Some((ts, delay_id)), (i64::MAX, String::new())),
            // All that was scheduled has been given.
            Some(DelayedEventToken::Finalised(ts, delay_id)) => (None, (ts, delay_id)),
        };
        let mut conn = self.0.db.read().await?;
        let mut page = DelayedEventsPage::default();
        if let Some((ts, delay_id)) = after.filter(|_| which.scheduled) {
            page.scheduled = store::list_scheduled(&mut conn, user_id, (ts, &delay_id), limit(PAGE)).await?;
            if page.scheduled.len() > PAGE {
                page.scheduled.truncate(PAGE);
                // Two events may be due at one moment: the identifier tells them apart.
                let last = page.scheduled.last();
                page.next = last.map(|last| DelayedEventToken::Scheduled(last.send_ts(), last.id.clone()).to_string());
                return Ok(page);
            }
        }
        if which.finalised {
            // The rest of the page. It may be nothing: then only whether there is more is looked up.
            let left = PAGE - page.scheduled.len();
            let (ts, delay_id) = before;
            page.finalised = store::list_finalised(&mut conn, user_id, (ts, &delay_id), limit(left)).await?;
            if page.finalised.len() > left {
                page.finalised.truncate(left);
                let last = page.finalised.last().and_then(|last| Some((last.finalised.as_ref()?.ts, last.id.clone())));
                // An empty rest begins where the first finalised event would.
                let (ts, delay_id) = last.unwrap_or((ts, delay_id));
                page.next = Some(DelayedEventToken::Finalised(ts, delay_id).to_string());
            }
        }
        Ok(page)
    }

    /// Those of the events that are a user's.
    pub(crate) async fn list(
        &self,
        user_id: &UserId,
        which: StatusFilter,
        delay_ids: &[&str],
    ) -> Result<DelayedEventsPage> {
        // In one look, whatever their status.
        let events = store::list(&mut self.0.db.read().await?, user_id, delay_ids).await?;
        let (finalised, scheduled) = events.into_iter().partition(|event| event.finalised.is_some());
        let wanted = |events: Vec<DelayedEvent>, wanted: bool| if wanted { events } else { Vec::new() };
        Ok(DelayedEventsPage {
            scheduled: wanted(scheduled, which.scheduled),
            finalised: wanted(finalised, which.finalised),
            next: None,
        })
    }
}

/// One more than fits, which shows whether there is more.
fn limit(left: usize) -> i64 {
    i64::try_from(left + 1).unwrap_or(i64::MAX)
}

impl fmt::Display for DelayedEventToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheduled(ts, delay_id) => write!(formatter, "s{ts}_{delay_id}"),
            Self::Finalised(ts, delay_id) => write!(formatter, "f{ts}_{delay_id}"),
        }
    }
}

impl FromStr for DelayedEventToken {
    type Err = Error;

    fn from_str(token: &str) -> Result<Self> {
        let place = || {
            let (ts, delay_id) = token.get(1..)?.split_once('_')?;
            let (ts, delay_id) = (ts.parse().ok()?, delay_id.to_owned());
            match token.chars().next()? {
                's' => Some(Self::Scheduled(ts, delay_id)),
                'f' => Some(Self::Finalised(ts, delay_id)),
                _ => None,
            }
        };
        place().ok_or_else(|| Error::invalid_param("`from` is no token of this endpoint"))
    }
}
