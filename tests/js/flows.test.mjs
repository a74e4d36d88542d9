// The fleet document's Flow 2 and Flow 3 as its programs run them: psql writes to the application's own table, the
// customer gets the Arabic text, supabase-js sees it happen.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { Feed, signedIn } from './feed.mjs';
import { startWorld, until } from './harness.mjs';

const CUSTOMER = '+201012345678';

describe('flows of the fleet document', () => {
  let world;
  let client;
  let feed;

  before(async () => {
    world = await startWorld();
    const { server, simulator, a } = world;
    client = await signedIn(server, a);
    await server.call('POST', '/v1/automations/defaults', {
      token: a.token,
      body: { enabled: true, app_url: 'https://app.myfleet.app', renewal_url: 'https://myfleet.app/renew' },
    });
    // The customer has written, so that a free text may answer.
    await simulator.control('POST', '/send', { line: a.whatsapp.address, from: CUSTOMER, type: 'text', body: 'مرحبا' });
    await until('the window is open', async () => {
      const { data } = await server.call('GET', '/v1/conversations?search=201012345678', { token: a.token });
      return data.length > 0;
    });
    feed = await Feed.open(client, 'flows', { table: 'notification_queue' }, { table: 'whatsapp_messages' });
  });
  after(async () => {
    await client?.removeAllChannels();
    await client?.realtime.disconnect();
    await world?.stop();
  });

  /** Follows a queue row of this priority to the delivered message; gives both as supabase-js heard them. */
  async function followed(priority) {
    const queued = (
      await feed.hears('a row was queued', (change) =>
        change.table === 'notification_queue' && change.eventType === 'INSERT' && change.new.priority === priority)
    ).new;
    const row = (
      await feed.hears('it is done', (change) =>
        change.table === 'notification_queue' && change.new.id === queued.id && change.new.status === 'completed')
    ).new;
    const message = (
      await feed.hears('its message is delivered', (change) =>
        change.table === 'whatsapp_messages' && change.new.id === row.whatsapp_message_id && change.new.status === 'delivered')
    ).new;
    return { row, message };
  }

  test('Flow 2: a sign-up welcomes the customer', async () => {
    const { server, a } = world;
    const entity = await server.psql(
      `INSERT INTO subscriptions (org_id, customer_name, customer_phone, plan, status, end_date)
       VALUES ('${a.orgId}', 'منى', '010 1234 5678', 'Pro', 'trial', (now() AT TIME ZONE 'Africa/Cairo')::date + 14) RETURNING id`,
    );
    const { row, message } = await followed(5);
    assert.equal(message.recipient_phone, CUSTOMER);
    assert.equal(message.trigger_type, 'trial_welcome');
    assert.equal(message.related_entity_id, entity);
    assert.ok(row.completed_at);
    assert.equal(
      await server.psql(`SELECT body FROM messages WHERE id = '${message.id}'`),
      'مرحباً منى! 👋\n\nشكراً لتسجيلك في MyFleet Pro. نحن سعداء بانضمامك!\n\n' +
        '🎁 لديك فترة تجريبية مجانية لمدة 14 يوم للاستمتاع بجميع المميزات.\n\n' +
        '📱 ابدأ الآن من: https://app.myfleet.app\n\nإذا كان لديك أي استفسار، نحن هنا للمساعدة!',
    );
  });

  test('Flow 3: whoever is about to run out is told, once', async () => {
    const { server, a } = world;
    await server.psql(
      `INSERT INTO subscriptions (org_id, customer_name, customer_phone, plan, status, end_date) VALUES
         ('${a.orgId}', 'منى', '${CUSTOMER}', 'Pro', 'active', (now() AT TIME ZONE 'Africa/Cairo')::date + 3),
         ('${a.orgId}', 'سعيد', '+201098765432', 'Pro', 'active', (now() AT TIME ZONE 'Africa/Cairo')::date + 30)`,
    );
    // It is nine o'clock.
    await server.psql(`UPDATE automations SET timezone = 'Africa/Cairo' WHERE name = 'subscription_expiring'`);
    await until('its next time is known', async () =>
      (await server.psql(`SELECT count(*) FROM automations WHERE name = 'subscription_expiring' AND next_run_at IS NOT NULL`)) === '1');
    await server.psql(`UPDATE automations SET next_run_at = now() WHERE name = 'subscription_expiring'`);
    const { message } = await followed(3);
    assert.equal(message.trigger_type, 'subscription_expiring');
    const end = await server.psql(`SELECT (now() AT TIME ZONE 'Africa/Cairo')::date + 3`);
    assert.equal(
      await server.psql(`SELECT body FROM messages WHERE id = '${message.id}'`),
      `⚠️ تنبيه مهم\n\nمرحباً منى,\n\nاشتراكك في خطة Pro سينتهي في ${end} (بعد 3 أيام).\n\n` +
        '💡 جدد اشتراكك الآن لتجنب انقطاع الخدمة:\nhttps://myfleet.app/renew\n\nشكراً لثقتك في MyFleet Pro! 🚗',
    );
    // Both of منى's subscriptions were looked at, and nobody else's time has come.
    const queued = await server.psql(`SELECT count(*) FROM notification_queue WHERE priority = 3`);
    assert.equal(queued, '1');
  });
});
