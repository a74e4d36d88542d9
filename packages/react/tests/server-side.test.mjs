// Where there is no browser: rendering on a server.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { createClient } from '@supabase/supabase-js';
import { createElement } from 'react';
import { renderToString } from 'react-dom/server';
import WebSocket from 'ws';

test('every hook renders on a server, asks nothing and says that it loads', async () => {
  assert.equal(globalThis.window, undefined);
  const wasel = await import('@wasel/react');
  const { WaselProvider, useConversations, useMessages, usePresence, useTwilioMessages, useTyping, useWhatsApp } = wasel;
  const asked = [];
  const fetch = async (url) => {
    asked.push(url);
    throw new TypeError('no network on a server');
  };
  const auth = { persistSession: false, autoRefreshToken: false };
  const client = createClient('http://127.0.0.1:9', 'key', { auth, global: { fetch }, realtime: { transport: WebSocket } });
  function Page() {
    const loading = [useConversations(), useMessages('x'), wasel.useWhatsAppSession(), useTwilioMessages(), useWhatsApp()];
    useTyping('x');
    usePresence();
    return loading.map((state) => String(state.loading)).join(' ');
  }
  const html = renderToString(createElement(WaselProvider, { client }, createElement(Page)));
  assert.equal(html, 'true true true true true');
  assert.deepEqual(asked, []);
  assert.equal(client.getChannels().length, 0);
});
