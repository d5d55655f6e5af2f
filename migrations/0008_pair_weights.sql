-- How much a pair counts in the loss, relative to the others.
ALTER TABLE pairs ADD COLUMN weight REAL NOT NULL DEFAULT 1 CHECK (weight BETWEEN 0.001 AND 1000);

-- Pairs as the outside sees them, now with their weights.
DROP VIEW pair_rows;
CREATE VIEW pair_rows AS
SELECT pairs.key, pairs.id, anchors.sha256 AS anchor, positives.sha256 AS positive, groups.name AS group_name,
       pairs.group_key, pairs.weight, pairs.split, pairs.created_at
FROM pairs
JOIN images AS anchors ON anchors.key = pairs.anchor
JOIN images AS positives ON positives.key = pairs.positive
LEFT JOIN groups ON groups.key = pairs.group_key;
