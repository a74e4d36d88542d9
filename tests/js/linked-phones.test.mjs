// Linked phones as a front end of the documents sees them, and the other way round: Baileys, unmodified, on the same
// simulated WhatsApp as one of its devices.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { after, before, describe, test } from 'node:test';

import makeWASocket, { Browsers, WA_CERT_DETAILS, initAuthCreds, makeCacheableSignalKeyStore } from '@whiskeysockets/baileys';
import pino from 'pino';

import { Feed, signedIn } from './feed.mjs';
import { freePort, startWorld, temporaryDirectory, until } from './harness.mjs';

const BUSINESS = '+201001234567';
const CUSTOMER = '+201119876543';

let world;
let a;

before(async () => {
  world = await startWorld({ linkedPhones: true });
  a = world.a;
  for (const [number, name] of [[BUSINESS, 'Clinic'], [CUSTOMER, 'منى']]) {
    await world.simulator.control('POST', '/whatsapp-web/phones', { number, name });
  }
});
after(() => world?.stop());

// The client's Signal library prints sessions, keys and all.
console.info = () => {};

const whatsapp = (method, path, body) => world.simulator.control(method, `/whatsapp-web${path}`, body);
const api = (method, path, body) => world.server.call(method, path, { token: a.token, body });
const messagesOf = async (number) => whatsapp('GET', `/messages?phone=${encodeURIComponent(number)}`);

/** The last step of the documents' flow: the phone scans what the page shows. */
async function scan(sessionId) {
  const { code } = await until('a QR code', () => api('GET', `/v1/sessions/${sessionId}/qr`).catch(() => null));
  await whatsapp('POST', '/scan', { number: BUSINESS, qr: code });
}

describe('a linked phone', () => {
  test('is linked as the documents do it, and its row tells each step live', async () => {
    const client = await signedIn(world.server, a);
    const feed = await Feed.open(client, 'sessions', { table: 'whatsapp_sessions' });
    const begun = await api('POST', '/api/sessions/init', { org_id: a.orgId });
    assert.equal(begun.success, true);
    assert.equal(begun.status, 'qr_pending');
    assert.match(begun.qr_code, /^data:image\/png;base64,/);
    const qr = await api('GET', `/api/sessions/${a.orgId}/qr`);
    assert.ok(Date.parse(qr.expires_at) > Date.now());
    await scan(begun.session_id);
    const connected = await feed.hears('the connection', (change) => change.new?.status === 'connected');
    assert.equal(connected.new.phone_number, BUSINESS);
    assert.equal(connected.new.qr_code, null);
    const seen = feed.heard.map((change) => change.new?.status);
    assert.ok(seen.includes('qr_pending'), `steps seen: ${seen}`);
    const status = await api('GET', `/api/sessions/${a.orgId}/status`);
    assert.equal(status.status, 'connected');
    assert.equal(status.phone_number, BUSINESS);
    const { status: none } = await world.server.request('GET', `/api/sessions/${a.orgId}/qr`, { token: a.token });
    assert.equal(none, 404, 'no code for a phone that is linked');
    await client.removeAllChannels();
  });

  test('keeps its state where no member can read it', async () => {
    const columns = await world.server.psql(
      "SELECT count(*) FROM whatsapp_sessions WHERE auth_state IS NOT NULL",
    );
    assert.equal(columns, '0');
    assert.notEqual(await world.server.psql('SELECT count(*) FROM whatsapp_session_keys'), '0');
    const allowed = await world.server.psql("SELECT has_table_privilege('authenticated', 'whatsapp_session_keys', 'SELECT')");
    assert.equal(allowed, 'f');
  });
});

/** A device of somebody's phone, run by Baileys with its state in memory. */
class BaileysDevice {
  messages = [];

  static async link(number) {
    const device = new BaileysDevice();
    const { url, root_key: root } = await whatsapp('GET', '/url');
    WA_CERT_DETAILS.PUBLIC_KEY = Buffer.from(root, 'hex');
    device.url = url;
    device.creds = initAuthCreds();
    const data = new Map();
    device.logger = pino({ level: 'silent' });
    const keys = {
      get: async (type, ids) => Object.fromEntries(ids.map((id) => [id, data.get(`${type}/${id}`)])),
      set: async (all) => {
        for (const [type, values] of Object.entries(all)) {
          for (const [id, value] of Object.entries(values)) {
            if (value) data.set(`${type}/${id}`, value);
            else data.delete(`${type}/${id}`);
          }
        }
      },
    };
    device.keys = makeCacheableSignalKeyStore(keys, device.logger);
    const opened = new Promise((resolve) => {
      device.opened = resolve;
    });
    device.number = number;
    device.connect();
    await opened;
    return device;
  }

