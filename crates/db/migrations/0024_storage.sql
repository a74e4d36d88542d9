-- Files of the bucket whatsapp-media (/storage/v1). The bytes are in the media storage, under a key that follows from
-- organisation and version, so no row can point at another tenant's. See docs/storage.md.

SET search_path = public;

CREATE TABLE IF NOT EXISTS storage_objects (
    org_id        uuid        NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    id            uuid        NOT NULL DEFAULT wasel.uuid7(),
    bucket        text        NOT NULL DEFAULT 'whatsapp-media' CHECK (bucket = 'whatsapp-media'),
    -- The whole path. Compared byte by byte, so that a folder is one range of the index.
    name          text        COLLATE "C" NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 1024),
    -- Names the bytes: storage/<org_id>/<version>. Every upload makes a new one.
    version       uuid        NOT NULL,
    size_bytes    bigint      NOT NULL CHECK (size_bytes >= 0),
    mime_type     text        NOT NULL,
    -- The first half of the SHA-256, in hex.
    etag          text        NOT NULL,
    cache_control text        NOT NULL DEFAULT 'no-cache',
    -- What the uploader says of it.
    user_metadata jsonb,
    -- Who uploaded it; NULL for a server.
    owner_id      uuid,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    UNIQUE (org_id, bucket, name),
    UNIQUE (org_id, version)
);
CREATE OR REPLACE TRIGGER touch BEFORE UPDATE ON storage_objects FOR EACH ROW EXECUTE FUNCTION wasel.touch_updated_at();
CALL wasel.protect('storage_objects', ARRAY['owner', 'admin', 'agent']);

-- Bytes that no row needs: written down before an upload begins and after its row is gone, whoever deleted it. A job
-- removes what is due.
CREATE TABLE IF NOT EXISTS wasel.storage_garbage (
    org_id  uuid        NOT NULL,
    version uuid        NOT NULL,
    due_at  timestamptz NOT NULL,
    PRIMARY KEY (org_id, version)
);
CREATE INDEX IF NOT EXISTS storage_garbage_due ON wasel.storage_garbage (due_at);
GRANT SELECT, INSERT, UPDATE, DELETE ON wasel.storage_garbage TO service_role;

CREATE OR REPLACE FUNCTION wasel.storage_bytes() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        IF TG_OP = 'DELETE' OR OLD.version <> NEW.version OR OLD.org_id <> NEW.org_id THEN
            INSERT INTO wasel.storage_garbage (org_id, version, due_at) VALUES (OLD.org_id, OLD.version, now())
            ON CONFLICT (org_id, version) DO UPDATE SET due_at = excluded.due_at;
        END IF;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        DELETE FROM wasel.storage_garbage g WHERE g.org_id = NEW.org_id AND g.version = NEW.version;
    END IF;
    RETURN NULL;
END $$;
ALTER FUNCTION wasel.storage_bytes() OWNER TO service_role;
CREATE OR REPLACE TRIGGER bytes AFTER INSERT OR UPDATE OR DELETE ON storage_objects
    FOR EACH ROW EXECUTE FUNCTION wasel.storage_bytes();
