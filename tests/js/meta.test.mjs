// Meta's side: its sample payloads in its own bytes, its signatures, its handshake; and what a browser asks first.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { Feed, signedIn } from './feed.mjs';
import { startWorld } from './harness.mjs';
import { deliver, inbound, inboundText, metaBytes, metaSignature, postMeta, wamid } from './meta.mjs';

let world;
let client;

before(async () => {
  world = await startWorld();
  client = await signedIn(world.server, world.a);
});
after(async () => {
  await client?.removeAllChannels();
  await client?.realtime.disconnect();
  await world?.stop();
});

const get = (path, tenant = world.a) => world.server.call('GET', path, { token: tenant.token });

/** The conversation of this customer, as the live chat shows it; undefined if there is none. */
async function chatOf(customer, tenant = world.a) {
  const { success, conversations } = await get('/api/live-chat/conversations?limit=500', tenant);
  assert.equal(success, true);
  return conversations.find((conversation) => conversation.customer_phone === `+${customer}`);
}

/** The messages of this customer's conversation, as the live chat shows them. */
async function messagesOf(customer, tenant = world.a) {
  const conversation = await chatOf(customer, tenant);
  assert.ok(conversation, `there is a conversation of ${customer}`);
  const { success, messages } = await get(`/api/live-chat/messages?conversation_id=${conversation.id}`, tenant);
  assert.equal(success, true);
  return messages;
}