  connect() {
    this.socket = makeWASocket({
      auth: { creds: this.creds, keys: this.keys },
      browser: Browsers.ubuntu('Chrome'),
      logger: this.logger,
      shouldSyncHistoryMessage: () => false,
      waWebSocketUrl: this.url,
    });
    this.socket.ev.on('creds.update', (changed) => Object.assign(this.creds, changed));
    this.socket.ev.on('connection.update', ({ connection, qr }) => {
      if (qr) whatsapp('POST', '/scan', { number: this.number, qr }).catch(() => {});
      if (connection === 'open') this.opened();
      // After the linking the server asks for a new connection.
      if (connection === 'close' && !this.closed) setTimeout(() => this.connect(), 50);
    });
    this.socket.ev.on('messages.upsert', ({ messages }) => this.messages.push(...messages));
  }

  close() {
    this.closed = true;
    this.socket.end(undefined);
  }
}

const jid = (number) => `${number.slice(1)}@s.whatsapp.net`;
const textOf = ({ message }) => message?.conversation ?? message?.extendedTextMessage?.text;

test('Baileys as a device of the customer chats with our session, end to end, with ticks', async () => {
  const device = await BaileysDevice.link(CUSTOMER);
  try {
    const question = 'هل العيادة مفتوحة الآن؟';
    await device.socket.sendMessage(jid(BUSINESS), { text: question });
    const inbound = await until('the question in our inbox', async () => {
      const { data: conversations } = await api('GET', '/v1/conversations');
      for (const conversation of conversations) {
        const { data } = await api('GET', `/v1/conversations/${conversation.id}/messages`);
        const found = data.find((message) => message.body === question);
        if (found) return found;
      }
      return null;
    });
    assert.equal(inbound.direction, 'inbound');
    const answer = 'نعم، حتى التاسعة مساءً';
    const sent = await api('POST', '/v1/messages', {
      conversation_id: inbound.conversation_id,
      content: { type: 'text', body: answer },
    });
    const shown = await until('the answer at Baileys', () => device.messages.find((one) => textOf(one) === answer));
    assert.equal(shown.key.fromMe, false);
    await until('the second tick', async () => (await api('GET', `/v1/messages/${sent.id}`)).status === 'delivered');
    await device.socket.readMessages([shown.key]);
    await until('the blue ticks', async () => (await api('GET', `/v1/messages/${sent.id}`)).status === 'read');
    const failures = await whatsapp('GET', `/failures?phone=${encodeURIComponent(CUSTOMER)}`);
    assert.deepEqual(failures, []);
    const phone = await messagesOf(CUSTOMER);
    assert.ok(phone.every((message) => message.copies === 1), JSON.stringify(phone));
  } finally {
    device.close();
  }
});

test('a release build refuses the simulated WhatsApp', { skip: !process.env.WASEL_PLAIN_BIN }, async () => {
  const directory = await temporaryDirectory();
  const port = await freePort();
  const { url } = await whatsapp('GET', '/url');
  const child = spawn(process.env.WASEL_PLAIN_BIN, ['serve'], {
    env: {
      PATH: process.env.PATH,
      PORT: String(port),
      WASEL_SERVER_LISTEN: '127.0.0.1',
      WASEL_DATA_DIR: directory,
      WHATSAPP_WEB_URL: url,
      SUPABASE_SERVICE_ROLE_KEY: 'sb_secret_release-build-0123456789',
    },
    stdio: 'ignore',
  });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  try {
    const base = `http://127.0.0.1:${port}`;
    await until('the release build', () => fetch(`${base}/readyz`).then((answer) => answer.ok, () => false), 60_000);
    const headers = { authorization: 'Bearer sb_secret_release-build-0123456789', 'content-type': 'application/json' };
    const org = await applyOrg(directory, port);
    const begin = { method: 'POST', headers: { ...headers, 'x-org-id': org }, body: JSON.stringify({ name: 'Phone' }) };
    const session = await (await fetch(`${base}/v1/sessions`, begin)).json();
    const row = await until('its refusal', async () => {
      const answer = await fetch(`${base}/v1/sessions/${session.id}`, { headers: { ...headers, 'x-org-id': org } });
      const now = await answer.json();
      assert.notEqual(now.status, 'qr_pending', 'it must not get as far as a code');
      return now.connection_error && now;
    });
    assert.match(row.connection_error, /certificate|handshake/i);
  } finally {
    child.kill('SIGTERM');
    await ended;
  }
});

/** An organisation on the release build's own database. */
async function applyOrg(directory, port) {
  const child = spawn(process.env.WASEL_PLAIN_BIN, ['apply', '--json', '-'], {
    env: { PATH: process.env.PATH, PORT: String(port), WASEL_DATA_DIR: directory },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  child.stdin.end('[[organizations]]\nslug = "o"\nname = "O"\n');
  let output = '';
  for await (const chunk of child.stdout) output += chunk;
  return JSON.parse(output).organizations[0].id;
}
