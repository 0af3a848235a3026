-- Which thread an event belongs to that relates to one of a thread: an edit, a reaction, a reference. Those of older
-- versions have it from what they relate to, over a few others at most. What named as the root of its thread no event of
-- its room belongs to the main timeline.
UPDATE events SET thread_root = NULL WHERE thread_root IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM events root
    WHERE root.event_id = events.thread_root AND root.room_id = events.room_id AND root.standing = 0);
UPDATE events SET thread_root = (
    SELECT parent.thread_root FROM relations r JOIN events parent ON parent.event_id = r.parent
    WHERE r.event_id = events.event_id)
WHERE thread_root IS NULL AND event_id IN (
    SELECT r.event_id FROM relations r JOIN events parent ON parent.event_id = r.parent
    WHERE r.rel_type <> 'm.thread' AND parent.thread_root IS NOT NULL AND parent.room_id = r.room_id);
UPDATE events SET thread_root = (
    SELECT parent.thread_root FROM relations r JOIN events parent ON parent.event_id = r.parent
    WHERE r.event_id = events.event_id)
WHERE thread_root IS NULL AND event_id IN (
    SELECT r.event_id FROM relations r JOIN events parent ON parent.event_id = r.parent
    WHERE r.rel_type <> 'm.thread' AND parent.thread_root IS NOT NULL AND parent.room_id = r.room_id);
UPDATE events SET thread_root = (
    SELECT parent.thread_root FROM relations r JOIN events parent ON parent.event_id = r.parent
    WHERE r.event_id = events.event_id)
WHERE thread_root IS NULL AND event_id IN (
    SELECT r.event_id FROM relations r JOIN events parent ON parent.event_id = r.parent
    WHERE r.rel_type <> 'm.thread' AND parent.thread_root IS NOT NULL AND parent.room_id = r.room_id);

-- What somebody annotates with, as a hash, so that nobody does it twice. Older versions wrote none.
ALTER TABLE relations ADD COLUMN key_hash BIGINT;
CREATE INDEX annotations ON relations (parent, sender) WHERE rel_type = 'm.annotation';

-- What a redaction has redacted, even where it names that no more, because it is redacted itself.
CREATE INDEX events_by_redaction ON events (redacted_by) WHERE redacted_by IS NOT NULL;
