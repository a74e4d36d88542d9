// The unmodified @supabase/supabase-js is the client: what works with Supabase must work here.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';

import { Feed, signedIn, supabase } from './feed.mjs';
import { sleep, startWorld, until } from './harness.mjs';
import { deliver, inboundText, status } from './meta.mjs';

let world;
const clients = [];

before(async () => {
  world = await startWorld();
});
after(() => world?.stop());
afterEach(async () => {
  for (const client of clients.splice(0)) {
    await client.removeAllChannels();
    await client.realtime.disconnect();
  }
});

const track = (client) => {
  clients.push(client);
  return client;
};
const clientOf = async (tenant) => track(await signedIn(world.server, tenant));

let lastNumber = 16505550000;
/** A customer nobody has heard of yet. */
const newCustomer = () => String((lastNumber += 1));

/** A customer writes; returns the conversation it made. */
async function newConversation(tenant, body = 'Does it come in another color?') {
  const from = newCustomer();
  await deliver(world.server, tenant, inboundText(tenant, body, { from }));
  const { data } = await world.server.call('GET', `/v1/conversations?search=${from}`, { token: tenant.token });
  assert.equal(data.length, 1, 'the customer has one conversation');
  return { id: data[0].id, customer: from };
}

/** A conversation that the simulated Meta knows of too, so that it takes a free-form answer. */
async function openConversation(tenant) {
  const customer = newCustomer();
  const line = tenant.meta.phoneNumberId;
  await world.simulator.control('POST', '/send', { line, from: `+${customer}`, type: 'text', body: 'Is it in stock?' });
  const path = `/v1/conversations?search=${customer}`;
  const conversation = await until('the conversation', async () => {
    const { data } = await world.server.call('GET', path, { token: tenant.token });
    return data[0];
  });
  return { id: conversation.id, customer };
}

/** A free-form answer that the provider has taken: it has an id there. */
async function answer(tenant, conversation, body) {
  const sent = await world.server.call('POST', '/v1/messages', {
    token: tenant.token,
    body: { conversation_id: conversation.id, content: { type: 'text', body } },
  });
  return until('the provider has taken the message', async () => {
    const message = await world.server.call('GET', `/v1/messages/${sent.id}`, { token: tenant.token });
    return message.provider_message_id && message;
  });
}

describe('supabase.auth', () => {
  test('signInWithPassword gives a session of the right person and tenant', async () => {
    const client = supabase(world.server);
    const { data, error } = await client.auth.signInWithPassword({ email: world.a.email, password: world.a.password });
    assert.equal(error, null);
    assert.equal(data.user.id, world.a.userId);
    assert.equal(data.user.email, world.a.email);
    assert.equal(data.session.user.app_metadata.org_id, world.a.orgId);
    assert.ok(data.session.expires_at * 1000 > Date.now());
  });

  test('a wrong password and an unknown person get the same refusal', async () => {
    for (const email of [world.a.email, 'nobody@tenant-a.example']) {
      const { data, error } = await supabase(world.server).auth.signInWithPassword({ email, password: 'wrong password' });
      assert.equal(data.session, null);
      assert.equal(error.code, 'invalid_credentials');
      assert.equal(error.status, 400);
      assert.equal(error.message, 'Invalid login credentials');
    }
  });

  test('getUser asks the server who is signed in', async () => {
    const client = await clientOf(world.a);
    const { data, error } = await client.auth.getUser();
    assert.equal(error, null);
    assert.equal(data.user.id, world.a.userId);
    assert.equal(data.user.role, 'authenticated');
  });

  test('getUser refuses a token with another payload', async () => {
    const [header, payload, signature] = world.a.token.split('.');
    const claims = JSON.parse(Buffer.from(payload, 'base64url'));
    claims.sub = world.b.userId;
    const forged = [header, Buffer.from(JSON.stringify(claims)).toString('base64url'), signature].join('.');
    const { data, error } = await supabase(world.server).auth.getUser(forged);
    assert.equal(data.user, null);
    assert.equal(error.status, 403);
    assert.equal(error.code, 'bad_jwt');
  });

  test('refreshSession gives a new session and the new token works', async () => {
    const client = await clientOf(world.a);
    const { data: first } = await client.auth.getSession();
    const { data: second, error } = await client.auth.refreshSession();
    assert.equal(error, null);
    assert.notEqual(second.session.refresh_token, first.session.refresh_token);
    assert.equal(second.user.id, world.a.userId);
    await world.server.call('GET', '/v1/conversations', { token: second.session.access_token });
  });

  test('an invented refresh token is refused as one that does not exist', async () => {
    const { data, error } = await supabase(world.server).auth.refreshSession({ refresh_token: 'invented' });
    assert.equal(data.session, null);
    assert.equal(error.code, 'refresh_token_not_found');
    assert.equal(error.status, 400);
  });

  test('signOut ends the session: its refresh token and its access token open nothing more', async () => {
    const client = await clientOf(world.a);
    const { data } = await client.auth.getSession();
    const { error } = await client.auth.signOut({ scope: 'local' });
    assert.equal(error, null);
    assert.equal((await client.auth.getSession()).data.session, null);
    const again = await supabase(world.server).auth.refreshSession(data.session);
    assert.equal(again.error?.status, 400, 'the refresh token is dead');
    const user = await supabase(world.server).auth.getUser(data.session.access_token);
    // The client's own word for the answer `session_not_found`.
    assert.equal(user.error?.name, 'AuthSessionMissingError', 'the access token names a session that is over');
  });
});

