// The official Twilio SDK is the counterpart: its validator judges our signatures, its signatures are what our server
// must accept, and its client says what a request to Twilio looks like.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, before, describe, test } from 'node:test';

import twilio from 'twilio';

import { Feed, signedIn } from './feed.mjs';
import { Server, startWorld, until } from './harness.mjs';
import { Redirected, WEBHOOK, asObject, inboundSms, newCustomer, post, shuffled } from './twilio.mjs';

const { getExpectedTwilioSignature } = twilio;

let world;

before(async () => {
  world = await startWorld();
  // Nothing happens by itself: the tests say what happens and when.
  await world.simulator.control('PUT', '/settings', { sent_after_ms: null, delivered_after_ms: null });
});
after(() => world?.stop());

/** The texts a customer sent, oldest first. */
async function textsOf(customer, server = world.server, token = world.a.token) {
  const search = encodeURIComponent(customer);
  const { data } = await server.call('GET', `/v1/conversations?search=${search}`, { token });
  if (data.length === 0) return [];
  assert.equal(data.length, 1);
  const thread = await server.call('GET', `/v1/conversations/${data[0].id}/messages`, { token });
  return thread.data.map((message) => message.body).toReversed();
}

describe("what the SDK signs, our server's webhook accepts", () => {
  const accepted = async (params, options = {}) => {
    const { authToken } = world.a.sms;
    const { path = WEBHOOK, ...rest } = options;
    const { status, body, headers } = await post(world.server, path, params, { authToken, ...rest });
    assert.equal(status, 200, JSON.stringify(body));
    return { body, headers };
  };

  test('an SMS in Arabic is stored as it was written, and the answer sends nothing back', async () => {
    const from = newCustomer();
    const text = 'السلام عليكم، متى تصل الشحنة؟ 📦 + & = %';
    const { body, headers } = await accepted(inboundSms(world.a, from, text));
    assert.deepEqual(await textsOf(from), [text]);
    assert.match(headers.get('content-type'), /^text\/xml/);
    assert.match(body, /<Response\s*\/>\s*$/);
  });

  test('repeated names, empty values and names nobody knows yet are part of what is signed', async () => {
    const from = newCustomer();
    const more = [
      ['Extra', 'b'],
      ['Extra', 'a'],
      ['Extra', 'b'],
      ['extra', 'lower case sorts after'],
      ['Empty', ''],
      ['اسم', 'قيمة'],
      ['Spaces', '  two  '],
    ];
    await accepted(inboundSms(world.a, from, 'more', more));
    assert.deepEqual(await textsOf(from), ['more']);
  });

  test("a query in the address is signed as it stands, and the channel's own address works", async () => {
    for (const path of [
      `${WEBHOOK}?source=console&name=%D9%85%D9%86%D9%89`,
      `${WEBHOOK}?a=1&a=2&b=`,
      `${WEBHOOK}/${world.a.channels.twilio_sms}`,
      '/functions/v1/twilio-delivery-status',
    ]) {
      const from = newCustomer();
      await accepted(inboundSms(world.a, from, path), { path });
      assert.deepEqual(await textsOf(from), [path]);
    }
  });

  test('the address may have been signed without its port', async () => {
    const from = newCustomer();
    await accepted(inboundSms(world.a, from, 'no port'), { signedUrl: `http://127.0.0.1${WEBHOOK}` });
    assert.deepEqual(await textsOf(from), ['no port']);
  });

  test('a second delivery of a message changes nothing', async () => {
    const from = newCustomer();
    const params = inboundSms(world.a, from, 'once');
    await accepted(params);
    await accepted(params);
    assert.deepEqual(await textsOf(from), ['once']);
  });

  test('anything changed after signing is refused and nothing is stored', async () => {
    const { authToken } = world.a.sms;
    const from = newCustomer();
    const params = inboundSms(world.a, from, 'signed');
    const changed = params.map(([name, value]) => [name, name === 'Body' ? 'forged' : value]);
    const url = world.server.base + WEBHOOK;
    const signature = getExpectedTwilioSignature(authToken, url, asObject(params));
    const flip = (s) => (s[0] === 'A' ? 'B' : 'A') + s.slice(1);
    const cases = [
      ['the signature', params, { authToken, change: flip }],
      ['an empty signature', params, { authToken, change: () => '' }],
      ['no base64', params, { authToken, change: () => 'not base64!' }],
      ['the body', changed, { authToken, change: () => signature }],
      ['one parameter more', [...params, ['X', '']], { authToken, change: () => signature }],
      ['one parameter less', params.slice(1), { authToken, change: () => signature }],
      ['another address', params, { authToken, signedUrl: 'https://elsewhere.example/api/webhooks/twilio' }],
      ['another token', params, { authToken: 'guessed' }],
    ];
    for (const [what, sent, options] of cases) {
      const { status } = await post(world.server, WEBHOOK, sent, options);
      assert.ok(status === 401 || status === 403, `${what}: ${status}`);
    }
    const unsigned = await world.server.request('POST', WEBHOOK, { body: new URLSearchParams(params) });
    assert.ok(unsigned.status === 401 || unsigned.status === 403, `no signature: ${unsigned.status}`);
    assert.deepEqual(await textsOf(from), []);
  });

  test("another tenant's token does not sign for this tenant's number", async () => {
    const from = newCustomer();
    const { status } = await post(world.server, WEBHOOK, inboundSms(world.a, from, 'forged'), world.b.sms);
    assert.ok(status === 401 || status === 403, `answered ${status}`);
    assert.deepEqual(await textsOf(from), []);
    assert.deepEqual(await textsOf(from, world.server, world.b.token), []);
  });

  test('behind a proxy the public address counts, with and without its standard port', async () => {
    const environment = { PUBLIC_URL: 'https://messages.wasel.example' };
    const proxied = await Server.start({ simulator: world.simulator, environment });
    try {
      const { sms } = world.a;
      await proxied.apply(`
[[organizations]]
slug = "proxied"
name = "Proxied"
timezone = "UTC"
locale = "en"
[[organizations.channels]]
kind = "twilio_sms"
name = "SMS"
account_sid = "${sms.accountSid}"
auth_token = "${sms.authToken}"
from = "${sms.number}"
`);
      const { authToken } = sms;
      const first = inboundSms(world.a, newCustomer(), 'first');
      const signedUrl = `https://messages.wasel.example${WEBHOOK}`;
      await until('the channel is known', async () => {
        const { status } = await post(proxied, WEBHOOK, first, { authToken, signedUrl });
        return status === 200;
      });
      for (const [signedUrl, expected] of [
        [`https://messages.wasel.example${WEBHOOK}`, 200],
        [`https://messages.wasel.example:443${WEBHOOK}`, 200],
        [`http://messages.wasel.example${WEBHOOK}`, 401],
        [proxied.base + WEBHOOK, 401],
      ]) {
        const params = inboundSms(world.a, newCustomer(), signedUrl);
        const { status } = await post(proxied, WEBHOOK, params, { authToken, signedUrl });
        assert.equal(status, expected, signedUrl);
      }
    } finally {
      await proxied.stop();
    }
  });
});

