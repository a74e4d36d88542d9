// Realtime beyond a plain feed, with the unmodified @supabase/supabase-js: coming back after a cut, private topics,
// broadcasts over HTTP, several nodes, lost rights.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';

import WebSocket from 'ws';

import { Feed, signedIn, supabase } from './feed.mjs';
import { freePort, Process, sleep, startWorld, temporaryDirectory, until } from './harness.mjs';
import { deliver, inboundText } from './meta.mjs';

let world;
const clients = [];
const people = {};

before(async () => {
  world = await startWorld();
  const password = 'correct horse battery staple';
  const names = ['agent', 'limited', 'viewer', 'leaver'];
  const users = names.map((name) => {
    people[name] = { email: `${name}@tenant-a.example`, password };
    const role = name === 'viewer' ? 'viewer' : 'agent';
    return `[[organizations.users]]\nemail = "${name}@tenant-a.example"\npassword = "${password}"\nrole = "${role}"\nfull_name = "${name}"`;
  });
  const { organizations } = await world.server.apply(
    `[[organizations]]\nslug = "tenant-a"\nname = "tenant-a"\n${users.join('\n')}\n`,
  );
  for (const { id, email } of organizations[0].users) {
    const name = email.split('@')[0];
    if (people[name]) people[name].id = id;
  }
  await world.server.psql(`INSERT INTO channel_members (org_id, channel_id, user_id)
    VALUES ('${world.a.orgId}', '${world.a.channels.twilio_sms}', '${people.limited.id}')`);
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
const clientOf = async (person, server = world.server) => track(await signedIn(server, person));

let lastNumber = 16505570000;
async function newConversation(tenant) {
  const from = String((lastNumber += 1));
  await deliver(world.server, tenant, inboundText(tenant, 'Hello', { from }));
  const { data } = await world.server.call('GET', `/v1/conversations?search=${from}`, { token: tenant.token });
  return data[0].id;
}

/** Writes messages by plain SQL, in one statement. */
const write = (conversation, first, last) =>
  world.server.psql(`
    INSERT INTO messages (org_id, id, conversation_id, channel_id, contact_id, direction, message_type, status, body)
    SELECT org_id, gen_random_uuid(), id, channel_id, contact_id, 'inbound', 'text', 'received', 'row ' || n
    FROM conversations, generate_series(${first}, ${last}) n WHERE id = '${conversation}'`);

/** A way to the server that can be cut. */
async function startProxy(server) {
  const sockets = new Set();
  const proxy = { isCut: false };
  const listener = createServer((near) => {
    if (proxy.isCut) return near.destroy();
    const far = connect(server.port, '127.0.0.1');
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
  await new Promise((resolve) => listener.listen(0, '127.0.0.1', resolve));
  proxy.base = `http://127.0.0.1:${listener.address().port}`;
  proxy.anonKey = server.anonKey;
  proxy.cut = () => {
    proxy.isCut = true;
    for (const socket of sockets) socket.destroy();
  };
  proxy.mend = () => {
    proxy.isCut = false;
  };
  proxy.stop = () => {
    proxy.cut();
    return new Promise((resolve) => listener.close(resolve));
  };
  return proxy;
}

/** A subscriber that comes back with the last number it heard, as the documents say. */
function resuming(client, name, bindings) {
  const heard = bindings.map(() => []);
  const statuses = [];
  const channel = client.channel(name);
  const asked = bindings.map((wanted) => ({ event: '*', schema: 'public', after: null, ...wanted }));
  asked.forEach((binding, index) => {
    channel.on('postgres_changes', binding, (change) => {
      heard[index].push(change);
      binding.after = (change.eventType === 'DELETE' ? change.old : change.new).change_seq;
    });
  });
  const problems = [];
  channel.on('system', {}, (message) => {
    if (message.status === 'error') problems.push(message.message);
    for (const binding of asked) binding.after ??= message.after ?? null;
  });
  channel.subscribe((status) => statuses.push(status));
  return { heard, statuses, problems, channel };
}

async function joinedTo(client, name, config) {
  const statuses = [];
  const errors = [];
  const channel = client.channel(name, { config });
  const heard = [];
  channel.on('broadcast', { event: '*' }, ({ event, payload }) => heard.push({ event, payload }));
  channel.subscribe((status, error) => {
    statuses.push(status);
    if (error) errors.push(error.message);
  });
  await until(`${name} is answered`, () => statuses.length > 0);
  return { channel, heard, statuses, errors };
}

describe('coming back', () => {
  test('a subscriber cut off for 30 s during 10,000 changes misses none and hears none twice', async () => {
    const [one, other] = [await newConversation(world.a), await newConversation(world.a)];
    const proxy = await startProxy(world.server);
    try {
      const client = await clientOf(world.a, proxy);
      const feed = resuming(client, 'resume', [
        { table: 'messages' },
        { table: 'whatsapp_messages', filter: `conversation_id=eq.${one}` },
        { event: 'INSERT', table: 'messages', filter: `conversation_id=eq.${other}` },
      ]);
      // This one hears nothing before it is cut off.
      const quiet = resuming(client, 'quiet', [{ table: 'chat_messages', filter: `conversation_id=eq.${other}` }]);
      await until('the subscriptions', () => [feed, quiet].every(({ statuses }) => statuses.includes('SUBSCRIBED')));
      // And the same as server-sent events, by the last id seen.
      const events = { seqs: [], bodies: [] };
      let lastId;
      const stream = async (until) => {
        const headers = { accept: 'text/event-stream', authorization: `Bearer ${world.a.token}` };
        if (lastId) headers['last-event-id'] = lastId;
        const response = await fetch(`${proxy.base}/v1/changes?tables=messages`, { headers });
        let text = '';
        try {
          for await (const chunk of response.body) {
            text += Buffer.from(chunk).toString('utf8');
            const parts = text.split('\n\n');
            text = parts.pop();
            for (const part of parts) {
              const id = part.match(/^id: ?(\d+)$/m)?.[1];
              if (!id) continue;
              lastId = id;
              if (!/^data:/m.test(part)) continue;
              events.seqs.push(Number(id));
              events.bodies.push(JSON.parse(part.match(/^data: ?(.*)$/m)[1]).record.body);
            }
            if (until()) return;
          }
        } catch {
          // Cut.
        }
      };
      const first = stream(() => false);
      await sleep(500);
      await write(one, 1, 100);
      await until('the rows before the cut', () => feed.heard[0].length === 100 && events.bodies.length === 100);

      const started = Date.now();
      proxy.cut();
      await first;
      let next = 101;
      while (next <= 10_000) {
        const last = Math.min(next + 329, 10_000);
        await write(next % 660 === 101 ? other : one, next, last);
        next = last + 1;
        await sleep(200);
      }
      await sleep(Math.max(0, 30_000 - (Date.now() - started)));
      assert.equal(feed.heard[0].length, 100, 'it was cut off');
      proxy.mend();
      const second = stream(() => events.bodies.length >= 10_050);
      // Rows that come while it reads what it missed.
      await write(other, 10_001, 10_050);
      await until(
        () => `all rows; heard ${feed.heard.map((heard) => heard.length)} and ${events.bodies.length} events; ${feed.problems}`,
        () => feed.heard[0].length >= 10_050 && events.bodies.length >= 10_050,
        60_000,
      );
      await second;
      await sleep(500);
      const bodies = (heard) => heard.map((change) => change.new.body ?? change.new.content);
      const all = Array.from({ length: 10_050 }, (_, n) => `row ${n + 1}`);
      assert.deepEqual(bodies(feed.heard[0]), all);
      assert.deepEqual(events.bodies, all);
      const [ofOne, ofOther] = [bodies(feed.heard[1]), bodies(feed.heard[2])];
      assert.equal(new Set([...ofOne, ...ofOther]).size, 10_050, 'every row is in one of the two');
      assert.equal(ofOne.length + ofOther.length, 10_050, 'and only once');
      assert.ok(ofOther.length > 1000, 'both are written to');
      await until('the quiet one', () => quiet.heard[0].length >= ofOther.length);
      assert.deepEqual(bodies(quiet.heard[0]), ofOther);
      assert.deepEqual([...feed.problems, ...quiet.problems], []);
      assert.equal(typeof feed.heard[0][0].new.change_seq, 'number');
    } finally {
      await proxy.stop();
    }
  });

  test('a number that is no longer kept is said, and the feed goes on from now', async () => {
    const conversation = await newConversation(world.a);
    const client = await clientOf(world.a);
    const feed = resuming(client, 'old', [{ table: 'messages', after: 10_000_000_000 }]);
    await until('the problem is told', () => feed.problems.length > 0);
    assert.match(feed.problems[0], /after 10000000000 are no longer kept: load the rows anew, then go on from \d+/);
    await write(conversation, 1, 1);
    await until('the row', () => feed.heard[0].length === 1);
  });

  test('one statement over many rows arrives whole', async () => {
    const client = await clientOf(world.a);
    const feed = resuming(client, 'many', [{ event: 'INSERT', table: 'contacts' }]);
    await until('the subscription', () => feed.statuses.includes('SUBSCRIBED'));
    await world.server.psql(`INSERT INTO contacts (org_id, id, name)
      SELECT '${world.a.orgId}', gen_random_uuid(), 'many ' || n FROM generate_series(1, 30000) n`);
    await until(() => `all rows; heard ${feed.heard[0].length}`, () => feed.heard[0].length >= 30_000, 60_000);
    const names = new Set(feed.heard[0].map((change) => change.new.name));
    assert.equal(names.size, 30_000);
    assert.equal(feed.heard[0].length, 30_000);
    assert.deepEqual(feed.statuses, ['SUBSCRIBED'], 'on one connection');
  });
});

describe('topics', () => {
  test('who types and who is online is seen by the others, of this tenant only', async () => {
    const conversation = await newConversation(world.a);
    const topic = `conversation:${conversation}`;
    const [owner, agent, stranger] = [await clientOf(world.a), await clientOf(people.agent), await clientOf(world.b)];
    const typing = await joinedTo(owner, topic, { private: true });
    const heard = await joinedTo(agent, topic, { private: true });
    assert.deepEqual([typing.statuses, heard.statuses], [['SUBSCRIBED'], ['SUBSCRIBED']]);
    const refused = await joinedTo(stranger, topic, { private: true });
    assert.equal(refused.statuses[0], 'CHANNEL_ERROR');
    assert.match(refused.errors[0], /Unauthorized/);
    // The public topic of that name is another one.
    const open = await joinedTo(await clientOf(people.agent), topic, {});
    const payload = { user_id: world.a.userId, name: 'Owner', is_typing: true };
    await typing.channel.send({ type: 'broadcast', event: 'typing', payload });
    await until('the typing', () => heard.heard.length === 1);
    assert.deepEqual(heard.heard[0], { event: 'typing', payload });
    assert.deepEqual(open.heard, []);

    const present = async (client, key) => {
      const channel = client.channel('online', { config: { private: true, presence: { key } } });
      channel.on('presence', { event: 'sync' }, () => {});
      await new Promise((resolve) => channel.subscribe((status) => status === 'SUBSCRIBED' && resolve()));
      await channel.track({ user_id: key, name: key, online_at: new Date().toISOString() });
      return channel;
    };
    const [one, two] = [await present(owner, 'owner'), await present(agent, 'agent')];
    const foreign = await present(stranger, 'stranger');
    await until('both see both', () =>
      [one, two].every((channel) => Object.keys(channel.presenceState()).sort().join() === 'agent,owner'),
    );
    assert.deepEqual(Object.keys(foreign.presenceState()), ['stranger']);
    await two.untrack();
    await until('one has left', () => Object.keys(one.presenceState()).join() === 'owner');
  });

  test('private topics open for those they are for', async () => {
    const conversation = await newConversation(world.a);
    const limited = await clientOf(people.limited);
    const refused = await joinedTo(limited, `conversation:${conversation}`, { private: true });
    assert.equal(refused.statuses[0], 'CHANNEL_ERROR', 'not a conversation of their channel');
    assert.equal((await joinedTo(limited, 'news', { private: true })).statuses[0], 'SUBSCRIBED');
    const own = await joinedTo(limited, `user:${people.limited.id}`, { private: true });
    assert.equal(own.statuses[0], 'SUBSCRIBED');
    const others = await joinedTo(limited, `user:${world.a.userId}`, { private: true });
    assert.match(others.errors[0], /Unauthorized: This topic is somebody else's/);

    const viewer = await clientOf(people.viewer);
    const listening = await joinedTo(viewer, `conversation:${conversation}`, { private: true, broadcast: { ack: true } });
    const agent = await joinedTo(await clientOf(people.agent), `conversation:${conversation}`, { private: true });
    assert.equal(await listening.channel.send({ type: 'broadcast', event: 'x', payload: {} }), 'error');
    await agent.channel.send({ type: 'broadcast', event: 'y', payload: {} });
    await until('the viewer hears', () => listening.heard.length === 1);
    assert.deepEqual(agent.heard, []);
  });

  test('a broadcast over HTTP is heard, and the anon key may send none', async () => {
    const listener = await joinedTo(await clientOf(people.agent), 'room', {});
    const hidden = await joinedTo(await clientOf(people.agent), 'room', { private: true });
    const foreign = await joinedTo(await clientOf(world.b), 'room', {});
    const sender = (await clientOf(world.a)).channel('room');
    assert.equal(await sender.send({ type: 'broadcast', event: 'rest', payload: { n: 1 } }), 'ok');
    assert.deepEqual(await sender.httpSend('http', { n: 2 }), { success: true });
    await until('both', () => listener.heard.length === 2);
    assert.deepEqual(listener.heard, [
      { event: 'rest', payload: { n: 1 } },
      { event: 'http', payload: { n: 2 } },
    ]);
    const inPrivate = (await clientOf(world.a)).channel('room', { config: { private: true } });
    await inPrivate.httpSend('secret', { n: 3 });
    await until('the private one', () => hidden.heard.length === 1);
    assert.equal(listener.heard.length, 2);
    assert.deepEqual(foreign.heard, []);

    const anonymous = track(supabase(world.server)).channel('room');
    await assert.rejects(anonymous.httpSend('e', { n: 4 }), /Unauthorized/);
    const post = (token, body, headers = {}) =>
      world.server.request('POST', '/realtime/v1/api/broadcast', { token, body, headers });
    const messages = [{ topic: 'room', event: 'served', payload: {} }];
    assert.equal((await post(world.server.serviceRoleKey, { messages })).status, 400, 'it names no tenant');
    const org = { 'x-org-id': world.a.orgId };
    assert.equal((await post(world.server.serviceRoleKey, { messages }, org)).status, 202);
    await until('the service', () => listener.heard.at(-1).event === 'served');
    assert.equal((await post(world.a.token, { messages: [{ topic: 'room' }] })).status, 422);
    const large = { messages: [{ topic: 'room', event: 'e', payload: 'x'.repeat(2_000_000) }] };
    assert.equal((await post(world.a.token, large)).status, 413);
    assert.deepEqual((await post(undefined, { messages })).body, { message: 'Unauthorized' });
  });

  test('the service-role key listens to the tenant that its connection names', async () => {
    const conversation = await newConversation(world.a);
    const client = track(
      supabase({ base: world.server.base, anonKey: world.server.serviceRoleKey }, {
        realtime: { params: { org_id: world.a.orgId } },
      }),
    );
    const feed = await Feed.open(client, 'server', { event: 'INSERT', table: 'messages' });
    await write(conversation, 1, 1);
    await feed.hears('the row', (change) => change.new.body === 'row 1');
  });
});

describe('lost rights', () => {
  test('a person who is no longer a member loses the channel at once and the socket within 30 s', async () => {
    const sockets = [];
    class Recorded extends WebSocket {
      constructor(...args) {
        super(...args);
        sockets.push(this);
      }
    }
    const client = track(supabase(world.server, { realtime: { transport: Recorded } }));
    await client.auth.signInWithPassword(people.leaver);
    const feed = await Feed.open(client, 'leaver', { table: 'messages' });
    await world.server.psql(`DELETE FROM profiles WHERE id = '${people.leaver.id}'`);
    await until('the end of the channel', () => feed.statuses.includes('CHANNEL_ERROR'));
    await until('the end of the socket', () => sockets[0].readyState === WebSocket.CLOSED, 30_000);
    assert.equal(feed.statuses.filter((status) => status === 'SUBSCRIBED').length, 1);
  });

  test('a session that is ended elsewhere ends its channels and not those of another', async () => {
    const [ended, kept] = [await clientOf(people.agent), await clientOf(people.agent)];
    const [lost, live] = [await Feed.open(ended, 'x', { table: 'messages' }), await Feed.open(kept, 'x', { table: 'messages' })];
    const { data } = await ended.auth.getSession();
    const claims = JSON.parse(Buffer.from(data.session.access_token.split('.')[1], 'base64url'));
    await world.server.psql(`UPDATE wasel.auth_sessions SET ended_at = now() WHERE id = '${claims.session_id}'`);
    await until('the end of the channel', () => lost.statuses.includes('CHANNEL_ERROR'), 30_000);
    await sleep(3000);
    assert.equal(lost.statuses.filter((status) => status === 'SUBSCRIBED').length, 1, 'its token opens nothing any more');
    assert.deepEqual(live.statuses, ['SUBSCRIBED']);
  });
});

describe('several nodes', () => {
  let second;
  before(async () => {
    second = await startNode();
  });
  after(() => second?.process.stop());

  /** Another server on the same database. */
  async function startNode() {
    const secrets = await readFile(join(world.server.dataDirectory, 'secrets.toml'), 'utf8');
    const secret = (name) => secrets.match(new RegExp(`^${name} = "(.+)"$`, 'm'))[1];
    const node = { port: await freePort(), anonKey: world.server.anonKey };
    node.base = `http://127.0.0.1:${node.port}`;
    const environment = {
      ...world.server.environment,
      PORT: String(node.port),
      WASEL_DATA_DIR: join(await temporaryDirectory(), 'data'),
      DATABASE_URL: world.server.databaseUrl,
    };
    for (const name of ['JWT_SECRET', 'ENCRYPTION_KEY', 'SUPABASE_ANON_KEY', 'SUPABASE_SERVICE_ROLE_KEY']) {
      environment[name] = secret(name);
    }
    node.process = new Process(['serve'], environment);
    await node.process.said(/ ready /);
    return node;
  }

  const present = async (client, key) => {
    const channel = client.channel('everywhere', { config: { private: true, presence: { key } } });
    channel.heard = [];
    channel.left = [];
    channel.on('presence', { event: 'sync' }, () => {});
    channel.on('presence', { event: 'leave' }, (presence) => channel.left.push(presence.key));
    channel.on('broadcast', { event: '*' }, ({ payload }) => channel.heard.push(payload));
    await new Promise((resolve) => channel.subscribe((status) => status === 'SUBSCRIBED' && resolve()));
    await channel.track({ name: key });
    return channel;
  };
  const keys = (channel) => Object.keys(channel.presenceState()).sort().join();

  test('people on different nodes hear and see each other, and leave with a node that is killed', async () => {
    const near = await present(await clientOf(world.a), 'near');
    const far = await present(await clientOf(people.agent, second), 'far');
    const foreign = await present(await clientOf(world.b, second), 'foreign');
    await until('both see both', () => keys(near) === 'far,near' && keys(far) === 'far,near');
    for (let n = 1; n <= 100; n += 1) await far.send({ type: 'broadcast', event: 'e', payload: { n } });
    await until('all broadcasts', () => near.heard.length >= 100);
    assert.deepEqual(near.heard.map(({ n }) => n), Array.from({ length: 100 }, (_, n) => n + 1), 'in order, once');
    await near.send({ type: 'broadcast', event: 'e', payload: { back: true } });
    await until('the answer', () => far.heard.length === 1);
    assert.deepEqual(foreign.heard, []);
    assert.equal(keys(foreign), 'foreign');
    await far.untrack();
    await until('one has left', () => keys(near) === 'near');
    await far.track({ name: 'again' });
    await until('and is back', () => keys(near) === 'far,near');

    // Rows, too: a node that comes later reads the same log.
    const conversation = await newConversation(world.a);
    const feed = await Feed.open(await clientOf(world.a, second), 'rows', { event: 'INSERT', table: 'messages' });
    await write(conversation, 1, 1);
    await feed.hears('the row', (change) => change.new.body === 'row 1');

    second.process.child.kill('SIGKILL');
    await second.process.ended;
    await until('the dead node’s people have left', () => keys(near) === 'near', 30_000);
    assert.ok(near.left.includes('far'));
  });
});
