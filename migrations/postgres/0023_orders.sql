-- Events have three numbers: their position in the log, their order in the room, and a key by which rows refer to them,
-- which stays in the column `position`.

-- Where an event stands among those of its room: its position times 2^20 if the log told of it as it happened. What is
-- fetched from other servers later stands between two of these, or below zero; outliers, whose place is not known, below everything.
ALTER TABLE events ADD COLUMN room_order BIGINT NOT NULL DEFAULT 0;
-- Those of the events that an event follows which are not here: what is before it may be missing.
ALTER TABLE events ADD COLUMN missing TEXT;
UPDATE events SET room_order = position * 1048576;
-- Nodes of the release before can't write here any more: what they wrote would have no order.
ALTER TABLE events ALTER COLUMN room_order DROP DEFAULT;
DROP INDEX events_by_room;
CREATE INDEX events_by_room ON events (room_id, room_order);
DROP INDEX late_events;
CREATE INDEX late_events ON events (room_id, late_ts, room_order) WHERE late_ts IS NOT NULL;
DROP INDEX events_in_threads;
CREATE INDEX events_in_threads ON events (room_id, room_order) WHERE thread_root IS NOT NULL;
CREATE INDEX gaps ON events (room_id, room_order) WHERE missing IS NOT NULL;

-- Keys below zero, for events that the log has not told of. The next one is one less.
CREATE TABLE event_keys (
    last BIGINT NOT NULL
);
INSERT INTO event_keys (last) VALUES (0);

-- Everything that is compared along a room now is by its order. Each in two steps, because a key must not meet another
-- one on its way.
ALTER TABLE state_versions RENAME COLUMN from_position TO from_order;
UPDATE state_versions SET from_order = -from_order;
UPDATE state_versions SET from_order = from_order * -1048576;
ALTER TABLE state_forks RENAME COLUMN base_position TO base_order;
UPDATE state_forks SET base_order = base_order * 1048576;
ALTER TABLE relations RENAME COLUMN position TO room_order;
UPDATE relations SET room_order = -room_order;
UPDATE relations SET room_order = room_order * -1048576;
ALTER TABLE receipts RENAME COLUMN event_position TO event_order;
UPDATE receipts SET event_order = event_order * 1048576;

-- Which states hold an outlier, for when the log tells of it and it gets its position for a key.
CREATE INDEX outliers_in_state ON state_versions (event_position) WHERE event_position < 0;
CREATE INDEX outliers_in_forks ON state_fork_changes (event_position) WHERE event_position < 0;

-- How often history has been fetched for a room. What is placed by what one knows of it is only written if that still
-- holds.
CREATE TABLE room_histories (
    room_id TEXT PRIMARY KEY,
    fetched BIGINT NOT NULL
);

-- The planner knows nothing of the new numbers yet.
ANALYZE events;
ANALYZE state_versions;
ANALYZE relations;
