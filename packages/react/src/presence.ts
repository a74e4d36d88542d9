import { useMemo } from 'react';

import { useConnection } from './context.js';
import type { ClientOption, Connection } from './context.js';
import type { WaselError } from './errors.js';
import { Store, useStore } from './store.js';
import { joinTopic } from './topics.js';

export interface OnlinePerson {
  userId: string;
  name: string | null;
  onlineAt: Date;
}

export interface UsePresenceOptions extends ClientOption {
  /** Shows us to the others; `true` if left out. */
  track?: boolean | undefined;
}

interface State {
  /** By name. A person with several windows is one. */
  people: OnlinePerson[];
  live: boolean;
  /** Why the topic may not be joined. */
  error: WaselError | null;
}

export interface UsePresence extends State {
  isOnline: (userId: string) => boolean;
}

/** Who of the organisation is online. */
export function usePresence(options: UsePresenceOptions = {}): UsePresence {
  const connection = useConnection(options.client);
  const track = options.track ?? true;
  const store = useMemo(() => new PresenceStore(connection, track), [connection, track]);
  const state = useStore(store);
  return useMemo(() => {
    const ids = new Set(state.people.map((person) => person.userId));
    return { ...state, isOnline: (userId) => ids.has(userId) };
  }, [state]);
}

/** Whether one person is online. Shows nobody to anybody. */
export function useOnline(userId: string, options: ClientOption = {}): boolean {
  return usePresence({ ...options, track: false }).isOnline(userId);
}

function personOf(state: unknown): OnlinePerson | null {
  if (typeof state !== 'object' || state === null) return null;
  const { user_id: userId, name, online_at: at } = state as Record<string, unknown>;
  if (typeof userId !== 'string') return null;
  return { userId, name: typeof name === 'string' && name !== '' ? name : null, onlineAt: new Date(typeof at === 'string' ? at : 0) };
}

class PresenceStore extends Store<State> {
  readonly #connection: Connection;
  readonly #isTracked: boolean;

  constructor(connection: Connection, isTracked: boolean) {
    super({ people: [], live: false, error: null });
    this.#connection = connection;
    this.#isTracked = isTracked;
  }

  protected override run(signal: AbortSignal): void {
    const { client, who } = this.#connection;
    if (who.status === 'failed') this.set({ error: who.error });
    if (who.status !== 'signed_in') return;
    const { userId, name } = who;
    joinTopic(
      client,
      'online',
      {
        presenceKey: userId,
        ...(this.#isTracked && { track: { user_id: userId, name: name ?? '', online_at: new Date().toISOString() } }),
        sync: (states) => this.#show(states),
        live: (live, error) => this.set({ live, error }),
      },
      signal,
    );
    signal.addEventListener('abort', () => this.set({ people: [], live: false, error: null }));
  }

  #show(states: unknown[]): void {
    const people = new Map<string, OnlinePerson>();
    for (const person of states.map(personOf)) {
      const known = person && people.get(person.userId);
      // Online since the first of their windows.
      if (person && (!known || person.onlineAt < known.onlineAt)) people.set(person.userId, person);
    }
    this.set({ people: [...people.values()].sort((a, b) => (a.name ?? '').localeCompare(b.name ?? '')) });
  }
}
