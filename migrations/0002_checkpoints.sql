-- Checkpoints: what the blob store holds of them is said by their manifests; this table says what they are to the server.
CREATE TABLE checkpoints (
    id         BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16), -- UUIDv7: sorts by age
    status     TEXT    NOT NULL CHECK (status IN ('writing', 'complete', 'failed')),
    role       TEXT    NOT NULL CHECK (role IN ('candidate', 'live', 'retired')),
    step       INTEGER NOT NULL CHECK (step >= 0),
    bytes      INTEGER NOT NULL CHECK (bytes >= 0),                  -- 0 while writing
    note       TEXT,
    parent     BLOB    CHECK (length(parent) = 16),                  -- no reference: a parent may be pruned before its children
    created_at TEXT    NOT NULL,
    evaluation TEXT    CHECK (json_valid(evaluation)),
    reason     TEXT,                                                 -- why it failed, or was refused
    CHECK (role <> 'live' OR status = 'complete')
) STRICT, WITHOUT ROWID;

-- One checkpoint serves, never two.
CREATE UNIQUE INDEX checkpoints_live ON checkpoints (role) WHERE role = 'live';
