// The hooks against the real server, with the real supabase-js, in a browser's DOM, in StrictMode.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';

import { staleness } from '../../../scripts/generate-types.mjs';
import { startWorld, until } from '../../../tests/js/harness.mjs';
import { deliver, inboundText } from '../../../tests/js/meta.mjs';
import { act, clientAt, clientOf, leave, mount, signIn } from './setup.mjs';

const {
  WaselError,
  useConversations,
  useMessages,
  useOnline,
  usePresence,
  useTwilioMessages,
  useTyping,
  useWhatsApp,
} = await import('@wasel/react');

let world;
let a;
let b;

before(async () => {
  world = await startWorld();
  ({ a, b } = world);
});
after(() => world?.stop());
afterEach(leave);

let lastNumber = 16505560000;
/** A customer nobody has heard of yet. */
const newCustomer = () => String((lastNumber += 1));

// Providers tell whole seconds: each message has its own.
let clock = Math.floor(Date.now() / 1000) - 3_600;
const write = (tenant, from, body, rest) =>
  deliver(world.server, tenant, inboundText(tenant, body, { from, timestamp: String((clock += 1)), ...rest }));

async function conversationOf(tenant, customer) {
  return until('the conversation', async () => {
    const { data } = await world.server.call('GET', `/v1/conversations?search=${customer}`, { token: tenant.token });
    return data[0];
  });
}

/** A customer writes; the conversation that it made. */
async function newConversation(tenant, body = 'Is it open today?', rest = {}) {
  const customer = newCustomer();
  await write(tenant, customer, body, rest);
  return { ...(await conversationOf(tenant, customer)), customer };
}

/** A conversation that the simulated Meta knows of, too, so that it takes a free-form answer. */
async function openConversation(tenant) {
  const customer = newCustomer();
  const line = tenant.meta.phoneNumberId;
  await world.simulator.control('POST', '/send', { line, from: `+${customer}`, type: 'text', body: 'Is it in stock?' });
  return { ...(await conversationOf(tenant, customer)), customer };
}

/** Messages written past the server, one a second, the last one now. */
async function history(conversation, count) {
  await world.server.psql(`
    INSERT INTO messages (org_id, id, conversation_id, channel_id, contact_id, direction, message_type, status, body, created_at)
    SELECT org_id, gen_random_uuid(), id, channel_id, contact_id, 'inbound', 'text', 'received', 'old ' || n,
      now() - interval '1 day' + n * interval '1 second'
    FROM conversations, generate_series(1, ${count}) n WHERE id = '${conversation.id}'`);
}

const bodies = ({ messages }) => messages.map((message) => message.body);
const withId = (id) => (row) => row.id === id;

test('the types are those of the schema', async () => {
  assert.equal(await staleness((sql) => world.server.psql(sql)), null);
});

test('a hook without a provider says so', () => {
  assert.throws(() => mount(undefined, () => useConversations()), /no client/);
});

