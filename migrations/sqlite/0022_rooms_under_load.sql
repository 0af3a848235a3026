-- How many members each server has in a room, beside the memberships that say who they are.
CREATE TABLE room_servers (
    room_id TEXT NOT NULL,
    server_name TEXT NOT NULL,
    members BIGINT NOT NULL,
    PRIMARY KEY (room_id, server_name)
) WITHOUT ROWID;
CREATE INDEX room_servers_by_server ON room_servers (server_name);
INSERT INTO room_servers (room_id, server_name, members)
    SELECT room_id, substr(user_id, instr(user_id, ':') + 1), COUNT(*) FROM memberships
    WHERE membership = 'join' GROUP BY 1, 2;

-- Redactions that came before what they redact: what that is called.
CREATE TABLE early_redactions (
    target TEXT NOT NULL,
    redaction TEXT NOT NULL,
    PRIMARY KEY (target, redaction)
) WITHOUT ROWID;
