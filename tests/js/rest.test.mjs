// The unmodified @supabase/supabase-js is the client of our tables: what works with Supabase must work here.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { signedIn, supabase } from './feed.mjs';
import { startWorld, until } from './harness.mjs';
import { deliver, inboundText } from './meta.mjs';

let world;
/** Clients of the tenants `a` and `b`, of a stranger, and of the operator. */
let a, b, anon, service;

const customers = { a: '16505550001', b: '16505550002' };
const said = { a: 'Is the blue one in stock?', b: 'When do you open?' };

/** A client with this key. */
const withKey = (key, options) => supabase({ base: world.server.base, anonKey: key }, options);

before(async () => {
  world = await startWorld();
  a = await signedIn(world.server, world.a);
  b = await signedIn(world.server, world.b);
  anon = supabase(world.server);
  service = withKey(world.server.serviceRoleKey);
  for (const letter of ['a', 'b']) {
    await deliver(world.server, world[letter], inboundText(world[letter], said[letter], { from: customers[letter] }));
  }
  const people = [
    { name: 'Amal', email: 'amal@x.example', attributes: { tier: 1, tags: ['vip', 'new'] } },
    { name: 'Basma', attributes: { tier: 2, tags: ['vip'] } },
    { name: 'Camal', attributes: { tier: 3, tags: [] } },
  ];
  await ok(a.from('contacts').insert(people));
  await ok(b.from('contacts').insert({ name: 'Of b' }));
});
after(() => world?.stop());

/** The data of an answer that is no refusal. */
async function ok(query) {
  const { data, error } = await query;
  assert.equal(error, null, JSON.stringify(error));
  return data;
}

/** The refusal of an answer, with its status. */
async function refused(query, status, code) {
  const answer = await query;
  assert.ok(answer.error, JSON.stringify(answer.data));
  assert.deepEqual([answer.status, answer.error.code], [status, code], JSON.stringify(answer.error));
  return answer.error;
}

const names = (rows) => rows.map(({ name }) => name).join(' ');
/** The contacts made above, to filter: the customer who wrote has a number. */
const people = () => a.from('contacts').select('name').is('phone_number', null).order('name');

