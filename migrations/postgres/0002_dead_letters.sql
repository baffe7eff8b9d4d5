-- The trace (W3C traceparent) of the request that an event came of.
ALTER TABLE outbox ADD COLUMN trace text;

-- Events that a consumer could not act on, until somebody has them requeued.
CREATE TABLE dead_letter (
    id          uuid    PRIMARY KEY,
    consumer    text    NOT NULL,
    topic       text    NOT NULL,
    -- The event's id, or where the message was: a repetition is no new letter.
    source      text    NOT NULL,
    -- The message as it came.
    body        text    NOT NULL,
    reason      text    NOT NULL,
    attempts    integer NOT NULL,
    died_at     bigint  NOT NULL,
    requeued_at bigint,
    CONSTRAINT an_event_dies_once UNIQUE (consumer, source)
);
CREATE INDEX dead_letter_waiting ON dead_letter (id) WHERE requeued_at IS NULL;
