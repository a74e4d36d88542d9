// The hooks where the order of things matters: answers come when the test says so.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';

import { until } from '../../../tests/js/harness.mjs';
import { FakeClient } from './fake.mjs';
import { act, leave, mount } from './setup.mjs';

const { useMessages, usePresence, useTyping } = await import('@wasel/react');
const { topics } = await import('../dist/topics.js');

const settings = {
  baseUrl: 'http://127.0.0.1:9',
  accessToken: async () => 'a token',
  identity: { userId: 'u', orgId: 'o', name: 'Owner' },
};

let client;
beforeEach(() => {
  client = new FakeClient();
});
afterEach(leave);

const last = () => client.channels.at(-1);

/** Waits for the hook's channel, and lets its join be answered. */
async function join(count = 1) {
  await until('the channel', () => client.channels.length === count);
  await act(async () => last().told('SUBSCRIBED'));
}

describe('useMessages', () => {
  const { fetch } = globalThis;
  let posts;

  beforeEach(() => {
    posts = [];
    globalThis.fetch = async (address, { body }) => {
      const post = JSON.parse(body);
      posts.push({ address, ...post });
      const { request_id, content } = post;
      const row = { id: `server-${posts.length}`, request_id, body: content.body, status: 'pending' };
      return new Response(JSON.stringify({ ...row, created_at: '2026-01-02T00:00:00Z' }), { status: 202 });
    };
  });
  afterEach(() => {
    globalThis.fetch = fetch;
  });

  const row = (id, more = {}) => ({
    id,
    body: id,
    direction: 'inbound',
    status: 'received',
    content: null,
    created_at: '2026-01-01T00:00:00Z',
    request_id: null,
    provider_message_id: null,
    quoted_message_id: null,
    metadata: {},
    ...more,
  });

  const shownBodies = (view) => view.shown().messages.map((message) => message.body);

  /** A thread that has been read. */
  async function threadOf(rows) {
    client.joinsAtOnce = true;
    const view = mount(client, () => useMessages('c'), settings);
    await until('the reading', () => client.reads.length === 1);
    await act(async () => client.reads[0].answer(rows));
    await view.shows('the rows', (now) => now.live && !now.loading && now.messages.length === rows.length);
    return view;
  }

  test('a thread is read once when it is mounted', async () => {
    await threadOf([row('old')]);
    assert.equal(client.reads.length, 1);
  });

  test('a message that was sent while rows were being read stays', async () => {
    const view = await threadOf([row('old')]);
    const refreshed = view.shown().refresh();
    await until('the second reading', () => client.reads.length === 2);
    await act(() => view.shown().send('new'));
    assert.deepEqual(shownBodies(view), ['old', 'new']);
    // As they were before it was sent.
    await act(async () => {
      client.reads[1].answer([row('old')]);
      await refreshed;
    });
    assert.deepEqual(shownBodies(view), ['old', 'new']);
  });

  test('what was read of a message that was just sent is newer than the answer to sending it', async () => {
    const view = await threadOf([row('old')]);
    const refreshed = view.shown().refresh();
    await until('the second reading', () => client.reads.length === 2);
    await act(() => view.shown().send('new'));
    const [{ request_id }] = posts;
    const more = { request_id, status: 'sent', direction: 'outbound', created_at: '2026-01-02T00:00:00Z' };
    await act(async () => {
      client.reads[1].answer([row('server-1', more), row('old')]);
      await refreshed;
    });
    assert.deepEqual(view.shown().messages.map((message) => message.status), ['received', 'sent']);
  });

  const failed = row('failed', {
    direction: 'outbound',
    status: 'failed',
    content: { type: 'text', body: 'Yes' },
    created_at: '2026-01-01T12:00:00Z',
    quoted_message_id: 'wamid.question',
    metadata: { order: 7 },
  });

  test('a retry has the quote and the metadata of what failed', async () => {
    const view = await threadOf([failed, row('question', { provider_message_id: 'wamid.question' })]);
    const again = await act(() => view.shown().retry('failed'));
    assert.equal(again.sendError, null);
    assert.equal(posts.length, 1);
    assert.equal(posts[0].reply_to, 'question');
    assert.deepEqual(posts[0].metadata, { order: 7 });
    assert.deepEqual(posts[0].content, { type: 'text', body: 'Yes' });
  });

  test('a retry finds what it quotes on a page that is not here', async () => {
    const view = await threadOf([failed]);
    let again;
    act(() => {
      again = view.shown().retry('failed');
    });
    await until('the question about it', () => client.reads.length === 2);
    assert.ok(client.reads[1].steps.some(([step, ...given]) => step === 'eq' && given.includes('wamid.question')));
    await act(async () => {
      client.reads[1].answer([{ id: 'far back' }]);
      await again;
    });
    assert.equal(posts[0].reply_to, 'far back');
  });
});

describe('a topic', () => {
  const refuse = () => act(async () => last().told('CHANNEL_ERROR', new Error('Unauthorized: You may not read this topic')));

  for (const [name, useIt] of [['useTyping', () => useTyping('c')], ['usePresence', () => usePresence()]]) {
    test(`that may not be joined is an error of ${name}, and is not asked for for ever`, async () => {
      const view = mount(client, useIt, settings);
      await until('the channel', () => client.channels.length === 1);
      await refuse();
      assert.equal(view.shown().live, false);
      assert.equal(view.shown().error.code, 'subscription_refused');
      assert.match(view.shown().error.message, /may not read this topic/);
      assert.equal(last().isRemoved, undefined, 'the token may just be on its way');
      await refuse();
      await refuse();
      assert.equal(last().isRemoved, true);
      assert.equal(view.shown().error.code, 'subscription_refused', 'and it stays so');
      // A hook that is mounted later asks anew.
      mount(client, useIt, settings);
      await join(2);
      await view.shows('no error', (now) => now.live && now.error === null);
    });
  }

  test('that is joined after a refusal has no error, and refusals are counted anew', async () => {
    const view = mount(client, () => useTyping('c'), settings);
    await until('the channel', () => client.channels.length === 1);
    await refuse();
    await refuse();
    await act(async () => last().told('SUBSCRIBED'));
    assert.deepEqual([view.shown().live, view.shown().error], [true, null]);
    await refuse();
    assert.equal(last().isRemoved, undefined);
  });

  test('whose connection breaks is not refused', async () => {
    const view = mount(client, () => usePresence(), settings);
    await join();
    await act(async () => last().told('CHANNEL_ERROR', new Error('socket closed: 1006')));
    assert.deepEqual([view.shown().live, view.shown().error], [false, null]);
  });

  test('is forgotten when nobody uses it, and not before', async () => {
    const [one, other] = [mount(client, () => useTyping('c'), settings), mount(client, () => useTyping('c'), settings)];
    await join();
    assert.deepEqual([...topics.get(client).keys()], ['conversation:c']);
    one.unmount();
    assert.equal(last().isRemoved, undefined);
    other.unmount();
    assert.equal(last().isRemoved, true);
    await until('nothing is kept', () => topics.get(client).size === 0);
  });

  test('that is wanted again while it is being left is joined when it has been left', async () => {
    const view = mount(client, () => useTyping('c'), settings);
    await join();
    let left;
    client.removeChannel = () =>
      new Promise((resolve) => {
        left = () => resolve('ok');
      });
    view.unmount();
    const again = mount(client, () => useTyping('c'), settings);
    await act(async () => {});
    assert.equal(client.channels.length, 1, 'supabase-js knows each topic once');
    left();
    await join(2);
    await again.shows('the topic', (now) => now.live);
    assert.equal(topics.get(client).size, 1);
  });
});
