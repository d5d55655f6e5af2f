-- How many images are stored, in one row. Each search says which share of them it knows; counting a million rows took longer than the search.
CREATE TABLE image_count (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    images INTEGER NOT NULL CHECK (images >= 0)
) STRICT;

INSERT INTO image_count (one, images) SELECT 1, count(*) FROM images;

-- Within the transaction that stores or erases an image.
CREATE TRIGGER images_counted AFTER INSERT ON images
BEGIN
    UPDATE image_count SET images = images + 1;
END;

CREATE TRIGGER images_uncounted AFTER DELETE ON images
BEGIN
    UPDATE image_count SET images = images - 1;
END;
