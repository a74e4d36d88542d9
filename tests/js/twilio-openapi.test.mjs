// Twilio's published OpenAPI description and its official SDK are the counterpart: what we send must be what the SDK
// sends and what the description allows, what the simulated Twilio answers must be what it promises, and what the SDK
// signs must move our messages. `twilio-openapi.json` is made by `extract-twilio-openapi.mjs`.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';

import twilio from 'twilio';

import { Server, Simulator, until } from './harness.mjs';
import { Redirected, StandIn, WEBHOOK, asObject, inboundWhatsapp, newCustomer, post, shuffled } from './twilio.mjs';

const spec = JSON.parse(await readFile(new URL('twilio-openapi.json', import.meta.url), 'utf8'));
const { CreateMessage, FetchMessage, UpdateMessage, ListMessage } = spec.operations;
const parameters = new Map(CreateMessage.parameters.map((parameter) => [parameter.name, parameter]));

// -- What the description means --------------------------------------------------------------------------------

const isAddress = (text) => /^\+[1-9]\d{6,14}$/.test(text.replace(/^whatsapp:/, ''));
const isWebAddress = (text) => URL.canParse(text) && /^https?:$/.test(new URL(text).protocol);
const FORMATS = {
  'phone-number': isAddress,
  uri: (text) => isWebAddress(text) || (text.startsWith('/') && URL.canParse(text, spec.source.server)),
  'date-time': (text) => /^\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d))?$/.test(text),
  'date-time-rfc-2822': (text) =>
    /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d \+0000$/.test(text) &&
    !Number.isNaN(Date.parse(text)),
  currency: (text) => /^[A-Za-z]{3}$/.test(text),
  'uri-map': (map) => Object.values(map).every((uri) => URL.canParse(uri, spec.source.server)),
  int64: Number.isSafeInteger,
};

/** A JSON value that a schema of the extract must allow. */
function assertFits(what, schema, value) {
  if (value === null) {
    assert.ok(schema.nullable, `${what} may not be null`);
    return;
  }
  const type = Array.isArray(value) ? 'array' : typeof value;
  const isOfType = schema.type === 'integer' ? Number.isInteger(value) : type === schema.type;
  assert.ok(isOfType, `${what} should be ${schema.type}, is ${type}`);
  if (schema.enum) assert.ok(schema.enum.includes(value), `${what}: ${value} is none of ${schema.enum}`);
  if (schema.pattern) assert.match(value, new RegExp(schema.pattern), what);
  if (schema.format) {
    const isOfFormat = FORMATS[schema.format];
    assert.ok(isOfFormat, `${what}: the test does not know the format ${schema.format}`);
    assert.ok(isOfFormat(value), `${what}: ${JSON.stringify(value)} is no ${schema.format}`);
  }
  if (schema.items) value.forEach((item, index) => assertFits(`${what}[${index}]`, schema.items, item));
}

/** Text of a form as the JSON value it stands for. */
function fromForm({ type }, text) {
  if (type === 'boolean') return { true: true, false: false }[text] ?? text;
  return type === 'integer' || type === 'number' ? Number(text) : text;
}

/** A recorded CreateMessage request is one that the description allows. */
function assertAllowed({ method, path, search, headers, params }) {
  assert.equal(method, CreateMessage.method);
  const pattern = CreateMessage.path.replace('{AccountSid}', 'AC[0-9a-fA-F]{32}').replaceAll('.', '\\.');
  assert.match(path, new RegExp(`^${pattern}$`));
  assert.equal(search, '');
  assert.equal(headers['content-type'].split(';')[0], CreateMessage.request_type);
  const form = asObject(params);
  for (const [name, value] of Object.entries(form)) {
    const schema = parameters.get(name);
    assert.ok(schema, `Twilio knows no parameter ${name}`);
    if (schema.type === 'array') {
      assertFits(name, schema, [value].flat());
    } else {
      assert.equal(typeof value, 'string', `${name} comes once`);
      assertFits(name, schema, fromForm(schema, value));
    }
  }
  for (const { name, required } of parameters.values()) assert.ok(!required || name in form, `${name} is missing`);
  // What the description says in words only.
  assert.equal(['From', 'MessagingServiceSid'].filter((name) => name in form).length, 1, 'one sender');
  assert.ok(
    ['Body', 'MediaUrl', 'ContentSid'].some((name) => name in form),
    'there is content',
  );
  const variables = JSON.parse(form.ContentVariables ?? '{}');
  for (const [name, value] of Object.entries(variables)) assert.equal(typeof value, 'string', `variable ${name}`);
}

