-- What relates to what: one row for each accepted event that names another in its `m.relates_to` and is not redacted.
CREATE TABLE relations (
    parent TEXT NOT NULL,
    position BIGINT NOT NULL,
    event_id TEXT NOT NULL,
    room_id TEXT NOT NULL,
    sender TEXT NOT NULL,
    rel_type TEXT NOT NULL,
    type TEXT NOT NULL,
    origin_server_ts BIGINT NOT NULL,
    is_edit BOOLEAN NOT NULL,
    PRIMARY KEY (parent, position)
);
CREATE UNIQUE INDEX relations_by_event ON relations (event_id);
CREATE INDEX relations_by_room ON relations (room_id, rel_type, position);

-- Of the events that are there already. The rare ones with a NUL in their content cannot be read by PostgreSQL.
INSERT INTO relations (parent, position, event_id, room_id, sender, rel_type, type, origin_server_ts, is_edit)
SELECT content #>> '{m.relates_to,event_id}', position, event_id, room_id, sender,
    content #>> '{m.relates_to,rel_type}', json ->> 'type', (json ->> 'origin_server_ts')::bigint,
    content #>> '{m.relates_to,rel_type}' = 'm.replace' AND json -> 'state_key' IS NULL
        AND (content -> 'm.new_content' IS NOT NULL OR json ->> 'type' = 'm.room.encrypted')
FROM (
    SELECT position, event_id, room_id, sender, json::jsonb AS json, json::jsonb -> 'content' AS content
    FROM events
    WHERE standing = 0 AND json LIKE '%"m.relates_to"%' AND json NOT LIKE '%\u0000%'
) related
WHERE jsonb_typeof(content #> '{m.relates_to,event_id}') = 'string'
    AND jsonb_typeof(content #> '{m.relates_to,rel_type}') = 'string'
    AND content #>> '{m.relates_to,event_id}' LIKE '$%' AND octet_length(content #>> '{m.relates_to,event_id}') <= 255
    AND octet_length(content #>> '{m.relates_to,rel_type}') BETWEEN 1 AND 255;
