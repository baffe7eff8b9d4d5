-- What ends a batch that is one statement and a transaction of its own: unless
-- every entity was ours and at the version that was expected, it changes nothing.
CREATE FUNCTION every_entity_moved(moved bigint, wanted bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF moved <> wanted THEN
        RAISE EXCEPTION '% of % entities were ours and at the expected version', moved, wanted
            USING ERRCODE = 'ON001';
    END IF;
END $$;
