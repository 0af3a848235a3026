//! Redactions that take effect later than they arrive: the redacted form in place of the original, in `events`.

use std::collections::HashMap;

use ruma::{EventId, OwnedEventId};

use super::rows::{Rows, each_once};
use crate::{
    db::{Conn, DbResult, Tx},
    event::fact::LateRedaction,
    ground::position::Position,
    store,
};

impl Rows for LateRedaction {
    async fn write(tx: &mut Tx, facts: &[(Position, &Self)]) -> DbResult<()> {
        for (_, Self { redacted, .. }) in facts {
            let Some(because) = redacted.redacted_because() else { continue };
            store::redaction::replace(tx, redacted, because.event_id()).await?;
        }
        Ok(())
    }

    async fn read(conn: &mut Conn, entries: Vec<(Position, OwnedEventId)>) -> DbResult<Vec<(Position, Self)>> {
        let targets: Vec<&EventId> = each_once(entries.iter().map(|(_, target)| &**target));
        let events = store::event::list(conn, &targets).await?;
        let redacted: HashMap<&EventId, Self> = events
            .iter()
            .filter(|event| event.pdu.redacted_because().is_some())
            .map(|event| (event.pdu.event_id(), Self { redacted: event.pdu.clone(), order: event.order }))
            .collect();
        Ok(entries.iter().filter_map(|(at, target)| Some((*at, redacted.get(&**target)?.clone()))).collect())
    }
}