describe('useConversations', () => {
  test('shows the inbox, newest first, and a new conversation by itself', async () => {
    const first = await newConversation(a, 'first');
    const inbox = mount(await clientOf(world.server, a), () => useConversations());
    assert.equal(inbox.shown().loading, true);
    await inbox.shows('the inbox', (now) => !now.loading && now.live && now.conversations.some(withId(first.id)));
    const second = await newConversation(a, 'second');
    const { conversations } = await inbox.shows('the new one', (now) => now.conversations[0]?.id === second.id);
    assert.equal(conversations[0].last_message, 'second');
    assert.equal(conversations.filter(withId(first.id)).length, 1);
    // An older one that is written to comes to the top.
    await write(a, first.customer, 'again');
    const { conversations: moved } = await inbox.shows('the first on top', (now) => now.conversations[0]?.id === first.id);
    assert.equal(moved.filter(withId(first.id)).length, 1, 'in one place only');
  });

  test('counts what is unread, beyond the page too, and goes down when it is read', async () => {
    const conversations = [];
    for (let n = 0; n < 3; n += 1) conversations.push(await newConversation(a, `unread ${n}`));
    const sum = Number(await world.server.psql(`SELECT sum(unread_count) FROM conversations WHERE org_id = '${a.orgId}'`));
    const inbox = mount(await clientOf(world.server, a), () => useConversations({ pageSize: 1 }));
    await inbox.shows('the sum', (now) => now.totalUnread === sum);
    assert.equal(inbox.shown().conversations.length, 1);
    await write(a, conversations[0].customer, 'one more');
    await inbox.shows('one more', (now) => now.totalUnread === sum + 1);
    const path = `/v1/conversations/${conversations[1].id}/read`;
    await world.server.call('POST', path, { token: a.token, body: {} });
    await inbox.shows('one less', (now) => now.totalUnread === sum);
  });

  test('pages without gaps and doubles while the inbox moves', async () => {
    const made = [];
    for (let n = 0; n < 5; n += 1) made.push(await newConversation(a, `page ${n}`));
    const inbox = mount(await clientOf(world.server, a), () => useConversations({ pageSize: 2 }));
    await inbox.shows('the first page', (now) => now.live && now.conversations.length === 2 && now.hasMore);
    // The oldest of them moves to the top between two pages.
    await write(a, made[0].customer, 'back on top');
    await inbox.shows('the moved one', (now) => now.conversations[0]?.id === made[0].id);
    for (let pages = 0; inbox.shown().hasMore && pages < 100; pages += 1) await act(() => inbox.shown().loadMore());
    const ids = inbox.shown().conversations.map((row) => row.id);
    const all = (await world.server.psql(`
      SELECT id FROM conversations WHERE org_id = '${a.orgId}' ORDER BY last_message_at DESC NULLS LAST, id DESC`)).split('\n');
    assert.deepEqual(ids, all);
  });

  test('keeps to its filter, live too', async () => {
    const [mine, other] = [await newConversation(a, 'for me'), await newConversation(a, 'for nobody')];
    const patch = (id, body) => world.server.call('PATCH', `/v1/conversations/${id}`, { token: a.token, body });
    await patch(mine.id, { assigned_to: a.userId });
    const client = await clientOf(world.server, a);
    const inbox = mount(client, () => useConversations({ filter: { status: 'active', assignedTo: 'me' } }));
    await inbox.shows('only mine', (now) => now.live && now.conversations.length === 1 && now.conversations[0].id === mine.id);
    await patch(other.id, { assigned_to: a.userId });
    await inbox.shows('the one that became mine', (now) => now.conversations.length === 2);
    await patch(mine.id, { status: 'archived' });
    await inbox.shows('without the archived one', (now) => now.conversations.length === 1 && now.conversations[0].id === other.id);
    await world.server.psql(`DELETE FROM conversations WHERE id = '${other.id}'`);
    await inbox.shows('without the deleted one', (now) => now.conversations.length === 0 && now.totalUnread === 0);
  });

  test('searches in name, number and last message, with characters that mean something elsewhere', async () => {
    const odd = '50% of "this", (or) that\\';
    const found = await newConversation(a, odd, { name: 'Nadia_K' });
    await newConversation(a, '50 of this, or that', { name: 'NadiaXK' });
    const client = await clientOf(world.server, a);
    const inbox = mount(client, ({ search }) => useConversations({ filter: { search } }), { initialProps: { search: odd } });
    const only = (now) => !now.loading && now.conversations.length === 1 && now.conversations[0].id === found.id;
    await inbox.shows('the one by its message', only);
    for (const search of [found.customer.slice(3), 'nadia_k']) {
      inbox.rerender({ search });
      await inbox.shows(`the one by ${search}`, only);
    }
    inbox.rerender({ search: 'nobody says this' });
    await inbox.shows('nothing', (now) => !now.loading && now.conversations.length === 0);
    assert.equal(inbox.shown().error, null);
  });
});

