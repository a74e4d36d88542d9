//! Bounds that keep one client from costing the others.

use std::time::Duration;

/// Limits of one socket. The defaults follow Supabase's where it publishes one.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Channels joined at the same time.
    pub channels_per_socket: usize,
    /// `postgres_changes` bindings of one channel.
    pub bindings_per_channel: usize,
    /// Largest frame read, in bytes. Larger ones end the socket.
    pub frame_bytes: usize,
    /// Frames that may wait for a slow reader. Changes take half of it; what is beyond that is read again later.
    pub queue_frames: usize,
    /// Bytes that may wait for a slow reader, likewise. One frame may be larger when it is the only one.
    pub queue_bytes: usize,
    /// Rows of history read at once for a channel that has fallen behind or come back.
    pub history_rows: usize,
    /// Messages (joins, broadcasts, presence) per second, with a burst of twice as many.
    pub messages_per_second: u32,
    /// Largest presence payload in bytes; it is kept in memory.
    pub presence_bytes: usize,
    /// What all channels of a tenant track on this node, in entries and bytes: it is told whole to other nodes.
    pub tenant_presences: usize,
    pub tenant_presence_bytes: usize,
    /// A socket that says nothing for so long is closed. Clients beat every 25 or 30 s.
    pub idle: Duration,
    /// A frame that takes longer to be written means that nobody reads.
    pub write: Duration,
    /// Longest wait for a token's verification; the client gives up on a join after 10 s.
    pub authorize: Duration,
    /// Tokens are verified again after this time, so that lost memberships end.
    pub recheck: Duration,
    /// A socket whose last channel ended for its token, and that joins none within this time, is closed.
    pub unauthorized: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            channels_per_socket: 100,
            bindings_per_channel: 100,
            frame_bytes: 1024 * 1024,
            queue_frames: 4096,
            queue_bytes: 4 * 1024 * 1024,
            history_rows: 256,
            messages_per_second: 100,
            presence_bytes: 32 * 1024,
            tenant_presences: 5000,
            tenant_presence_bytes: 1024 * 1024,
            idle: Duration::from_secs(60),
            write: Duration::from_secs(30),
            authorize: Duration::from_secs(8),
            recheck: Duration::from_secs(300),
            unauthorized: Duration::from_secs(15),
        }
    }
}