describe("Meta's webhooks", () => {
  test('the sample message is in the live chat and on a subscribed channel', async () => {
    const feed = await Feed.open(client, 'samples', { event: 'INSERT', table: 'whatsapp_messages' });
    const payload = inbound(world.a, {
      from: '16505551234',
      name: 'Sheena Nelson',
      type: 'text',
      text: { body: 'Does it come in another color?' },
    });
    const bytes = metaBytes(payload);
    const { status, body } = await postMeta(world.server, world.a, bytes);
    assert.equal(status, 200);
    assert.deepEqual(body, { success: true });

    const conversation = await chatOf('16505551234');
    assert.equal(conversation.customer_name, 'Sheena Nelson');
    assert.equal(conversation.last_message, 'Does it come in another color?');
    assert.equal(conversation.unread_count, 1);
    assert.equal(conversation.status, 'active');
    const [message] = await messagesOf('16505551234');
    assert.equal(message.content, 'Does it come in another color?');
    assert.equal(message.message_type, 'text');
    assert.equal(message.sender, 'customer');
    const sent = Number(payload.entry[0].changes[0].value.messages[0].timestamp) * 1000;
    assert.equal(Date.parse(message.timestamp), sent, "the customer's own time");
    const change = await feed.hears('the sample', (c) => c.new.content === 'Does it come in another color?');
    assert.equal(change.new.id, message.id);
    await client.removeChannel(feed.channel);
  });

  test("a signature over Meta's escaped bytes is accepted where a rewriting of the JSON would not match", async () => {
    const body = 'كم السعر؟ https://example.com/a 🚚';
    const payload = inboundText(world.a, body, { from: '201001234567', name: 'منى السيد' });
    const bytes = metaBytes(payload);
    assert.notEqual(bytes, JSON.stringify(payload), 'the two spellings differ');
    assert.equal((await postMeta(world.server, world.a, bytes)).status, 200);
    const [message] = await messagesOf('201001234567');
    assert.equal(message.content, body);
    assert.equal((await chatOf('201001234567')).customer_name, 'منى السيد');
  });

  for (const [what, message, expected] of [
    [
      'an image with its caption',
      {
        type: 'image',
        image: {
          caption: 'Taj Mahal',
          mime_type: 'image/jpeg',
          sha256: 'SfInY0gGKTsJlUWbwxC1k+FAD0FZHvzwfpvO0zX0GUI=',
          id: '1003383421387256',
        },
      },
      { message_type: 'image', content: 'Taj Mahal' },
    ],
    [
      'a location',
      { type: 'location', location: { latitude: 30.0444, longitude: 31.2357, name: 'Tahrir Square' } },
      { message_type: 'location', content: 'Tahrir Square' },
    ],
    [
      'the answer to a list',
      {
        type: 'interactive',
        interactive: { type: 'list_reply', list_reply: { id: 'priority_express', title: 'Express', description: 'Next day' } },
      },
      { content: 'Express' },
    ],
    ['a quick reply', { type: 'button', button: { text: 'Unsubscribe me', payload: 'unsubscribe' } }, { content: 'Unsubscribe me' }],
    [
      'an unsupported type',
      { type: 'unsupported', errors: [{ code: 131051, title: 'Message type unknown', message: 'Message type unknown' }] },
      { message_type: 'unsupported' },
    ],
  ]) {
    test(`the sample of ${what} becomes one message`, async () => {
      const from = String(16505552000 + Object.keys(message).join('').length + what.length * 100);
      await deliver(world.server, world.a, inbound(world.a, { from, ...message }));
      const messages = await messagesOf(from);
      assert.equal(messages.length, 1);
      for (const [name, value] of Object.entries(expected)) assert.equal(messages[0][name], value, name);
      assert.equal(messages[0].sender, 'customer');
    });
  }

  test('a second delivery of a message changes nothing and is answered 200 again', async () => {
    const from = '16505553001';
    const payload = inboundText(world.a, 'only once', { from, id: wamid() });
    for (let delivery = 0; delivery < 3; delivery += 1) await deliver(world.server, world.a, payload);
    assert.equal((await messagesOf(from)).length, 1);
    assert.equal((await chatOf(from)).unread_count, 1);
  });

  test('a customer without a number, known by a user id only, is stored all the same', async () => {
    const id = wamid();
    const payload = inboundText(world.a, 'I have a username now', { id });
    const { value } = payload.entry[0].changes[0];
    value.contacts = [{ profile: { name: 'Sheena', username: 'sheena' }, user_id: 'US.13491208655302741918' }];
    delete value.messages[0].from;
    value.messages[0].from_user_id = 'US.13491208655302741918';
    await deliver(world.server, world.a, payload);
    const { data } = await get('/v1/conversations?limit=200');
    const conversation = data.find((c) => c.last_message === 'I have a username now');
    assert.ok(conversation);
    assert.equal(conversation.phone_number, null);
    assert.equal(conversation.customer_name, 'Sheena');
  });

  test('one request with several messages stores each of them', async () => {
    const from = '16505553002';
    const payload = inboundText(world.a, 'first', { from });
    const second = inboundText(world.a, 'second', { from });
    payload.entry[0].changes.push(second.entry[0].changes[0]);
    payload.entry.push(inboundText(world.a, 'third', { from }).entry[0]);
    await deliver(world.server, world.a, payload);
    assert.deepEqual((await messagesOf(from)).map((m) => m.content).toSorted(), ['first', 'second', 'third']);
  });

  test('a missing, malformed, foreign or outdated signature is refused and nothing is stored', async () => {
    const from = '16505553003';
    const bytes = metaBytes(inboundText(world.a, 'forged', { from }));
    const right = metaSignature(world.a.meta.appSecret, bytes);
    const other = metaBytes(inboundText(world.a, 'another', { from }));
    for (const [what, headers] of [
      ['none', {}],
      ['empty', { 'x-hub-signature-256': '' }],
      ['no hex', { 'x-hub-signature-256': 'sha256=zz' }],
      ['without its prefix', { 'x-hub-signature-256': right.replace('sha256=', '') }],
      ['cut off', { 'x-hub-signature-256': right.slice(0, -2) }],
      ["another tenant's", { 'x-hub-signature-256': metaSignature(world.b.meta.appSecret, bytes) }],
      ["another body's", { 'x-hub-signature-256': metaSignature(world.a.meta.appSecret, other) }],
      ['SHA-1 only', { 'x-hub-signature': right }],
    ]) {
      const { status, body } = await postMeta(world.server, world.a, bytes, { headers });
      assert.equal(status, 401, what);
      assert.equal(body.success, false, what);
      assert.equal(typeof body.error, 'string', what);
    }
    assert.equal(await chatOf(from), undefined);
  });

  test("one tenant's signature does not open another tenant's number", async () => {
    const bytes = metaBytes(inboundText(world.b, 'for b, signed by a', { from: '16505553004' }));
    const headers = { 'x-hub-signature-256': metaSignature(world.a.meta.appSecret, bytes) };
    await postMeta(world.server, world.b, bytes, { headers });
    assert.equal(await chatOf('16505553004', world.b), undefined);
    assert.equal(await chatOf('16505553004', world.a), undefined);
  });

  test("the channel's own address takes its messages, an unknown one is 404", async () => {
    const from = '16505553005';
    const bytes = metaBytes(inboundText(world.a, 'own address', { from }));
    const path = `/api/webhooks/whatsapp/${world.a.channels.whatsapp_cloud}`;
    assert.equal((await postMeta(world.server, world.a, bytes, { path })).status, 200);
    assert.equal((await messagesOf(from)).length, 1);
    const nowhere = `/api/webhooks/whatsapp/${crypto.randomUUID()}`;
    const rest = metaBytes(inboundText(world.a, 'nowhere', { from: '16505553006' }));
    assert.equal((await postMeta(world.server, world.a, rest, { path: nowhere })).status, 404);
    assert.equal(await chatOf('16505553006'), undefined);
  });

  test('a channel that was declared a moment ago takes webhooks at once', async () => {
    // Three in a row: each comes within a second of the reload that the one before made necessary.
    for (const digit of ['7', '8', '9']) {
      const phoneNumberId = `20654035224292${digit}`;
      await world.server.apply(`
[[organizations]]
slug = "${world.a.slug}"
name = "${world.a.slug}"
timezone = "Africa/Cairo"
locale = "ar-EG"
[[organizations.channels]]
kind = "whatsapp_cloud"
name = "WhatsApp ${digit}"
waba_id = "20229012934039${digit}"
phone_number_id = "${phoneNumberId}"
display_phone_number = "+2021234568${digit}"
access_token = "another-token"
app_secret = "another-secret-${digit}"
verify_token = "another-verify-token"
`);
      const tenant = { meta: { ...world.a.meta, phoneNumberId, appSecret: `another-secret-${digit}` } };
      const from = `1650555600${digit}`;
      const { status, body } = await postMeta(world.server, tenant, metaBytes(inboundText(tenant, 'at once', { from })));
      assert.equal(status, 200, JSON.stringify(body));
      assert.equal((await messagesOf(from)).length, 1);
    }
  });

  test('an authentic request nobody can read is answered 200 and kept as a dead letter with its reason', async () => {
    const { status } = await postMeta(world.server, world.a, '{"object": "whatsapp_business_account", "entry": 7}');
    assert.equal(status, 200);
    const { data } = await get('/v1/webhook-events?status=dead_letter');
    assert.ok(data.length > 0, 'there is a dead letter');
    assert.ok(data[0].reason ?? data[0].error ?? data[0].dead_letter, `it has a reason: ${JSON.stringify(data[0])}`);
  });
});

