-- API keys. A key's text is shown once, when it is made; only its SHA-256 is stored. A revoked key keeps its row: the ids in the log keep
-- their names, and a server that ever had a key never becomes open again.
CREATE TABLE api_keys (
    id         BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),                    -- UUIDv7
    name       TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 64),
    scope      TEXT NOT NULL CHECK (scope IN ('embed', 'write', 'admin')),           -- each includes those before it
    sha256     BLOB NOT NULL UNIQUE CHECK (length(sha256) = 32),                     -- of the key's text
    created_at TEXT NOT NULL,
    expires_at TEXT,                                                                 -- NULL: never
    revoked_at TEXT                                                                  -- NULL: in use
) STRICT, WITHOUT ROWID;

-- A name belongs to one key in use; that of a revoked key is free again.
CREATE UNIQUE INDEX api_keys_name ON api_keys (name) WHERE revoked_at IS NULL;
