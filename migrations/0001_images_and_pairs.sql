-- What users stored. Integer keys inside; SHA-256 and UUIDv7 outside. Times are UTC in RFC 3339.
-- Every key is AUTOINCREMENT: a key that was given once never names anything else, however much is deleted.

-- Stored images. The bytes lie in the blob store under the same SHA-256, and were durable there before the row was written.
CREATE TABLE images (
    key        INTEGER PRIMARY KEY AUTOINCREMENT CHECK (key < 4294967296),
    sha256     BLOB    NOT NULL UNIQUE CHECK (length(sha256) = 32),
    bytes      INTEGER NOT NULL CHECK (bytes > 0),
    width      INTEGER NOT NULL CHECK (width > 0),  -- as stored, before EXIF orientation
    height     INTEGER NOT NULL CHECK (height > 0),
    format     TEXT    NOT NULL,
    created_at TEXT    NOT NULL
) STRICT;

-- Names under which pairs belong together. A group goes with its last pair.
CREATE TABLE groups (
    key  INTEGER PRIMARY KEY AUTOINCREMENT CHECK (key < 4294967296),
    name TEXT    NOT NULL UNIQUE
) STRICT;

-- Two images that belong together (or one image twice: its own two views).
CREATE TABLE pairs (
    key        INTEGER PRIMARY KEY AUTOINCREMENT CHECK (key < 2147483648), -- a slot packs key and side into 32 bits
    id         BLOB    NOT NULL UNIQUE CHECK (length(id) = 16),
    anchor     INTEGER NOT NULL REFERENCES images (key),
    positive   INTEGER NOT NULL REFERENCES images (key),
    group_key  INTEGER REFERENCES groups (key),
    split      TEXT    NOT NULL CHECK (split IN ('train', 'holdout', 'unused')),
    created_at TEXT    NOT NULL
) STRICT;

-- The same two images are one pair, whichever way round they come.
CREATE UNIQUE INDEX pairs_images ON pairs (min(anchor, positive), max(anchor, positive));

-- "Is this image trained on, or held out?", and the pairs that go with an image.
CREATE INDEX pairs_anchor ON pairs (anchor, split);
CREATE INDEX pairs_positive ON pairs (positive, split);

-- The same question for a group, and a group's pages.
CREATE INDEX pairs_group ON pairs (group_key, split) WHERE group_key IS NOT NULL;

-- Counting by use without reading the rows.
CREATE INDEX pairs_split ON pairs (split);

-- Pairs as the outside sees them.
CREATE VIEW pair_rows AS
SELECT pairs.key, pairs.id, anchors.sha256 AS anchor, positives.sha256 AS positive, groups.name AS group_name,
       pairs.group_key, pairs.split, pairs.created_at
FROM pairs
JOIN images AS anchors ON anchors.key = pairs.anchor
JOIN images AS positives ON positives.key = pairs.positive
LEFT JOIN groups ON groups.key = pairs.group_key;

-- Log of erased pairs, so that whoever holds state on them (the trainer's chains) learns of it. Integers only: nothing of what was
-- erased is kept.
CREATE TABLE erasures (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    pair     INTEGER NOT NULL UNIQUE
) STRICT;

-- No pair goes without its line in the log, and none leaves an empty group's name behind.
CREATE TRIGGER pairs_erased AFTER DELETE ON pairs
BEGIN
    INSERT INTO erasures (pair) VALUES (old.key);
    DELETE FROM groups
    WHERE key = old.group_key AND NOT EXISTS (SELECT 1 FROM pairs WHERE group_key = old.group_key);
END;

-- Images whose row is gone and whose bytes are still to go: written with the erasure, removed once the bytes are gone, so that a kill
-- in between leaves nothing behind for good.
CREATE TABLE unlinked_images (
    sha256 BLOB NOT NULL PRIMARY KEY CHECK (length(sha256) = 32)
) STRICT, WITHOUT ROWID;
