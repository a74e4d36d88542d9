import type { RealtimeChannel } from '@supabase/supabase-js';

import type { WaselClient } from './client.js';

/** One user of a topic: a mounted hook. */
export interface TopicUser {
  /** The presence key; with one, `sync` is called. */
  presenceKey?: string;
  /** What to show of us to the others. */
  track?: { [name: string]: string };
  message?(event: string, payload: Record<string, unknown>): void;
  sync?(states: unknown[]): void;
  live?(isLive: boolean): void;
}

export interface TopicHandle {
  /** Tells the others; nothing while not joined. */
  send(event: string, payload: Record<string, unknown>): void;
}

const FIRST_WAIT = 1_000;
const LONGEST_WAIT = 10_000;

/** A private topic that any number of hooks share: supabase-js knows each topic once. */
class Topic {
  readonly #client: WaselClient;
  readonly #name: string;
  readonly #users = new Set<TopicUser>();
  #channel: RealtimeChannel | null = null;
  #isJoined = false;
  #leaving: Promise<unknown> = Promise.resolve();
  #isOpening = false;
  #wait = FIRST_WAIT;

  constructor(client: WaselClient, name: string) {
    this.#client = client;
    this.#name = name;
  }

  add(user: TopicUser): void {
    this.#users.add(user);
    if (!this.#channel) void this.#open();
    else if (this.#isJoined) {
      user.live?.(true);
      this.#sync();
      this.#track();
    }
  }

  remove(user: TopicUser): void {
    const wasTracking = this.#tracked() !== undefined;
    this.#users.delete(user);
    if (this.#users.size === 0) this.#close();
    else if (wasTracking && this.#tracked() === undefined) void this.#channel?.untrack();
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
    channel.subscribe((status) => {
      if (this.#channel !== channel) return;
      this.#isJoined = status === 'SUBSCRIBED';
      for (const user of this.#users) user.live?.(this.#isJoined);
      if (this.#isJoined) {
        this.#wait = FIRST_WAIT;
        this.#track();
      } else if (status === 'CLOSED') {
        // The server closed it; supabase-js does not come back by itself.
        this.#channel = null;
        setTimeout(() => void this.#open(), this.#wait);
        this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT);
      }
    });
  }

  #close(): void {
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

const topics = new WeakMap<WaselClient, Map<string, Topic>>();

/** Joins a private topic of the tenant until the signal. */
export function joinTopic(client: WaselClient, name: string, user: TopicUser, signal: AbortSignal): TopicHandle {
  const ofClient = topics.get(client) ?? new Map<string, Topic>();
  topics.set(client, ofClient);
  const topic = ofClient.get(name) ?? new Topic(client, name);
  ofClient.set(name, topic);
  signal.addEventListener('abort', () => topic.remove(user));
  topic.add(user);
  return topic;
}
