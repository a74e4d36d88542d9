import { useMemo } from 'react';

import { rowsOf } from './client.js';
import { useConnection } from './context.js';
import type { ClientOption, Connection } from './context.js';
import type { Tables } from './database.types.js';
import { WaselError } from './errors.js';
import { LiveRows } from './live-rows.js';
import type { LiveState } from './live-rows.js';
import type { Change } from './resumable.js';
import { useStore } from './store.js';

export type WhatsAppSession = Tables<'whatsapp_sessions'>;

export interface UseWhatsAppSessionOptions extends ClientOption {
  /** One of several linked phones; the organisation's first if left out. */
  sessionId?: string | undefined;
}

export interface ConnectOptions {
  /** Link by a code that is typed in on this phone, instead of by QR. */
  phoneNumber?: string;
}

interface State extends LiveState {
  /** The row itself, with `stop_reason`, `passkey_request` and the rest; `null` before the first `connect`. */
  session: WhatsAppSession | null;
  status: WhatsAppSession['status'];
  /** A PNG as data URL, while it can be scanned. */
  qrCode: string | null;
  /** Eight characters for the phone, while they can be typed in. */
  pairingCode: string | null;
  /** Until when the code shown is good. */
  expiresAt: Date | null;
  /** E.164, while a phone is linked. */
  phoneNumber: string | null;
  /** The name on the phone. */
  displayName: string | null;
  /** A `connect` or `logout` is under way. */
  busy: 'connecting' | 'disconnecting' | null;
}

export interface UseWhatsAppSession extends State {
  /** Begins to link a phone, or starts the linked one. Resolves with whether it went; else `error` says why. */
  connect: (options?: ConnectOptions) => Promise<boolean>;
  /** Unlinks the phone. Resolves as `connect` does. */
  logout: () => Promise<boolean>;
  refresh: () => Promise<void>;
}

/** A linked phone and how to link it: S4.8's flow, by realtime and, while a code is shown, a look every three seconds. */
export function useWhatsAppSession(options: UseWhatsAppSessionOptions = {}): UseWhatsAppSession {
  const connection = useConnection(options.client);
  const { sessionId } = options;
  const store = useMemo(() => new SessionStore(connection, sessionId ?? null), [connection, sessionId]);
  const state = useStore(store);
  return useMemo(
    () => ({ ...state, connect: store.connect, logout: store.logout, refresh: store.refresh }),
    [state, store],
  );
}

const POLL = 3_000;

/** The organisation's first session, as the server's `/api/sessions` chooses it. */
function compare(a: WhatsAppSession, b: WhatsAppSession): number {
  const isLoose = (row: WhatsAppSession) => Number(row.channel_id === null);
  const key = (row: WhatsAppSession) => `${row.created_at} ${row.id}`;
  return isLoose(a) - isLoose(b) || (key(a) < key(b) ? -1 : 1);
}

class SessionStore extends LiveRows<'whatsapp_sessions', State> {
  readonly #wanted: string | null;
  #rows = new Map<string, WhatsAppSession>();

  constructor(connection: Connection, wanted: string | null) {
    const phone = { phoneNumber: null, displayName: null };
    const code = { qrCode: null, pairingCode: null, expiresAt: null };
    const nothing = { session: null, status: 'disconnected', busy: null, ...phone, ...code } as const;
    super(connection, { ...nothing, loading: true, error: null, live: false });
    this.#wanted = wanted;
  }

  protected override subscription() {
    return { table: 'whatsapp_sessions' as const, ...(this.#wanted !== null && { filter: `id=eq.${this.#wanted}` }) };
  }

  protected override run(signal: AbortSignal): void {
    super.run(signal);
    const timer = setInterval(() => {
      if (!['connecting', 'qr_pending'].includes(this.snapshot().status)) return;
      // A code that ran out is shown no more, whether the server can be asked or not.
      this.set(this.show());
      void this.reload();
    }, POLL);
    signal.addEventListener('abort', () => clearInterval(timer));
  }

  protected override async read(signal: AbortSignal) {
    let query = this.connection.client.from('whatsapp_sessions').select('*');
    if (this.#wanted !== null) query = query.eq('id', this.#wanted);
    const rows = await rowsOf<WhatsAppSession>(query.order('created_at').order('id').limit(100).abortSignal(signal));
    return () => {
      this.#rows = new Map(rows.map((row) => [row.id, row]));
    };
  }

  protected override apply({ type, row }: Change<WhatsAppSession>): void {
    if (row.id === undefined) return;
    if (type === 'DELETE') this.#rows.delete(row.id);
    else this.#rows.set(row.id, row);
  }

  protected override show() {
    const session = [...this.#rows.values()].sort(compare)[0] ?? null;
    const expiresAt = session?.qr_expires_at ? new Date(session.qr_expires_at) : null;
    const isGood = session?.status === 'qr_pending' && (expiresAt === null || expiresAt.getTime() > Date.now());
    return {
      session,
      status: session?.status ?? ('disconnected' as const),
      qrCode: isGood ? session.qr_code : null,
      pairingCode: isGood ? session.pairing_code : null,
      expiresAt: isGood ? expiresAt : null,
      // The row remembers the last phone; it is linked no more.
      phoneNumber: session?.linked_at ? session.phone_number : null,
      displayName: session?.linked_at ? session.display_name : null,
    };
  }

  readonly refresh = (): Promise<void> => this.reload();

  readonly connect = (options: ConnectOptions = {}): Promise<boolean> => {
    const phone = options.phoneNumber === undefined ? {} : { phone_number: options.phoneNumber };
    const path = this.#wanted === null ? '/api/sessions/init' : `/v1/sessions/${this.#wanted}/link`;
    return this.#ask('connecting', () => [path, phone]);
  };

  readonly logout = (): Promise<boolean> =>
    this.#ask('disconnecting', () => {
      if (this.#wanted !== null) return [`/v1/sessions/${this.#wanted}/logout`, undefined];
      const { who } = this.connection;
      const org = this.snapshot().session?.org_id ?? (who.status === 'signed_in' ? who.orgId : null);
      if (org === null) throw new WaselError('there is no linked phone', { code: 'not_found' });
      return [`/api/sessions/${org}/logout`, undefined];
    });

  async #ask(busy: 'connecting' | 'disconnecting', request: () => [path: string, body: unknown]): Promise<boolean> {
    if (this.snapshot().busy !== null) return false;
    this.set({ busy, error: null });
    try {
      const [path, body] = request();
      await this.connection.api.call('POST', path, { body });
      await this.reload();
      return true;
    } catch (thrown) {
      this.fail(thrown);
      return false;
    } finally {
      this.set({ busy: null });
    }
  }
}
