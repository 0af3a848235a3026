-- Nobody prunes meanwhile: the index may not begin before what has been pruned.
LOCK TABLE cursors IN EXCLUSIVE MODE;
-- The search index goes by the places of events in their rooms instead of those in the log, so that it can hold history
-- that was fetched later, too. It is made anew: the log is taken into it once more, a little after the start.
TRUNCATE search;
-- Nodes of the release before can't write here any more: what they wrote would be taken for places in rooms.
ALTER TABLE search RENAME COLUMN position TO room_order;
UPDATE cursors SET position = (SELECT position FROM cursors WHERE name = 'pruned') WHERE name = 'search';

-- Keys of events that wait until they are taken into the index, because the log does not tell of them: history that
-- was fetched later, and what the log has been pruned of.
CREATE TABLE history_to_index (
    event_key BIGINT PRIMARY KEY
);
INSERT INTO history_to_index (event_key)
    SELECT position FROM events
    WHERE standing = 0 AND position <= (SELECT position FROM cursors WHERE name = 'pruned');

-- The events whose key does not follow from their order: those that were fetched out of a gap.
CREATE UNIQUE INDEX events_between ON events (room_order) WHERE room_order % 1048576 <> 0;
