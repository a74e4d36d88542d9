-- What the servers on one database tell each other: who lives, and broadcast and presence of people on different ones.

SET search_path = public;

-- Unlogged: worth nothing after a crash of the database, and not worth writing twice until then.
CREATE UNLOGGED TABLE IF NOT EXISTS wasel.nodes (
    -- Made at each start of a server.
    node_id    uuid        PRIMARY KEY,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now()
);

-- Each node numbers its own messages and writes them one batch after the other, so whoever remembers the last number
-- of each node misses none and reads none twice.
CREATE UNLOGGED TABLE IF NOT EXISTS wasel.node_messages (
    node_id    uuid        NOT NULL,
    seq        bigint      NOT NULL,
    body       bytea       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (node_id, seq)
);
CREATE INDEX IF NOT EXISTS node_messages_old ON wasel.node_messages (created_at);

REVOKE ALL ON wasel.nodes, wasel.node_messages FROM PUBLIC;
GRANT SELECT, INSERT, UPDATE, DELETE ON wasel.nodes, wasel.node_messages TO service_role;

-- Sessions that ended a moment ago: their sockets are looked for every few seconds.
CREATE INDEX IF NOT EXISTS auth_sessions_ended ON wasel.auth_sessions (ended_at) WHERE ended_at IS NOT NULL;
