-- The life of a checkpoint: the order in which checkpoints were taken, what was decided about each, by whom and why.
-- The table is rebuilt, since its order must not come from a clock: ids hold the time of the machine that made them.
CREATE TABLE checkpoints_new (
    sequence   INTEGER PRIMARY KEY AUTOINCREMENT,                    -- the order in which they were taken
    id         BLOB    NOT NULL UNIQUE CHECK (length(id) = 16),      -- UUIDv7
    status     TEXT    NOT NULL CHECK (status IN ('writing', 'complete', 'failed')),
    role       TEXT    NOT NULL CHECK (role IN ('candidate', 'live', 'retired')),
    step       INTEGER NOT NULL CHECK (step >= 0),
    bytes      INTEGER NOT NULL CHECK (bytes >= 0),                  -- 0 while writing
    note       TEXT,
    parent     BLOB    CHECK (length(parent) = 16),                  -- no reference: a parent may be pruned before its children
    created_at TEXT    NOT NULL,
    evaluation TEXT    CHECK (evaluation IS NULL OR json_valid(evaluation)),
    score      TEXT    CHECK (score IS NULL OR json_valid(score)),   -- which held-out queries found their match: what the gate compares
    verdict    TEXT    CHECK (verdict IN ('better', 'undecided', 'worse', 'untested', 'untrained', 'collapsed', 'damaged')),
    decided_by TEXT    CHECK (decided_by IN ('person', 'gate', 'start')),
    decided_at TEXT,
    reason     TEXT,                                                 -- why it failed, serves, or was refused
    kept       INTEGER NOT NULL DEFAULT 0 CHECK (kept IN (0, 1)),    -- retention leaves it alone
    held       INTEGER NOT NULL DEFAULT 0 CHECK (held IN (0, 1)),    -- a person's choice: the gate does not replace it
    CHECK (role <> 'live' OR status = 'complete'),
    CHECK (held = 0 OR role = 'live')
) STRICT;

-- Until now the id was the only order there was. Notes came from callers, who want their snapshots kept.
INSERT INTO checkpoints_new (id, status, role, step, bytes, note, parent, created_at, evaluation, reason, kept)
SELECT id, status, role, step, bytes, note, parent, created_at, evaluation, reason, note IS NOT NULL AND step > 0
FROM checkpoints ORDER BY id;

DROP TABLE checkpoints;
ALTER TABLE checkpoints_new RENAME TO checkpoints;

-- One checkpoint serves, never two.
CREATE UNIQUE INDEX checkpoints_live ON checkpoints (role) WHERE role = 'live';

-- Names that requests may use for a model, moved by callers. Without a checkpoint a name follows the live one.
CREATE TABLE aliases (
    name       TEXT NOT NULL PRIMARY KEY,
    checkpoint BLOB REFERENCES checkpoints (id),
    updated_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What callers chose for the server as a whole and restarts keep, such as a pause of training.
CREATE TABLE choices (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