describe('reading', () => {
  test('every filter of the client means what it means with Supabase', async () => {
    const cases = {
      eq: [people().eq('name', 'Amal'), 'Amal'],
      neq: [people().neq('name', 'Amal'), 'Basma Camal'],
      'gt, lte': [people().gt('name', 'Amal').lte('name', 'Basma'), 'Basma'],
      'gte, lt': [people().gte('name', 'Amal').lt('name', 'Basma'), 'Amal'],
      like: [people().like('name', '%mal'), 'Amal Camal'],
      'like with stars': [people().like('name', '*mal'), 'Amal Camal'],
      ilike: [people().ilike('name', 'a%'), 'Amal'],
      likeAllOf: [people().likeAllOf('name', ['%a%', '%s%']), 'Basma'],
      likeAnyOf: [people().likeAnyOf('name', ['A%', 'C%']), 'Amal Camal'],
      ilikeAllOf: [people().ilikeAllOf('name', ['%AM%', 'c%']), 'Camal'],
      ilikeAnyOf: [people().ilikeAnyOf('name', ['a%', 'b%']), 'Amal Basma'],
      regexMatch: [people().regexMatch('name', '^[AB]'), 'Amal Basma'],
      regexIMatch: [people().regexIMatch('name', '^a'), 'Amal'],
      is: [people().is('email', null), 'Basma Camal'],
      not: [people().not('email', 'is', null), 'Amal'],
      'not in': [people().not('name', 'in', '(Amal,Basma)'), 'Camal'],
      isDistinct: [people().isDistinct('email', 'amal@x.example'), 'Basma Camal'],
      in: [people().in('name', ['Amal', 'Camal', 'with, a comma']), 'Amal Camal'],
      notIn: [people().notIn('name', ['Amal', 'Camal']), 'Basma'],
      'contains JSON': [people().contains('attributes', { tags: ['vip'] }), 'Amal Basma'],
      'containedBy JSON': [people().containedBy('attributes', { tier: 3, tags: [], more: 1 }), 'Camal'],
      textSearch: [people().textSearch('name', 'amal'), 'Amal'],
      'textSearch, plain': [people().textSearch('name', 'amal', { type: 'plain', config: 'simple' }), 'Amal'],
      'textSearch, phrase': [people().textSearch('name', 'basma', { type: 'phrase' }), 'Basma'],
      'textSearch, websearch': [people().textSearch('name', 'amal or camal', { type: 'websearch', config: 'english' }), 'Amal Camal'],
      match: [people().match({ name: 'Amal', email: 'amal@x.example' }), 'Amal'],
      filter: [people().filter('name', 'in', '("Amal","Basma")'), 'Amal Basma'],
      or: [people().or('name.eq.Amal,and(name.like.*mal,email.is.null)'), 'Amal Camal'],
      'JSON path': [people().eq('attributes->>tier', '2'), 'Basma'],
      'JSON path as JSON': [people().gte('attributes->tier', 2), 'Basma Camal'],
    };
    for (const [name, [query, expected]] of Object.entries(cases)) {
      assert.equal(names(await ok(query)), expected, name);
    }
  });

  test('arrays are compared as arrays', async () => {
    const { id } = (await ok(a.from('conversations').select('id')))[0];
    await ok(a.from('conversations').update({ tags: ['urgent', 'with, comma'] }).eq('id', id));
    const tagged = () => a.from('conversations').select('id');
    assert.equal((await ok(tagged().contains('tags', ['urgent']))).length, 1);
    assert.equal((await ok(tagged().containedBy('tags', ['urgent']))).length, 0);
    assert.equal((await ok(tagged().overlaps('tags', ['urgent', 'other']))).length, 1);
    assert.equal((await ok(tagged().overlaps('tags', ['other']))).length, 0);
  });

  test('columns are chosen, renamed, cast and reached into', async () => {
    const rows = await ok(
      a.from('contacts').select('n: name, tier: attributes->tier, first:attributes->tags->>0, t:created_at::date').eq('name', 'Amal'),
    );
    assert.deepEqual(Object.keys(rows[0]), ['n', 'tier', 'first', 't']);
    assert.deepEqual([rows[0].n, rows[0].tier, rows[0].first], ['Amal', 1, 'vip']);
    assert.match(rows[0].t, /^\d{4}-\d\d-\d\d$/);
  });

  test('order, limit and range', async () => {
    const by = (options) => a.from('contacts').select('name').order('email', options).order('name', { ascending: false });
    assert.equal(names(await ok(by({ nullsFirst: false }).is('phone_number', null))), 'Amal Camal Basma');
    assert.equal(names(await ok(by({ nullsFirst: true }).is('phone_number', null))), 'Camal Basma Amal');
    assert.equal(names(await ok(people().limit(2))), 'Amal Basma');
    assert.equal(names(await ok(people().range(1, 2))), 'Basma Camal');
  });

  test('count and head', async () => {
    for (const count of ['exact', 'planned', 'estimated']) {
      const answer = await a.from('contacts').select('*', { count, head: true }).is('phone_number', null);
      assert.deepEqual([answer.status, answer.count, answer.data], [200, 3, null], count);
    }
    const part = await a.from('contacts').select('name', { count: 'exact' }).is('phone_number', null).order('name').range(0, 1);
    assert.deepEqual([part.status, part.count, names(part.data)], [206, 3, 'Amal Basma']);
    await refused(a.from('contacts').select('*', { count: 'exact' }).range(50, 60), 416, 'PGRST103');
  });

  test('single, maybeSingle and csv', async () => {
    assert.deepEqual(await ok(people().eq('name', 'Amal').single()), { name: 'Amal' });
    assert.equal(await ok(people().eq('name', 'Nobody').maybeSingle()), null);
    assert.deepEqual(await ok(people().eq('name', 'Amal').maybeSingle()), { name: 'Amal' });
    const none = await refused(people().eq('name', 'Nobody').single(), 406, 'PGRST116');
    assert.equal(none.message, 'Cannot coerce the result to a single JSON object');
    assert.equal(none.details, 'The result contains 0 rows');
    await refused(people().single(), 406, 'PGRST116');
    await refused(people().maybeSingle(), 406, 'PGRST116');
    assert.equal(await ok(people().csv()), 'name\nAmal\nBasma\nCamal');
    const stripped = await ok(a.from('contacts').select('name,email').eq('name', 'Basma').stripNulls());
    assert.deepEqual(stripped, [{ name: 'Basma' }]);
  });

  test('relations embed both ways, renamed, filtered, ordered, inner, spread, counted', async () => {
    const [conversation] = await ok(a.from('conversations').select('id, messages(*), contacts(*)'));
    assert.equal(conversation.messages[0].body, said.a);
    assert.equal(conversation.contacts.phone_number, `+${customers.a}`);
    const [message] = await ok(a.from('messages').select('*, conversations(contacts(phone_number))'));
    assert.equal(message.conversations.contacts.phone_number, `+${customers.a}`);
    const inner = await ok(a.from('contacts').select('id, conversations!inner(id)'));
    assert.equal(inner.length, 1, 'contacts without a conversation are left out');
    const none = await ok(a.from('conversations').select('id, m:messages(id)').eq('m.body', 'nothing like it'));
    assert.deepEqual(none[0].m, []);
    assert.deepEqual(await ok(a.from('conversations').select('id, messages!inner(id)').eq('messages.body', 'nothing like it')), []);
    const newest = await ok(
      a.from('conversations').select('messages(body)').order('created_at', { referencedTable: 'messages', ascending: false })
        .limit(1, { referencedTable: 'messages' }),
    );
    assert.equal(newest[0].messages.length, 1);
    const [counted] = await ok(a.from('conversations').select('messages(count)'));
    assert.deepEqual(counted.messages, [{ count: 1 }]);
    const [spread] = await ok(a.from('messages').select('body, ...conversations(phone_number)'));
    assert.equal(spread.phone_number, `+${customers.a}`);
    const hinted = await ok(a.from('messages').select('conversations!conversation_id(id)'));
    assert.equal(hinted[0].conversations.id, conversation.id);
    const either = await ok(a.from('conversations').select('id, messages(id)').or('body.is.null,direction.eq.inbound', { referencedTable: 'messages' }));
    assert.equal(either[0].messages.length, 1);
  });
});

