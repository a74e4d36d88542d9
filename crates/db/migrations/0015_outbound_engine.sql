-- The outbound engine: who sends next, how fast, and why something waits.

SET search_path = public;

-- What a message is for. Marketing is what quiet hours, the frequency cap and a marketing opt-out are about.
ALTER TABLE messages ADD COLUMN IF NOT EXISTS category text NOT NULL DEFAULT 'service'
    CHECK (category IN ('service', 'utility', 'marketing', 'authentication'));
-- The bulk job, or the row of notification_queue, that asked for it.
ALTER TABLE messages ADD COLUMN IF NOT EXISTS bulk_job_id uuid;
ALTER TABLE messages ADD COLUMN IF NOT EXISTS notification_id uuid;
CREATE INDEX IF NOT EXISTS messages_bulk_job ON messages (org_id, bulk_job_id) WHERE bulk_job_id IS NOT NULL;

-- Ready rows have no due_at. One with a due_at waits, and becomes ready then.
ALTER TABLE outbox ALTER COLUMN due_at DROP NOT NULL, ALTER COLUMN due_at DROP DEFAULT;
-- Within a channel each bulk job has a lane of its own; everything else shares the nil one. Lanes take turns.
ALTER TABLE outbox ADD COLUMN IF NOT EXISTS lane uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000';
-- Leaves after the earlier ordered messages of its conversation. Bulk messages and held ones do not queue for each other.
ALTER TABLE outbox ADD COLUMN IF NOT EXISTS ordered boolean NOT NULL DEFAULT true;
-- Why it waits until due_at: `order`, `retry`, `unknown`, or a rule of the governor.
ALTER TABLE outbox ADD COLUMN IF NOT EXISTS hold_reason text;
ALTER TABLE outbox ADD COLUMN IF NOT EXISTS claimed_at timestamptz;
ALTER TABLE outbox SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

DROP INDEX IF EXISTS outbox_ready;
CREATE INDEX IF NOT EXISTS outbox_lanes ON outbox (org_id, channel_id, lane, priority, message_id)
    WHERE due_at IS NULL AND leased_until IS NULL;
CREATE INDEX IF NOT EXISTS outbox_waiting ON outbox (due_at) WHERE due_at IS NOT NULL AND leased_until IS NULL;

-- A callback may overtake the record of its send, and name only the attempt.
CREATE INDEX IF NOT EXISTS pending_statuses_attempt ON pending_statuses (org_id, attempt_id) WHERE attempt_id IS NOT NULL;

-- How far each channel has used its rate, for all nodes together.
CREATE TABLE IF NOT EXISTS channel_pace (
    org_id      uuid        NOT NULL,
    channel_id  uuid        NOT NULL,
    -- When the next message may leave (the theoretical arrival time of the generic cell rate algorithm).
    next_at     timestamptz NOT NULL DEFAULT now(),
    -- Of the channel's rate; a provider that throttles us halves it, and it recovers.
    rate_factor real        NOT NULL DEFAULT 1 CHECK (rate_factor > 0 AND rate_factor <= 1),
    -- The circuit breaker: nothing leaves until then, and then one message as a probe.
    hold_until  timestamptz,
    hold_reason text,
    strikes     int         NOT NULL DEFAULT 0,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, channel_id),
    FOREIGN KEY (org_id, channel_id) REFERENCES channels (org_id, id) ON DELETE CASCADE
);
CALL wasel.protect('channel_pace', '{}', 'channel_id');

-- {messages_per_second?, daily_reach?, warm_up?}: wasel_domain::limits::ChannelLimits.
ALTER TABLE channels ADD COLUMN IF NOT EXISTS limits jsonb NOT NULL DEFAULT '{}';
-- {quiet_hours?, frequency_cap?}: wasel_domain::limits::SendingPolicy.
ALTER TABLE organizations ADD COLUMN IF NOT EXISTS sending_policy jsonb NOT NULL DEFAULT '{}';
-- An IANA name; where it is NULL the number's country decides, else the organisation's zone.
ALTER TABLE contacts ADD COLUMN IF NOT EXISTS timezone text;
