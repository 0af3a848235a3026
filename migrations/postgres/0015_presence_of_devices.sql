-- The devices of a user that are connected, each with what it says and the node that serves it, and when the user has
-- said themselves what they are, or 0. `node_id`, the one node that spoke for all of a user's devices, is what nodes of
-- an older release go on writing during an upgrade.
ALTER TABLE presence ADD COLUMN devices TEXT NOT NULL DEFAULT '{}';
ALTER TABLE presence ADD COLUMN claimed_ts BIGINT NOT NULL DEFAULT 0;
