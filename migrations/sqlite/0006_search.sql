-- What is searched for: the words of messages, names and topics by place in the log. The words are made by Hearth, so
-- the tokeniser has only to split them at spaces. `room` holds a word that stands for the room.
CREATE VIRTUAL TABLE search USING fts5 (
    room, body, name, topic,
    content = '', contentless_delete = 1, tokenize = 'ascii'
);

-- Up to where the log has been taken into the index.
CREATE TABLE search_progress (
    position BIGINT PRIMARY KEY
);
INSERT INTO search_progress (position) VALUES (0);
