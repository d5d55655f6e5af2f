-- Stored images whose bytes were missing or wrong when they were read. A row goes when the right bytes are posted again, or with its image.
CREATE TABLE damaged_images (
    sha256   BLOB NOT NULL PRIMARY KEY REFERENCES images (sha256) ON DELETE CASCADE,
    what     TEXT NOT NULL, -- what was found
    found_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Images as the outside sees them.
CREATE VIEW image_rows AS
SELECT images.*, damaged_images.what IS NOT NULL AS damaged
FROM images LEFT JOIN damaged_images ON damaged_images.sha256 = images.sha256;

-- One row that is written to find out whether a write is possible.
CREATE TABLE write_probe (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    at TEXT NOT NULL
) STRICT;