describe("the documents' tables", () => {
  test('S0: whatsapp_conversations and whatsapp_messages with each other', async () => {
    const [conversation] = await ok(
      a.from('whatsapp_conversations').select('*, whatsapp_messages(*)').eq('status', 'active').order('last_message_at', { ascending: false }),
    );
    for (const column of ['phone_number', 'status', 'last_message_at', 'unread_count', 'assigned_to', 'notes', 'tags', 'patient_id']) {
      assert.ok(column in conversation, column);
    }
    assert.equal(conversation.whatsapp_messages[0].content, said.a);
    const messages = await ok(
      a.from('whatsapp_messages').select('*, whatsapp_conversations(*)').eq('conversation_id', conversation.id).order('created_at'),
    );
    assert.equal(messages[0].whatsapp_conversations.phone_number, `+${customers.a}`);
    assert.equal(messages[0].direction, 'inbound');
  });

  test('S1.1: chat_conversations and chat_messages, waba_accounts and phone_numbers', async () => {
    const rows = await ok(a.from('chat_conversations').select('*, chat_messages(*), phone_numbers(*, waba_accounts(*))').eq('phone_number_id', world.a.meta.phoneNumberId));
    assert.equal(rows[0].customer_phone, `+${customers.a}`);
    assert.equal(rows[0].chat_messages[0].sender, 'customer');
    assert.equal(rows[0].phone_numbers.waba_accounts.waba_id, world.a.meta.wabaId);
    assert.equal(rows[0].phone_numbers.waba_accounts.access_token, null);
  });

  test('S2.5: a message_logs row is written, found by its external_id, and follows its status', async () => {
    const row = {
      request_id: 'req-1',
      recipient: '+201012345678',
      message_type: 'sms',
      message_content: 'Your request was received',
      provider: 'twilio',
      status: 'sent',
      external_id: `SM${'3'.repeat(32)}`,
      metadata: { floor: 3 },
    };
    const logged = await ok(a.from('message_logs').insert(row).select().single());
    assert.equal(logged.metadata.floor, 3);
    const updated = await ok(a.from('message_logs').update({ status: 'delivered' }).eq('external_id', row.external_id).select());
    assert.equal(updated[0].status, 'delivered');
    assert.deepEqual(await ok(b.from('message_logs').select().eq('external_id', row.external_id)), []);
    assert.deepEqual(await ok(b.from('message_logs').update({ status: 'read' }).eq('external_id', row.external_id).select()), []);
    const { error, status } = await a.from('message_logs').delete().eq('id', logged.id);
    assert.deepEqual([error, status], [null, 204]);
  });

  test('S2.6, S4.3: whatsapp_messages can be logged into', async () => {
    const rows = [
      { recipient_phone: '+201012345671', message_body: 'one', status: 'sent', trigger_type: 'manual' },
      { recipient_phone: '+201012345672', message_body: 'two', status: 'failed', error_message: 'No such number' },
    ];
    const made = await ok(a.from('whatsapp_messages').insert(rows).select('id, message_body, status, org_id'));
    assert.deepEqual(made.map(({ message_body, status }) => [message_body, status]), [['one', 'sent'], ['two', 'failed']]);
    assert.ok(made.every(({ org_id }) => org_id === world.a.orgId));
    const failed = await ok(a.from('whatsapp_messages').select('error_message').eq('status', 'failed'));
    assert.equal(failed[0].error_message, 'No such number');
    assert.deepEqual(await ok(b.from('whatsapp_messages').delete().in('id', made.map(({ id }) => id)).select()), []);
    assert.equal((await ok(a.from('whatsapp_messages').delete().in('id', made.map(({ id }) => id)).select())).length, 2);
  });

  test('S3: conversations and messages', async () => {
    const rows = await ok(a.from('conversations').select('*, messages(*)').eq('phone_number', `+${customers.a}`).eq('messages.message_type', 'text'));
    assert.equal(rows[0].messages[0].body, said.a);
    const updated = await ok(a.from('conversations').update({ unread_count: 0, notes: 'called back' }).eq('id', rows[0].id).select().single());
    assert.deepEqual([updated.unread_count, updated.notes], [0, 'called back']);
  });

  test('S4.2: the status page reads whatsapp_sessions', async () => {
    assert.equal(await ok(a.from('whatsapp_sessions').select('*').eq('org_id', world.a.orgId).maybeSingle()), null);
  });

  test('S4.4: whatsapp_templates are made, changed, deleted; those of the system are only read', async () => {
    const system = await ok(a.from('whatsapp_templates').select('*').eq('is_system', true));
    const draft = { org_id: world.a.orgId, name: 'welcome', category: 'custom', message_template: 'Hello {{name}}', variables: ['name'] };
    const made = await ok(a.from('whatsapp_templates').insert(draft).select().single());
    assert.deepEqual(made.variables, ['name']);
    const changed = await ok(a.from('whatsapp_templates').update({ is_active: false }).eq('id', made.id).select().single());
    assert.equal(changed.is_active, false);
    await refused(a.from('whatsapp_templates').insert(draft), 409, '23505');
    assert.deepEqual(await ok(b.from('whatsapp_templates').select().eq('name', 'welcome')), []);
    assert.deepEqual(await ok(b.from('whatsapp_templates').delete().eq('id', made.id).select()), []);
    await refused(b.from('whatsapp_templates').insert(draft), 403, '42501');
    for (const { id } of system.slice(0, 1)) {
      await refused(a.from('whatsapp_templates').update({ name: 'mine' }).eq('id', id), 403, '42501');
    }
    assert.equal((await a.from('whatsapp_templates').delete().eq('id', made.id)).status, 204);
  });

  test('S4.5: a notification_queue row is sent without a further word', async () => {
    const row = {
      org_id: world.a.orgId,
      notification_type: 'sms',
      recipient_phone: '+201012345679',
      message_data: { message: 'from the queue' },
      priority: 3,
    };
    const { id } = await ok(a.from('notification_queue').insert(row).select('id').single());
    await until('the row is completed', async () => {
      const { status } = await ok(a.from('notification_queue').select('status').eq('id', id).single());
      return status === 'completed';
    });
    assert.deepEqual(await ok(b.from('notification_queue').select().eq('id', id)), []);
    await refused(b.from('notification_queue').insert(row), 403, '42501');
    const pending = { ...row, scheduled_for: '2099-01-01T00:00:00Z' };
    const later = await ok(a.from('notification_queue').insert(pending).select('id, status, template:whatsapp_templates(name)').single());
    assert.deepEqual([later.status, later.template], ['pending', null]);
    const cancelled = await ok(a.from('notification_queue').update({ status: 'cancelled' }).eq('id', later.id).eq('status', 'pending').select('status'));
    assert.deepEqual(cancelled, [{ status: 'cancelled' }]);
  });

  test('S0.1: a scheduled message is made, changed and cancelled', async () => {
    const { id } = await ok(a.from('whatsapp_conversations').select('id').eq('phone_number', `+${customers.a}`).single());
    const row = { conversation_id: id, message_content: 'See you tomorrow', scheduled_at: '2099-01-01T09:00:00Z' };
    const made = await ok(a.from('whatsapp_scheduled_messages').insert(row).select('*, whatsapp_conversations(phone_number)').single());
    assert.equal(made.status, 'scheduled');
    assert.equal(made.whatsapp_conversations.phone_number, `+${customers.a}`);
    assert.deepEqual(await ok(b.from('whatsapp_scheduled_messages').update({ status: 'cancelled' }).eq('id', made.id).select()), []);
    const cancelled = await ok(a.from('whatsapp_scheduled_messages').update({ status: 'cancelled' }).eq('id', made.id).select('status').single());
    assert.equal(cancelled.status, 'cancelled');
    await refused(b.from('whatsapp_scheduled_messages').insert(row), 409, '23503');
  });

  test('no table or view shows one tenant a row of another', async () => {
    const document = await world.server.call('GET', '/rest/v1/', { token: world.server.serviceRoleKey });
    const tables = Object.keys(document.definitions);
    assert.ok(tables.length > 25, `${tables}`);
    let shared = 0;
    for (const table of tables) {
      const { data, error } = await b.from(table).select('*');
      if (error) {
        assert.equal(error.code, '42501', `${table}: ${JSON.stringify(error)}`);
        continue;
      }
      const text = JSON.stringify(data);
      for (const trace of [world.a.orgId, customers.a, said.a, world.a.email]) {
        assert.ok(!text.includes(trace), `${table} shows b ${trace}`);
      }
      if (data.length > 0) shared += 1;
    }
    assert.ok(shared > 6, 'there was something to see');
  });
});