describe('useMessages', () => {
  test('a message arrives by itself, once', async () => {
    const conversation = await newConversation(a, 'hello');
    const thread = mount(await clientOf(world.server, a), () => useMessages(conversation.id));
    await thread.shows('the thread', (now) => now.live && bodies(now).includes('hello'));
    await write(a, conversation.customer, 'are you there?');
    const { messages } = await thread.shows('the new one', (now) => bodies(now).includes('are you there?'));
    assert.deepEqual(messages.map((message) => message.body), ['hello', 'are you there?']);
  });

  test('pages back to the beginning without gaps and doubles', async () => {
    const conversation = await newConversation(a, 'newest');
    await history(conversation, 25);
    const thread = mount(await clientOf(world.server, a), () => useMessages(conversation.id, { pageSize: 10 }));
    await thread.shows('the newest page', (now) => now.live && now.messages.length === 10 && now.hasOlder);
    assert.equal(bodies(thread.shown()).at(-1), 'newest');
    await act(() => thread.shown().loadOlder());
    await write(a, conversation.customer, 'newer still');
    await thread.shows('the new one', (now) => bodies(now).includes('newer still'));
    await act(() => thread.shown().loadOlder());
    const wanted = [...Array.from({ length: 25 }, (_, n) => `old ${n + 1}`), 'newest', 'newer still'];
    assert.deepEqual(bodies(thread.shown()), wanted);
    assert.equal(thread.shown().hasOlder, false);
  });

  test('what is sent is there at once, becomes the server’s row without a double, and gets its ticks', async () => {
    await world.simulator.control('PUT', '/settings', { sent_after_ms: null, delivered_after_ms: null });
    const conversation = await openConversation(a);
    const thread = mount(await clientOf(world.server, a), () => useMessages(conversation.id));
    await thread.shows('the thread', (now) => now.live && now.messages.length === 1);
    let sent;
    act(() => {
      sent = thread.shown().send('Yes, in blue.');
    });
    const [, draft] = thread.shown().messages;
    assert.equal(draft.body, 'Yes, in blue.');
    assert.deepEqual([draft.pending, draft.status], [true, 'pending']);
    const message = await sent;
    assert.notEqual(message.id, draft.id);
    assert.equal(message.key, draft.key, 'React keeps the element');
    const keys = new Set();
    const one = (status) =>
      thread.shows(status, (now) => {
        for (const { key } of now.messages.slice(1)) keys.add(key);
        return now.messages[1]?.status === status;
      });
    const { provider_message_id: id } = await until('the provider has it', async () => {
      const now = await world.server.call('GET', `/v1/messages/${message.id}`, { token: a.token });
      return now.provider_message_id && now;
    });
    for (const tick of ['sent', 'delivered', 'read']) {
      await world.simulator.control('PUT', '/messages/tick', { id, tick });
      await one(tick);
    }
    assert.deepEqual([...keys], [draft.key], 'never a second row');
    assert.equal(thread.shown().messages.length, 2);
    const count = await world.server.psql(`SELECT count(*) FROM messages WHERE conversation_id = '${conversation.id}'`);
    assert.equal(count, '2');
  });

  test('a refusal stays with its message, and it can be tried again or forgotten', async () => {
    const conversation = await openConversation(a);
    const thread = mount(await clientOf(world.server, a), () => useMessages(conversation.id));
    await thread.shows('the thread', (now) => now.live);
    await world.server.psql(`UPDATE conversations SET last_inbound_at = now() - interval '2 days' WHERE id = '${conversation.id}'`);
    const refused = await thread.shown().send('too late?');
    assert.equal(refused.status, 'failed');
    assert.ok(refused.sendError instanceof WaselError);
    assert.equal(refused.sendError.code, 'window_closed');
    assert.equal(refused.sendError.status, 422);
    await thread.shows('the failed one', (now) => now.messages.at(-1).sendError?.code === 'window_closed');
    await write(a, conversation.customer, 'here I am');
    await thread.shows('the answer', (now) => bodies(now).includes('here I am'));
    const again = await thread.shown().retry(refused.key);
    assert.equal(again.sendError, null);
    assert.equal(again.key, refused.key);
    await thread.shows('the sent one', (now) => now.messages.some((one) => one.id === again.id) && now.messages.length === 3);
    const wrong = await thread.shown().send({ type: 'text', body: '' });
    assert.ok(wrong.sendError);
    act(() => thread.shown().discard(wrong.key));
    assert.equal(thread.shown().messages.length, 3);
  });

  test('an answer that got lost on the way makes no second message', async () => {
    const conversation = await openConversation(a);
    const thread = mount(await clientOf(world.server, a), () => useMessages(conversation.id));
    await thread.shows('the thread', (now) => now.live);
    const { fetch } = globalThis;
    let lost = 0;
    globalThis.fetch = async (...request) => {
      const response = await fetch(...request);
      if (!String(request[0]).endsWith('/v1/messages') || lost > 0) return response;
      lost += 1;
      throw new TypeError('fetch failed');
    };
    try {
      const sent = await thread.shown().send('once');
      assert.equal(sent.sendError, null);
    } finally {
      globalThis.fetch = fetch;
    }
    assert.equal(lost, 1);
    await thread.shows('one message', (now) => now.messages.length === 2 && !now.messages[1].pending);
    const count = await world.server.psql(`SELECT count(*) FROM messages WHERE conversation_id = '${conversation.id}'`);
    assert.equal(count, '2');
  });

  test('markRead leaves nothing unread', async () => {
    const conversation = await newConversation(a);
    const thread = mount(await clientOf(world.server, a), () => useMessages(conversation.id));
    await thread.shows('the thread', (now) => !now.loading);
    await thread.shown().markRead();
    assert.equal(thread.shown().error, null);
    assert.equal(await world.server.psql(`SELECT unread_count FROM conversations WHERE id = '${conversation.id}'`), '0');
  });

  test('another conversation is another thread; its functions stay the same in between', async () => {
    const [one, other] = [await newConversation(a, 'in one'), await newConversation(a, 'in the other')];
    const thread = mount(await clientOf(world.server, a), ({ id }) => useMessages(id), { initialProps: { id: null } });
    assert.deepEqual([thread.shown().loading, thread.shown().messages.length], [false, 0]);
    thread.rerender({ id: one.id });
    await thread.shows('one', (now) => now.live && bodies(now).includes('in one'));
    const { send, loadOlder } = thread.shown();
    await write(a, one.customer, 'more');
    await thread.shows('more', (now) => bodies(now).includes('more'));
    assert.equal(thread.shown().send, send);
    assert.equal(thread.shown().loadOlder, loadOlder);
    thread.rerender({ id: other.id });
    assert.deepEqual(bodies(thread.shown()), [], 'nothing of the other thread, not for a moment');
    await thread.shows('the other', (now) => bodies(now).includes('in the other'));
    assert.equal(thread.shown().messages.length, 1);
  });
});

