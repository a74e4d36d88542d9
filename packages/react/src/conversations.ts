import { useMemo } from 'react';

import { rowsOf } from './client.js';
import { useConnection } from './context.js';
import type { ClientOption, Connection } from './context.js';
import type { Tables } from './database.types.js';
import { LiveRows, MOST_ROWS, compareTimes, literal } from './live-rows.js';
import type { LiveState } from './live-rows.js';
import type { Change } from './resumable.js';
import { useStore } from './store.js';

export type Conversation = Tables<'conversations'>;

export interface ConversationFilter {
  status?: Conversation['status'] | undefined;
  /** A user's id, `me`, or `none` for those of nobody. */
  assignedTo?: string | undefined;
  channelId?: string | undefined;
  /** Part of the customer's name or number, or of the last message. */
  search?: string | undefined;
}

export interface UseConversationsOptions extends ClientOption {
  filter?: ConversationFilter | undefined;
  /** 50 if left out. */
  pageSize?: number | undefined;
}

interface State extends LiveState {
  /** Newest first. */
  conversations: Conversation[];
  /** Unread messages in all conversations of the filter, loaded or not. */
  totalUnread: number;
  hasMore: boolean;
  loadingMore: boolean;
}

export interface UseConversations extends State {
  /** The next page. */
  loadMore: () => Promise<void>;
  refresh: () => Promise<void>;
}

/** The inbox, kept live. */
export function useConversations(options: UseConversationsOptions = {}): UseConversations {
  const connection = useConnection(options.client);
  const { status, assignedTo, channelId, search } = options.filter ?? {};
  const pageSize = options.pageSize ?? 50;
  const store = useMemo(
    () => new ConversationsStore(connection, { status, assignedTo, channelId, search }, pageSize),
    [connection, status, assignedTo, channelId, search, pageSize],
  );
  const state = useStore(store);
  return useMemo(() => ({ ...state, loadMore: store.loadMore, refresh: store.refresh }), [state, store]);
}

type Place = Pick<Conversation, 'last_message_at' | 'id'>;

/** Newest first; conversations without a message are last. */
function compare(a: Place, b: Place): number {
  if (a.last_message_at === null || b.last_message_at === null) {
    if (a.last_message_at !== b.last_message_at) return a.last_message_at === null ? 1 : -1;
  } else {
    const byTime = compareTimes(b.last_message_at, a.last_message_at);
    if (byTime !== 0) return byTime;
  }
  return a.id < b.id ? 1 : a.id > b.id ? -1 : 0;
}

/** What comes behind a place, as PostgREST's `or`. */
function behind({ last_message_at: at, id }: Place): string {
  if (at === null) return `and(last_message_at.is.null,id.lt.${id})`;
  const time = literal(at);
  return `last_message_at.lt.${time},last_message_at.is.null,and(last_message_at.eq.${time},id.lt.${id})`;
}

type Condition = [column: 'status' | 'channel_id' | 'assigned_to', operator: 'eq' | 'is', value: string | null];

class ConversationsStore extends LiveRows<'conversations', State> {
  readonly #filter: ConversationFilter;
  readonly #pageSize: number;
  #rows = new Map<string, Conversation>();
  #unread = new Map<string, number>();
  /** The last row of the last page; `null` when everything is here. */
  #end: Place | null = null;

  constructor(connection: Connection, filter: ConversationFilter, pageSize: number) {
    const rows = { conversations: [], totalUnread: 0, hasMore: false, loadingMore: false };
    super(connection, { ...rows, loading: true, error: null, live: false });
    this.#filter = filter;
    this.#pageSize = Math.min(pageSize, MOST_ROWS);
  }

  protected override subscription() {
    const { channelId } = this.#filter;
    // Only what a conversation keeps for good: one that leaves the filter must be heard.
    return { table: 'conversations' as const, ...(channelId !== undefined && { filter: `channel_id=eq.${channelId}` }) };
  }

