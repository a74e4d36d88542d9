-- Customers and the threads with them.

SET search_path = public;

CREATE TABLE IF NOT EXISTS contacts (
    org_id       uuid        NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    id           uuid        NOT NULL,
    name         text,
    -- E.164. NULL where the provider gives no number (a WhatsApp username).
    phone_number text,
    email        text,
    avatar_url   text,
    attributes   jsonb       NOT NULL DEFAULT '{}',
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id)
);
CREATE INDEX IF NOT EXISTS contacts_name ON contacts (org_id, lower(name) text_pattern_ops);

-- All the ways to name one person. The key makes an identity belong to one contact.
CREATE TABLE IF NOT EXISTS contact_identities (
    org_id     uuid        NOT NULL,
    kind       text        NOT NULL CHECK (kind IN ('phone', 'bsuid', 'jid', 'lid', 'email')),
    value      text        NOT NULL,
    contact_id uuid        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, kind, value),
    FOREIGN KEY (org_id, contact_id) REFERENCES contacts (org_id, id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS contact_identities_contact ON contact_identities (org_id, contact_id);

CREATE TABLE IF NOT EXISTS conversations (
    org_id          uuid        NOT NULL,
    id              uuid        NOT NULL,
    channel_id      uuid        NOT NULL,
    contact_id      uuid        NOT NULL,
    -- The provider's group id; NULL for a one-to-one conversation.
    group_id        text,
    -- The customer's number or name as the inbox shows it, copied so that a list needs no join.
    phone_number    text,
    customer_name   text,
    status          text        NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'archived', 'blocked')),
    assigned_to     uuid,
    notes           text,
    tags            text[]      NOT NULL DEFAULT '{}',
    patient_id      text,
    unread_count    int         NOT NULL DEFAULT 0 CHECK (unread_count >= 0),
    last_message    text,
    last_message_at timestamptz,
    last_direction  text,
    -- The customer's last message: the 24-hour window counts from here.
    last_inbound_at timestamptz,
    metadata        jsonb       NOT NULL DEFAULT '{}',
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, channel_id) REFERENCES channels (org_id, id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, contact_id) REFERENCES contacts (org_id, id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, assigned_to) REFERENCES profiles (org_id, id) ON DELETE SET NULL (assigned_to)
);
-- By contact first: it also finds all of a contact's conversations. Every index here is written with every message.
CREATE UNIQUE INDEX IF NOT EXISTS conversations_one_per_contact
    ON conversations (org_id, contact_id, channel_id, coalesce(group_id, ''));
CREATE UNIQUE INDEX IF NOT EXISTS conversations_one_per_group
    ON conversations (org_id, channel_id, group_id) WHERE group_id IS NOT NULL;
-- The inbox, newest first.
CREATE INDEX IF NOT EXISTS conversations_inbox ON conversations (org_id, last_message_at DESC NULLS LAST, id DESC);
CREATE INDEX IF NOT EXISTS conversations_assigned ON conversations (org_id, assigned_to) WHERE assigned_to IS NOT NULL;

-- What a customer decided, as a ledger: the newest row per contact, channel and category counts.
CREATE TABLE IF NOT EXISTS consents (
    org_id     uuid        NOT NULL,
    id         uuid        NOT NULL,
    contact_id uuid        NOT NULL,
    -- NULL: every channel.
    channel_id uuid,
    -- `all`, or a category such as `marketing`.
    category   text        NOT NULL DEFAULT 'all',
    state      text        NOT NULL CHECK (state IN ('opted_in', 'opted_out')),
    -- How we know: `keyword`, `provider`, `agent`, `send_error`.
    source     text        NOT NULL,
    at         timestamptz NOT NULL,
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, contact_id) REFERENCES contacts (org_id, id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, channel_id) REFERENCES channels (org_id, id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS consents_contact ON consents (org_id, contact_id, at DESC, id DESC);

CREATE OR REPLACE TRIGGER touch BEFORE UPDATE ON contacts FOR EACH ROW EXECUTE FUNCTION wasel.touch_updated_at();

CALL wasel.protect('contacts', ARRAY['owner', 'admin', 'agent']);
CALL wasel.protect('contact_identities', ARRAY['owner', 'admin', 'agent']);
CALL wasel.protect('conversations', ARRAY['owner', 'admin', 'agent'], 'channel_id');
CALL wasel.protect('consents', ARRAY['owner', 'admin', 'agent']);
CALL wasel.stream('contacts');
CALL wasel.stream('conversations');
CALL wasel.stream('consents');