describe('useTwilioMessages and useWhatsApp', () => {
  test('send by the functions and show the log live', async () => {
    const client = await clientOf(world.server, a);
    const both = mount(client, () => ({ twilio: useTwilioMessages(), whatsapp: useWhatsApp() }));
    await both.shows('the logs', ({ twilio, whatsapp }) => twilio.live && whatsapp.live && !twilio.loading);
    await world.simulator.control('PUT', '/settings', { sent_after_ms: 10, delivered_after_ms: 20 });
    // Free text needs the customer's own word first.
    const customer = `+${newCustomer()}`;
    const line = `whatsapp:${a.whatsapp.number}`;
    await world.simulator.control('POST', '/send', { line, from: customer, type: 'text', body: 'hello' });
    await conversationOf(a, encodeURIComponent(customer));
    const sms = await both.shown().twilio.sendSMS({ to: '+201012345678', message: 'by SMS' });
    assert.equal(sms.success, true, sms.error?.message);
    const message = await both.shown().whatsapp.sendMessage({ to: customer, message: 'by WhatsApp' });
    assert.equal(message.success, true, message.error?.message);
    const now = await both.shows('both messages on their way', ({ twilio, whatsapp }) => {
      const [one, other] = [twilio.messages.find(withId(sms.messageId)), whatsapp.messages.find(withId(message.messageId))];
      return ['sent', 'delivered'].includes(one?.status) && other !== undefined && other.status !== 'queued';
    });
    assert.equal(now.whatsapp.messages.some(withId(sms.messageId)), false, 'an SMS is no WhatsApp message');
    assert.equal(now.twilio.messages.filter(withId(sms.messageId)).length, 1);
    assert.equal(now.twilio.messages.find(withId(sms.messageId)).message_type, 'sms');
  });

  test('a refusal is an error with the server’s words, not an exception', async () => {
    const log = mount(await clientOf(world.server, a), () => useTwilioMessages());
    await log.shows('the log', (now) => !now.loading);
    for (const type of ['sms', 'whatsapp']) {
      const { success, error } = await log.shown().sendMessage({ type, to: '12', message: 'to nobody' });
      assert.equal(success, false);
      assert.ok(error instanceof WaselError);
      assert.ok(error.status >= 400 && error.status < 500, `${error.status} ${error.message}`);
    }
  });
});

