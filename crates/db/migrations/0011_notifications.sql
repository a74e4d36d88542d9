-- Telling people about failures, and trying the next channel.

SET search_path = public;

-- In-app notifications.
CREATE TABLE IF NOT EXISTS notifications (
    org_id          uuid        NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    id              uuid        NOT NULL DEFAULT wasel.uuid7(),
    -- Whom it is for; NULL: the owners and admins.
    user_id         uuid,
    -- `message_failed`, or the caller's own word.
    kind            text        NOT NULL,
    level           text        NOT NULL DEFAULT 'info' CHECK (level IN ('info', 'warning', 'error')),
    title           text        NOT NULL,
    -- Why, in words for people.
    body            text,
    -- What to do about it.
    advice          text,
    message_id      uuid,
    conversation_id uuid,
    channel_id      uuid,
    error_code      text,
    data            jsonb       NOT NULL DEFAULT '{}',
    read_at         timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, message_id) REFERENCES messages (org_id, id) ON DELETE CASCADE
);
-- One notification per failure, however often it is reported.
CREATE UNIQUE INDEX IF NOT EXISTS notifications_once ON notifications (org_id, message_id, kind) WHERE message_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS notifications_recent ON notifications (org_id, created_at DESC, id DESC);
CALL wasel.protect('notifications', ARRAY['owner', 'admin']);
-- Like the message it tells of: an agent limited to some channels sees theirs, and what belongs to no channel.
DROP POLICY IF EXISTS members_read ON notifications;
CREATE POLICY members_read ON notifications FOR SELECT TO authenticated USING (
    org_id = (SELECT wasel.org_id()) AND ((SELECT wasel.channel_scope()) IS NULL OR channel_id IS NULL
        OR channel_id = ANY ((SELECT wasel.channel_scope())::uuid[])));
CALL wasel.stream('notifications');

-- What to do when a message fails: the channels still to be tried, and what was asked for. Sealed, so that nobody but the
-- server reads the recipient and the text here, or makes it send by a channel they may not use.
CREATE TABLE IF NOT EXISTS message_fallbacks (
    org_id     uuid        NOT NULL,
    message_id uuid        NOT NULL,
    sealed     bytea       NOT NULL,
    -- A failure later than this is too late for another channel.
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, message_id),
    FOREIGN KEY (org_id, message_id) REFERENCES messages (org_id, id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS message_fallbacks_age ON message_fallbacks (expires_at);
CALL wasel.protect('message_fallbacks', ARRAY['owner', 'admin', 'agent']);
REVOKE SELECT, UPDATE, DELETE ON message_fallbacks FROM authenticated;

-- Messages that failed and that nobody has followed up yet. A job takes them: next channel, or a notification.
CREATE TABLE IF NOT EXISTS message_failures (
    org_id     uuid        NOT NULL,
    message_id uuid        NOT NULL,
    failed_at  timestamptz NOT NULL DEFAULT now(),
    -- Put off while somebody works on it.
    due_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, message_id),
    FOREIGN KEY (org_id, message_id) REFERENCES messages (org_id, id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS message_failures_due ON message_failures (due_at);
CALL wasel.protect('message_failures', '{}');
REVOKE ALL ON message_failures FROM authenticated;

CREATE OR REPLACE FUNCTION wasel.note_failure() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO message_failures (org_id, message_id) VALUES (NEW.org_id, NEW.id) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
ALTER FUNCTION wasel.note_failure() OWNER TO service_role;
CREATE OR REPLACE TRIGGER note_failure AFTER UPDATE ON messages FOR EACH ROW
    WHEN (NEW.status = 'failed' AND OLD.status <> 'failed' AND NEW.direction = 'outbound')
    EXECUTE FUNCTION wasel.note_failure();

-- Proof of delivery takes the failure back.
CREATE OR REPLACE FUNCTION wasel.forget_failure() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    DELETE FROM message_failures WHERE org_id = NEW.org_id AND message_id = NEW.id;
    DELETE FROM notifications WHERE org_id = NEW.org_id AND message_id = NEW.id AND kind = 'message_failed';
    RETURN NULL;
END $$;
ALTER FUNCTION wasel.forget_failure() OWNER TO service_role;
CREATE OR REPLACE TRIGGER forget_failure AFTER UPDATE ON messages FOR EACH ROW
    WHEN (OLD.status = 'failed' AND NEW.status IN ('delivered', 'read'))
    EXECUTE FUNCTION wasel.forget_failure();
