-- What users are in rooms of which this server holds no history: invited, knocking, or no longer either. The newest such
-- word of each room, with what was told of the room and the event itself where it is known.
CREATE TABLE outside_memberships (
    user_id TEXT NOT NULL,
    room_id TEXT NOT NULL,
    membership TEXT NOT NULL,
    sender TEXT NOT NULL,
    stripped_state TEXT NOT NULL,
    event_id TEXT,
    event TEXT,
    version TEXT,
    position BIGINT NOT NULL,
    forgotten BOOLEAN NOT NULL,
    PRIMARY KEY (user_id, room_id)
);
CREATE INDEX outside_memberships_by_room ON outside_memberships (room_id);
CREATE INDEX outside_memberships_by_position ON outside_memberships (position);