describe('useTyping and usePresence', () => {
  test('a colleague sees who types, and no longer when they stopped', async () => {
    const conversation = await newConversation(a);
    const [ours, theirs] = await colleagues();
    const [one, other] = [ours, theirs].map((client) => mount(client, () => useTyping(conversation.id)));
    for (const view of [one, other]) await view.shows('the topic', (now) => now.live);
    one.shown().setTyping(true);
    one.shown().setTyping(true);
    const { typing } = await other.shows('the typist', (now) => now.typing.length === 1);
    assert.equal(typing[0].userId, a.userId);
    assert.equal(typing[0].name, 'Owner');
    assert.deepEqual(one.shown().typing, [], 'nobody sees themselves');
    one.shown().setTyping(false);
    await other.shows('nobody', (now) => now.typing.length === 0);
    // Silence ends it, too.
    one.shown().setTyping(true);
    await other.shows('the typist again', (now) => now.typing.length === 1);
    await other.shows('nobody after a while', (now) => now.typing.length === 0);
    // And so does leaving.
    one.shown().setTyping(true);
    await other.shows('the typist once more', (now) => now.typing.length === 1);
    one.unmount();
    await other.shows('nobody after they left', (now) => now.typing.length === 0);
  });

  test('who is online is seen, and who went is not', async () => {
    const [ours, theirs] = await colleagues();
    const one = mount(ours, () => ({ presence: usePresence(), colleague: useOnline(member.id) }));
    await one.shows('ourselves', ({ presence }) => presence.isOnline(a.userId));
    assert.equal(one.shown().colleague, false);
    const other = mount(theirs, () => usePresence());
    await one.shows('both', (now) => now.colleague && now.presence.people.length === 2);
    await other.shows('both', (now) => now.people.length === 2 && now.isOnline(a.userId));
    other.unmount();
    await one.shows('the colleague has gone', (now) => !now.colleague && now.presence.people.length === 1);
  });
});

let member;
/** Two people of tenant a, each with a client. */
async function colleagues() {
  const password = 'correct horse battery staple';
  if (!member) {
    const email = 'agent@tenant-a.example';
    const { organizations } = await world.server.apply(`
[[organizations]]
slug = "tenant-a"
name = "tenant-a"
[[organizations.users]]
email = "${email}"
password = "${password}"
role = "agent"
full_name = "Agent"
`);
    member = { email, password, id: organizations[0].users.find((user) => user.email === email).id };
  }
  return [await clientOf(world.server, a), await clientOf(world.server, member)];
}

