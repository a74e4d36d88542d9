// The unmodified supabase-js client against our server, and what its channels heard.

import { createClient } from '@supabase/supabase-js';
import WebSocket from 'ws';

import { until } from './harness.mjs';

/** A client as an application makes it, but for the WebSocket that Node before 22 lacks. */
export function supabase(server, options = {}) {
  return createClient(server.base, server.anonKey, {
    auth: { persistSession: false, autoRefreshToken: false },
    ...options,
    realtime: { transport: WebSocket, ...options.realtime },
  });
}

/** A client that is signed in as the tenant's owner. */
export async function signedIn(server, { email, password }) {
  const client = supabase(server);
  const { error } = await client.auth.signInWithPassword({ email, password });
  if (error) throw error;
  return client;
}

/** One channel with any number of bindings, and everything it heard. */
export class Feed {
  constructor(client, name, bindings) {
    this.heard = [];
    this.statuses = [];
    this.channel = client.channel(name);
    for (const binding of bindings) {
      this.channel.on('postgres_changes', { schema: 'public', event: '*', ...binding }, (change) =>
        this.heard.push({ ...change, binding }),
      );
    }
    this.channel.subscribe((status, error) => {
      this.statuses.push(status);
      if (error) this.lastError = error;
    });
  }

  /** Subscribes and waits until the server has confirmed it. */
  static async open(client, name, ...bindings) {
    const feed = new Feed(client, name, bindings);
    await feed.joined();
    return feed;
  }

  async joined(times = 1) {
    await until(
      () => `${this.channel.topic} is subscribed; it went through ${this.statuses} (${this.lastError?.message})`,
      () => this.statuses.filter((status) => status === 'SUBSCRIBED').length >= times,
    );
  }

  /** The first change heard, now or later, for which `test` is true. */
  async hears(what, test) {
    return until(
      () => `${what}; heard ${JSON.stringify(this.heard.map(({ eventType, table, new: row }) => [eventType, table, row]))}`,
      () => this.heard.find(test),
    );
  }
}
