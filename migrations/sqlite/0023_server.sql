-- What the server is called, in its only row: a part of every user id, and never another.
CREATE TABLE server (
    only_row BIGINT PRIMARY KEY,
    server_name TEXT NOT NULL
) WITHOUT ROWID;