/** Keeps every request that the simulator makes to it. */
async function startListener() {
  const requests = [];
  const server = createServer((request, response) => {
    const chunks = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('end', () => {
      const { host } = request.headers;
      requests.push({
        url: `http://${host}${request.url}`,
        signature: request.headers['x-twilio-signature'],
        params: asObject(new URLSearchParams(Buffer.concat(chunks).toString())),
      });
      response.writeHead(200, { 'content-type': 'text/xml' }).end('<Response/>');
    });
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const stop = () =>
    new Promise((resolve) => {
      server.close(resolve);
      server.closeAllConnections();
    });
  return { base: `http://127.0.0.1:${server.address().port}`, requests, stop };
}

const sdk = ({ accountSid, authToken }) => twilio(accountSid, authToken, { httpClient: new Redirected(world.simulator.base) });

describe('what the simulator signs, the SDK accepts', () => {
  // An account of its own, whose webhooks come to the test.
  const account = { accountSid: `AC${'9'.repeat(32)}`, authToken: 'twilio-token-listener' };
  const [sms, whatsapp] = ['+15005559001', '+15005559002'];
  let listener;

  before(async () => {
    listener = await startListener();
    const webhook_url = `${listener.base}/incoming?tenant=one#rc=2&rp=all`;
    await world.simulator.control('PUT', '/twilio/accounts', {
      account_sid: account.accountSid,
      auth_token: account.authToken,
      numbers: [
        { number: sms, channel: 'sms', webhook_url },
        { number: whatsapp, channel: 'whatsapp', webhook_url },
      ],
    });
  });
  after(() => listener?.stop());

  function assertSigned({ url, signature, params }) {
    assert.ok(signature, 'there is a signature');
    assert.ok(twilio.validateRequest(account.authToken, signature, url, params), 'it is the right one');
    assert.ok(!twilio.validateRequest('another token', signature, url, params));
    assert.ok(!twilio.validateRequest(account.authToken, signature, url, { ...params, Body: 'changed' }));
  }

  test('incoming messages by SMS and WhatsApp', async () => {
    const from = newCustomer();
    for (const [line, body] of [
      [sms, 'صباح الخير'],
      [`whatsapp:${whatsapp}`, 'أين طلبي؟ 🚚'],
    ]) {
      await world.simulator.control('POST', '/send', { line, from, type: 'text', body });
      const request = await until(`the webhook of ${line}`, () => listener.requests.find((r) => r.params.To === line));
      assert.equal(request.params.Body, body);
      assert.ok(!request.url.includes('#'), 'a fragment is not sent');
      assertSigned(request);
    }
  });

  test('status callbacks of a message that the SDK sent', async () => {
    const message = await sdk(account).messages.create({
      to: newCustomer(),
      from: sms,
      body: 'تم شحن طلبك',
      statusCallback: `${listener.base}/status?attempt=7`,
    });
    assert.equal(message.status, 'queued');
    assert.match(message.sid, /^SM[0-9a-f]{32}$/);
    for (const tick of ['sent', 'delivered']) {
      await world.simulator.control('PUT', '/messages/tick', { id: message.sid, tick });
      const request = await until(`the callback ${tick}`, () =>
        listener.requests.find((r) => r.params.MessageSid === message.sid && r.params.MessageStatus === tick),
      );
      assert.equal(request.url, `${listener.base}/status?attempt=7`);
      assertSigned(request);
    }
    const fetched = await sdk(account).messages(message.sid).fetch();
    assert.equal(fetched.status, 'delivered');
    assert.equal(fetched.body, 'تم شحن طلبك');
    assert.ok(fetched.dateCreated instanceof Date && !Number.isNaN(fetched.dateCreated.getTime()));
  });

  test('an error of the simulator is one the SDK understands', async () => {
    await assert.rejects(sdk(account).messages.create({ to: '+20', from: sms, body: 'x' }), (error) => {
      assert.equal(error.status, 400);
      assert.equal(error.code, 21211);
      return true;
    });
    const wrong = { ...account, authToken: 'wrong' };
    await assert.rejects(sdk(wrong).messages.create({ to: newCustomer(), from: sms, body: 'x' }), { status: 401, code: 20003 });
  });
});

/** A customer's first message on one of tenant A's Twilio numbers, through the simulator: the conversation is open. */
async function openConversation(line) {
  const customer = newCustomer();
  await world.simulator.control('POST', '/send', { line, from: customer, type: 'text', body: 'Hello' });
  await until('the conversation', async () => (await textsOf(customer)).length > 0);
  return customer;
}

/** Sends through our API and waits for the request that reached the provider. */
async function sendThroughServer(kind, customer, content) {
  const message = await world.server.call('POST', '/v1/messages', {
    token: world.a.token,
    body: { channel_id: world.a.channels[kind], to: customer, content },
  });
  const accepted = await until('the provider has taken the message', async () => {
    const now = await world.server.call('GET', `/v1/messages/${message.id}`, { token: world.a.token });
    assert.notEqual(now.status, 'failed', now.error_message);
    return now.provider_message_id && now;
  });
  return { message: accepted, ...(await requestTo(customer)) };
}

/** The newest request for a message to this customer: its path, type and parameters. */
async function requestTo(customer) {
  const requests = await world.simulator.control('GET', '/requests');
  for (const { path, method, content_type: type, body } of requests.toReversed()) {
    const params = [...new URLSearchParams(body ?? '')];
    const { To } = asObject(params);
    if (method === 'POST' && To?.replace('whatsapp:', '') === customer) return { path, type, params };
  }
  throw new Error('there was no such request');
}

describe("our requests and the SDK's agree", () => {
  const callback = 'https://wasel.example/functions/v1/twilio-delivery-status?attempt=1';

  for (const [what, kind, content, asked] of [
    ['a text by SMS', 'twilio_sms', { type: 'text', body: 'مرحباً & أهلاً' }, { body: 'مرحباً & أهلاً' }],
    ['a text by WhatsApp', 'twilio_whatsapp', { type: 'text', body: 'Hi + bye' }, { body: 'Hi + bye' }],
    [
      'a picture with its caption',
      'twilio_whatsapp',
      { type: 'image', link: 'https://example.com/a.jpg?x=1', caption: 'صورة' },
      { body: 'صورة', mediaUrl: ['https://example.com/a.jpg?x=1'] },
    ],
    [
      'a place',
      'twilio_whatsapp',
      { type: 'location', latitude: 30.0444, longitude: 31.2357, name: 'Tahrir' },
      { body: 'Tahrir', persistentAction: ['geo:30.0444,31.2357|Tahrir'] },
    ],
  ]) {
    test(`${what} has the same path, parameter names and values`, async () => {
      const account = kind === 'twilio_sms' ? world.a.sms : world.a.whatsapp;
      const [customer, other] = [await openConversation(account.address), await openConversation(account.address)];
      const ours = await sendThroughServer(kind, customer, content);
      const to = account.address.startsWith('whatsapp:') ? `whatsapp:${other}` : other;
      await sdk(account).messages.create({ to, from: account.address, statusCallback: callback, ...asked });
      const theirs = await requestTo(other);

      assert.equal(ours.path, theirs.path);
      assert.equal(ours.type.split(';')[0], theirs.type.split(';')[0]);
      const names = ({ params }) => params.map(([name]) => name).toSorted();
      assert.deepEqual(names(ours), names(theirs));
      // To and StatusCallback differ on purpose.
      const values = ({ params }) => ({ ...asObject(params), To: undefined, StatusCallback: undefined });
      assert.deepEqual(values(ours), values(theirs));
      const { To, StatusCallback } = asObject(ours.params);
      assert.equal(To, to.replace(other, customer));
      assert.ok(StatusCallback.startsWith(`${world.server.base}/functions/v1/twilio-delivery-status`), StatusCallback);
    });
  }
});

describe('the ticks of a message', () => {
  const WORDS = ['queued', 'sending', 'sent', 'delivered', 'read'];

  /** A callback as Twilio posts it, signed by the SDK, to the address that our server asked for. */
  async function callBack({ message, params }, word) {
    const { To, From, StatusCallback } = asObject(params);
    const { pathname, search } = new URL(StatusCallback);
    const sid = message.provider_message_id;
    const form = [
      ['ChannelPrefix', 'whatsapp'],
      ['ApiVersion', '2010-04-01'],
      ['MessageStatus', word],
      ['SmsSid', sid],
      ['SmsStatus', word],
      ['ChannelInstallSid', 'XE00000000000000000000000000000001'],
      ['To', To],
      ['From', From],
      ['MessageSid', sid],
      ['AccountSid', world.a.whatsapp.accountSid],
      ['ChannelToAddress', To.replace('whatsapp:', '')],
      ...(word === 'read' ? [['EventType', 'READ']] : []),
    ];
    const { status, body } = await post(world.server, pathname + search, form, world.a.whatsapp);
    assert.equal(status, 200, JSON.stringify(body));
  }

  const look = (id) => world.server.call('GET', `/v1/messages/${id}`, { token: world.a.token });
  const send = async (body) => {
    const customer = await openConversation(world.a.whatsapp.address);
    return sendThroughServer('twilio_whatsapp', customer, { type: 'text', body });
  };

  test('in order they are queued, sent, delivered, read, live', async () => {
    const client = await signedIn(world.server, world.a);
    try {
      const feed = await Feed.open(client, 'ticks', { table: 'messages', filter: 'direction=eq.outbound' });
      const sent = await send('in order');
      for (const word of ['sent', 'delivered', 'read']) {
        await callBack(sent, word);
        await feed.hears(word, (change) => change.new.id === sent.message.id && change.new.status === word);
      }
      const seen = feed.heard.filter((change) => change.new.id === sent.message.id).map((change) => change.new.status);
      assert.equal(seen[0], 'queued');
      const ticks = [...new Set(seen)];
      assert.deepEqual(ticks.filter((tick) => tick !== 'sending'), ['queued', 'sent', 'delivered', 'read']);
      const ranks = seen.map((tick) => WORDS.indexOf(tick));
      assert.deepEqual(ranks, ranks.toSorted(), 'never backwards');
    } finally {
      await client.removeAllChannels();
      await client.realtime.disconnect();
    }
  });

  for (const seed of [1, 22, 333, 4444]) {
    test(`shuffled and tripled (seed ${seed}) they end as read, each told once`, async () => {
      const sent = await send(`shuffled ${seed}`);
      const calls = shuffled(['queued', 'sent', 'delivered', 'read'].flatMap((word) => [word, word, word]), seed);
      let furthest = 0;
      for (const word of calls) {
        await callBack(sent, word);
        furthest = Math.max(furthest, WORDS.indexOf(word));
        const { status } = await look(sent.message.id);
        const rank = WORDS.indexOf(status);
        assert.ok(rank >= furthest, `${status} after ${WORDS[furthest]} was told (order: ${calls})`);
      }
      const message = await look(sent.message.id);
      assert.equal(message.status, 'read');
      for (const at of ['sent_at', 'delivered_at', 'read_at']) assert.ok(message[at], `${at} is set`);
      assert.equal(message.failed_at, null);
      const told = message.timeline.map((event) => event.event);
      for (const word of ['sent', 'delivered', 'read']) {
        assert.equal(told.filter((event) => event === word).length, 1, `${word} is in the timeline once: ${told}`);
      }
    });
  }

  test('all at once they end as read too', async () => {
    const sent = await send('at once');
    const calls = shuffled(['sent', 'delivered', 'read'].flatMap((word) => [word, word, word]), 7);
    await Promise.all(calls.map((word) => callBack(sent, word)));
    assert.equal((await look(sent.message.id)).status, 'read');
  });

  test('a failure after proof of delivery does not take the tick back', async () => {
    const sent = await send('delivered all the same');
    for (const word of ['delivered', 'undelivered', 'failed', 'sent']) await callBack(sent, word);
    const message = await look(sent.message.id);
    assert.equal(message.status, 'delivered');
  });

  test('a late sent does not revive a failure', async () => {
    const sent = await send('failed');
    for (const word of ['failed', 'sent', 'queued']) await callBack(sent, word);
    assert.equal((await look(sent.message.id)).status, 'failed');
  });
});
