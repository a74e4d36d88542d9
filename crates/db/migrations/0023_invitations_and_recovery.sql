-- Invitations, getting back in by mail, and what people may change about themselves (docs/auth.md).

SET search_path = public;

ALTER TABLE wasel.users
    -- What the person says about themselves, beside the name. Never a tenant, never a right.
    ADD COLUMN IF NOT EXISTS user_metadata        jsonb NOT NULL DEFAULT '{}'
        CONSTRAINT users_metadata_is_an_object CHECK (jsonb_typeof(user_metadata) = 'object'),
    -- BCP 47: the language of mails to them. NULL: their organisation's.
    ADD COLUMN IF NOT EXISTS locale               text,
    -- When it was shown that they read mail at their address, or the operator vouched for it. NULL: they came by a link
    -- that went another way, so somebody else may have made this account.
    ADD COLUMN IF NOT EXISTS email_confirmed_at   timestamptz DEFAULT now(),
    -- The address they asked for and have not confirmed yet.
    ADD COLUMN IF NOT EXISTS new_email            text,
    ADD COLUMN IF NOT EXISTS email_change_sent_at timestamptz,
    -- Wrong six-digit codes since then: what bounds guessing over many mails.
    ADD COLUMN IF NOT EXISTS wrong_codes          integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS wrong_codes_since    timestamptz;

-- How the person showed who they are: their password, or a mail's link or code.
ALTER TABLE wasel.auth_sessions
    ADD COLUMN IF NOT EXISTS method text NOT NULL DEFAULT 'password'
        CONSTRAINT auth_sessions_method CHECK (method IN ('password', 'otp'));

-- Who may join an organisation, as what. Accepted once.
CREATE TABLE IF NOT EXISTS invitations (
    org_id      uuid        NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    id          uuid        NOT NULL DEFAULT wasel.uuid7(),
    email       text        NOT NULL,
    -- Super-admins are made by the operator only.
    role        text        NOT NULL CHECK (role IN ('owner', 'admin', 'agent', 'viewer')),
    full_name   text,
    -- The channels an agent will be limited to; empty: all.
    channel_ids uuid[]      NOT NULL DEFAULT '{}',
    -- NULL: the operator's own server.
    invited_by  uuid,
    expires_at  timestamptz NOT NULL,
    -- When a mail was last asked for; NULL: only the link was handed out.
    mailed_at   timestamptz,
    accepted_at timestamptz,
    accepted_by uuid,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    CHECK (role = 'agent' OR channel_ids = '{}')
);
CREATE UNIQUE INDEX IF NOT EXISTS invitations_open ON invitations (org_id, lower(email)) WHERE accepted_at IS NULL;
CREATE OR REPLACE TRIGGER touch BEFORE UPDATE ON invitations FOR EACH ROW EXECUTE FUNCTION wasel.touch_updated_at();
-- Written by the server only: whoever could change a role here would raise their own.
CALL wasel.protect('invitations', '{}');
DROP POLICY members_read ON invitations;
CREATE POLICY members_read ON invitations FOR SELECT TO authenticated
    USING (org_id = (SELECT wasel.org_id()) AND (SELECT wasel.org_role()) IN ('owner', 'admin'));

-- Links and codes that are good once.
CREATE TABLE IF NOT EXISTS wasel.one_time_tokens (
    -- SHA-256 of what the link carries: a leaked table opens nothing.
    token_hash    bytea       PRIMARY KEY,
    kind          text        NOT NULL CHECK (kind IN ('invite', 'recovery', 'email_change')),
    user_id       uuid        REFERENCES wasel.users (id) ON DELETE CASCADE,
    org_id        uuid,
    invitation_id uuid,
    -- It was only ever in a mail to `email`: whoever has it reads mail there.
    by_mail       boolean     NOT NULL,
    email         text        NOT NULL,
    -- Of the six digits beside the link; keyed with the JWT secret, for so few digits are soon tried.
    code_hash     bytea,
    wrong_codes   smallint    NOT NULL DEFAULT 0,
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL,
    FOREIGN KEY (org_id, invitation_id) REFERENCES invitations (org_id, id) ON DELETE CASCADE,
    CHECK (CASE kind WHEN 'invite' THEN user_id IS NULL AND org_id IS NOT NULL AND invitation_id IS NOT NULL
                     ELSE user_id IS NOT NULL AND invitation_id IS NULL END)
);
CREATE UNIQUE INDEX IF NOT EXISTS one_time_tokens_user ON wasel.one_time_tokens (user_id, kind) WHERE user_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS one_time_tokens_invitation ON wasel.one_time_tokens (org_id, invitation_id);
CREATE INDEX IF NOT EXISTS one_time_tokens_email ON wasel.one_time_tokens (lower(email)) WHERE code_hash IS NOT NULL;
CREATE INDEX IF NOT EXISTS one_time_tokens_expired ON wasel.one_time_tokens (expires_at);
REVOKE ALL ON wasel.one_time_tokens FROM PUBLIC;
GRANT SELECT, INSERT, UPDATE, DELETE ON wasel.one_time_tokens TO service_role;