/** A Message resource has every property that the description lists, as it is described, and no other. */
function assertMessage(message) {
  assert.deepEqual(Object.keys(message).toSorted(), Object.keys(spec.message));
  for (const [name, schema] of Object.entries(spec.message)) assertFits(name, schema, message[name]);
}

const camelCase = (name) => name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());

/** The SDK's object holds what the answer held. */
function assertParsed(instance, message) {
  for (const [name, schema] of Object.entries(spec.message)) {
    const seen = instance[camelCase(name)];
    const sent = message[name];
    if (schema.format === 'date-time-rfc-2822' && sent !== null) {
      assert.ok(seen instanceof Date, `${name} is a date`);
      assert.equal(seen.getTime(), Date.parse(sent), name);
    } else {
      assert.deepEqual(seen, sent, name);
    }
  }
}

test('the stand-in answers as the description says, so that it is a fair judge', async () => {
  const standIn = await StandIn.start();
  try {
    const httpClient = new Redirected(standIn.base);
    const client = twilio(`AC${'0'.repeat(32)}`, 'token', { httpClient });
    for (const [how, prefix] of [
      [{ from: '+15005550006', body: 'x' }, 'SM'],
      [{ from: '+15005550006', body: 'x', mediaUrl: ['https://example.com/a.jpg'] }, 'MM'],
      [{ messagingServiceSid: `MG${'0'.repeat(32)}`, body: 'x' }, 'SM'],
    ]) {
      const instance = await client.messages.create({ to: '+15005550007', ...how });
      assert.ok(instance.sid.startsWith(prefix));
      assertMessage(httpClient.answers.at(-1).body);
      assert.equal(httpClient.answers.at(-1).status, CreateMessage.status);
    }
    for (const request of standIn.requests) assertAllowed(request);
  } finally {
    await standIn.stop();
  }
});

// -- Our server against the stand-in ---------------------------------------------------------------------------

const TENANT = {
  email: 'owner@messages.example',
  password: 'correct horse battery staple',
  sms: { accountSid: `AC${'a1'.repeat(16)}`, authToken: 'twilio-token-sms', number: '+15005550011' },
  whatsapp: { accountSid: `AC${'b2'.repeat(16)}`, authToken: 'twilio-token-whatsapp', number: '+14155238812' },
  service: {
    accountSid: `AC${'c3'.repeat(16)}`,
    authToken: 'twilio-token-service',
    number: '+15005550013',
    sid: `MG${'d4'.repeat(16)}`,
  },
};
const CONTENT_SID = `HX${'e5'.repeat(16)}`;

const channel = (kind, name, { accountSid, authToken, number, sid }) => `
[[organizations.channels]]
kind = "${kind}"
name = "${name}"
account_sid = "${accountSid}"
auth_token = "${authToken}"
from = "${number}"
${sid ? `messaging_service_sid = "${sid}"` : ''}`;

const DECLARATION = `
[[organizations]]
slug = "messages"
name = "Messages"
timezone = "Africa/Cairo"
locale = "ar-EG"
[[organizations.users]]
email = "${TENANT.email}"
password = "${TENANT.password}"
role = "owner"
full_name = "Owner"
${channel('twilio_sms', 'sms', TENANT.sms)}
${channel('twilio_whatsapp', 'whatsapp', TENANT.whatsapp)}
${channel('twilio_sms', 'service', TENANT.service)}
`;

