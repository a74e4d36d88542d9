import { useMemo } from 'react';

import { rowsOf } from './client.js';
import { useConnection } from './context.js';
import type { ClientOption, Connection } from './context.js';
import type { Json, Tables } from './database.types.js';
import { WaselError, errorOf, errorOfAnswer } from './errors.js';
import { LiveRows, compareTimes } from './live-rows.js';
import type { LiveState } from './live-rows.js';
import type { Change } from './resumable.js';
import { uuid } from './random.js';
import { useStore } from './store.js';

export type MessageLog = Tables<'message_logs'>;

export interface UseMessageLogsOptions extends ClientOption {
  /** How many of the newest messages are shown; 50 if left out. */
  limit?: number | undefined;
}

/** One message; `message`, `templateId` or `mediaUrl` is needed. */
export interface LoggedSend {
  /** As people of the organisation's country write it, or E.164. */
  to: string;
  message?: string;
  mediaUrl?: string;
  /** A template of ours by id, or a Content SID of Twilio. */
  templateId?: string;
  variables?: { [name: string]: Json };
}

export type SendResult =
  | { success: true; messageId: string; error: null }
  | { success: false; messageId: null; error: WaselError };

interface State extends LiveState {
  /** Newest first, with their status as it is now. */
  messages: MessageLog[];
}

export interface UseWhatsApp extends State {
  /** By the function `send-whatsapp`: five a minute for each person. Does not reject. */
  sendMessage: (message: LoggedSend) => Promise<SendResult>;
  /** The same. */
  sendWhatsApp: (message: LoggedSend) => Promise<SendResult>;
  refresh: () => Promise<void>;
}

export interface UseTwilioMessages extends State {
  sendSMS: (message: Omit<LoggedSend, 'mediaUrl'>) => Promise<SendResult>;
  sendWhatsApp: (message: LoggedSend) => Promise<SendResult>;
  /** Either, by `type`; `sms` if left out. */
  sendMessage: (message: LoggedSend & { type?: 'sms' | 'whatsapp' }) => Promise<SendResult>;
  refresh: () => Promise<void>;
}

/** WhatsApp messages that were sent, by whichever provider, and sending more (S2). */
export function useWhatsApp(options: UseMessageLogsOptions = {}): UseWhatsApp {
  const store = useLogs({ column: 'message_type', value: 'whatsapp' }, options);
  const state = useStore(store);
  return useMemo(
    () => ({ ...state, sendMessage: store.sendWhatsApp, sendWhatsApp: store.sendWhatsApp, refresh: store.refresh }),
    [state, store],
  );
}

/** SMS and WhatsApp messages that went by Twilio, and sending more (S2). */
export function useTwilioMessages(options: UseMessageLogsOptions = {}): UseTwilioMessages {
  const store = useLogs({ column: 'provider', value: 'twilio' }, options);
  const state = useStore(store);
  return useMemo(
    () => ({
      ...state,
      sendSMS: store.sendSMS,
      sendWhatsApp: store.sendWhatsApp,
      sendMessage: store.sendEither,
      refresh: store.refresh,
    }),
    [state, store],
  );
}

interface Condition {
  column: 'message_type' | 'provider';
  value: string;
}

function useLogs({ column, value }: Condition, options: UseMessageLogsOptions): LogsStore {
  const connection = useConnection(options.client);
  const limit = options.limit ?? 50;
  return useMemo(() => new LogsStore(connection, { column, value }, limit), [connection, column, value, limit]);
}

interface FunctionAnswer {
  message_id?: string;
  results?: { success: boolean; message_id?: string; error?: string }[];
}

class LogsStore extends LiveRows<'message_logs', State> {
  readonly #condition: Condition;
  readonly #limit: number;
  #rows = new Map<string, MessageLog>();

  constructor(connection: Connection, condition: Condition, limit: number) {
    super(connection, { messages: [], loading: true, error: null, live: false });
    this.#condition = condition;
    this.#limit = limit;
  }

