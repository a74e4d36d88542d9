// Many sessions of Baileys in one process, for `bench sessions`. Arguments: the address of the simulated WhatsApp, and
// how many. Says what happens as JSON, a line each; is told `connect` and `send N` on standard input.

import { createInterface } from 'node:readline';

import makeWASocket, { Browsers, initAuthCreds, makeCacheableSignalKeyStore, WA_CERT_DETAILS } from '@whiskeysockets/baileys';
import pino from 'pino';

const [url, count] = [process.argv[2], Number(process.argv[3])];
const control = new URL('/sim/whatsapp-web/', url.replace(/^ws/, 'http'));
const logger = pino({ level: 'silent' });
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const number = (prefix, n) => `${prefix}${String(n).padStart(8, '0')}@s.whatsapp.net`;
const sockets = new Map();
let connected = 0;
let received = 0;

/** The plainest store there is: everything in memory. */
function memoryState() {
  const creds = initAuthCreds();
  const data = new Map();
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
  return { creds, keys: makeCacheableSignalKeyStore(keys, logger) };
}

function connect(n, state = memoryState()) {
  const socket = makeWASocket({
    auth: state,
    browser: Browsers.ubuntu('Chrome'),
    logger,
    markOnlineOnConnect: true,
    shouldSyncHistoryMessage: () => false,
    syncFullHistory: false,
    waWebSocketUrl: url,
  });
  sockets.set(n, socket);
  socket.ev.on('creds.update', (changed) => Object.assign(state.creds, changed));
  socket.ev.on('connection.update', ({ connection, qr }) => {
    if (qr) say({ qr: { n, code: qr } });
    if (connection === 'open') {
      connected += 1;
      say({ connected });
    }
    // After the linking the server asks for a new connection.
    if (connection === 'close') setTimeout(() => connect(n, state), 100);
  });
  socket.ev.on('messages.upsert', ({ messages }) => {
    received += messages.filter((one) => !one.key.fromMe && one.message).length;
    say({ received });
  });
}

async function send(times) {
  for (let message = 0; message < times; message += 1) {
    await Promise.all(
      [...sockets].map(([n, socket]) => socket.sendMessage(number('2011', n), { text: `${message}: it is on its way` })),
    );
  }
}

const { root_key: root } = await (await fetch(new URL('url', control))).json();
WA_CERT_DETAILS.PUBLIC_KEY = Buffer.from(root, 'hex');
say('ready');
for await (const line of createInterface({ input: process.stdin })) {
  const [word, times] = line.split(' ');
  if (word === 'connect') {
    for (let n = 0; n < count; n += 1) {
      connect(n);
      // As many at a time as a fleet that starts carefully.
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
  if (word === 'send') await send(Number(times));
}