let standIn;
let server;
let token;
let channels;

before(async () => {
  standIn = await StandIn.start();
  server = await Server.start({ simulator: standIn });
  const { organizations } = await server.apply(DECLARATION);
  channels = Object.fromEntries(organizations[0].channels.map(({ name, id }) => [name, id]));
  const session = await server.call('POST', '/auth/v1/token?grant_type=password', {
    headers: { apikey: server.anonKey },
    body: { email: TENANT.email, password: TENANT.password },
  });
  token = session.access_token;
});
after(async () => {
  await server?.stop();
  await standIn?.stop();
});

const look = (id) => server.call('GET', `/v1/messages/${id}`, { token });

/** Sends through our API; returns the message once the provider has it. */
async function send(channel, to, content) {
  const body = { channel_id: channels[channel], to, content };
  const { id } = await server.call('POST', '/v1/messages', { token, body });
  return until('the provider has taken the message', async () => {
    const message = await look(id);
    assert.notEqual(message.status, 'failed', message.error_message);
    return message.provider_message_id && message;
  });
}

/** The customer has written on WhatsApp: free text may be sent. */
async function openWindow(customer) {
  const { authToken } = TENANT.whatsapp;
  const { status, body } = await post(server, WEBHOOK, inboundWhatsapp(TENANT, customer, 'Hello'), { authToken });
  assert.equal(status, 200, JSON.stringify(body));
  await until('the conversation', async () => {
    const { data } = await server.call('GET', `/v1/conversations?search=${encodeURIComponent(customer)}`, { token });
    return data.length > 0;
  });
}

describe("our requests are the SDK's, and the published description allows both", () => {
  const image = 'https://files.example/a.jpg?x=1&y=2';
  const variables = { 1: 'منى', 2: 'الأحد 10:00' };
  const smsFrom = { from: TENANT.sms.number };
  const whatsappFrom = { from: `whatsapp:${TENANT.whatsapp.number}` };

  for (const [what, name, content, asked] of [
    ['an SMS', 'sms', { type: 'text', body: 'مرحباً & أهلاً + 100 %' }, { ...smsFrom, body: 'مرحباً & أهلاً + 100 %' }],
    [
      'an MMS with its caption',
      'sms',
      { type: 'image', link: image, caption: 'The leak' },
      { ...smsFrom, body: 'The leak', mediaUrl: [image] },
    ],
    ['an MMS without a word', 'sms', { type: 'image', link: image }, { ...smsFrom, mediaUrl: [image] }],
    ['a WhatsApp text', 'whatsapp', { type: 'text', body: 'سطر\nسطر 🚚' }, { ...whatsappFrom, body: 'سطر\nسطر 🚚' }],
    [
      'a WhatsApp document with its caption',
      'whatsapp',
      { type: 'document', link: 'https://files.example/bill.pdf', caption: 'الفاتورة' },
      { ...whatsappFrom, body: 'الفاتورة', mediaUrl: ['https://files.example/bill.pdf'] },
    ],
    [
      'a WhatsApp template with variables',
      'whatsapp',
      { type: 'template', content_sid: CONTENT_SID, variables },
      { ...whatsappFrom, contentSid: CONTENT_SID, contentVariables: JSON.stringify(variables) },
    ],
    [
      'a WhatsApp template without variables',
      'whatsapp',
      { type: 'template', content_sid: CONTENT_SID },
      { ...whatsappFrom, contentSid: CONTENT_SID },
    ],
    [
      'a WhatsApp location',
      'whatsapp',
      { type: 'location', latitude: 30.0444, longitude: 31.2357, name: 'Tahrir' },
      { ...whatsappFrom, body: 'Tahrir', persistentAction: ['geo:30.0444,31.2357|Tahrir'] },
    ],
    [
      'an SMS through a messaging service',
      'service',
      { type: 'text', body: 'By the service' },
      { messagingServiceSid: TENANT.service.sid, body: 'By the service' },
    ],
  ]) {
    test(`${what} is the same request`, async () => {
      const customer = newCustomer();
      if (name === 'whatsapp') await openWindow(customer);
      const ours = standIn.requestOf((await send(name, customer, content)).provider_message_id);
      const { accountSid, authToken } = TENANT[name];
      const client = twilio(accountSid, authToken, { httpClient: new Redirected(standIn.base) });
      const made = await client.messages.create({
        to: name === 'whatsapp' ? `whatsapp:${customer}` : customer,
        statusCallback: `${server.base}/functions/v1/twilio-delivery-status`,
        ...asked,
      });
      const theirs = standIn.requestOf(made.sid);

      assertAllowed(ours);
      assertAllowed(theirs);
      assert.deepEqual([ours.method, ours.path, ours.search], [theirs.method, theirs.path, theirs.search]);
      assert.match(ours.headers.authorization, /^Basic /);
      for (const header of ['authorization', 'content-type', 'accept']) {
        assert.equal(ours.headers[header], theirs.headers[header], header);
      }
      const withoutQuery = ({ params }) => {
        const form = asObject(params);
        return { ...form, StatusCallback: form.StatusCallback.split('?')[0] };
      };
      assert.deepEqual(withoutQuery(ours), withoutQuery(theirs));
      // The query is ours: it names the attempt, so that a callback proves it even if the answer is lost.
      const callback = new URL(asObject(ours.params).StatusCallback);
      assert.match(callback.searchParams.get('attempt'), /^[0-9a-f-]{36}$/);
    });
  }
});