describe('postgres_changes', () => {
  test('a new message arrives as INSERT on our tables and on every name the documents use', async () => {
    const conversation = await newConversation(world.a, 'first');
    const client = await clientOf(world.a);
    const filter = `conversation_id=eq.${conversation.id}`;
    const feed = await Feed.open(
      client,
      'inbox',
      { event: 'INSERT', table: 'messages', filter },
      { event: 'INSERT', table: 'whatsapp_messages', filter },
      { event: 'INSERT', table: 'chat_messages', filter },
      { event: 'UPDATE', table: 'conversations', filter: `id=eq.${conversation.id}` },
      { event: 'UPDATE', table: 'whatsapp_conversations' },
      { event: 'UPDATE', table: 'chat_conversations' },
    );
    const body = 'هل يتوفر بلون آخر؟ 🎨';
    await deliver(world.server, world.a, inboundText(world.a, body, { from: conversation.customer }));

    const on = (table) => feed.hears(`a change of ${table}`, (change) => change.table === table);
    const message = await on('messages');
    assert.equal(message.eventType, 'INSERT');
    assert.equal(message.schema, 'public');
    assert.equal(message.errors, null);
    assert.ok(Date.parse(message.commit_timestamp) > 0);
    assert.equal(message.new.body, body);
    assert.equal(message.new.org_id, world.a.orgId);
    assert.equal(message.new.direction, 'inbound');

    const whatsapp = (await on('whatsapp_messages')).new;
    assert.equal(whatsapp.id, message.new.id);
    assert.equal(whatsapp.content, body);
    assert.equal(whatsapp.message_type, 'text');
    assert.equal(whatsapp.direction, 'inbound');
    assert.ok(['sent', 'delivered', 'read', 'failed'].includes(whatsapp.status), whatsapp.status);

    const chat = (await on('chat_messages')).new;
    assert.equal(chat.content, body);
    assert.equal(chat.sender, 'customer');
    assert.match(chat.wa_message_id, /^wamid\./);

    for (const [table, text, time] of [
      ['conversations', 'last_message', 'last_message_at'],
      ['whatsapp_conversations', 'last_message', 'last_message_at'],
      ['chat_conversations', 'last_message', 'last_message_time'],
    ]) {
      const change = await on(table);
      assert.equal(change.eventType, 'UPDATE', table);
      assert.equal(change.new.id, conversation.id, table);
      assert.equal(change.new[text], body, table);
      assert.equal(change.new.unread_count, 2, table);
      assert.ok(Date.parse(change.new[time]) > 0, table);
    }
    assert.equal((await on('chat_conversations')).new.phone_number_id, world.a.meta.phoneNumberId);
  });

  test("a new customer's conversation arrives as INSERT", async () => {
    const client = await clientOf(world.a);
    const feed = await Feed.open(client, 'new', { event: 'INSERT', table: 'conversations' }, {
      event: 'INSERT',
      table: 'whatsapp_conversations',
    });
    const conversation = await newConversation(world.a, 'hello');
    for (const table of ['conversations', 'whatsapp_conversations']) {
      const change = await feed.hears(`the new row of ${table}`, (c) => c.table === table && c.new.id === conversation.id);
      assert.equal(change.eventType, 'INSERT');
      assert.equal(change.new.status, 'active');
    }
  });

  test('a filter lets only its own conversation through', async () => {
    const [one, other] = [await newConversation(world.a), await newConversation(world.a)];
    const client = await clientOf(world.a);
    const filter = `conversation_id=eq.${one.id}`;
    const feed = await Feed.open(client, `thread-${one.id}`, { table: 'whatsapp_messages', filter });
    await deliver(world.server, world.a, inboundText(world.a, 'elsewhere', { from: other.customer }));
    await deliver(world.server, world.a, inboundText(world.a, 'here', { from: one.customer }));
    await feed.hears('the message of its conversation', (change) => change.new.content === 'here');
    assert.deepEqual(feed.heard.map((change) => change.new.content), ['here']);
  });

  test('several bindings and channels of one client each hear their own', async () => {
    const conversation = await newConversation(world.a);
    const client = await clientOf(world.a);
    const all = await Feed.open(client, 'all', { event: '*', table: 'messages' }, { event: 'DELETE', table: 'messages' });
    const updates = await Feed.open(client, 'updates', { event: 'UPDATE', table: 'messages' }, {
      event: 'INSERT',
      table: 'conversations',
    });
    await deliver(world.server, world.a, inboundText(world.a, 'one', { from: conversation.customer }));
    const { new: row } = await all.hears('the insert', (change) => change.eventType === 'INSERT' && change.new.body === 'one');
    await world.server.psql(`UPDATE messages SET metadata = '{"seen": true}' WHERE id = '${row.id}'`);
    const update = await updates.hears('the update', (change) => change.new.id === row.id);
    assert.equal(update.eventType, 'UPDATE');
    assert.deepEqual(update.new.metadata, { seen: true });
    await all.hears('the update', (change) => change.eventType === 'UPDATE' && change.new.id === row.id);

    await world.server.psql(`DELETE FROM messages WHERE id = '${row.id}'`);
    const heardDelete = (binding) => (change) =>
      change.eventType === 'DELETE' && change.old.id === row.id && change.binding.event === binding;
    await all.hears('the delete on the binding for all events', heardDelete('*'));
    await all.hears('the delete on the binding for deletes', heardDelete('DELETE'));
    assert.deepEqual(updates.heard.map((change) => change.eventType), ['UPDATE'], 'no insert, no delete');
  });

  test('a deleted conversation and its messages arrive as DELETE, on the names of the documents too', async () => {
    const conversation = await newConversation(world.a);
    const client = await clientOf(world.a);
    const tables = ['conversations', 'messages', 'whatsapp_conversations', 'whatsapp_messages', 'chat_messages'];
    const feed = await Feed.open(client, 'deletes', ...tables.map((table) => ({ event: 'DELETE', table })));
    await world.server.psql(`DELETE FROM conversations WHERE id = '${conversation.id}'`);
    for (const table of tables) {
      const change = await feed.hears(`the delete on ${table}`, (change) => change.table === table);
      assert.deepEqual(change.new, {}, table);
      assert.match(change.old.id, /^[0-9a-f-]{36}$/, table);
    }
  });

  test('the ticks of an answer arrive as UPDATEs: sent, delivered, read', async () => {
    const conversation = await openConversation(world.a);
    await world.simulator.control('PUT', '/settings', { sent_after_ms: null, delivered_after_ms: null });
    const client = await clientOf(world.a);
    const feed = await Feed.open(client, 'ticks', { event: 'UPDATE', table: 'messages' }, {
      event: '*',
      table: 'message_logs',
    });
    const message = await answer(world.a, conversation, 'Yes, in blue.');
    const logged = await feed.hears('the entry in message_logs', (c) => c.table === 'message_logs' && c.eventType === 'INSERT');
    assert.equal(logged.new.message_content, 'Yes, in blue.');
    assert.equal(logged.new.message_type, 'whatsapp');
    assert.equal(logged.new.recipient, `+${conversation.customer}`);

    for (const tick of ['sent', 'delivered', 'read']) {
      await world.simulator.control('PUT', '/messages/tick', { id: message.provider_message_id, tick });
      for (const table of ['messages', 'message_logs']) {
        const change = await feed.hears(`${tick} on ${table}`, (c) => c.table === table && c.new.status === tick);
        assert.equal(change.eventType, 'UPDATE');
        assert.equal(change.new.id, message.id);
        assert.ok(Date.parse(change.new[`${tick}_at`]) > 0, `${tick}_at is set`);
      }
    }
    const ticks = ['queued', 'sending', 'sent', 'delivered', 'read'];
    const seen = feed.heard.filter((c) => c.table === 'messages').map((c) => ticks.indexOf(c.new.status));
    assert.deepEqual(seen, seen.toSorted((a, b) => a - b), 'no tick goes backwards');
  });

  test('a status that Meta posts after a message was sent is an UPDATE of message_logs', async () => {
    await world.simulator.control('PUT', '/settings', { sent_after_ms: null, delivered_after_ms: null });
    const conversation = await openConversation(world.a);
    const message = await answer(world.a, conversation, 'on its way');
    const client = await clientOf(world.a);
    const feed = await Feed.open(client, 'log', { event: 'UPDATE', table: 'message_logs' });
    const failure = [{ code: 131026, title: 'Message undeliverable', message: 'Message undeliverable' }];
    const news = { id: message.provider_message_id, to: conversation.customer, status: 'failed', errors: failure };
    await deliver(world.server, world.a, status(world.a, news));
    const { new: row } = await feed.hears('the failure', (change) => change.new.status === 'failed');
    assert.equal(row.external_id, message.provider_message_id);
    assert.equal(row.error_code, '131026');
  });

  test("another tenant hears nothing, even when it asks for the first one's ids", async () => {
    const ours = await newConversation(world.a);
    const theirs = await newConversation(world.b);
    const a = await Feed.open(await clientOf(world.a), 'messages', { table: 'messages' });
    const b = await Feed.open(
      await clientOf(world.b),
      'messages',
      { table: 'messages' },
      { table: 'conversations' },
      { table: 'messages', filter: `conversation_id=eq.${ours.id}` },
      { table: 'messages', filter: `org_id=eq.${world.a.orgId}` },
      { table: 'conversations', filter: `id=eq.${ours.id}` },
      { table: 'whatsapp_messages', filter: `conversation_id=eq.${ours.id}` },
      { table: 'chat_conversations', filter: `phone_number_id=eq.${world.a.meta.phoneNumberId}` },
    );
    await deliver(world.server, world.a, inboundText(world.a, 'for a only', { from: ours.customer }));
    const { new: row } = await a.hears('its message', (change) => change.new.body === 'for a only');
    await world.server.psql(`UPDATE messages SET metadata = '{"x": 1}' WHERE id = '${row.id}'`);
    await a.hears('the update', (change) => change.eventType === 'UPDATE');
    await world.server.psql(`DELETE FROM messages WHERE id = '${row.id}'`);
    await a.hears('the delete', (change) => change.eventType === 'DELETE');
    // The log has one order: when B hears this, everything of A's has gone by.
    await deliver(world.server, world.b, inboundText(world.b, 'for b', { from: theirs.customer }));
    await b.hears('its own message', (change) => change.new.body === 'for b');
    for (const change of b.heard) assert.equal(change.new.org_id ?? change.old.org_id, world.b.orgId);
    assert.ok(b.heard.every((change) => !change.binding.filter), 'no binding for ids of A heard anything');
  });

  test('a row written by plain SQL is heard like any other', async () => {
    const conversation = await newConversation(world.a);
    const client = await clientOf(world.a);
    const filter = `conversation_id=eq.${conversation.id}`;
    const feed = await Feed.open(client, 'sql', { event: 'INSERT', table: 'messages', filter });
    const id = crypto.randomUUID();
    await world.server.psql(`
      INSERT INTO messages (org_id, id, conversation_id, channel_id, contact_id, direction, message_type, status, body)
      SELECT org_id, '${id}', id, channel_id, contact_id, 'inbound', 'text', 'received', 'written by psql'
      FROM conversations WHERE id = '${conversation.id}'`);
    const change = await feed.hears('the row', (change) => change.new.id === id);
    assert.equal(change.new.body, 'written by psql');
  });

  test('a first join without the user’s token recovers by itself', async () => {
    // As with a persisted session and subscribe() in the same tick: the client joins before it knows its token.
    const token = world.a.token;
    const client = track(
      supabase(world.server, {
        accessToken: async () => {
          await sleep(50);
          return token;
        },
      }),
    );
    const feed = new Feed(client, 'early', [{ event: 'INSERT', table: 'messages' }]);
    await feed.joined();
    assert.equal(feed.statuses[0], 'CHANNEL_ERROR', 'the first join was refused: it was without a token');
    await newConversation(world.a, 'after the early join');
    await feed.hears('the message', (change) => change.new.body === 'after the early join');
  });

  test('a client that speaks the older protocol 1.0.0 hears the same', async () => {
    const client = track(supabase(world.server, { realtime: { vsn: '1.0.0' } }));
    const { email, password } = world.a;
    await client.auth.signInWithPassword({ email, password });
    const feed = await Feed.open(client, 'older', { event: 'INSERT', table: 'messages' });
    assert.match(client.realtime.endpointURL(), /vsn=1\.0\.0/);
    await newConversation(world.a, 'by the older protocol');
    await feed.hears('the message', (change) => change.new.body === 'by the older protocol');
  });

  test('a refreshed token keeps the channel, and signing out ends what it hears', async () => {
    const conversation = await newConversation(world.a);
    const client = await clientOf(world.a);
    const feed = await Feed.open(client, 'tokens', { event: 'INSERT', table: 'messages' });
    await client.auth.refreshSession();
    await deliver(world.server, world.a, inboundText(world.a, 'after the refresh', { from: conversation.customer }));
    await feed.hears('the message', (change) => change.new.body === 'after the refresh');
    assert.deepEqual(feed.statuses, ['SUBSCRIBED'], 'without a new join');

    const witness = await Feed.open(await clientOf(world.a), 'witness', { event: 'INSERT', table: 'messages' });
    await client.auth.signOut({ scope: 'local' });
    await until('the end of the channel', () => feed.statuses.length > 1);
    await deliver(world.server, world.a, inboundText(world.a, 'after the end', { from: conversation.customer }));
    await witness.hears('the message', (change) => change.new.body === 'after the end');
    assert.ok(!feed.heard.some((change) => change.new.body === 'after the end'));
  });

  test('a channel of nobody in particular is refused, not silently empty', async () => {
    const client = track(supabase(world.server));
    const feed = new Feed(client, 'anonymous', [{ table: 'messages' }]);
    await until('the refusal', () => feed.statuses.includes('CHANNEL_ERROR'));
    assert.ok(!feed.statuses.includes('SUBSCRIBED'));
  });

  test('the feed goes on after the server was restarted', async () => {
    const conversation = await newConversation(world.a);
    const client = await clientOf(world.a);
    const feed = await Feed.open(client, 'restart', { event: 'INSERT', table: 'messages' }, {
      event: 'UPDATE',
      table: 'whatsapp_conversations',
    });
    await world.server.restart();
    await feed.joined(2);
    await deliver(world.server, world.a, inboundText(world.a, 'after the restart', { from: conversation.customer }));
    await feed.hears('the message', (change) => change.new.body === 'after the restart');
    await feed.hears('the conversation', (change) => change.new.last_message === 'after the restart');
  });
});
