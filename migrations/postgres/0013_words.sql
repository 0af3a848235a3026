-- Words are cut and folded in another way than before: what is kept by its words is made anew. The log is taken into
-- the search index once more, a little after the start; what users of this server are found by is filled in at once.
TRUNCATE search;
UPDATE search_progress SET position = 0;
DELETE FROM user_directory_words WHERE room_id = '';