// -- The simulated Twilio --------------------------------------------------------------------------------------

describe("the simulator's answers are the published resource, and the SDK loses nothing of them", () => {
  const account = { accountSid: `AC${'f6'.repeat(16)}`, authToken: 'twilio-token-simulated' };
  const [sms, whatsapp] = ['+15005559011', '+15005559012'];
  const service = `MG${'a7'.repeat(16)}`;
  let simulator;
  let httpClient;
  let client;

  before(async () => {
    simulator = await Simulator.start();
    await simulator.control('PUT', '/settings', { sent_after_ms: null, delivered_after_ms: null });
    await simulator.control('PUT', '/twilio/accounts', {
      account_sid: account.accountSid,
      auth_token: account.authToken,
      numbers: [
        { number: sms, channel: 'sms' },
        { number: whatsapp, channel: 'whatsapp' },
      ],
      messaging_services: [{ sid: service, senders: [sms] }],
      contents: [{ sid: CONTENT_SID, friendly_name: 'visit', language: 'ar', body: 'مرحباً {{1}}، الموعد {{2}}' }],
    });
    httpClient = new Redirected(simulator.base);
    client = twilio(account.accountSid, account.authToken, { httpClient });
  });
  after(() => simulator?.stop());

  /** Does something with the SDK and checks the answer both ways; returns what it got. */
  async function checked(operation, act) {
    const instance = await act();
    const { status, body } = httpClient.answers.at(-1);
    assert.equal(status, operation.status);
    assertMessage(body);
    assertParsed(instance, body);
    return instance;
  }
  const create = (asked) => checked(CreateMessage, () => client.messages.create(asked));
  const fetchOne = (sid) => checked(FetchMessage, () => client.messages(sid).fetch());
  const tick = (id, tick, error_code) => simulator.control('PUT', '/messages/tick', { id, tick, error_code });

  test('at creation, whatever is sent and whoever sends it', async () => {
    const text = await create({ to: newCustomer(), from: sms, body: 'مرحباً' });
    assert.equal(text.status, 'queued');
    assert.equal(text.direction, 'outbound-api');
    const mms = await create({ to: newCustomer(), from: sms, mediaUrl: ['https://files.example/a.jpg'] });
    assert.ok(mms.sid.startsWith('MM'));
    assert.equal(mms.numMedia, '1');
    const template = await create({
      to: `whatsapp:${newCustomer()}`,
      from: `whatsapp:${whatsapp}`,
      contentSid: CONTENT_SID,
      contentVariables: JSON.stringify({ 1: 'منى', 2: '10:00' }),
    });
    assert.equal(template.body, 'مرحباً منى، الموعد 10:00');
    const byService = await create({ to: newCustomer(), messagingServiceSid: service, body: 'x' });
    assert.deepEqual([byService.status, byService.from, byService.numSegments], ['accepted', null, '0']);
    const later = await create({
      to: newCustomer(),
      messagingServiceSid: service,
      body: 'x',
      scheduleType: 'fixed',
      sendAt: new Date(Date.now() + 3_600_000),
    });
    assert.equal(later.status, 'scheduled');
  });

  test('on its way, delivered, read, failed, canceled and redacted', async () => {
    const to = `whatsapp:${newCustomer()}`;
    const read = await create({
      to,
      from: `whatsapp:${whatsapp}`,
      contentSid: CONTENT_SID,
      contentVariables: JSON.stringify({ 1: 'a', 2: 'b' }),
    });
    for (const word of ['sent', 'delivered', 'read']) {
      await tick(read.sid, word);
      assert.equal((await fetchOne(read.sid)).status, word);
    }
    for (const [code, word] of [
      [30003, 'undelivered'],
      [30034, 'failed'],
    ]) {
      const failed = await create({ to: newCustomer(), from: sms, body: 'x' });
      await tick(failed.sid, 'failed', code);
      const seen = await fetchOne(failed.sid);
      assert.deepEqual([seen.status, seen.errorCode], [word, code]);
      assert.equal(typeof seen.errorMessage, 'string');
    }
    const scheduled = await create({
      to: newCustomer(),
      messagingServiceSid: service,
      body: 'x',
      scheduleType: 'fixed',
      sendAt: new Date(Date.now() + 3_600_000),
    });
    const status = UpdateMessage.parameters.find(({ name }) => name === 'Status').enum[0];
    const canceled = await checked(UpdateMessage, () => client.messages(scheduled.sid).update({ status }));
    assert.equal(canceled.status, 'canceled');
    const redacted = await checked(UpdateMessage, () => client.messages(read.sid).update({ body: '' }));
    assert.equal(redacted.body, '');
  });

  test('one that came in', async () => {
    const from = newCustomer();
    await simulator.control('POST', '/send', { line: sms, from, type: 'text', body: 'صباح الخير' });
    const [seen] = await client.messages.list({ from });
    const fetched = await fetchOne(seen.sid);
    assert.deepEqual([fetched.direction, fetched.status, fetched.body], ['inbound', 'received', 'صباح الخير']);
  });

  test('as a list, page by page, with every filter that is published', async () => {
    const to = newCustomer();
    const sids = [];
    for (const body of ['1', '2', '3', '4', '5']) sids.push((await create({ to, from: sms, body })).sid);
    const before = httpClient.answers.length;
    const listed = await client.messages.list({ to, from: sms, pageSize: 2 });
    assert.deepEqual(
      listed.map(({ sid }) => sid),
      sids.toReversed(),
    );
    const pages = httpClient.answers.slice(before);
    assert.equal(pages.length, 3);
    for (const { status, body } of pages) {
      assert.equal(status, ListMessage.status);
      assert.deepEqual(Object.keys(body).toSorted(), Object.keys(ListMessage.response));
      for (const [name, schema] of Object.entries(ListMessage.response)) assertFits(name, schema, body[name]);
      body.messages.forEach(assertMessage);
    }
    const resources = pages.flatMap(({ body }) => body.messages);
    listed.forEach((instance, index) => assertParsed(instance, resources[index]));
    const [yesterday, tomorrow] = [new Date(Date.now() - 86_400_000), new Date(Date.now() + 86_400_000)];
    const count = async (filter) => (await client.messages.list({ to, ...filter })).length;
    assert.equal(await count({ dateSentAfter: yesterday, dateSentBefore: tomorrow }), 5);
    assert.equal(await count({ dateSentAfter: tomorrow }), 0);
    assert.equal(await count({ dateSentBefore: yesterday }), 0);
    assert.equal(await count({ dateSent: new Date(Date.now() - 7 * 86_400_000) }), 0);

    const queries = new Set(httpClient.answers.slice(before).flatMap(({ query }) => query));
    assert.ok(queries.has('DateSent<'), [...queries].join());
    const published = new Set(ListMessage.query.map(({ name }) => name));
    for (const name of queries) assert.ok(published.has(name), `${name} is no published filter`);
  });
});