describe('writing', () => {
  test('insert answers with nothing, or with the rows asked for', async () => {
    const silent = await a.from('contacts').insert({ name: 'Written' });
    assert.deepEqual([silent.error, silent.data, silent.status], [null, null, 201]);
    const counted = await a.from('contacts').insert([{ name: 'Written' }, { name: 'Written', email: 'w@x.example' }], { count: 'exact' }).select('name, email');
    assert.deepEqual([counted.count, counted.data.length], [2, 2]);
    assert.deepEqual(counted.data[1], { name: 'Written', email: 'w@x.example' });
    const none = await a.from('contacts').insert([]).select();
    assert.deepEqual([none.error, none.data], [null, []]);
    const defaults = await a.from('contacts').insert([{ name: 'Written' }, { name: 'Written', attributes: { x: 1 } }], { defaultToNull: false }).select('attributes');
    assert.deepEqual(defaults.data, [{ attributes: {} }, { attributes: { x: 1 } }]);
    assert.deepEqual(await ok(b.from('contacts').select().eq('name', 'Written')), []);
  });

  test('upsert makes a row once and changes it afterwards', async () => {
    const { id } = await ok(a.from('contacts').upsert({ name: 'Once', email: 'once@x.example' }).select('id').single());
    const again = await a.from('contacts').upsert({ id, name: 'Twice' }, { onConflict: 'id' }).select('name, email');
    assert.deepEqual([again.status, again.data], [200, [{ name: 'Twice', email: 'once@x.example' }]]);
    const full = await ok(a.from('contacts').upsert([{ org_id: world.a.orgId, id, name: 'Thrice' }], { onConflict: 'org_id,id' }).select('name'));
    assert.deepEqual(full, [{ name: 'Thrice' }]);
    const ignored = await a.from('contacts').upsert({ id, name: 'No' }, { onConflict: 'id', ignoreDuplicates: true }).select();
    assert.deepEqual([ignored.error, ignored.data], [null, []]);
    // The same id is another row in another tenant.
    await ok(b.from('contacts').upsert({ id, name: 'Of b' }));
    assert.deepEqual(await ok(a.from('contacts').select('name').eq('id', id)), [{ name: 'Thrice' }]);
    await refused(b.from('contacts').upsert({ org_id: world.a.orgId, id, name: 'Forged' }), 403, '42501');
  });

  test('settings are kept by their key', async () => {
    const table = () => a.from('whatsapp_settings');
    const { id } = await ok(table().upsert({ key: 'js.hours', value: { from: 8 } }, { onConflict: 'key' }).select('id').single());
    const again = await ok(table().upsert({ key: 'js.hours', value: { from: 9 } }, { onConflict: 'key' }).select('id, value').single());
    assert.deepEqual(again, { id, value: { from: 9 } });
    const byId = await ok(table().upsert({ id, key: 'js.hours', value: { from: 10 } }).select('value').single());
    assert.deepEqual(byId, { value: { from: 10 } });
    const ignored = await ok(table().upsert({ key: 'js.hours', value: 0 }, { onConflict: 'key', ignoreDuplicates: true }).select());
    assert.deepEqual(ignored, []);
    // The primary key is what an upsert goes by: without it the row is new, and its key taken.
    await refused(table().upsert({ key: 'js.hours', value: 0 }), 409, '23505');
    const defaults = await ok(
      a.from('settings').insert([{ key: 'js.a' }, { key: 'js.b', value: 1 }], { defaultToNull: false }).select('value'),
    );
    assert.deepEqual(defaults, [{ value: null }, { value: 1 }]);
    assert.deepEqual(await ok(b.from('whatsapp_settings').select('key').like('key', 'js.%')), []);
  });

  test('update and delete change what the filters leave, and nothing without a filter', async () => {
    await ok(a.from('contacts').insert([{ name: 'Gone 1' }, { name: 'Gone 2' }]));
    const silent = await a.from('contacts').update({ email: 'gone@x.example' }, { count: 'exact' }).like('name', 'Gone%');
    assert.deepEqual([silent.status, silent.data, silent.count], [204, null, 2]);
    const shown = await ok(a.from('contacts').update({ email: null }).eq('name', 'Gone 1').select('name, email, conversations(id)').single());
    assert.deepEqual(shown, { name: 'Gone 1', email: null, conversations: [] });
    assert.deepEqual(await ok(a.from('contacts').update({ email: 'x' }).eq('name', 'Nobody').select()), []);
    assert.deepEqual(await ok(b.from('contacts').update({ name: 'Forged' }).like('name', 'Gone%').select()), []);
    assert.deepEqual(await ok(b.from('contacts').delete().like('name', 'Gone%').select()), []);
    const error = await refused(a.from('contacts').delete(), 400, '21000');
    assert.equal(error.message, 'DELETE requires a WHERE clause');
    await refused(a.from('contacts').update({ name: 'all' }), 400, '21000');
    await refused(a.from('contacts').delete().like('name', 'Gone%').maxAffected(1), 400, 'PGRST124');
    const kept = await ok(a.from('contacts').delete().like('name', 'Gone%').select('name').rollback());
    assert.equal(kept.length, 2);
    const gone = await a.from('contacts').delete({ count: 'exact' }).like('name', 'Gone%').select('name');
    assert.deepEqual([gone.count, gone.data.length], [2, 2]);
  });

  test('what Postgres refuses keeps its code', async () => {
    await refused(a.from('contacts').insert({ nothing: 1 }), 400, 'PGRST204');
    await refused(a.from('contacts').insert({ name: 'x', attributes: null }), 400, '23502');
    await refused(a.from('contacts').select('nothing'), 400, '42703');
    await refused(a.from('contacts').select().eq('id', 'no uuid'), 400, '22P02');
    await refused(a.from('conversations').update({ status: 'lost' }).not('id', 'is', null), 400, '23514');
    await refused(a.from('contact_identities').insert({ kind: 'phone', value: '+1', contact_id: world.b.orgId }), 409, '23503');
    await refused(a.from('nothing').select(), 404, 'PGRST205');
    await refused(a.from('contacts').select('*, messages(*)'), 400, 'PGRST200');
    await refused(a.schema('auth').from('users').select(), 406, 'PGRST106');
    await refused(a.rpc('nothing', { x: 1 }), 404, 'PGRST202');
  });
});

