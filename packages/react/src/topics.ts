import type { RealtimeChannel } from '@supabase/supabase-js';

import type { WaselClient } from './client.js';
import { WaselError } from './errors.js';

/** One user of a topic: a mounted hook. */
export interface TopicUser {
  /** The presence key; with one, `sync` is called. */
  presenceKey?: string;
  /** What to show of us to the others. */
  track?: { [name: string]: string };
  message?(event: string, payload: Record<string, unknown>): void;
  sync?(states: unknown[]): void;
  /** Whether it is joined at the moment, and with what words it was refused, if it was. */
  live?(isLive: boolean, refusal: WaselError | null): void;
}

export interface TopicHandle {
  /** Tells the others; nothing while not joined. */
  send(event: string, payload: Record<string, unknown>): void;
}

const FIRST_WAIT = 1_000;
const LONGEST_WAIT = 10_000;
/** So many refusals in a row are the answer; one or two may come of a token that is just being renewed. */
const MOST_REFUSALS = 3;

/** A join that was answered by the server, with a code of Supabase's list; not a broken connection. */
const REFUSAL = /^"?([A-Z]\w*): /;

/** A private topic that any number of hooks share: supabase-js knows each topic once. */
class Topic {
  readonly #client: WaselClient;
  readonly #name: string;
  readonly #isUnused: () => void;
  readonly #users = new Set<TopicUser>();
  #channel: RealtimeChannel | null = null;
  #isJoined = false;
  #leaving: Promise<unknown> = Promise.resolve();
  #isOpening = false;
  #wait = FIRST_WAIT;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #refusal: WaselError | null = null;
  #refusals = 0;

  /** `isUnused` is called when nobody is left and the topic is left, too. */
  constructor(client: WaselClient, name: string, isUnused: () => void) {
    this.#client = client;
    this.#name = name;
    this.#isUnused = isUnused;
  }

  add(user: TopicUser): void {
    this.#users.add(user);
    if (!this.#channel) void this.#open();
    else if (!this.#isJoined) user.live?.(false, this.#refusal);
    else {
      user.live?.(true, null);
      this.#sync();
      this.#track();
    }
  }

  remove(user: TopicUser): void {
    const wasTracking = this.#tracked() !== undefined;
    this.#users.delete(user);
    if (this.#users.size === 0) {
      this.#close();
      void this.#leaving.then(() => {
        if (this.#users.size === 0) this.#isUnused();
      });
    } else if (wasTracking && this.#tracked() === undefined) void this.#channel?.untrack();
  }

  send(event: string, payload: Record<string, unknown>): void {
    if (this.#isJoined) void this.#channel?.send({ type: 'broadcast', event, payload });
  }

  async #open(): Promise<void> {
    if (this.#isOpening) return;
    this.#isOpening = true;
    // The same topic cannot be joined before it is left.
    await this.#leaving;
    this.#isOpening = false;
    if (this.#users.size === 0 || this.#channel) return;
    const key = [...this.#users].find((user) => user.presenceKey !== undefined)?.presenceKey;
    const config = { private: true, broadcast: { self: false }, ...(key !== undefined && { presence: { key } }) };
    const channel = this.#client.channel(this.#name, { config });
    this.#channel = channel;
    channel.on('broadcast', { event: '*' }, ({ event, payload }) => {
      for (const user of this.#users) user.message?.(event, (payload ?? {}) as Record<string, unknown>);
    });
    if (key !== undefined) channel.on('presence', { event: 'sync' }, () => this.#sync());
    channel.subscribe((status, error) => {
      if (this.#channel !== channel) return;
      this.#isJoined = status === 'SUBSCRIBED';
      const isForbidden = !this.#isJoined && this.#refused(error);
      if (this.#isJoined) this.#refusal = null;
      for (const user of this.#users) user.live?.(this.#isJoined, this.#refusal);
      if (this.#isJoined) {
        this.#wait = FIRST_WAIT;
        this.#refusals = 0;
        this.#track();
      } else if (isForbidden) {
        this.#refusals += 1;
        // supabase-js would ask for ever. The next hook that is mounted asks anew.
        if (this.#refusals >= MOST_REFUSALS) this.#close();
      } else if (status === 'CLOSED') {
        // The server closed it; supabase-js does not come back by itself.
        this.#channel = null;
        this.#timer = setTimeout(() => void this.#open(), this.#wait);
        this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT);
      }
    });
  }

  /** Keeps a refusal; true where the right is missing. */
  #refused(error: Error | undefined): boolean {
    const code = REFUSAL.exec(error?.message ?? '')?.[1];
    if (!error || code === undefined) return false;
    const isForbidden = code === 'Unauthorized';
    this.#refusal = new WaselError(error.message, {
      code: isForbidden ? 'subscription_refused' : 'subscription',
      cause: error,
    });
    return isForbidden;
  }

  #close(): void {
    clearTimeout(this.#timer);
    this.#refusal = null;
    this.#refusals = 0;
    const channel = this.#channel;
    this.#channel = null;
    this.#isJoined = false;
    if (channel) this.#leaving = this.#client.removeChannel(channel).catch(() => {});
  }

  #tracked(): TopicUser['track'] {
    return [...this.#users].find((user) => user.track)?.track;
  }

  #track(): void {
    const tracked = this.#tracked();
    if (tracked) void this.#channel?.track(tracked);
  }

  #sync(): void {
    const states: unknown[] = Object.values(this.#channel?.presenceState() ?? {}).flat();
    for (const user of this.#users) user.sync?.(states);
  }
}

/** Those in use, by name. */
export const topics = new WeakMap<WaselClient, Map<string, Topic>>();

/** Joins a private topic of the tenant until the signal. */
export function joinTopic(client: WaselClient, name: string, user: TopicUser, signal: AbortSignal): TopicHandle {
  const ofClient = topics.get(client) ?? new Map<string, Topic>();
  topics.set(client, ofClient);
  const topic = ofClient.get(name) ?? new Topic(client, name, () => ofClient.delete(name));
  ofClient.set(name, topic);
  signal.addEventListener('abort', () => topic.remove(user));
  topic.add(user);
  return topic;
}
