-- Candidates that are tried under a name: they answer a share of its callers, or are compared without answering.
CREATE TABLE canaries (
    name       TEXT NOT NULL PRIMARY KEY,
    checkpoint BLOB NOT NULL REFERENCES checkpoints (id),
    percent    REAL NOT NULL CHECK (percent > 0 AND percent <= 100),
    -- 1: compared with what the name stands for, never answering.
    shadow     INTEGER NOT NULL CHECK (shadow IN (0, 1))
) STRICT, WITHOUT ROWID;
