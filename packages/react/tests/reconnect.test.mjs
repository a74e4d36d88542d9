// A network that breaks, and a phone that is linked: what takes the hooks through several states.

import assert from 'node:assert/strict';
import { connect, createServer } from 'node:net';
import { after, afterEach, before, describe, test } from 'node:test';

import { startWorld, until } from '../../../tests/js/harness.mjs';
import { deliver, inboundText } from '../../../tests/js/meta.mjs';
import { act, clientOf, leave, mount } from './setup.mjs';

const { resumable, useConversations, useMessages, useWhatsAppSession } = await import('@wasel/react');

const BUSINESS = '+201001234567';

let world;
let a;
let proxy;

before(async () => {
  world = await startWorld({ linkedPhones: true });
  a = world.a;
  proxy = await startProxy(world.server.port);
  await control('POST', '/phones', { number: BUSINESS, name: 'Clinic' });
});
after(async () => {
  proxy?.close();
  await world?.stop();
});
afterEach(async () => {
  proxy.mend();
  await leave();
});

const control = (method, path, body) => world.simulator.control(method, `/whatsapp-web${path}`, body);

/** A way to the server that can be cut. */
async function startProxy(port) {
  const sockets = new Set();
  let isCut = false;
  const server = createServer((near) => {
    if (isCut) {
      near.destroy();
      return;
    }
    const far = connect(port, '127.0.0.1');
    for (const [from, to] of [[near, far], [far, near]]) {
      sockets.add(from);
      from.pipe(to);
      from.on('error', () => to.destroy());
      from.on('close', () => {
        sockets.delete(from);
        to.destroy();
      });
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    base: `http://127.0.0.1:${server.address().port}`,
    cut: () => {
      isCut = true;
      for (const socket of sockets) socket.destroy();
    },
    mend: () => {
      isCut = false;
    },
    close: () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}

let lastNumber = 16505570000;
async function newConversation(body) {
  const from = String((lastNumber += 1));
  await deliver(world.server, a, inboundText(a, body, { from }));
  const { data } = await world.server.call('GET', `/v1/conversations?search=${from}`, { token: a.token });
  return { ...data[0], customer: from };
}

/** Messages written past the server, each by a statement of its own. */
function insertMessages(conversation, from, to) {
  const statements = [];
  for (let n = from; n <= to; n += 1) {
    statements.push(`
      INSERT INTO messages (org_id, id, conversation_id, channel_id, contact_id, direction, message_type, status, body, created_at)
      SELECT org_id, gen_random_uuid(), id, channel_id, contact_id, 'inbound', 'text', 'received', 'n ${n}', clock_timestamp()
      FROM conversations WHERE id = '${conversation.id}'`);
  }
  return world.server.psql(statements.join(';'));
}

const numbered = (from, to) => Array.from({ length: to - from + 1 }, (_, n) => `n ${from + n}`);

describe('after a break', () => {
  test('a subscription hears what it missed, in order and once, without reading anew', async () => {
    const conversation = await newConversation('before');
    const client = await clientOf(world.server, a, { base: proxy.base });
    const stop = new AbortController();
    const heard = [];
    let reloads = 0;
    let isLive = false;
    const filter = `conversation_id=eq.${conversation.id}`;
    const events = {
      change: ({ row }) => heard.push(row.body),
      reload: () => {
        reloads += 1;
      },
      live: (now) => {
        isLive = now;
      },
    };
    resumable(client, { table: 'messages', filter }, events, stop.signal);
    await until('the subscription', () => isLive);
    await insertMessages(conversation, 1, 5);
    await until('the first five', () => heard.length === 5);
    proxy.cut();
    await until('the break', () => !isLive);
    await insertMessages(conversation, 6, 45);
    proxy.mend();
    await until('the subscription again', () => isLive);
    await insertMessages(conversation, 46, 50);
    await until(() => `all fifty; heard ${heard}`, () => heard.includes('n 50'));
    stop.abort();
    assert.deepEqual(heard, numbered(1, 50));
    assert.equal(reloads, 1, 'at the beginning only');
  });

  test('inbox and thread are whole again', async () => {
    const [conversation, quiet] = [await newConversation('before'), await newConversation('quiet')];
    const client = await clientOf(world.server, a, { base: proxy.base });
    const view = mount(client, () => ({
      thread: useMessages(conversation.id),
      // Hears nothing before the break, so that it has no position to go on from.
      silent: useMessages(quiet.id),
      inbox: useConversations(),
    }));
    await view.shows('all rows', (now) => Object.values(now).every((one) => one.live && !one.loading));
    await insertMessages(conversation, 1, 3);
    await view.shows('the first three', (now) => now.thread.messages.length === 4);
    proxy.cut();
    await view.shows('the break', (now) => Object.values(now).every((one) => !one.live));
    await insertMessages(conversation, 4, 20);
    await deliver(world.server, a, inboundText(a, 'not so quiet', { from: quiet.customer }));
    await world.server.psql(`DELETE FROM messages WHERE body = 'n 2' AND conversation_id = '${conversation.id}'`);
    proxy.mend();
    const { thread } = await view.shows(
      'everything',
      (now) =>
        now.thread.messages.at(-1)?.body === 'n 20' &&
        now.silent.messages.at(-1)?.body === 'not so quiet' &&
        now.inbox.conversations.find((row) => row.id === quiet.id)?.last_message === 'not so quiet',
    );
    const wanted = ['before', ...numbered(1, 20).filter((body) => body !== 'n 2')];
    assert.deepEqual(thread.messages.map((message) => message.body), wanted);
  });

  test('a server that was restarted is found again', async () => {
    const conversation = await newConversation('before the restart');
    const thread = mount(await clientOf(world.server, a), () => useMessages(conversation.id));
    await thread.shows('the thread', (now) => now.live && now.messages.length === 1);
    await world.server.restart();
    await thread.shows('the feed', (now) => now.live);
    await deliver(world.server, a, inboundText(a, 'after the restart', { from: conversation.customer }));
    await thread.shows('the new message', (now) => now.messages.at(-1)?.body === 'after the restart');
    assert.equal(thread.shown().messages.length, 2);
  });
});

describe('useWhatsAppSession', () => {
  test('takes a phone from nothing to connected and back', async () => {
    const view = mount(await clientOf(world.server, a), () => useWhatsAppSession());
    await view.shows('nothing linked', (now) => now.live && !now.loading && now.status === 'disconnected' && !now.session);
    let connecting;
    act(() => {
      connecting = view.shown().connect();
    });
    assert.equal(view.shown().busy, 'connecting');
    assert.equal(await connecting, true);
    const waiting = await view.shows('a QR code', (now) => now.qrCode !== null && now.busy === null);
    assert.equal(waiting.status, 'qr_pending');
    assert.match(waiting.qrCode, /^data:image\/png;base64,/);
    assert.ok(waiting.expiresAt > new Date());
    const { code } = await world.server.call('GET', `/v1/sessions/${waiting.session.id}/qr`, { token: a.token });
    await control('POST', '/scan', { number: BUSINESS, qr: code });
    const connected = await view.shows('the connection', (now) => now.status === 'connected');
    assert.equal(connected.phoneNumber, BUSINESS);
    assert.equal(connected.displayName, 'Clinic');
    assert.deepEqual([connected.qrCode, connected.expiresAt], [null, null]);
    assert.equal(await view.shown().logout(), true, view.shown().error?.message);
    const gone = await view.shows('the end', (now) => now.status !== 'connected' && now.phoneNumber === null);
    assert.equal(gone.session.stop_reason, 'logged_out');
  });

  test('gives a code to type in where a number is given', async () => {
    const view = mount(await clientOf(world.server, a), () => useWhatsAppSession());
    await view.shows('the session', (now) => now.live && !now.loading);
    assert.equal(await view.shown().connect({ phoneNumber: BUSINESS }), true, view.shown().error?.message);
    const { pairingCode } = await view.shows('the code', (now) => now.pairingCode !== null);
    assert.match(pairingCode, /^[0-9A-Z]{4}-?[0-9A-Z]{4}$/);
  });

  test('says what is wrong with a number, and to whom it does not belong', async () => {
    const view = mount(await clientOf(world.server, a), () => useWhatsAppSession());
    await view.shows('the session', (now) => now.live && !now.loading);
    assert.equal(await view.shown().connect({ phoneNumber: 'none' }), false);
    await view.shows('the error', (now) => now.error !== null && now.error.status >= 400 && now.busy === null);
    const other = mount(await clientOf(world.server, world.b), () => useWhatsAppSession());
    await other.shows('nothing of the other tenant', (now) => now.live && !now.loading && now.session === null);
    assert.equal(await other.shown().logout(), false);
  });
});
