-- Templates that a provider keeps and approves (Meta), and how ours fill them.

SET search_path = public;

CREATE TABLE IF NOT EXISTS provider_templates (
    org_id             uuid        NOT NULL,
    id                 uuid        NOT NULL DEFAULT wasel.uuid7(),
    channel_id         uuid        NOT NULL,
    -- The provider's own id, a number as text.
    provider_id        text,
    name               text        NOT NULL,
    -- As the provider's API writes it: `ar`, `en_US`.
    language           text        NOT NULL,
    -- UTILITY, MARKETING, AUTHENTICATION.
    category           text,
    -- What the provider says it will make of it.
    announced_category text,
    -- APPROVED, PENDING, REJECTED, PAUSED, DISABLED …
    status             text        NOT NULL,
    parameter_format   text        NOT NULL DEFAULT 'positional' CHECK (parameter_format IN ('positional', 'named')),
    -- In the provider's form; NULL where only a webhook has told of it so far.
    components         jsonb       CHECK (jsonb_typeof(components) = 'array'),
    -- GREEN, YELLOW, RED, UNKNOWN.
    quality            text,
    rejected_reason    text,
    -- Since when the status is known to hold; what is older changes nothing.
    status_at          timestamptz NOT NULL DEFAULT now(),
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    UNIQUE (org_id, channel_id, id),
    UNIQUE (org_id, channel_id, name, language),
    FOREIGN KEY (org_id, channel_id) REFERENCES channels (org_id, id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS provider_templates_provider ON provider_templates (org_id, provider_id);
CREATE OR REPLACE TRIGGER touch BEFORE UPDATE ON provider_templates FOR EACH ROW EXECUTE FUNCTION wasel.touch_updated_at();
-- The provider's facts: nobody in the tenant writes them.
CALL wasel.protect('provider_templates', '{}', 'channel_id');
CALL wasel.stream('provider_templates');

-- When all templates of a channel were last read. Until then a name we do not know may well be good.
ALTER TABLE channels ADD COLUMN IF NOT EXISTS templates_synced_at timestamptz;

-- Which provider's template stands in for ours on a channel, outside the 24-hour window.
CREATE TABLE IF NOT EXISTS template_mappings (
    org_id               uuid        NOT NULL,
    -- The tenant's template or a system one, which is why no foreign key leads there.
    template_id          uuid        NOT NULL,
    channel_id           uuid        NOT NULL,
    provider_template_id uuid        NOT NULL,
    -- {header: {parameter: variable}, body: {…}, buttons: {index: variable}}
    variable_map         jsonb       NOT NULL DEFAULT '{}',
    created_at           timestamptz NOT NULL DEFAULT now(),
    updated_at           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, template_id, channel_id),
    FOREIGN KEY (org_id, channel_id, provider_template_id)
        REFERENCES provider_templates (org_id, channel_id, id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS template_mappings_provider ON template_mappings (org_id, channel_id, provider_template_id);
CREATE OR REPLACE TRIGGER touch BEFORE UPDATE ON template_mappings FOR EACH ROW EXECUTE FUNCTION wasel.touch_updated_at();
CALL wasel.protect('template_mappings', ARRAY['owner', 'admin'], 'channel_id');
CALL wasel.stream('template_mappings');

CREATE OR REPLACE FUNCTION wasel.forget_mappings() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    DELETE FROM template_mappings WHERE org_id = OLD.org_id AND template_id = OLD.id;
    RETURN NULL;
END $$;
ALTER FUNCTION wasel.forget_mappings() OWNER TO service_role;
CREATE OR REPLACE TRIGGER forget_mappings AFTER DELETE ON templates FOR EACH ROW EXECUTE FUNCTION wasel.forget_mappings();

-- Twilio's ContentVariables → our variables: {"1": "customer_name"}. NULL: they have the same names.
ALTER TABLE templates ADD COLUMN IF NOT EXISTS twilio_variables jsonb CHECK (jsonb_typeof(twilio_variables) = 'object');
