-- How the server was, for the dashboard: a sample every few seconds for a day, and one of ten minutes for longer.
CREATE TABLE history (
    at     INTEGER PRIMARY KEY, -- Unix seconds
    sample TEXT NOT NULL        -- JSON, so that a figure more needs no migration
) STRICT;