  protected override subscription() {
    return { table: 'message_logs' as const, filter: `${this.#condition.column}=eq.${this.#condition.value}` };
  }

  protected override async read(signal: AbortSignal) {
    const rows = await rowsOf<MessageLog>(
      this.connection.client
        .from('message_logs')
        .select('*')
        .eq(this.#condition.column, this.#condition.value)
        .order('created_at', { ascending: false })
        .order('id', { ascending: false })
        .limit(this.#limit)
        .abortSignal(signal),
    );
    return () => {
      this.#rows = new Map(rows.flatMap((row) => (row.id === null ? [] : [[row.id, row]])));
    };
  }

  protected override apply({ type, row }: Change<MessageLog>): void {
    if (row.id === undefined || row.id === null) return;
    if (type === 'DELETE') {
      this.#rows.delete(row.id);
      return;
    }
    this.#rows.set(row.id, row);
    // An update of an older message than is shown.
    const oldest = this.#sorted()[this.#limit];
    if (oldest?.id) this.#rows.delete(oldest.id);
  }

  #sorted(): MessageLog[] {
    return [...this.#rows.values()].sort(
      (a, b) => compareTimes(b.created_at ?? '', a.created_at ?? '') || ((a.id ?? '') < (b.id ?? '') ? 1 : -1),
    );
  }

  protected override show() {
    return { messages: this.#sorted() };
  }

  readonly refresh = (): Promise<void> => this.reload();

  readonly sendWhatsApp = ({ to, message, mediaUrl, templateId, variables }: LoggedSend): Promise<SendResult> =>
    this.#invoke('send-whatsapp', { to, message, media_url: mediaUrl, template_id: templateId, variables });

  /** `send-twilio-message` is for servers; this is the function by which people send SMS. */
  readonly sendSMS = ({ to, message, templateId, variables }: Omit<LoggedSend, 'mediaUrl'>): Promise<SendResult> =>
    this.#invoke('send-unified-notification', {
      channels: ['sms'],
      recipient_phone: to,
      message,
      template_id: templateId,
      variables,
    });

  readonly sendEither = ({ type, ...message }: LoggedSend & { type?: 'sms' | 'whatsapp' }): Promise<SendResult> => {
    if (type === 'whatsapp') return this.sendWhatsApp(message);
    if (message.mediaUrl === undefined) return this.sendSMS(message);
    const error = new WaselError('mediaUrl: files go by WhatsApp only', { code: 'invalid_request', field: 'mediaUrl' });
    return Promise.resolve({ success: false, messageId: null, error });
  };

  async #invoke(name: string, body: Record<string, unknown>): Promise<SendResult> {
    try {
      const { data, error } = await this.connection.client.functions.invoke<FunctionAnswer>(name, {
        body,
        headers: { 'idempotency-key': uuid() },
      });
      if (error) throw await refusalOf(error);
      const sent = data?.results?.[0] ?? { success: true, message_id: data?.message_id };
      if (!sent.success || sent.message_id === undefined) {
        const message = 'error' in sent && sent.error ? sent.error : 'the message was not taken';
        throw new WaselError(message, { code: 'not_sent' });
      }
      return { success: true, messageId: sent.message_id, error: null };
    } catch (thrown) {
      return { success: false, messageId: null, error: errorOf(thrown) };
    }
  }
}

/** supabase-js leaves a function's refusal unread in `context`. */
async function refusalOf(error: unknown): Promise<WaselError> {
  const context: unknown = error instanceof Error && 'context' in error ? error.context : null;
  if (!(context instanceof Response)) return errorOf(error);
  const body: unknown = await context.json().catch(() => null);
  const results = body !== null && typeof body === 'object' && 'results' in body ? body.results : null;
  const first: unknown = Array.isArray(results) ? results[0] : null;
  return errorOfAnswer(context.status, first ?? body);
}