describe('the handshake', () => {
  const handshake = (query, path = '/api/webhooks/whatsapp') =>
    world.server.request('GET', `${path}?${new URLSearchParams(query)}`);

  test('the challenge comes back as plain text when the token is known', async () => {
    const query = {
      'hub.mode': 'subscribe',
      'hub.challenge': '1158201444',
      'hub.verify_token': world.a.meta.verifyToken,
    };
    for (const path of ['/api/webhooks/whatsapp', `/api/webhooks/whatsapp/${world.a.channels.whatsapp_cloud}`]) {
      const { status, body, headers } = await handshake(query, path);
      assert.equal(status, 200);
      assert.equal(body, '1158201444');
      assert.match(headers.get('content-type'), /^text\/plain/);
      assert.equal(headers.get('x-content-type-options'), 'nosniff');
    }
  });

  test('another token, another mode or no token at all is 403, without the challenge', async () => {
    const right = { 'hub.mode': 'subscribe', 'hub.challenge': 'c-77', 'hub.verify_token': world.a.meta.verifyToken };
    const { 'hub.verify_token': _, ...without } = right;
    const path = `/api/webhooks/whatsapp/${world.a.channels.whatsapp_cloud}`;
    for (const [query, at] of [
      [{ ...right, 'hub.verify_token': 'wrong' }],
      [{ ...right, 'hub.verify_token': '' }],
      [{ ...right, 'hub.mode': 'unsubscribe' }],
      [without],
      [{ ...right, 'hub.verify_token': world.b.meta.verifyToken }, path],
    ]) {
      const { status, body } = await handshake(query, at);
      assert.equal(status, 403, JSON.stringify(query));
      assert.ok(!JSON.stringify(body).includes('c-77'));
    }
  });
});

describe('CORS (S4.11)', () => {
  const preflight = (path, origin) =>
    world.server.request('OPTIONS', path, {
      headers: {
        origin,
        'access-control-request-method': 'POST',
        'access-control-request-headers': 'content-type,authorization,x-org-id',
      },
    });
  const words = (headers, name) => (headers.get(name) ?? '').toLowerCase().split(/\s*,\s*/);

  for (const origin of ['https://myfleet.app', 'https://app.myfleet.app', 'http://localhost:5173']) {
    test(`a preflight from ${origin} is allowed with credentials, methods and headers`, async () => {
      for (const path of ['/api/live-chat/send-message', '/v1/messages', '/auth/v1/token?grant_type=password']) {
        const { status, headers } = await preflight(path, origin);
        assert.ok(status >= 200 && status < 300, `${path}: ${status}`);
        assert.equal(headers.get('access-control-allow-origin'), origin);
        assert.equal(headers.get('access-control-allow-credentials'), 'true');
        const methods = words(headers, 'access-control-allow-methods');
        for (const method of ['get', 'post', 'put', 'delete']) assert.ok(methods.includes(method), method);
        const allowed = words(headers, 'access-control-allow-headers');
        for (const name of ['content-type', 'authorization', 'x-org-id']) assert.ok(allowed.includes(name), name);
      }
    });
  }

  test('any other origin is told nothing, not even one that looks alike', async () => {
    for (const origin of ['https://evil.example', 'https://myfleet.app.evil.example', 'http://myfleet.app', 'null']) {
      const { headers } = await preflight('/v1/messages', origin);
      assert.equal(headers.get('access-control-allow-origin'), null, origin);
      const answer = await world.server.request('GET', '/v1/conversations', { token: world.a.token, headers: { origin } });
      assert.equal(answer.headers.get('access-control-allow-origin'), null, origin);
    }
  });

  test('an error carries the header too, else a browser shows no reason', async () => {
    const headers = { origin: 'https://myfleet.app' };
    for (const path of ['/v1/conversations', '/api/live-chat/conversations', '/auth/v1/user', '/v1/no-such-thing']) {
      const answer = await world.server.request('GET', path, { headers });
      assert.ok(answer.status >= 400, path);
      assert.equal(answer.headers.get('access-control-allow-origin'), 'https://myfleet.app', path);
      assert.match(answer.headers.get('vary') ?? '', /origin/i, path);
    }
  });
});

