// A browser's globals, the hooks in it, and clients as an application makes them. Everything runs in StrictMode.

import { createElement } from 'react';

import { createClient } from '@supabase/supabase-js';
import { JSDOM } from 'jsdom';
import WebSocket from 'ws';

import { PATIENCE, until } from '../../../tests/js/harness.mjs';

const { window } = new JSDOM('<!doctype html><html><body></body></html>', { url: 'http://localhost/' });
for (const [name, value] of Object.entries({ window, document: window.document, navigator: window.navigator })) {
  Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
}
// After the globals: these look for them when they are loaded.
const { act, cleanup, configure, renderHook } = await import('@testing-library/react');
const { WaselProvider } = await import('@wasel/react');
configure({ reactStrictMode: true });

export { act, cleanup };

const clients = [];
let made = 0;

/** A client that nobody has signed in at yet. `base` is for one that goes through something else. */
export function clientAt(server, { base = server.base, ...options } = {}) {
  made += 1;
  const client = createClient(base, server.anonKey, {
    auth: { persistSession: false, autoRefreshToken: false, storageKey: `test-${made}` },
    ...options,
    realtime: { transport: WebSocket, ...options.realtime },
  });
  clients.push(client);
  return client;
}

/** A client of the tenant's owner. */
export async function clientOf(server, tenant, options) {
  const client = clientAt(server, options);
  await signIn(client, tenant);
  return client;
}

export async function signIn(client, { email, password }) {
  const { error } = await client.auth.signInWithPassword({ email, password });
  if (error) throw error;
}

/** Unmounts everything and lets go of all sockets. */
export async function leave() {
  cleanup();
  for (const client of clients.splice(0)) {
    await client.removeAllChannels();
    await client.realtime.disconnect();
  }
}

/** Renders a hook below a provider. `shown()` is what it returns now. */
export function mount(client, useIt, { initialProps, ...settings } = {}) {
  const wrapper = ({ children }) => createElement(WaselProvider, { client, ...settings }, children);
  const { result, rerender, unmount } = renderHook(useIt, { wrapper, initialProps });
  return {
    shown: () => result.current,
    rerender,
    unmount,
    /** Waits until `check` is true of what it returns, and returns that. */
    shows: (what, check) =>
      until(
        () => `${what}; it shows ${JSON.stringify(result.current)}`,
        () => check(result.current) && result.current,
        PATIENCE,
      ),
  };
}
