import type { WaselClient } from './client.js';
import type { Database } from './database.types.js';
import { WaselError } from './errors.js';

type Public = Database['public'];

/** Every name that streams. */
export type StreamedName = keyof (Public['Tables'] & Public['Views']);

export type RowOf<Name extends StreamedName> = (Public['Tables'] & Public['Views'])[Name]['Row'];

export type Change<Row> =
  | { type: 'INSERT' | 'UPDATE'; row: Row }
  /** On a Supabase project only the key is known of what went away. */
  | { type: 'DELETE'; row: Partial<Row> };

export interface Subscription<Name extends StreamedName> {
  table: Name;
  /** As in supabase-js: `conversation_id=eq.…`. */
  filter?: string;
}

export interface SubscriptionEvents<Row> {
  /** In the order of the commits. One that was missed while offline comes too, once. */
  change(change: Change<Row>): void;
  /** Rows have to be read (again): it is live from now, and what was before is not told. */
  reload(): void;
  /** Whether changes arrive at the moment, and why not: `subscription_refused` stays so, anything else is tried again. */
  live(isLive: boolean, error: WaselError | null): void;
}

/** The binding as it is sent. supabase-js sends this very object again on every rejoin, so `after` resumes by itself. */
interface Binding {
  event: '*';
  schema: 'public';
  table: string;
  filter?: string;
  /** The last `change_seq` seen; 0 is from now on. */
  after: number;
}

type Wire = Record<string, unknown>;

interface SystemMessage {
  extension?: string;
  status?: string;
  message?: string;
  /** The `change_seq` from which on the subscription is live. */
  after?: number;
}

const FIRST_WAIT = 1_000;
const LONGEST_WAIT = 10_000;
const NO_LONGER_KEPT = /no longer kept/;

let made = 0;

/**
 * Follows a table over reconnects, without gaps and without doubles, until the signal. A server that cannot resume
 * (Supabase's own) is read again after each reconnect instead.
 */
export function resumable<Name extends StreamedName>(
  client: WaselClient,
  { table, filter }: Subscription<Name>,
  on: SubscriptionEvents<RowOf<Name>>,
  signal: AbortSignal,
): void {
  const binding: Binding = { event: '*', schema: 'public', table, after: 0, ...(filter !== undefined && { filter }) };
  let wait = FIRST_WAIT;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let close = () => {};

  const heard = (payload: { eventType: string; new: Wire; old: Wire; errors: unknown }) => {
    if (signal.aborted) return;
    const { change_seq: position, ...row } = payload.eventType === 'DELETE' ? payload.old : payload.new;
    const seq = Number(position ?? 0);
    if (seq > binding.after) binding.after = seq;
    // Too large for the feed: it came without its long columns.
    if (Array.isArray(payload.errors) && payload.errors.length > 0) on.reload();
    else if (payload.eventType === 'DELETE') on.change({ type: 'DELETE', row: row as Partial<RowOf<Name>> });
    else on.change({ type: payload.eventType === 'INSERT' ? 'INSERT' : 'UPDATE', row: row as RowOf<Name> });
  };

  const told = ({ extension, status, message, after }: SystemMessage) => {
    if (signal.aborted) return;
    // Cut off before anything was heard, it comes back from where it began.
    if (status === 'ok' && after !== undefined && binding.after === 0) binding.after = after;
    if (status !== 'error') return;
    if (message !== undefined && NO_LONGER_KEPT.test(message)) {
      binding.after = 0;
      on.reload();
    } else if (extension === 'postgres_changes') {
      on.live(false, new WaselError(message ?? 'the subscription was refused', { code: 'subscription_refused' }));
    }
  };

  const open = () => {
    made += 1;
    let isOver = false;
    // A name of its own: two channels of one name would be one.
    const channel = client.channel(`wasel:${table}:${made}`);
    close = () => {
      isOver = true;
      void client.removeChannel(channel);
    };
    channel
      .on('postgres_changes', binding, heard)
      .on('system', {}, told)
      .subscribe((status, error) => {
        if (isOver || signal.aborted) return;
        if (status === 'SUBSCRIBED') {
          wait = FIRST_WAIT;
          on.live(true, null);
          if (binding.after === 0) on.reload();
          return;
        }
        on.live(false, error ? new WaselError(error.message, { code: 'subscription', cause: error }) : null);
        if (status !== 'CLOSED') return;
        // The others rejoin by themselves; a channel that the server closed is gone for supabase-js.
        isOver = true;
        timer = setTimeout(open, wait);
        wait = Math.min(wait * 2, LONGEST_WAIT);
      });
  };

  signal.addEventListener('abort', () => {
    clearTimeout(timer);
    close();
  });
  if (!signal.aborted) open();
}
