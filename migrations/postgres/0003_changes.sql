-- Every node keeps the catalogue in memory, and who was signed out. A change
-- tells all nodes which of the two to read again; what a node that did not
-- listen has missed it finds by the version.
CREATE TABLE catalogue_version (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    version bigint  NOT NULL,
    -- Who raised it last: one transaction raises it once.
    by      bigint  NOT NULL
);
INSERT INTO catalogue_version (version, by) VALUES (1, 0);

CREATE FUNCTION catalogue_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE catalogue_version SET version = version + 1, by = txid_current()
    WHERE by <> txid_current();
    IF FOUND THEN
        PERFORM pg_notify('onsale_changes', 'catalogue');
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER tell_changes AFTER INSERT OR UPDATE OR DELETE ON venue
    FOR EACH STATEMENT EXECUTE FUNCTION catalogue_changed();
CREATE TRIGGER tell_changes AFTER INSERT OR UPDATE OR DELETE ON performance
    FOR EACH STATEMENT EXECUTE FUNCTION catalogue_changed();
CREATE TRIGGER tell_changes AFTER INSERT OR UPDATE OR DELETE ON timetable
    FOR EACH STATEMENT EXECUTE FUNCTION catalogue_changed();
CREATE TRIGGER tell_changes AFTER INSERT OR UPDATE OR DELETE ON category
    FOR EACH STATEMENT EXECUTE FUNCTION catalogue_changed();

CREATE FUNCTION access_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('onsale_changes', 'access');
    RETURN NULL;
END
$$;
CREATE TRIGGER tell_changes AFTER UPDATE OF sessions_from ON "user"
    FOR EACH STATEMENT EXECUTE FUNCTION access_changed();
CREATE TRIGGER tell_changes AFTER UPDATE OF ended_at ON session
    FOR EACH STATEMENT EXECUTE FUNCTION access_changed();
