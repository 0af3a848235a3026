-- What was said in threads, for counting what is unread there: few of a room's events, however long ago.
CREATE INDEX events_in_threads ON events (room_id, position) WHERE thread_root IS NOT NULL;
