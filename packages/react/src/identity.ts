import type { Session } from '@supabase/supabase-js';

import type { WaselClient } from './client.js';
import { WaselError } from './errors.js';
import { Store } from './store.js';

/** Who uses the hooks, and for which organisation. */
export interface Identity {
  userId: string;
  /** The tenant, where it is known before the server is asked. */
  orgId: string | null;
  /** As colleagues see them while they type. */
  name: string | null;
}

export type Who =
  | { status: 'loading' | 'signed_out' }
  | { status: 'failed'; error: WaselError }
  | ({ status: 'signed_in' } & Identity);

const text = (value: unknown): string | null => (typeof value === 'string' && value !== '' ? value : null);

function whoOf(session: Session | null): Who {
  if (!session) return { status: 'signed_out' };
  const { id, email, app_metadata: ours, user_metadata: theirs } = session.user;
  // Only `app_metadata` tells the tenant: people may write the other one themselves.
  const name = text(theirs['full_name']) ?? text(theirs['name']) ?? text(email);
  return { status: 'signed_in', userId: id, orgId: text(ours['org_id']), name };
}

/** Follows who is signed in at a client. A refreshed token is no change. */
export class IdentityStore extends Store<{ who: Who }> {
  readonly #client: WaselClient | null;
  #users = 0;
  #stop = () => {};

  /** Without a client it asks nobody. */
  constructor(client: WaselClient | null) {
    super({ who: { status: 'loading' } });
    this.#client = client;
  }

  /** One listener at the client, however many hooks ask. */
  override start(): () => void {
    if (this.#users === 0) this.#stop = super.start();
    this.#users += 1;
    return () => {
      this.#users -= 1;
      if (this.#users === 0) this.#stop();
    };
  }

  protected override run(signal: AbortSignal): void {
    if (!this.#client) return;
    try {
      const { data } = this.#client.auth.onAuthStateChange((_event, session) => {
        if (!signal.aborted) this.#tell(whoOf(session));
      });
      signal.addEventListener('abort', () => data.subscription.unsubscribe());
    } catch (cause) {
      // A client with the option `accessToken` has no `auth`.
      const message = 'this client does not sign people in itself: give WaselProvider `identity` and `accessToken`';
      this.#tell({ status: 'failed', error: new WaselError(message, { code: 'no_identity', cause }) });
    }
  }

  #tell(who: Who): void {
    if (JSON.stringify(who) !== JSON.stringify(this.snapshot().who)) this.set({ who });
  }
}