// -- A thousand callbacks --------------------------------------------------------------------------------------

describe('a thousand status callbacks, shuffled and tripled, signed by the SDK', () => {
  /** What Twilio says of a message, and how it must end here. Every word of it is in the description. */
  const COURSES = [
    { count: 30, channel: 'sms', words: ['queued', 'sending', 'sent', 'delivered'], end: 'delivered' },
    { count: 30, channel: 'whatsapp', words: ['sending', 'sent', 'delivered', 'read'], end: 'read' },
    { count: 15, channel: 'sms', words: ['sending', 'sent', 'undelivered'], code: '30003', end: 'failed' },
    { count: 15, channel: 'whatsapp', words: ['queued', 'sent', 'failed'], code: '63016', end: 'failed' },
    { count: 10, channel: 'service', words: ['accepted', 'scheduled', 'canceled'], end: 'cancelled' },
  ];
  const SENDERS = 8;
  const CALLERS = 16;
  const messages = [];

  /** Does all of it, `width` at once. */
  async function inParallel(width, items, act) {
    const queue = [...items];
    const work = async () => {
      for (let item = queue.shift(); item; item = queue.shift()) await act(item);
    };
    await Promise.all(Array.from({ length: width }, work));
  }

  function formOf({ sid, to, from, channel, code }, word) {
    const isWhatsapp = channel === 'whatsapp';
    const isBad = ['undelivered', 'failed'].includes(word);
    return [
      ['ApiVersion', '2010-04-01'],
      ['MessageStatus', word],
      ['SmsSid', sid],
      ['SmsStatus', word],
      ['To', to],
      ['From', from],
      ['MessageSid', sid],
      ['AccountSid', TENANT[channel].accountSid],
      ...(isBad ? [['ErrorCode', code]] : []),
      ...(channel === 'service' ? [['MessagingServiceSid', TENANT.service.sid]] : []),
      ...(channel === 'sms' && word === 'delivered' ? [['RawDlrDoneDate', '2611211230']] : []),
      ...(isWhatsapp
        ? [
            ['ChannelPrefix', 'whatsapp'],
            ['ChannelInstallSid', `XE${'0'.repeat(32)}`],
            ['ChannelToAddress', to.replace('whatsapp:', '')],
          ]
        : []),
      ...(isWhatsapp && word === 'read' ? [['EventType', 'READ']] : []),
      ...(isWhatsapp && isBad ? [['ChannelStatusMessage', 'Outside the allowed window']] : []),
    ];
  }

  before(async () => {
    const orders = COURSES.flatMap(({ count, ...course }) => Array.from({ length: count }, () => course));
    await inParallel(SENDERS, orders, async (course) => {
      const customer = newCustomer();
      const content =
        course.channel === 'whatsapp'
          ? { type: 'template', content_sid: CONTENT_SID }
          : { type: 'text', body: 'Visit at ten' };
      const { id, provider_message_id: sid } = await send(course.channel, customer, content);
      const { To, StatusCallback } = asObject(standIn.requestOf(sid).params);
      const { pathname, search } = new URL(StatusCallback);
      const { number } = TENANT[course.channel];
      const from = course.channel === 'whatsapp' ? `whatsapp:${number}` : number;
      messages.push({ ...course, id, sid, to: To, from, callback: pathname + search });
    });
    assert.equal(messages.length, 100);
  });

  test('every message ends with exactly its own status, times and error', async () => {
    for (const { words } of COURSES) for (const word of words) assertFits(word, spec.message.status, word);
    const calls = messages.flatMap((message) =>
      message.words.flatMap((word) => [1, 2, 3].map(() => ({ message, word }))),
    );
    assert.ok(calls.length >= 1_000, `${calls.length} callbacks`);
    await inParallel(CALLERS, shuffled(calls, 20261), async ({ message, word }) => {
      const { authToken } = TENANT[message.channel];
      const { status, body } = await post(server, message.callback, formOf(message, word), { authToken });
      assert.equal(status, 200, JSON.stringify(body));
    });

    const rows = JSON.parse(await server.psql('SELECT json_object_agg(id, to_jsonb(l)) FROM message_logs l'));
    for (const { id, sid, to, channel, words, code, end } of messages) {
      const message = await look(id);
      const about = `${channel} ${words}: `;
      for (const [where, seen] of [
        ['/v1/messages', message],
        ['message_logs', rows[id]],
      ]) {
        assert.equal(seen.status, end, `${about}status in ${where}`);
        assert.equal(seen.error_code, code ?? null, `${about}error_code in ${where}`);
        for (const [column, isSet] of [
          ['sent_at', words.includes('sent')],
          ['delivered_at', ['delivered', 'read'].includes(end)],
          ['read_at', end === 'read'],
          ['failed_at', end === 'failed'],
        ]) {
          assert.equal(seen[column] !== null, isSet, `${about}${column} in ${where} is ${seen[column]}`);
        }
      }
      assert.equal(message.provider_message_id, sid);
      const { external_id, provider, message_type, recipient } = rows[id];
      assert.deepEqual(
        { external_id, provider, message_type, recipient },
        {
          external_id: sid,
          provider: 'twilio',
          message_type: channel === 'whatsapp' ? 'whatsapp' : 'sms',
          recipient: to.replace('whatsapp:', ''),
        },
      );
      const told = message.timeline.filter((event) => event.attempt_id).map((event) => event.event);
      assert.equal(new Set(told).size, told.length, `${about}each word is told once: ${told}`);
    }
  });

  test('each failed message raised exactly one notification, and no other message did', async () => {
    const failed = messages
      .filter(({ end }) => end === 'failed')
      .map(({ id }) => id)
      .toSorted();
    /** All pages of the list. */
    const notified = async () => {
      const found = [];
      for (let cursor = ''; cursor !== null;) {
        const path = `/v1/notifications?kind=message_failed${cursor && `&cursor=${encodeURIComponent(cursor)}`}`;
        const { data, next_cursor } = await server.call('GET', path, { token });
        found.push(...data.map((notification) => notification.message_id));
        cursor = next_cursor;
      }
      return found;
    };
    await until('all failures are told', async () => (await notified()).length >= failed.length);
    await inParallel(
      CALLERS,
      messages.filter(({ end }) => end === 'failed'),
      async (message) => {
        const { authToken } = TENANT[message.channel];
        const { status } = await post(server, message.callback, formOf(message, message.words.at(-1)), { authToken });
        assert.equal(status, 200);
      },
    );
    const open = () => server.psql('SELECT count(*) FROM message_failures');
    await until('nothing is left to be told', async () => (await open()) === '0');
    assert.deepEqual((await notified()).toSorted(), failed);
    const rows = await server.psql(
      "SELECT message_id FROM notifications WHERE kind = 'message_failed' ORDER BY message_id",
    );
    assert.deepEqual(rows.split('\n').toSorted(), failed);
  });
});