  protected override async read(signal: AbortSignal) {
    const count = Math.min(Math.max(this.#pageSize, this.#rows.size), MOST_ROWS);
    const [rows, unread] = await Promise.all([this.#page(null, count, signal), this.#readUnread(signal)]);
    return () => {
      this.#rows = new Map(rows.map((row) => [row.id, row]));
      this.#end = rows.length < count ? null : (rows.at(-1) ?? null);
      this.#unread = unread;
    };
  }

  protected override apply({ type, row }: Change<Conversation>): void {
    if (row.id === undefined) return;
    this.#rows.delete(row.id);
    this.#unread.delete(row.id);
    if (type === 'DELETE' || !this.#matches(row)) return;
    if (row.unread_count > 0) this.#unread.set(row.id, row.unread_count);
    // What belongs behind the last page comes with its own page.
    if (this.#end === null || compare(row, this.#end) <= 0) this.#rows.set(row.id, row);
  }

  protected override show() {
    let totalUnread = 0;
    for (const count of this.#unread.values()) totalUnread += count;
    return { conversations: [...this.#rows.values()].sort(compare), totalUnread, hasMore: this.#end !== null };
  }

  readonly refresh = (): Promise<void> => this.reload();

  readonly loadMore = async (): Promise<void> => {
    const [from, signal] = [this.#end, this.signal];
    if (from === null || this.snapshot().loadingMore || signal.aborted) return;
    this.set({ loadingMore: true });
    try {
      await this.during(this.#page(from, this.#pageSize, signal), (rows) => {
        // Read anew meanwhile: this page continues something else.
        if (this.#end !== from) return;
        this.#end = rows.length < this.#pageSize ? null : (rows.at(-1) ?? null);
        for (const row of rows) this.#rows.set(row.id, row);
      });
    } catch (thrown) {
      this.fail(thrown);
    } finally {
      this.set({ loadingMore: false });
    }
  };

  async #page(from: Place | null, count: number, signal: AbortSignal): Promise<Conversation[]> {
    let query = this.connection.client.from('conversations').select('*');
    for (const [column, operator, value] of this.#conditions()) query = query.filter(column, operator, value);
    const search = this.#search();
    if (search) query = query.or(search);
    if (from) query = query.or(behind(from));
    return rowsOf<Conversation>(
      query
        .order('last_message_at', { ascending: false, nullsFirst: false })
        .order('id', { ascending: false })
        .limit(count)
        .abortSignal(signal),
    );
  }

  async #readUnread(signal: AbortSignal): Promise<Map<string, number>> {
    const unread = new Map<string, number>();
    for (let last: string | null = null; ; ) {
      let query = this.connection.client.from('conversations').select('id, unread_count').gt('unread_count', 0);
      for (const [column, operator, value] of this.#conditions()) query = query.filter(column, operator, value);
      const search = this.#search();
      if (search) query = query.or(search);
      if (last !== null) query = query.gt('id', last);
      const rows: Pick<Conversation, 'id' | 'unread_count'>[] = await rowsOf(
        query.order('id').limit(MOST_ROWS).abortSignal(signal),
      );
      for (const row of rows) unread.set(row.id, row.unread_count);
      if (rows.length < MOST_ROWS) return unread;
      last = rows.at(-1)?.id ?? null;
    }
  }

  /** `me` by its id, `none` as null. */
  #assignee(): string | null | undefined {
    const { assignedTo } = this.#filter;
    const { who } = this.connection;
    if (assignedTo === 'none') return null;
    return assignedTo === 'me' && who.status === 'signed_in' ? who.userId : assignedTo;
  }

  #conditions(): Condition[] {
    const { status, channelId } = this.#filter;
    const assignee = this.#assignee();
    const conditions: Condition[] = [];
    if (status !== undefined) conditions.push(['status', 'eq', status]);
    if (channelId !== undefined) conditions.push(['channel_id', 'eq', channelId]);
    if (assignee !== undefined) conditions.push(['assigned_to', assignee === null ? 'is' : 'eq', assignee]);
    return conditions;
  }

  #words(): string {
    return this.#filter.search?.trim() ?? '';
  }

  #search(): string | null {
    const words = this.#words();
    if (words === '') return null;
    // `*` cannot be escaped; it is any one character then.
    const pattern = literal(`*${words.replace(/[\\%_]/g, '\\$&').replaceAll('*', '_')}*`);
    return ['customer_name', 'phone_number', 'last_message'].map((column) => `${column}.ilike.${pattern}`).join(',');
  }

  #matches(row: Conversation): boolean {
    const { status, channelId } = this.#filter;
    const assignee = this.#assignee();
    const words = this.#words().toLowerCase();
    return (
      (status === undefined || row.status === status) &&
      (channelId === undefined || row.channel_id === channelId) &&
      (assignee === undefined || row.assigned_to === assignee) &&
      [row.customer_name, row.phone_number, row.last_message].some((text) => (text ?? '').toLowerCase().includes(words))
    );
  }
}
