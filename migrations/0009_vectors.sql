-- Embeddings of stored images under the checkpoints that searches answer from. They are made from the images again where they are missing.

-- The checkpoints whose embeddings are kept. A number that was given once never names another, however many are dropped.
CREATE TABLE vector_spaces (
    number     INTEGER PRIMARY KEY AUTOINCREMENT CHECK (number < 2147483648),
    checkpoint BLOB    NOT NULL CHECK (length(checkpoint) = 16),
    -- 1: nobody needs it any more, and its rows are being deleted.
    dropped    INTEGER NOT NULL DEFAULT 0 CHECK (dropped IN (0, 1))
) STRICT;

-- A checkpoint has one space, and may have a new one while an old one is being deleted.
CREATE UNIQUE INDEX vector_spaces_checkpoint ON vector_spaces (checkpoint) WHERE dropped = 0;

-- The key is the number of the space times 2^32, plus the key of the image: a space is one range of keys, and needs no index.
CREATE TABLE vectors (
    key       INTEGER PRIMARY KEY,
    embedding BLOB    NOT NULL -- f32, little-endian
) STRICT;

-- Places of images on a map of the space, under the same keys.
CREATE TABLE vector_places (
    key INTEGER PRIMARY KEY,
    x   REAL NOT NULL,
    y   REAL NOT NULL
) STRICT;

-- No image goes without its embeddings and places.
CREATE TRIGGER images_unembedded AFTER DELETE ON images
BEGIN
    DELETE FROM vectors WHERE key IN (SELECT (number << 32) | old.key FROM vector_spaces);
    DELETE FROM vector_places WHERE key IN (SELECT (number << 32) | old.key FROM vector_spaces);
END;
