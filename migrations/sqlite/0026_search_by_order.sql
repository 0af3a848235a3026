-- The search index can hold history that was fetched later. What goes by its key goes by its order as well, so it stays;
-- what was fetched out of a gap, whose key says nothing of its order, has an index of its own, by the order.
CREATE VIRTUAL TABLE search_of_gaps USING fts5 (
    room, body, name, topic,
    content = '', contentless_delete = 1, tokenize = 'ascii'
);

-- Keys of events that wait until they are taken into the index, because the log does not tell of them: history that was
-- fetched later.
CREATE TABLE history_to_index (
    event_key BIGINT PRIMARY KEY
) WITHOUT ROWID;
INSERT INTO history_to_index (event_key) SELECT position FROM events WHERE standing = 0 AND position < 0;

-- The events whose key does not follow from their order: those that were fetched out of a gap.
CREATE UNIQUE INDEX events_between ON events (room_order) WHERE room_order % 1048576 <> 0;
