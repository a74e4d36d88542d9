import { useMemo } from 'react';

import { rowsOf } from './client.js';
import { textOf } from './content.js';
import type { OutboundContent } from './content.js';
import { useConnection } from './context.js';
import type { ClientOption, Connection } from './context.js';
import type { Json, Tables } from './database.types.js';
import { WaselError, errorOf } from './errors.js';
import { LiveRows, MOST_ROWS, compareTimes, literal } from './live-rows.js';
import type { LiveState } from './live-rows.js';
import type { Change } from './resumable.js';
import { uuid } from './random.js';
import { useStore } from './store.js';

export type Message = Tables<'messages'>;

export interface ThreadMessage extends Message {
  /** For React's `key`: stays the same when the server's row replaces ours. */
  key: string;
  /** Not known to the server yet; its `id` is made up. */
  pending: boolean;
  /** Why it could not be handed to the server: `retry(key)` or `discard(key)`. */
  sendError: WaselError | null;
}

export interface UseMessagesOptions extends ClientOption {
  /** 50 if left out. */
  pageSize?: number | undefined;
}

export interface SendOptions {
  /** Our id of a message of this conversation to quote. */
  replyTo?: string;
  /** Anything to be kept with the message. */
  metadata?: { [name: string]: Json };
}

interface State extends LiveState {
  /** Oldest first; what is being sent comes last. */
  messages: ThreadMessage[];
  hasOlder: boolean;
  loadingOlder: boolean;
}

export interface UseMessages extends State {
  loadOlder: () => Promise<void>;
  refresh: () => Promise<void>;
  /**
   * Shows the message at once and sends it, a text or any other content. Resolves with the message as it is then; a
   * refusal is its `sendError`. Does not reject.
   */
  send: (content: string | OutboundContent, options?: SendOptions) => Promise<ThreadMessage>;
  /** Sends anew what failed, before or after it reached the server, with the quote and metadata it had. */
  retry: (key: string) => Promise<ThreadMessage | null>;
  /** Forgets a message that could not be handed over. */
  discard: (key: string) => void;
  /** Nothing is unread any more; the customer sees it where the channel can show it. */
  markRead: () => Promise<void>;
}

/** The thread of a conversation, kept live; `null` for none. */
export function useMessages(conversationId: string | null, options: UseMessagesOptions = {}): UseMessages {
  const connection = useConnection(options.client);
  const pageSize = options.pageSize ?? 50;
  const store = useMemo(
    () => new MessagesStore(connection, conversationId, pageSize),
    [connection, conversationId, pageSize],
  );
  const state = useStore(store);
  return useMemo(
    () => ({
      ...state,
      loadOlder: store.loadOlder,
      refresh: store.refresh,
      send: store.send,
      retry: store.retry,
      discard: store.discard,
      markRead: store.markRead,
    }),
    [state, store],
  );
}

/** A message on its way to the server. The key makes a repeat harmless. */
interface Draft {
  message: ThreadMessage;
  content: OutboundContent;
  options: SendOptions;
}

/** Tries of one `send`, and the wait before the second. */
const TRIES = 4;
const FIRST_WAIT = 500;

const isPassing = ({ code, status }: WaselError) => code === 'network' || status === 429 || status >= 502;

type Place = Pick<Message, 'created_at' | 'id'>;

/** Oldest first. */
const compare = (a: Place, b: Place) =>
  compareTimes(a.created_at, b.created_at) || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0);

class MessagesStore extends LiveRows<'messages', State> {
  readonly #conversation: string | null;
  readonly #pageSize: number;
  #rows = new Map<string, Message>();
  /** The oldest row of the last page; `null` when everything is here. */
  #start: Place | null = null;
  readonly #drafts = new Map<string, Draft>();
  /** The keys of messages sent here, by the server's id. */
  readonly #keys = new Map<string, string>();

  constructor(connection: Connection, conversation: string | null, pageSize: number) {
    const state = { messages: [], hasOlder: false, loadingOlder: false, loading: true, error: null, live: false };
    super(connection, state, conversation !== null);
    this.#conversation = conversation;
    this.#pageSize = Math.min(pageSize, MOST_ROWS);
  }

  protected override subscription() {
    return { table: 'messages' as const, filter: `conversation_id=eq.${this.#conversation}` };
  }

