import { useMemo } from 'react';

import { useConnection } from './context.js';
import type { ClientOption, Connection } from './context.js';
import type { WaselError } from './errors.js';
import { Store, useStore } from './store.js';
import { joinTopic } from './topics.js';
import type { TopicHandle } from './topics.js';

export interface Typist {
  /** `null` for the customer. */
  userId: string | null;
  name: string | null;
}

interface State {
  /** Who else is typing now. */
  typing: Typist[];
  live: boolean;
  /** Why the topic may not be joined. */
  error: WaselError | null;
}

export interface UseTyping extends State {
  /** Call it with every keystroke, and with `false` when the text is sent or gone. */
  setTyping: (isTyping: boolean) => void;
}

/** Who is typing in a conversation (`null`: none), colleagues and, on a linked phone, the customer. */
export function useTyping(conversationId: string | null, options: ClientOption = {}): UseTyping {
  const connection = useConnection(options.client);
  const store = useMemo(() => new TypingStore(connection, conversationId), [connection, conversationId]);
  const state = useStore(store);
  return useMemo(() => ({ ...state, setTyping: store.setTyping }), [state, store]);
}

/** The others are told this often at most. */
const THROTTLE = 2_000;
/** Whoever says nothing more for this long has stopped. */
const SILENCE = 5_000;

class TypingStore extends Store<State> {
  readonly #connection: Connection;
  readonly #conversation: string | null;
  readonly #typists = new Map<string, { typist: Typist; timer: ReturnType<typeof setTimeout> }>();
  #topic: TopicHandle | null = null;
  /** When we said last that we type; 0 if we do not. */
  #said = 0;

  constructor(connection: Connection, conversation: string | null) {
    super({ typing: [], live: false, error: null });
    this.#connection = connection;
    this.#conversation = conversation;
  }

  protected override run(signal: AbortSignal): void {
    const { client, who } = this.#connection;
    if (who.status === 'failed') this.set({ error: who.error });
    if (this.#conversation === null || who.status !== 'signed_in') return;
    // Before the topic is left.
    signal.addEventListener('abort', () => {
      this.setTyping(false);
      this.#topic = null;
      for (const { timer } of this.#typists.values()) clearTimeout(timer);
      this.#typists.clear();
      this.set({ typing: [], live: false, error: null });
    });
    const name = `conversation:${this.#conversation}`;
    this.#topic = joinTopic(
      client,
      name,
      {
        message: (event, payload) => {
          if (event === 'typing') this.#heard(payload, who.userId);
        },
        live: (live, error) => this.set({ live, error }),
      },
      signal,
    );
  }

  #heard(payload: Record<string, unknown>, ownId: string): void {
    const { user_id: userId, name, is_typing: isTyping, from } = payload;
    const id = typeof userId === 'string' ? userId : null;
    // The same person in another window is nobody else.
    if (id === ownId || (id === null && from !== 'contact')) return;
    const key = id ?? 'contact';
    clearTimeout(this.#typists.get(key)?.timer);
    this.#typists.delete(key);
    if (isTyping === true) {
      const typist = { userId: id, name: typeof name === 'string' ? name : null };
      const timer = setTimeout(() => {
        this.#typists.delete(key);
        this.#show();
      }, SILENCE);
      this.#typists.set(key, { typist, timer });
    }
    this.#show();
  }

  #show(): void {
    this.set({ typing: [...this.#typists.values()].map(({ typist }) => typist) });
  }

  readonly setTyping = (isTyping: boolean): void => {
    const { who } = this.#connection;
    if (!this.#topic || who.status !== 'signed_in') return;
    if (isTyping ? Date.now() - this.#said < THROTTLE : this.#said === 0) return;
    this.#said = isTyping ? Date.now() : 0;
    this.#topic.send('typing', { user_id: who.userId, name: who.name, is_typing: isTyping });
  };
}