describe('whose rows they are', () => {
  test('tenant b sees nothing of tenant a, by id, live, typing or online', async () => {
    const ours = await newConversation(a, 'of a');
    const theirs = await newConversation(b, 'of b');
    const watch = async (tenant) =>
      mount(await clientOf(world.server, tenant), () => ({
        inbox: useConversations(),
        thread: useMessages(ours.id),
        typing: useTyping(ours.id),
        presence: usePresence(),
        log: useWhatsApp(),
      }));
    const [ofA, ofB] = [await watch(a), await watch(b)];
    await ofA.shows('its rows', (now) => now.inbox.live && now.thread.live && now.typing.live && now.presence.people.length === 1);
    await ofB.shows('its rows', (now) => now.inbox.live && now.inbox.conversations.some(withId(theirs.id)));
    ofA.shown().typing.setTyping(true);
    await write(a, ours.customer, 'more of a');
    await ofA.shows('its message', (now) => bodies(now.thread).includes('more of a'));
    await write(b, theirs.customer, 'more of b');
    const seen = await ofB.shows('its own message', (now) => now.inbox.conversations[0]?.last_message === 'more of b');
    assert.ok(seen.inbox.conversations.every((row) => row.org_id === b.orgId));
    assert.deepEqual(seen.thread.messages, []);
    assert.deepEqual(seen.typing.typing, []);
    assert.equal(seen.presence.isOnline(a.userId), false);
    const refused = await seen.thread.send('into another tenant');
    assert.equal(refused.sendError?.status, 404);
    assert.equal(await world.server.psql(`SELECT count(*) FROM messages WHERE body = 'into another tenant'`), '0');
  });

  test('signing out empties everything, and another person gets their own', async () => {
    const [ours, theirs] = [await newConversation(a, 'of a'), await newConversation(b, 'of b')];
    const client = clientAt(world.server);
    const inbox = mount(client, () => useConversations());
    await inbox.shows('nobody is signed in', (now) => !now.loading);
    assert.deepEqual(inbox.shown().conversations, []);
    await signIn(client, a);
    await inbox.shows('the rows of a', (now) => now.conversations.some(withId(ours.id)));
    await client.auth.signOut({ scope: 'local' });
    await inbox.shows('nothing', (now) => now.conversations.length === 0 && !now.loading && !now.live);
    await signIn(client, b);
    const now = await inbox.shows('the rows of b', (now) => now.conversations.some(withId(theirs.id)));
    assert.ok(now.conversations.every((row) => row.org_id === b.orgId));
  });

  test('a client with its own tokens works with an identity', async () => {
    const conversation = await newConversation(a, 'with a token');
    const accessToken = async () => a.token;
    const client = clientAt(world.server, { accessToken, auth: undefined });
    const identity = { userId: a.userId, orgId: a.orgId, name: 'Owner' };
    const thread = mount(client, () => useMessages(conversation.id), { accessToken, identity });
    await thread.shows('the thread', (now) => now.live && bodies(now).includes('with a token'));
    await thread.shown().markRead();
    assert.equal(thread.shown().error, null);
    const lost = mount(client, () => useMessages(conversation.id));
    await lost.shows('the advice', (now) => now.error?.code === 'no_identity');
  });
});

test('nothing is left behind: a hook that is gone has left its channels', async () => {
  const client = await clientOf(world.server, a);
  const conversation = await newConversation(a);
  const view = mount(client, () => [useConversations(), useMessages(conversation.id), useTyping(conversation.id), usePresence()]);
  await view.shows('all of them live', (now) => now.every((one) => one.live));
  assert.equal(client.getChannels().length, 4, 'one each, in StrictMode too');
  view.unmount();
  await until('no channels', () => client.getChannels().length === 0);
});