  protected override async read(signal: AbortSignal) {
    const count = Math.min(Math.max(this.#pageSize, this.#rows.size), MOST_ROWS);
    const rows = await this.#page(null, count, signal);
    return () => {
      this.#rows = new Map();
      this.#start = rows.length < count ? null : (rows.at(-1) ?? null);
      for (const row of rows) this.#take(row);
    };
  }

  protected override apply({ type, row }: Change<Message>): void {
    if (row.id === undefined) return;
    if (type === 'DELETE') this.#rows.delete(row.id);
    // What is older than the oldest page here comes with its own page.
    else if (this.#start === null || this.#rows.has(row.id) || compare(row, this.#start) >= 0) this.#take(row);
  }

  /** A row of the server; if it is one of ours, it takes its place. */
  #take(row: Message): void {
    this.#rows.set(row.id, row);
    if (row.request_id !== null && this.#drafts.delete(row.request_id)) this.#keys.set(row.id, row.request_id);
  }

  protected override show() {
    const rows = [...this.#rows.values()].sort(compare).map((row) => this.#shown(row));
    const drafts = [...this.#drafts.values()].map((draft) => draft.message);
    return { messages: [...rows, ...drafts], hasOlder: this.#start !== null };
  }

  #shown(row: Message): ThreadMessage {
    return { ...row, key: this.#keys.get(row.id) ?? row.id, pending: false, sendError: null };
  }

  readonly refresh = (): Promise<void> => this.reload();

  readonly loadOlder = async (): Promise<void> => {
    const [from, signal] = [this.#start, this.signal];
    if (from === null || this.snapshot().loadingOlder || signal.aborted) return;
    this.set({ loadingOlder: true });
    try {
      await this.during(this.#page(from, this.#pageSize, signal), (rows) => {
        // Read anew meanwhile: this page continues something else.
        if (this.#start !== from) return;
        this.#start = rows.length < this.#pageSize ? null : (rows.at(-1) ?? null);
        for (const row of rows) this.#take(row);
      });
    } catch (thrown) {
      this.fail(thrown);
    } finally {
      this.set({ loadingOlder: false });
    }
  };

  readonly send = (content: string | OutboundContent, options: SendOptions = {}): Promise<ThreadMessage> => {
    const whole: OutboundContent = typeof content === 'string' ? { type: 'text', body: content } : content;
    const key = uuid();
    const draft = { message: this.#draft(key, whole, options), content: whole, options };
    this.#drafts.set(key, draft);
    this.set(this.show());
    return this.#post(draft);
  };

  readonly retry = async (key: string): Promise<ThreadMessage | null> => {
    const draft = this.#drafts.get(key);
    if (draft) {
      if (draft.message.sendError === null) return draft.message;
      draft.message = { ...draft.message, status: 'pending', error_code: null, error_message: null, sendError: null };
      this.set(this.show());
      return this.#post(draft);
    }
    const failed = this.snapshot().messages.find((message) => message.key === key && message.status === 'failed');
    // The log keeps what was sent in the form in which it is sent.
    if (!failed || failed.direction !== 'outbound' || failed.content === null) return null;
    try {
      return await this.send(failed.content as OutboundContent, await this.#optionsOf(failed));
    } catch (thrown) {
      this.fail(thrown);
      return null;
    }
  };

  readonly discard = (key: string): void => {
    if (this.#drafts.get(key)?.message.sendError === null) return;
    this.#drafts.delete(key);
    this.set(this.show());
  };

  readonly markRead = async (): Promise<void> => {
    if (this.#conversation === null) return;
    try {
      await this.connection.api.call('POST', `/v1/conversations/${this.#conversation}/read`, { body: {} });
    } catch (thrown) {
      this.fail(thrown);
    }
  };

  /** What a message of the log was sent with. */
  async #optionsOf({ quoted_message_id: quoted, metadata }: Message): Promise<SendOptions> {
    // What is gone cannot be quoted any more.
    const replyTo = quoted === null ? null : await this.#idOf(quoted);
    const isKept = typeof metadata === 'object' && metadata !== null && !Array.isArray(metadata);
    return { ...(replyTo !== null && { replyTo }), ...(isKept && { metadata: metadata as { [name: string]: Json } }) };
  }

  /** Our id of a message that the provider knows by this one; it may be on a page that is not here. */
  async #idOf(providerId: string): Promise<string | null> {
    const here = [...this.#rows.values()].find((row) => row.provider_message_id === providerId);
    if (here) return here.id;
    const [row] = await rowsOf<Pick<Message, 'id'>>(
      this.connection.client
        .from('messages')
        .select('id')
        .eq('conversation_id', this.#conversation ?? '')
        .eq('provider_message_id', providerId)
        .limit(1)
        .abortSignal(this.signal),
    );
    return row?.id ?? null;
  }

  /** Hands it over. It goes on when the component is gone: it was asked for. */
  async #post(draft: Draft): Promise<ThreadMessage> {
    const { key } = draft.message;
    try {
      const row = await this.#tried(draft);
      // The feed, or a reading, may have been faster, and is newer then.
      this.learn(() => {
        if (!this.#rows.has(row.id)) this.#take(row);
      });
      this.set(this.show());
      return this.#shown(this.#rows.get(row.id) ?? row);
    } catch (thrown) {
      const error = errorOf(thrown);
      const [error_code, error_message] = [error.code, error.message];
      draft.message = { ...draft.message, status: 'failed', error_code, error_message, sendError: error };
      // If the feed brought it, it was taken, whatever became of the answer.
      const taken = [...this.#rows.values()].find((row) => row.request_id === key);
      this.set(this.show());
      return taken ? this.#shown(taken) : draft.message;
    }
  }

  async #tried({ message, content, options }: Draft): Promise<Message> {
    for (let tries = 1, wait = FIRST_WAIT; ; tries += 1, wait *= 2) {
      try {
        const { hold: _, ...row } = await this.connection.api.call<Partial<Message> & { hold?: unknown }>(
          'POST',
          '/v1/messages',
          {
            headers: { 'idempotency-key': message.key },
            body: {
              conversation_id: this.#conversation,
              content,
              request_id: message.key,
              ...(options.replyTo !== undefined && { reply_to: options.replyTo }),
              ...(options.metadata !== undefined && { metadata: options.metadata }),
            },
          },
        );
        const { key: _key, pending: _pending, sendError: _error, ...blank } = message;
        return { ...blank, ...row };
      } catch (thrown) {
        const error = errorOf(thrown);
        if (tries === TRIES || !isPassing(error)) throw error;
        await new Promise((resolve) => setTimeout(resolve, wait));
      }
    }
  }

  #draft(key: string, content: OutboundContent, options: SendOptions): ThreadMessage {
    const { who } = this.connection;
    const [userId, orgId] = who.status === 'signed_in' ? [who.userId, who.orgId] : [null, null];
    const now = new Date().toISOString();
    return {
      id: key,
      org_id: orgId ?? '',
      conversation_id: this.#conversation ?? '',
      channel_id: '',
      contact_id: '',
      direction: 'outbound',
      message_type: content.type === 'email' ? 'text' : content.type,
      category: 'service',
      status: 'pending',
      body: textOf(content),
      content: content as Json,
      media: null,
      address: null,
      customer_name: null,
      provider_message_id: null,
      quoted_message_id: null,
      sender_id: userId,
      request_id: key,
      trigger_type: 'manual',
      related_entity_id: null,
      bulk_job_id: null,
      notification_id: null,
      delivery_policy: 'at_least_once',
      error_code: null,
      error_message: null,
      referral: null,
      pricing: null,
      metadata: options.metadata ?? {},
      retry_count: 0,
      created_at: now,
      updated_at: now,
      scheduled_at: null,
      sent_at: null,
      delivered_at: null,
      read_at: null,
      failed_at: null,
      edited_at: null,
      revoked_at: null,
      key,
      pending: true,
      sendError: null,
    };
  }

  async #page(from: Place | null, count: number, signal: AbortSignal): Promise<Message[]> {
    let query = this.connection.client
      .from('messages')
      .select('*')
      .eq('conversation_id', this.#conversation ?? '');
    if (from) {
      const time = literal(from.created_at);
      query = query.or(`created_at.lt.${time},and(created_at.eq.${time},id.lt.${from.id})`);
    }
    return rowsOf<Message>(
      query
        .order('created_at', { ascending: false })
        .order('id', { ascending: false })
        .limit(count)
        .abortSignal(signal),
    );
  }
}
