-- What the last `audit --quiet` with the same filters found, so that the next one prints only what has changed.
CREATE TABLE quiet_audits (
    filters text PRIMARY KEY,  -- a JSON list: project, host
    problems jsonb NOT NULL    -- {what it is about: sentence}
);
