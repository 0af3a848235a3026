-- Bytes that media are made of, once however many media have them. `digest` is their SHA-256 in hexadecimal digits.
-- `location` is where the store of that name has them: it is made up at random for each writing and never used again, so
-- what is at a place never changes, and what no row names can be deleted. Where `key_id` is set they are encrypted there:
-- with a key of their own, which is `sealed_key`, encrypted with the master key of that name. `scanned_at` is when a
-- scanner has found them harmless.
CREATE TABLE media_objects (
    digest TEXT PRIMARY KEY,
    bytes BIGINT NOT NULL,
    store TEXT NOT NULL,
    location TEXT NOT NULL,
    key_id TEXT,
    sealed_key TEXT,
    sniffed_type TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    scanned_at BIGINT
);
-- The location first: by the store alone nothing is found quickly, and nobody is to try (a move reads by digest).
CREATE UNIQUE INDEX media_objects_location ON media_objects (location, store);

-- What an mxc: URI names. Without a digest nothing has been uploaded to it yet, which is possible until `expires_at`.
-- `user_id` is who has uploaded it here; media of other servers have none. `origin` is `upload`, `preview` or `remote`.
-- `used_at` is when somebody last asked for it, to a day. `quarantined_by` is set where nobody may have it.
CREATE TABLE media (
    server_name TEXT NOT NULL,
    media_id TEXT NOT NULL,
    origin TEXT NOT NULL,
    user_id TEXT,
    digest TEXT,
    bytes BIGINT NOT NULL,
    content_type TEXT,
    file_name TEXT,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    used_at BIGINT NOT NULL,
    quarantined_by TEXT,
    quarantined_at BIGINT,
    PRIMARY KEY (server_name, media_id)
);
CREATE INDEX media_digest ON media (digest) WHERE digest IS NOT NULL;
-- With what is summed up for each upload.
CREATE INDEX media_user ON media (user_id, created_at, bytes) WHERE user_id IS NOT NULL;
CREATE INDEX media_pending ON media (user_id, expires_at) WHERE digest IS NULL;
CREATE INDEX media_created ON media (created_at);
CREATE INDEX media_used ON media (origin, used_at);
CREATE INDEX media_quarantined ON media (quarantined_by) WHERE quarantined_by IS NOT NULL;

-- Smaller pictures of what an object shows, made once. `variant` says which, such as `320x240-scale`. Of what can't be made
-- the row says why in `failure`, and has no bytes.
CREATE TABLE media_thumbnails (
    digest TEXT NOT NULL,
    variant TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    store TEXT,
    location TEXT,
    key_id TEXT,
    sealed_key TEXT,
    content_type TEXT NOT NULL,
    failure TEXT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (digest, variant)
);
CREATE UNIQUE INDEX media_thumbnails_location ON media_thumbnails (location, store) WHERE location IS NOT NULL;

-- What is to be deleted in a store, from a time on: until then somebody may still be reading it, or writing it.
CREATE TABLE media_removals (
    store TEXT NOT NULL,
    location TEXT NOT NULL,
    not_before BIGINT NOT NULL,
    PRIMARY KEY (location, store)
);
CREATE INDEX media_removals_due ON media_removals (store, not_before);

-- What nobody may have, also where it comes in again: `kind` is `digest`, `user` or `server`.
CREATE TABLE media_quarantines (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (kind, name)
);

-- What a page says of itself in a language, as JSON.
CREATE TABLE url_previews (
    url TEXT NOT NULL,
    language TEXT NOT NULL,
    preview TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (url, language)
);
CREATE INDEX url_previews_expires_at ON url_previews (expires_at);
