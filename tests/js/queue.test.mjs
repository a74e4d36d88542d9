// The notification queue as another program and a front end see it: psql writes a row, supabase-js hears the rest.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { Feed, signedIn } from './feed.mjs';
import { startWorld, until } from './harness.mjs';

const CUSTOMER = '+201012345678';
// The second of the system's templates: subscription_expiring.
const TEMPLATE = '00000000-0000-7000-8000-000000000002';
const TEXT =
  '⚠️ تنبيه مهم\n\nمرحباً منى,\n\nاشتراكك في خطة Pro سينتهي في 2026-12-01 (بعد 3 أيام).\n\n' +
  '💡 جدد اشتراكك الآن لتجنب انقطاع الخدمة:\nhttps://myfleet.app/renew\n\nشكراً لثقتك في MyFleet Pro! 🚗';

describe('notification_queue', () => {
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

  test('a row by psql is seen live on its way: queue and message, to read', async () => {
    const { simulator, server, a } = world;
    // The customer has written, so that a free text may answer.
    await simulator.control('POST', '/send', { line: a.whatsapp.address, from: CUSTOMER, type: 'text', body: 'hi' });
    await until('the window is open', async () => {
      const { data } = await server.call('GET', '/v1/conversations?search=201012345678', { token: a.token });
      return data.length > 0;
    });
    const feed = await Feed.open(
      client,
      'queue',
      { table: 'notification_queue', filter: `org_id=eq.${a.orgId}` },
      { table: 'whatsapp_messages', filter: `org_id=eq.${a.orgId}` },
    );
    const data = { customer_name: 'منى', plan_name: 'Pro', expiry_date: '2026-12-01', days_remaining: 3, renewal_url: 'https://myfleet.app/renew', subscription_id: 77 };
    const id = await server.psql(
      `INSERT INTO notification_queue (org_id, notification_type, recipient_phone, template_id, message_data, priority)
       VALUES ('${a.orgId}', 'whatsapp', '${CUSTOMER}', '${TEMPLATE}', '${JSON.stringify(data)}', 3) RETURNING id`,
    );
    const row = (status) => (change) =>
      change.table === 'notification_queue' && change.new.id === id && change.new.status === status;
    const inserted = await feed.hears('the row', row('pending'));
    assert.equal(inserted.eventType, 'INSERT');
    const processing = (await feed.hears('it is being sent', row('processing'))).new;
    const message = processing.whatsapp_message_id;
    assert.ok(message);
    const completed = (await feed.hears('it is done', row('completed'))).new;
    assert.equal(completed.whatsapp_message_id, message);
    assert.ok(Date.parse(completed.completed_at) > 0);

    const sent = (status) => (change) =>
      change.table === 'whatsapp_messages' && change.new.id === message && change.new.status === status;
    const delivered = (await feed.hears('it is delivered', sent('delivered'))).new;
    assert.ok(delivered.delivered_at);
    await simulator.control('POST', '/read', { line: a.whatsapp.address, customer: CUSTOMER });
    const read = (await feed.hears('it is read', sent('read'))).new;
    assert.ok(read.read_at);
    assert.equal(await server.psql(`SELECT body FROM messages WHERE id = '${message}'`), TEXT);
  });

  test('supabase-js calls the function, and the row is heard', async () => {
    const feed = await Feed.open(client, 'function', { table: 'notification_queue' });
    const { data, error } = await client.functions.invoke('send-notification', {
      body: { type: 'sms', recipient_phone: CUSTOMER, message: 'تم تفعيل اشتراكك' },
    });
    assert.equal(error, null);
    assert.deepEqual([data.success, data.status], [true, 'pending']);
    await feed.hears('it is done', (change) => change.new.id === data.notification_id && change.new.status === 'completed');
  });
});
