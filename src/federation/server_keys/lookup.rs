//! What has to be known is looked for: in memory, in the database, with the servers themselves, with notaries.

use std::collections::BTreeSet;

use ruma::ServerName;

use super::{
    fetch,
    needs::{Knowledge, Need},
    ring::ServerKeys,
};
use crate::error::Result;

impl ServerKeys {
    /// What has to be known for these, as far as it can be had: memory, the database, the servers themselves, notaries.
    pub(super) async fn know(&self, needs: &[Need]) -> Result<Knowledge> {
        let servers: BTreeSet<&ServerName> = needs.iter().map(|need| &*need.server).collect();
        let mut knowledge = Knowledge { keys: self.list_known(servers).await?, ..Knowledge::default() };
        let missing = |knowledge: &Knowledge| -> Vec<Need> {
            needs.iter().filter(|need| !knowledge.satisfies(need)).cloned().collect()
        };
        let mut left = missing(&knowledge);
        // Another node may have fetched what memory here does not have.
        self.reload(&left.iter().map(|need| &*need.server).collect(), &mut knowledge).await?;
        left = missing(&knowledge);
        if left.is_empty() {
            return Ok(knowledge);
        }
        // Of many servers some are gone for good, for whose silence everybody would have to wait.
        let notaries_first = fetch::are_many(&left);
        if notaries_first {
            self.ask_notaries(&left, &mut knowledge).await?;
            left = missing(&knowledge);
        }
        self.ask_themselves(&left, &mut knowledge).await?;
        left = missing(&knowledge);
        if !notaries_first {
            self.ask_notaries(&left, &mut knowledge).await?;
        }
        Ok(knowledge)
    }
}
