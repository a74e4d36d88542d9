-- Files that come inside a webhook request, and reading messages by day.

SET search_path = public;

-- The ledger row whose body holds the file; NULL where the provider keeps it.
ALTER TABLE media ADD COLUMN IF NOT EXISTS webhook_event_id uuid;

-- Reports go by day. Rows come nearly in time order, so a BRIN index costs next to nothing to keep.
CREATE INDEX IF NOT EXISTS messages_by_time ON messages USING brin (created_at) WITH (pages_per_range = 32);
