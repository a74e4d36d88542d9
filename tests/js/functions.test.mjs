// The documents' functions, called as their front ends and servers call them: `supabase.functions.invoke`, from a page
// of another origin in a real browser and from Node.

import assert from 'node:assert/strict';
import { readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { after, before, describe, test } from 'node:test';

import { createClient } from '@supabase/supabase-js';
import WebSocket from 'ws';

import { startBrowser } from './browser.mjs';
import { Process, Server, Simulator, call, freePort, request, temporaryDirectory, until } from './harness.mjs';
import { asObject } from './twilio.mjs';

const PASSWORD = 'correct horse battery staple';
const CONTENT_SID = `HX${'c0'.repeat(16)}`;
const EGYPT = {
  slug: 'cairo',
  region: 'EG',
  accountSid: `AC${'1e'.repeat(16)}`,
  authToken: 'twilio-token-cairo',
  number: '+14155238801',
};
const SAUDI = {
  slug: 'riyadh',
  region: 'SA',
  accountSid: `AC${'2f'.repeat(16)}`,
  authToken: 'twilio-token-riyadh',
  number: '+14155238802',
};
// Each person has a limit of their own, so each test that counts has a person of its own.
const PEOPLE = {
  owner: 'owner',
  agent: 'agent',
  viewer: 'viewer',
  alternating: 'agent',
  eager: 'agent',
  browsing: 'agent',
  patient: 'agent',
};

const declaration = ({ slug, region, accountSid, authToken, number }) => `
[[organizations]]
slug = "${slug}"
name = "${slug}"
region = "${region}"
${Object.entries(PEOPLE)
  .map(
    ([name, role]) => `[[organizations.users]]
email = "${name}@${slug}.example"
password = "${PASSWORD}"
role = "${role}"`,
  )
  .join('\n')}
${['twilio_sms', 'twilio_whatsapp']
  .map(
    (kind) => `[[organizations.channels]]
kind = "${kind}"
name = "${kind}"
account_sid = "${accountSid}"
auth_token = "${authToken}"
from = "${number}"`,
  )
  .join('\n')}
`;

let simulator;
let server;
/** Two more processes on the same database, with the limit that production has. */
let limited;
let pages;
let browser;
const tokens = {};

/** One more process on the database of `first`, which shares its secrets. */
async function startBeside(first, environment) {
  const directory = await temporaryDirectory();
  const port = await freePort();
  const base = `http://127.0.0.1:${port}`;
  const secrets = await readFile(join(first.dataDirectory, 'secrets.toml'), 'utf8');
  const shared = Object.fromEntries(
    [...secrets.matchAll(/^(\w+) = "(.+)"$/gm)].map(([, name, value]) => [name, value]),
  );
  const process = new Process(['serve'], {
    ...first.environment,
    ...shared,
    PORT: String(port),
    PUBLIC_URL: base,
    WASEL_DATA_DIR: join(directory, 'data'),
    DATABASE_URL: first.databaseUrl,
    WASEL_DATABASE_TENANT_CONNECTIONS: '4',
    WASEL_DATABASE_SYSTEM_CONNECTIONS: '6',
    ...environment,
  });
  await process.said(/ ready /);
  const stop = async () => {
    await process.stop();
    await rm(directory, { recursive: true, force: true });
  };
  return { base, stop, request: (method, path, options) => request(method, base + path, options) };
}

/** Serves one page that has supabase-js on it, on two ports: two origins. */
async function startPages() {
  const script = await readFile(
    fileURLToPath(new URL('node_modules/@supabase/supabase-js/dist/umd/supabase.js', import.meta.url)),
  );
  const start = async () => {
    const server = createServer(({ url }, response) => {
      if (url === '/supabase.js') response.writeHead(200, { 'content-type': 'text/javascript' }).end(script);
      else if (url === '/')
        response
          .writeHead(200, { 'content-type': 'text/html' })
          .end('<!doctype html><script src="/supabase.js"></script>');
      else response.writeHead(404).end();
    });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    return server;
  };
  const servers = [await start(), await start()];
  const [allowed, other] = servers.map((server) => `http://127.0.0.1:${server.address().port}`);
  const stop = () =>
    Promise.all(
      servers.map((server) => {
        server.closeAllConnections();
        return new Promise((resolve) => server.close(resolve));
      }),
    );
  return { allowed, other, stop };
}

before(async () => {
  pages = await startPages();
  simulator = await Simulator.start();
  server = await Server.start({ simulator, environment: { ALLOWED_ORIGINS: pages.allowed } });
  const { organizations } = await server.apply([EGYPT, SAUDI].map(declaration).join('\n'));
  for (const tenant of [EGYPT, SAUDI]) {
    tenant.orgId = organizations.find(({ slug }) => slug === tenant.slug).id;
    const number = (channel) => ({ number: tenant.number, channel, webhook_url: `${server.base}/api/webhooks/twilio` });
    await simulator.control('PUT', '/twilio/accounts', {
      account_sid: tenant.accountSid,
      auth_token: tenant.authToken,
      numbers: [number('sms'), number('whatsapp')],
      contents: [{ sid: CONTENT_SID, friendly_name: 'visit', language: 'ar', body: 'مرحباً {{1}}، موعدكم {{2}}' }],
    });
    for (const name of Object.keys(PEOPLE))
      tokens[`${name}@${tenant.slug}`] = await signIn(`${name}@${tenant.slug}.example`);
  }
  // Not set: the limit is the default one.
  const environment = { WASEL_LIMITS_USER_SENDS_PER_MINUTE: undefined };
  limited = [await startBeside(server, environment), await startBeside(server, environment)];
  browser = await startBrowser();
});
after(async () => {
  await browser?.close();
  for (const process of limited ?? []) await process.stop();
  await server?.stop();
  await simulator?.stop();
  await pages?.stop();
});

async function signIn(email) {
  const session = await call('POST', `${server.base}/auth/v1/token?grant_type=password`, {
    headers: { apikey: server.anonKey },
    body: { email, password: PASSWORD },
  });
  return session.access_token;
}

const WHATSAPP = '/functions/v1/send-whatsapp';
const VISIT = { content_sid: CONTENT_SID, variables: { 1: 'منى', 2: '10:00' } };

let lastNumber = 201050000000;
const newCustomer = () => `+${(lastNumber += 1)}`;

/** The customer has written on WhatsApp, so free text may be sent. */
async function openWindow(tenant, from, token) {
  await simulator.control('POST', '/send', {
    line: `whatsapp:${tenant.number}`,
    from,
    type: 'text',
    body: 'السلام عليكم',
  });
  await until('the conversation', async () => {
    const { data } = await server.call('GET', `/v1/conversations?search=${encodeURIComponent(from)}`, { token });
    return data.length > 0;
  });
}

/** Forms of the messages that reached the simulated Twilio for this address. */
async function formsTo(address) {
  const requests = await simulator.control('GET', '/requests');
  return requests
    .filter(({ method, path }) => method === 'POST' && path.endsWith('/Messages.json'))
    .map(({ body }) => asObject(new URLSearchParams(body)))
    .filter(({ To }) => To === address);
}

/** The first message that reaches the simulated Twilio for this address. */
const reached = (address) => until(`a message reaches ${address}`, async () => (await formsTo(address))[0]);

/** The row of the documents' log. */
const logOf = async (id) => JSON.parse(await server.psql(`SELECT to_jsonb(l) FROM message_logs l WHERE id = '${id}'`));

// -- From a page -----------------------------------------------------------------------------------------------

/** Calls a function from a page, as a front end does. `token` is left out by somebody who is not signed in. */
async function invokeFromPage(origin, base, name, { token, body, headers }) {
  const context = await browser.newContext();
  try {
    const page = await context.newPage();
    await page.goto(origin);
    return await page.evaluate(
      async ({ base, key, name, token, body, headers }) => {
        const client = window.supabase.createClient(base, key, token ? { accessToken: async () => token } : {});
        const { data, error } = await client.functions.invoke(name, { body, headers });
        if (!error) return { data };
        const response = error.context instanceof Response ? error.context : undefined;
        return {
          name: error.name,
          status: response?.status,
          retryAfter: response?.headers.get('retry-after'),
          requestId: response?.headers.get('x-request-id'),
          body: response && (await response.json()),
        };
      },
      { base, key: server.anonKey, name, token, body, headers },
    );
  } finally {
    await context.close();
  }
}

describe('send-whatsapp from a page of another origin', () => {
  const send = (who, body, options = {}) =>
    invokeFromPage(pages.allowed, server.base, 'send-whatsapp', { token: tokens[who], body, ...options });

  test('a template reaches the customer, and the page gets its id and status', async () => {
    const to = newCustomer();
    const { data, ...failure } = await send('agent@cairo', { to, ...VISIT, request_id: 'visit-77' });
    assert.deepEqual(failure, {});
    assert.deepEqual(data, { success: true, message_id: data.message_id, status: 'queued' });
    const form = await reached(`whatsapp:${to}`);
    assert.equal(form.ContentSid, CONTENT_SID);
    assert.deepEqual(JSON.parse(form.ContentVariables), VISIT.variables);
    assert.equal(form.From, `whatsapp:${EGYPT.number}`);
    assert.ok(form.StatusCallback.includes('/functions/v1/twilio-delivery-status'), form.StatusCallback);
    const delivered = await until('it is delivered', async () => {
      const log = await logOf(data.message_id);
      return log.status === 'delivered' && log;
    });
    assert.equal(delivered.request_id, 'visit-77');
    assert.equal(delivered.message_type, 'whatsapp');
    assert.equal(delivered.recipient, to);
    assert.ok(delivered.sender_id, 'the log names the person');
  });

  test('a text and a file reach a customer who has written', async () => {
    const to = newCustomer();
    await openWindow(EGYPT, to, tokens['agent@cairo']);
    const text = await send('agent@cairo', { to, message: 'تم إصلاح التكييف' });
    assert.equal(text.data?.success, true, JSON.stringify(text));
    assert.equal((await reached(`whatsapp:${to}`)).Body, 'تم إصلاح التكييف');
    const file = { to, message: 'الفاتورة', media_url: 'https://files.example/bill.pdf' };
    assert.equal((await send('agent@cairo', file)).data?.success, true);
    const form = await until('the file', async () =>
      (await formsTo(`whatsapp:${to}`)).find(({ MediaUrl }) => MediaUrl),
    );
    assert.deepEqual([form.MediaUrl, form.Body], ['https://files.example/bill.pdf', 'الفاتورة']);
  });

  for (const [what, status, who, body, words] of [
    ['nobody to send to', 400, 'agent@cairo', { message: 'x' }, /\bto\b/],
    ['no number', 400, 'agent@cairo', { to: 'hello', message: 'x' }, /\bto\b/],
    ['nothing to send', 400, 'agent@cairo', { to: '01012345678' }, /message/],
    ['nobody signed in', 401, 'nobody', { to: '01012345678', message: 'x' }, /./],
    ['somebody who may only look', 403, 'viewer@cairo', { to: '01012345678', message: 'x' }, /./],
    ['free text to a customer who never wrote', 422, 'agent@cairo', { to: '01098765432', message: 'x' }, /template/],
  ]) {
    test(`${what} is a FunctionsHttpError ${status} whose reason the page can read`, async () => {
      const error = await send(who, body);
      assert.equal(error.name, 'FunctionsHttpError');
      assert.equal(error.status, status, JSON.stringify(error.body));
      assert.equal(error.body.success, false);
      assert.equal(typeof error.body.error, 'string');
      assert.match(error.body.error, words);
      assert.ok(error.requestId, 'the page can read the id that the server logged');
    });
  }

  test("another organisation's door stays shut, its header passes the preflight", async () => {
    const headers = { 'x-org-id': SAUDI.orgId };
    const error = await send('agent@cairo', { to: '0512345678', ...VISIT }, { headers });
    assert.deepEqual([error.name, error.status, error.body.success], ['FunctionsHttpError', 403, false]);
  });

  test('the sixth within a minute is told to the page with the time to wait', async () => {
    const base = limited[0].base;
    const token = tokens['browsing@cairo'];
    const once = () =>
      invokeFromPage(pages.allowed, base, 'send-whatsapp', { token, body: { to: newCustomer(), ...VISIT } });
    for (let sent = 0; sent < 5; sent += 1) {
      const { data, ...failure } = await once();
      assert.equal(data?.success, true, JSON.stringify(failure));
    }
    const error = await once();
    assert.deepEqual([error.name, error.status, error.body.success], ['FunctionsHttpError', 429, false]);
    const seconds = Number(error.retryAfter);
    assert.ok(Number.isInteger(seconds) && seconds >= 1 && seconds <= 60, `Retry-After: ${error.retryAfter}`);
  });

  test('a page of an origin that is not on the list gets nothing and sends nothing', async () => {
    const to = newCustomer();
    const token = tokens['agent@cairo'];
    const error = await invokeFromPage(pages.other, server.base, 'send-whatsapp', { token, body: { to, ...VISIT } });
    assert.equal(error.name, 'FunctionsFetchError');
    assert.equal(error.status, undefined);
    assert.equal(await server.psql(`SELECT count(*) FROM messages WHERE address = '${to}'`), '0');
  });

  test('the preflight names what the client sends, to the listed origin only', async () => {
    const asked = 'authorization, apikey, x-client-info, content-type, x-org-id, traceparent, tracestate, baggage';
    const preflight = (origin) =>
      server.request('OPTIONS', WHATSAPP, {
        headers: { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': asked },
      });
    const good = await preflight(pages.allowed);
    assert.ok(good.status === 200 || good.status === 204, String(good.status));
    assert.equal(good.headers.get('access-control-allow-origin'), pages.allowed);
    assert.match(good.headers.get('access-control-allow-methods'), /\bPOST\b/);
    const allowed = good.headers
      .get('access-control-allow-headers')
      .toLowerCase()
      .split(/\s*,\s*/);
    for (const header of asked.split(', ')) assert.ok(allowed.includes(header), `${header} is not in ${allowed}`);
    assert.match(good.headers.get('vary') ?? '', /origin/i);
    const bad = await preflight(pages.other);
    assert.equal(bad.headers.get('access-control-allow-origin'), null);

    const refused = await server.request('POST', WHATSAPP, { headers: { origin: pages.allowed }, body: {} });
    assert.equal(refused.status, 401);
    assert.equal(refused.headers.get('access-control-allow-origin'), pages.allowed, 'errors are for the page too');
    assert.match(refused.headers.get('access-control-expose-headers').toLowerCase(), /retry-after/);
  });
});

// -- Limits across processes -----------------------------------------------------------------------------------

describe('five messages a minute and person, however many processes serve them', () => {
  const send = (process, who) =>
    process.request('POST', WHATSAPP, { token: tokens[who], body: { to: newCustomer(), ...VISIT } });

  function assertTooMany({ status, headers, body }) {
    assert.equal(status, 429, JSON.stringify(body));
    assert.equal(body.success, false);
    assert.equal(typeof body.error, 'string');
    const seconds = Number(headers.get('retry-after'));
    assert.ok(Number.isInteger(seconds) && seconds >= 1 && seconds <= 60, headers.get('retry-after'));
  }

  test('in turns: the sixth is refused by either process, and nobody else is', async () => {
    const [one, two] = limited;
    for (const process of [one, two, one, two, one]) {
      const { status, body } = await send(process, 'alternating@cairo');
      assert.equal(status, 200, JSON.stringify(body));
    }
    assertTooMany(await send(two, 'alternating@cairo'));
    assertTooMany(await send(one, 'alternating@cairo'));
    for (const who of ['patient@cairo', 'alternating@riyadh']) {
      assert.equal((await send(one, who)).status, 200, who);
    }
  });

  test('all at once on both processes: exactly five pass and are sent', async () => {
    const answers = await Promise.all(
      Array.from({ length: 24 }, (_, index) => send(limited[index % 2], 'eager@cairo')),
    );
    const passed = answers.filter(({ status }) => status === 200);
    assert.equal(passed.length, 5);
    answers.filter(({ status }) => status !== 200).forEach(assertTooMany);
    const { data } = await createClient(server.base, server.anonKey, {
      accessToken: async () => tokens['eager@cairo'],
      realtime: { transport: WebSocket },
    }).functions.invoke('send-whatsapp', { body: { to: newCustomer(), ...VISIT } });
    assert.equal(data.success, true, 'where no limit is set, none counts');
    const sender = (await logOf(data.message_id)).sender_id;
    assert.equal(await server.psql(`SELECT count(*) FROM message_logs WHERE sender_id = '${sender}'`), '6');
  });
});

// -- Numbers ---------------------------------------------------------------------------------------------------

describe('a number is understood as people of the country write it', () => {
  const spellings = {
    cairo: {
      '+201012345678': [
        '01012345678',
        '1012345678',
        '+201012345678',
        '+20 10 1234 5678',
        '00201012345678',
        '0020 10 1234 5678',
        '201012345678',
        '20 10 12345678',
        '+20 (0)10 1234 5678',
        '(010) 1234-5678',
        '010-1234-5678',
        '010.1234.5678',
        ' 01012345678 ',
        '٠١٠١٢٣٤٥٦٧٨',
        '٠٠٢٠١٠١٢٣٤٥٦٧٨',
        '+٢٠ ١٠ ١٢٣٤ ٥٦٧٨',
        '۰۱۰۱۲۳۴۵۶۷۸',
        '\u200f01012345678',
        '\u200e+201012345678\u200f',
        '010\u00a01234\u00a05678',
        '\u202a+20 10 1234 5678\u202c',
        'whatsapp:+201012345678',
      ],
      // With its own country code a foreign number stays foreign.
      '+966512345678': ['+966512345678', '00966 51 234 5678', '+٩٦٦ ٥١ ٢٣٤ ٥٦٧٨'],
    },
    riyadh: {
      '+966512345678': [
        '0512345678',
        '512345678',
        '+966512345678',
        '966512345678',
        '966 51 234 5678',
        '00966512345678',
        '+966 0512345678',
        '051 234 5678',
        '٠٥١٢٣٤٥٦٧٨',
        '٩٦٦٥١٢٣٤٥٦٧٨',
        '\u200f0512345678\u200e',
        '051\u00a0234\u00a05678',
      ],
      '+201012345678': ['+201012345678', '0020 1012345678'],
    },
  };

  for (const [slug, numbers] of Object.entries(spellings)) {
    for (const [number, written] of Object.entries(numbers)) {
      test(`in ${slug} ${written.length} spellings are ${number}`, async () => {
        const [token, { accountSid }] = [
          tokens[`owner@${slug}`],
          [EGYPT, SAUDI].find((tenant) => tenant.slug === slug),
        ];
        const ids = [];
        for (const to of written) {
          const request_id = JSON.stringify(to);
          const { status, body } = await server.request('POST', WHATSAPP, {
            token,
            body: { to, ...VISIT, request_id },
          });
          assert.equal(status, 200, `${request_id}: ${JSON.stringify(body)}`);
          ids.push(body.message_id);
        }
        const conversations = new Set();
        for (const id of ids) {
          const message = await until('the provider has taken it', async () => {
            const now = await server.call('GET', `/v1/messages/${id}`, { token });
            return now.provider_message_id && now;
          });
          assert.equal(message.address, number, message.request_id);
          conversations.add(message.conversation_id);
        }
        assert.equal(conversations.size, 1, 'one person, one conversation');
        const requests = await simulator.control('GET', '/requests');
        const ours = requests.filter(({ method, path }) => method === 'POST' && path.includes(accountSid));
        const to = ours.map(({ body }) => new URLSearchParams(body).get('To'));
        assert.equal(to.filter((address) => address === `whatsapp:${number}`).length, written.length);
      });
    }
  }

  test('what is no number is refused, and the refusal names the field', async () => {
    const before = await server.psql('SELECT count(*) FROM messages');
    for (const to of [
      '',
      '  ',
      'hello',
      '0',
      '12',
      '+',
      '+20',
      '+0123456789',
      '+999123456789',
      '01012345678901234567',
      'mona@example.com',
      'whatsapp:',
      '\u200f',
      null,
      201012345678,
      ['+201012345678'],
    ]) {
      const { status, body } = await server.request('POST', WHATSAPP, {
        token: tokens['owner@cairo'],
        body: { to, ...VISIT },
      });
      const about = `${JSON.stringify(to)}: ${status} ${JSON.stringify(body)}`;
      assert.ok(status === 400 || status === 422, about);
      assert.equal(body.success, false, about);
      assert.match(body.error, /^to\b/, about);
    }
    assert.equal(await server.psql('SELECT count(*) FROM messages'), before);
  });
});

// -- Functions for servers -------------------------------------------------------------------------------------

/** A server of the customer's, with the service-role key and the organisation it speaks for. */
const asServer = (key = server.serviceRoleKey, { orgId } = EGYPT) =>
  createClient(server.base, key, {
    auth: { persistSession: false, autoRefreshToken: false },
    global: { headers: { 'X-Org-Id': orgId } },
    realtime: { transport: WebSocket },
  });

/** Invokes and expects success; returns the body. */
async function invoke(name, body, client = asServer()) {
  const { data, error } = await client.functions.invoke(name, { body });
  if (error) assert.fail(`${error.message} (${error.context?.status}: ${await error.context?.text?.()})`);
  return data;
}

/** Invokes and expects a refusal; returns its status and body. */
async function refused(name, body, client = asServer()) {
  const { data, error } = await client.functions.invoke(name, { body });
  assert.equal(error?.name, 'FunctionsHttpError', `answered ${JSON.stringify(data)}`);
  const answer = await error.context.json();
  assert.equal(answer.success, false);
  assert.equal(typeof answer.error, 'string');
  return { status: error.context.status, error: answer.error };
}

/** A national number as Egyptians write it, and what it is. */
function localCustomer() {
  const number = newCustomer();
  return { number, local: number.replace('+20', '0') };
}

/** A template of the organisation's. */
async function template(name, text) {
  return server.psql(
    `INSERT INTO templates (org_id, id, name, message_template, variables)
     VALUES ('${EGYPT.orgId}', wasel.uuid7(), '${name}', '${text}', '["name"]') RETURNING id`,
  );
}

describe('send-twilio-message, for servers', () => {
  const NAME = 'send-twilio-message';

  test('an SMS to a number as Egyptians write it, logged with what the caller keeps with it', async () => {
    const { number, local } = localCustomer();
    const metadata = { work_order: 512, unit: 'ب-4' };
    const message = 'الفني في الطريق إليكم';
    const data = await invoke(NAME, { to: local, message, type: 'sms', request_id: 'wo-512', metadata });
    assert.equal(data.success, true);
    assert.equal(typeof data.status, 'string');
    const form = await reached(number);
    assert.deepEqual([form.From, form.Body], [EGYPT.number, message]);
    assert.ok(form.StatusCallback.includes('/functions/v1/twilio-delivery-status'), form.StatusCallback);
    const log = await until('it is delivered', async () => {
      const log = await logOf(data.message_id);
      return log.status === 'delivered' && log;
    });
    assert.deepEqual(
      [log.recipient, log.message_type, log.provider, log.request_id],
      [number, 'sms', 'twilio', 'wo-512'],
    );
    assert.equal(log.metadata.work_order, 512);
    assert.equal(log.metadata.unit, 'ب-4');
    assert.equal(log.sender_id, null, 'no person sent it');
  });

  test('an approved template by WhatsApp', async () => {
    const { number, local } = localCustomer();
    const data = await invoke(NAME, { to: local, type: 'whatsapp', ...VISIT });
    assert.equal(data.success, true);
    const form = await reached(`whatsapp:${number}`);
    assert.equal(form.ContentSid, CONTENT_SID);
    assert.deepEqual(JSON.parse(form.ContentVariables), VISIT.variables);
    assert.equal((await logOf(data.message_id)).message_type, 'whatsapp');
  });

  test('a text by WhatsApp to somebody who has written', async () => {
    const { number, local } = localCustomer();
    await openWindow(EGYPT, number, tokens['agent@cairo']);
    await invoke(NAME, { to: local, type: 'whatsapp', message: 'وصل الفني' });
    assert.equal((await reached(`whatsapp:${number}`)).Body, 'وصل الفني');
  });

  test('a file', async () => {
    const { number, local } = localCustomer();
    await invoke(NAME, { to: local, type: 'sms', message: 'The leak', media_url: 'https://files.example/leak.jpg' });
    const form = await reached(number);
    assert.deepEqual([form.Body, form.MediaUrl], ['The leak', 'https://files.example/leak.jpg']);
  });

  test("the organisation's own template with its variables", async () => {
    const { number, local } = localCustomer();
    const id = await template('visit-sms', 'Hello {{name}}, we come at ten.');
    await invoke(NAME, { to: local, type: 'sms', template_id: id, variables: { name: 'منى' } });
    assert.equal((await reached(number)).Body, 'Hello منى, we come at ten.');
  });

  test("a person's token gets 403, nobody's 401", async () => {
    const body = { to: '01012345678', message: 'x', type: 'sms' };
    for (const who of ['owner@cairo', 'agent@cairo']) {
      const client = createClient(server.base, server.anonKey, {
        accessToken: async () => tokens[who],
        realtime: { transport: WebSocket },
      });
      assert.equal((await refused(NAME, body, client)).status, 403, who);
    }
    assert.equal((await refused(NAME, body, asServer(server.anonKey))).status, 401);
  });

  test('what is wrong is refused and named', async () => {
    const good = { to: '01012345678', message: 'x', type: 'sms' };
    for (const [body, field] of [
      [{ ...good, type: 'fax' }, /\btype\b/],
      [{ ...good, to: 'hello' }, /\bto\b/],
      [{ ...good, to: undefined }, /\bto\b/],
      [{ ...good, message: undefined }, /\bmessage\b/],
    ]) {
      const { status, error } = await refused(NAME, body);
      assert.ok(status === 400 || status === 422, String(status));
      assert.match(error, field);
    }
    const unasked = await refused(NAME, { ...good, type: 'whatsapp', to: newCustomer() });
    assert.equal(unasked.status, 422, 'free text to somebody who never wrote');
  });
});

describe('send-unified-notification, for servers', () => {
  const NAME = 'send-unified-notification';
  const resultOf = ({ results }, channel) => results.find((result) => result.channel === channel);

  test('one text goes out by SMS and WhatsApp, each with its own id', async () => {
    const { number, local } = localCustomer();
    await openWindow(EGYPT, number, tokens['agent@cairo']);
    const message = 'تم استلام الإيجار';
    const data = await invoke(NAME, {
      channels: ['sms', 'whatsapp'],
      recipient_phone: local,
      message,
      request_id: 'rent-9',
    });
    assert.equal(data.success, true);
    assert.deepEqual(
      data.results.map(({ channel }) => channel),
      ['sms', 'whatsapp'],
    );
    for (const { channel, success, message_id } of data.results) {
      assert.equal(success, true, channel);
      const log = await logOf(message_id);
      assert.deepEqual([log.message_type, log.recipient, log.request_id], [channel, number, 'rent-9']);
    }
    assert.equal((await reached(number)).Body, message);
    assert.equal((await reached(`whatsapp:${number}`)).Body, message);
  });

  test('a channel that cannot is told with its reason, the others send all the same', async () => {
    const { number, local } = localCustomer();
    // The customer never wrote on WhatsApp, and there is no mail server.
    const body = {
      channels: ['whatsapp', 'email', 'sms'],
      recipient_phone: local,
      recipient_email: 'mona@example.com',
      message: 'x',
    };
    const data = await invoke(NAME, body);
    for (const channel of ['whatsapp', 'email']) {
      const { success, error } = resultOf(data, channel);
      assert.equal(success, false, channel);
      assert.equal(typeof error, 'string', channel);
    }
    assert.equal(resultOf(data, 'sms').success, true);
    await reached(number);
  });

  test('with fallback the next channel is taken where the first cannot', async () => {
    const { number, local } = localCustomer();
    const data = await invoke(NAME, {
      channels: ['whatsapp', 'sms'],
      recipient_phone: local,
      message: 'x',
      fallback: true,
    });
    assert.equal(data.success, true);
    assert.equal(resultOf(data, 'sms').success, true);
    await reached(number);
    assert.deepEqual(await formsTo(`whatsapp:${number}`), []);
  });

  test('with fallback nothing more is sent where the first can', async () => {
    const { number, local } = localCustomer();
    await openWindow(EGYPT, number, tokens['agent@cairo']);
    const data = await invoke(NAME, {
      channels: ['whatsapp', 'sms'],
      recipient_phone: local,
      message: 'x',
      fallback: true,
    });
    assert.equal(data.success, true);
    assert.equal(resultOf(data, 'whatsapp').success, true);
    await until(
      'it is delivered',
      async () => (await logOf(resultOf(data, 'whatsapp').message_id)).status === 'delivered',
    );
    assert.deepEqual(await formsTo(number), []);
  });

  test("the organisation's own template says the same by SMS and WhatsApp", async () => {
    const { number, local } = localCustomer();
    await openWindow(EGYPT, number, tokens['agent@cairo']);
    const id = await template('rent', 'Dear {{name}}, thank you.');
    const data = await invoke(NAME, {
      channels: ['sms', 'whatsapp'],
      recipient_phone: local,
      template_id: id,
      variables: { name: 'منى' },
    });
    assert.equal(data.success, true);
    for (const address of [number, `whatsapp:${number}`])
      assert.equal((await reached(address)).Body, 'Dear منى, thank you.');
  });

  test('what is wrong is refused and named, and without a token it is 401', async () => {
    const good = { channels: ['sms'], recipient_phone: '01012345678', message: 'x' };
    for (const [body, field] of [
      [{ ...good, channels: [] }, /channels/],
      [{ ...good, channels: ['fax'] }, /channels/],
      [{ ...good, message: undefined }, /message/],
    ]) {
      const { status, error } = await refused(NAME, body);
      assert.ok(status === 400 || status === 422, String(status));
      assert.match(error, field);
    }
    assert.equal((await refused(NAME, good, asServer(server.anonKey))).status, 401);
  });
});

// -- What every function has in common -------------------------------------------------------------------------

describe('any function, as the client expects it', () => {
  const client = () => createClient(server.base, server.anonKey, { realtime: { transport: WebSocket } });
  const NAMES = [
    'send-whatsapp',
    'send-twilio-message',
    'send-unified-notification',
    'send-notification',
    'process-queue',
    'whatsapp-init',
    'whatsapp-webhook',
    'twilio-delivery-status',
    'no-such-function',
  ];

  test('one that does not exist is a FunctionsHttpError with a code to read', async () => {
    const { data, error } = await client().functions.invoke('no-such-function', { body: {} });
    assert.equal(data, null);
    assert.equal(error.name, 'FunctionsHttpError');
    assert.equal(error.context.status, 404);
    const body = await error.context.json();
    assert.deepEqual([body.success, body.code, body.error], [false, 'not_found', 'there is no such function']);
  });

  test('a server that is not there is a FunctionsFetchError', async () => {
    const nowhere = createClient(`http://127.0.0.1:${await freePort()}`, server.anonKey, {
      realtime: { transport: WebSocket },
    });
    const { error } = await nowhere.functions.invoke('send-whatsapp', { body: {} });
    assert.equal(error.name, 'FunctionsFetchError');
  });

  test('each answers the preflight of a listed origin, and no other', async () => {
    const asked = 'authorization, apikey, x-client-info, content-type, x-region, traceparent, tracestate, baggage';
    for (const name of NAMES) {
      const preflight = (origin) =>
        server.request('OPTIONS', `/functions/v1/${name}`, {
          headers: { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': asked },
        });
      const good = await preflight(pages.allowed);
      assert.ok(good.status === 200 || good.status === 204, `${name}: ${good.status}`);
      assert.equal(good.headers.get('access-control-allow-origin'), pages.allowed, name);
      assert.equal(good.headers.get('access-control-max-age'), '86400', name);
      const allowed = good.headers.get('access-control-allow-headers');
      for (const header of asked.split(', ')) assert.ok(allowed.includes(header), `${name}: ${header}`);
      assert.equal((await preflight(pages.other)).headers.get('access-control-allow-origin'), null, name);
    }
  });

  test('each failure is JSON that a page of a listed origin may read', async () => {
    const origin = pages.allowed;
    const token = tokens['owner@cairo'];
    const large = JSON.stringify({ message: 'x'.repeat(4 * 1024 * 1024) });
    for (const [status, method, name, options] of [
      [401, 'POST', 'send-whatsapp', { body: {} }],
      [401, 'POST', 'whatsapp-init', { body: {} }],
      [401, 'POST', 'send-notification', { body: {}, token: 'nonsense' }],
      [403, 'POST', 'process-queue', { body: {}, token }],
      [404, 'POST', 'no-such-function', { body: {}, token }],
      [405, 'DELETE', 'send-whatsapp', { token }],
      [413, 'POST', 'send-whatsapp', { body: large, token, headers: { 'content-type': 'application/json' } }],
      [413, 'POST', 'process-queue', { body: large, token: server.serviceRoleKey }],
      [415, 'POST', 'send-whatsapp', { body: 'text', token, headers: { 'content-type': 'text/plain' } }],
      [400, 'POST', 'send-whatsapp', { body: '{', token, headers: { 'content-type': 'application/json' } }],
    ]) {
      const answer = await server.request(method, `/functions/v1/${name}`, {
        ...options,
        headers: { origin, ...options.headers },
      });
      const what = `${method} ${name}: ${JSON.stringify(answer.body)}`;
      assert.equal(answer.status, status, what);
      assert.equal(answer.body.success, false, what);
      assert.equal(typeof answer.body.code, 'string', what);
      assert.equal(answer.headers.get('access-control-allow-origin'), origin, what);
      assert.equal(answer.headers.get('x-relay-error'), null, what);
    }
  });

  test('a region is no hindrance', async () => {
    const { error } = await client().functions.invoke('process-queue', {
      region: 'eu-central-1',
      headers: { authorization: `Bearer ${server.serviceRoleKey}` },
    });
    assert.equal(error, null);
  });

  test('whatsapp-init is for owners and admins of their own organisation', async () => {
    const invoke = async (who, body) => {
      const { error } = await client().functions.invoke('whatsapp-init', {
        body,
        headers: { authorization: `Bearer ${tokens[who]}` },
      });
      return [error.context.status, (await error.context.json()).success];
    };
    assert.deepEqual(await invoke('agent@cairo', { org_id: EGYPT.orgId }), [403, false]);
    assert.deepEqual(await invoke('owner@cairo', { org_id: SAUDI.orgId }), [404, false]);
    assert.deepEqual(await invoke('owner@cairo', { org_id: EGYPT.orgId, phone_number: 'hello' }), [400, false]);
  });

  test("whatsapp-webhook shakes hands with the secret's word and takes only what is signed", async () => {
    const path = '/functions/v1/whatsapp-webhook';
    const query = 'hub.mode=subscribe&hub.challenge=4711&hub.verify_token=';
    assert.equal((await server.request('GET', `${path}?${query}wrong`)).status, 403);
    const unsigned = await server.request('POST', path, { body: { object: 'whatsapp_business_account', entry: [] } });
    assert.ok([401, 403].includes(unsigned.status), String(unsigned.status));
  });
});
