-- How far each node has read the log, so that nothing is pruned that it has still to read. Nodes of the release before say
-- nothing of it: they may have to read everything.
ALTER TABLE nodes ADD COLUMN reached BIGINT NOT NULL DEFAULT 0;
-- Up to where it has been pruned what batches say of their entries.
INSERT INTO cursors (name, position, epoch) VALUES ('pruned', 0, 0);