describe('errors', () => {
  const ask = (method, path, options) => world.server.request(method, path, options);

  /** `{error: {code, message, field?}}` and nothing else. */
  function assertOurs({ status, headers, body }, expected) {
    assert.equal(status, expected.status, JSON.stringify(body));
    assert.deepEqual(Object.keys(body), ['error']);
    assert.equal(typeof body.error.message, 'string');
    assert.match(body.error.code, /^[a-z_]+$/);
    if (expected.code) assert.equal(body.error.code, expected.code);
    if (expected.field) assert.equal(body.error.field, expected.field);
    assert.ok(headers.get('x-request-id'), 'the request has an id');
  }

  /** `{success: false, error: "…"}`, as the documents have it. */
  function assertDocuments({ status, body }, expected) {
    assert.equal(status, expected, JSON.stringify(body));
    assert.equal(body.success, false);
    assert.equal(typeof body.error, 'string');
  }

  test('on /v1 an error names a code, a message and the field at fault', async () => {
    const { token } = world.a;
    assertOurs(await ask('GET', '/v1/conversations'), { status: 401 });
    assertOurs(await ask('GET', '/v1/conversations', { token: 'no.such.token' }), { status: 401 });
    const unknown = crypto.randomUUID();
    assertOurs(await ask('GET', `/v1/conversations/${unknown}`, { token }), { status: 404, code: 'not_found' });
    assertOurs(await ask('GET', '/v1/conversations?limit=many', { token }), { status: 400, field: 'limit' });
    assertOurs(await ask('POST', '/v1/messages', { token, body: {} }), { status: 400, field: 'content' });
    const cut = { token, body: '{"content": ', headers: { 'content-type': 'application/json' } };
    assertOurs(await ask('POST', '/v1/messages', cut), { status: 400 });
    assertOurs(await ask('GET', '/v1/no-such-thing', { token }), { status: 404 });
    assertOurs(await ask('PUT', '/v1/conversations', { token }), { status: 405 });
  });

  test("on the documents' paths an error is {success: false, error}", async () => {
    const { token } = world.a;
    assertDocuments(await ask('GET', '/api/live-chat/conversations'), 401);
    assertDocuments(await ask('GET', '/api/live-chat/messages', { token }), 400);
    assertDocuments(await ask('GET', `/api/live-chat/messages?conversation_id=${crypto.randomUUID()}`, { token }), 404);
    assertDocuments(await ask('POST', '/api/live-chat/send-message', { token, body: { message: 'to nobody' } }), 400);
    assertDocuments(await ask('GET', '/api/no-such-thing', { token }), 404);
  });

  test("another tenant's rows are not there, and its organisation may not be named", async () => {
    await deliver(world.server, world.a, inboundText(world.a, 'ours', { from: '16505554001' }));
    const conversation = await chatOf('16505554001');
    const { token } = world.b;
    assertOurs(await ask('GET', `/v1/conversations/${conversation.id}`, { token }), { status: 404, code: 'not_found' });
    assertOurs(await ask('GET', `/v1/conversations/${conversation.id}/messages`, { token }), { status: 404 });
    const body = { conversation_id: conversation.id, content: { type: 'text', body: 'not mine' } };
    assertOurs(await ask('POST', '/v1/messages', { token, body }), { status: 404 });
    assertDocuments(await ask('GET', `/api/live-chat/messages?conversation_id=${conversation.id}`, { token }), 404);
    const headers = { 'x-org-id': world.a.orgId };
    assertOurs(await ask('GET', '/v1/conversations', { token, headers }), { status: 403 });
  });
});
