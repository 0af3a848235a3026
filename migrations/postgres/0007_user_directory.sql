-- Whether anybody may enter or read a room: what its members' place in the user directory follows from. A NUL in an
-- event cannot be read by PostgreSQL.
ALTER TABLE rooms ADD COLUMN joinable BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE rooms ADD COLUMN world_readable BOOLEAN NOT NULL DEFAULT FALSE;
UPDATE rooms SET joinable = TRUE WHERE trunk IN (
    SELECT v.lineage FROM state_versions v JOIN events e ON e.position = v.event_position
    WHERE v.type = 'm.room.join_rules' AND v.state_key = ''
        AND replace(e.json, '\u0000', '\u0001')::jsonb #>> '{content,join_rule}' = 'public'
        AND NOT EXISTS (SELECT 1 FROM state_versions later WHERE later.lineage = v.lineage AND later.type = v.type
            AND later.state_key = v.state_key AND later.from_position > v.from_position));
UPDATE rooms SET world_readable = TRUE WHERE trunk IN (
    SELECT v.lineage FROM state_versions v JOIN events e ON e.position = v.event_position
    WHERE v.type = 'm.room.history_visibility' AND v.state_key = ''
        AND replace(e.json, '\u0000', '\u0001')::jsonb #>> '{content,history_visibility}' = 'world_readable'
        AND NOT EXISTS (SELECT 1 FROM state_versions later WHERE later.lineage = v.lineage AND later.type = v.type
            AND later.state_key = v.state_key AND later.from_position > v.from_position));

-- The users of this server, without those who have left it, and whether they are in a room that is open to anybody.
CREATE TABLE user_directory (
    user_id TEXT PRIMARY KEY,
    is_public BOOLEAN NOT NULL
);
INSERT INTO user_directory (user_id, is_public)
SELECT a.user_id, EXISTS (SELECT 1 FROM memberships m JOIN rooms r ON r.room_id = m.room_id
    WHERE m.user_id = a.user_id AND m.membership = 'join' AND (r.joinable OR r.world_readable))
FROM accounts a WHERE a.deactivated_ts IS NULL;

-- What users are found by. Those of other servers are found by what they are called in a room, which is named here;
-- for the others `room_id` is empty. The rows are made by the server, which alone knows the words of a name. Words are
-- compared byte by byte, whatever the database's language is.
CREATE TABLE user_directory_words (
    user_id TEXT NOT NULL,
    room_id TEXT NOT NULL,
    word TEXT COLLATE "C" NOT NULL,
    rank BIGINT NOT NULL,
    is_public BOOLEAN NOT NULL,
    PRIMARY KEY (user_id, room_id, word)
);
CREATE INDEX user_directory_by_word ON user_directory_words (rank, word, user_id, room_id);
CREATE INDEX user_directory_of_public ON user_directory_words (rank, word, user_id, room_id) WHERE is_public;

-- Large rooms that were opened or closed, with how many events they had then: not all of their members have been looked
-- at since.
CREATE TABLE user_directory_rooms (
    room_id TEXT PRIMARY KEY,
    head BIGINT NOT NULL
);
