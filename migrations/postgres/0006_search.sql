-- What is searched for: the words of messages, names and topics by place in the log, and words that stand for the room
-- and the stretch of the log in which they are.
CREATE TABLE search (
    position BIGINT PRIMARY KEY,
    words TSVECTOR NOT NULL
);
CREATE INDEX search_words ON search USING gin (words);

-- Up to where the log has been taken into the index.
CREATE TABLE search_progress (
    position BIGINT PRIMARY KEY
);
INSERT INTO search_progress (position) VALUES (0);
