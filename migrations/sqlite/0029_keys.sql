-- Public keys for end-to-end encryption. What is signed is kept as canonical JSON, exactly as it was signed; signatures
-- stand beside it. Users of other servers have their place here too.

-- `signature` is the device's own.
CREATE TABLE device_keys (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    json TEXT NOT NULL,
    signature TEXT NOT NULL,
    PRIMARY KEY (user_id, device_id)
) WITHOUT ROWID;

-- Numbered by device and algorithm in the order of upload. Some that were claimed stay for a while, so that an upload
-- that is repeated does not bring them back.
CREATE TABLE one_time_keys (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    key_id TEXT NOT NULL,
    json TEXT NOT NULL,
    claimed BOOLEAN NOT NULL,
    PRIMARY KEY (user_id, device_id, algorithm, sequence)
) WITHOUT ROWID;
CREATE UNIQUE INDEX one_time_keys_by_id ON one_time_keys (user_id, device_id, algorithm, key_id);
CREATE INDEX one_time_keys_unclaimed ON one_time_keys (user_id, device_id, algorithm, sequence) WHERE NOT claimed;

CREATE TABLE fallback_keys (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    key_id TEXT NOT NULL,
    json TEXT NOT NULL,
    used BOOLEAN NOT NULL,
    PRIMARY KEY (user_id, device_id, algorithm)
) WITHOUT ROWID;

-- `usage` is master, self_signing or user_signing. `signature` is the master key's; its own row has none.
CREATE TABLE cross_signing_keys (
    user_id TEXT NOT NULL,
    usage TEXT NOT NULL,
    public_key TEXT NOT NULL,
    json TEXT NOT NULL,
    signature TEXT,
    PRIMARY KEY (user_id, usage)
) WITHOUT ROWID;

-- `target` is a device's identifier or the public key of a master key.
CREATE TABLE key_signatures (
    target_user_id TEXT NOT NULL,
    target TEXT NOT NULL,
    signer_user_id TEXT NOT NULL,
    signer_key_id TEXT NOT NULL,
    signature TEXT NOT NULL,
    PRIMARY KEY (target_user_id, target, signer_user_id, signer_key_id)
) WITHOUT ROWID;
CREATE INDEX key_signatures_by_signer ON key_signatures (signer_user_id, signer_key_id);