describe('functions', () => {
  before(async () => {
    await world.server.psql(`
      CREATE FUNCTION public.unread(at_least int DEFAULT 0) RETURNS SETOF conversations LANGUAGE sql STABLE AS
        $$ SELECT * FROM conversations WHERE unread_count >= at_least $$;
      CREATE FUNCTION public.greet(who text, times int DEFAULT 1) RETURNS text LANGUAGE sql IMMUTABLE AS
        $$ SELECT repeat('hello ' || who || ' ', times) $$;
      CREATE FUNCTION public.total(numbers int[]) RETURNS bigint LANGUAGE sql IMMUTABLE AS
        $$ SELECT sum(n) FROM unnest(numbers) n $$;
      CREATE FUNCTION public.note(text text) RETURNS void LANGUAGE sql AS
        $$ UPDATE conversations SET notes = text $$`);
    await until('the functions are known', async () => (await a.rpc('greet', { who: 'x' })).error === null);
  });

  test('rpc calls by POST, GET and HEAD, as the caller', async () => {
    assert.equal(await ok(a.rpc('greet', { who: 'you', times: 2 })), 'hello you hello you ');
    assert.equal(await ok(a.rpc('greet', { who: 'you' }, { get: true })), 'hello you ');
    assert.equal(await ok(a.rpc('total', { numbers: [1, 2, 3] })), 6);
    assert.equal(await ok(a.rpc('total', { numbers: [1, 2, 3] }, { get: true })), 6);
    const rows = await ok(a.rpc('unread').select('phone_number, messages(body)').eq('phone_number', `+${customers.a}`).limit(5));
    assert.equal(rows.length, 1);
    assert.ok(rows[0].messages.some(({ body }) => body === said.a));
    assert.equal((await ok(b.rpc('unread'))).length, 1);
    const counted = await a.rpc('unread', {}, { head: true, count: 'exact' });
    assert.deepEqual([counted.error, counted.count], [null, (await ok(a.rpc('unread'))).length]);
    assert.equal(await ok(a.rpc('note', { text: 'noted' })), null);
    assert.ok((await ok(a.from('conversations').select('notes'))).every(({ notes }) => notes === 'noted'));
    assert.ok((await ok(b.from('conversations').select('notes'))).every(({ notes }) => notes !== 'noted'));
    await refused(a.rpc('note', { text: 'x' }, { get: true }), 405, '25006');
    await refused(a.rpc('greet', { whom: 'x' }), 404, 'PGRST202');
  });
});

