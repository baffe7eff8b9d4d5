-- The trace (W3C traceparent) of the request that an event came of.
ALTER TABLE outbox ADD COLUMN trace TEXT;

-- Events that a consumer could not act on, until somebody has them requeued.
CREATE TABLE dead_letter (
    id          BLOB PRIMARY KEY,
    consumer    TEXT    NOT NULL,
    topic       TEXT    NOT NULL,
    -- The event's id, or where the message was: a repetition is no new letter.
    source      TEXT    NOT NULL,
    -- The message as it came.
    body        TEXT    NOT NULL,
    reason      TEXT    NOT NULL,
    attempts    INTEGER NOT NULL,
    died_at     INTEGER NOT NULL,
    requeued_at INTEGER,
    CONSTRAINT an_event_dies_once UNIQUE (consumer, source)
) STRICT, WITHOUT ROWID;
CREATE INDEX dead_letter_waiting ON dead_letter (id) WHERE requeued_at IS NULL;