describe('keys and tokens', () => {
  test('the anon key, a publishable key and no key read nothing and are told to sign in', async () => {
    const opaque = withKey('sb_publishable_made-up');
    for (const client of [anon, opaque]) {
      await refused(client.from('conversations').select(), 401, '42501');
      await refused(client.from('contacts').insert({ name: 'x' }), 401, '42501');
    }
  });

  test('the service-role key sees every tenant, or the one it names', async () => {
    const all = await ok(service.from('whatsapp_conversations').select('org_id'));
    assert.equal(new Set(all.map(({ org_id }) => org_id)).size, 2);
    const named = withKey(world.server.serviceRoleKey, {
      global: { headers: { 'X-Org-Id': world.b.orgId } },
    });
    const rows = await ok(named.from('whatsapp_conversations').select('org_id, whatsapp_messages(content)'));
    assert.deepEqual(rows, [{ org_id: world.b.orgId, whatsapp_messages: [{ content: said.b }] }]);
    const row = { org_id: world.b.orgId, name: 'By the operator' };
    await ok(service.from('contacts').insert(row));
    assert.equal((await ok(b.from('contacts').select().eq('name', row.name))).length, 1);
  });

  test('a token given by accessToken is used, and a bad one is refused as such', async () => {
    const client = (token) => withKey(world.server.anonKey, { accessToken: async () => token });
    assert.equal((await ok(client(world.a.token).from('conversations').select('id'))).length > 0, true);
    await refused(client(`${world.a.token.slice(0, -6)}AAAAAA`).from('conversations').select(), 401, 'PGRST301');
    const other = withKey(world.server.anonKey, {
      accessToken: async () => world.b.token,
      global: { headers: { 'X-Org-Id': world.a.orgId } },
    });
    await refused(other.from('conversations').select(), 403, 'not_a_member');
  });

  test('a browser of another origin may read the count', async () => {
    const response = await fetch(`${world.server.base}/rest/v1/contacts?select=id`, {
      headers: { authorization: `Bearer ${world.a.token}`, origin: 'http://localhost:5173', prefer: 'count=exact' },
    });
    assert.match(response.headers.get('content-range'), /^0-\d+\/\d+$/);
    assert.match(response.headers.get('access-control-expose-headers') ?? '', /content-range/i);
    const preflight = await fetch(`${world.server.base}/rest/v1/contacts`, {
      method: 'OPTIONS',
      headers: { origin: 'http://localhost:5173', 'access-control-request-method': 'PATCH', 'access-control-request-headers': 'apikey,prefer' },
    });
    assert.ok(preflight.ok);
  });
});
