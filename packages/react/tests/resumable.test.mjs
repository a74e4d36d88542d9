// The subscription by itself, against a channel whose server says what the test wants.

import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';

import { resumable } from '@wasel/react';

import { until } from '../../../tests/js/harness.mjs';
import { FakeClient } from './fake.mjs';

let client;
let heard;
let stop;

beforeEach(() => {
  client = new FakeClient();
  heard = [];
  stop = new AbortController();
  const events = {
    change: ({ type, row }) => heard.push([type, row]),
    reload: () => heard.push('reload'),
    live: (isLive, error) => heard.push(error ? error.message : isLive ? 'live' : 'not live'),
  };
  resumable(client, { table: 'messages', filter: 'conversation_id=eq.1' }, events, stop.signal);
});

const last = () => client.channels.at(-1);
const insert = (row, more = {}) =>
  last().handlers.postgres_changes({ eventType: 'INSERT', new: row, old: {}, errors: null, ...more });

const began = (position) =>
  last().handlers.system({
    extension: 'postgres_changes',
    status: 'ok',
    message: 'Subscribed to PostgreSQL',
    after: position,
  });

describe('a subscription', () => {
  test('asks for its rows from now on, and reads once it stands', () => {
    const binding = { event: '*', schema: 'public', table: 'messages', filter: 'conversation_id=eq.1', after: 0 };
    assert.deepEqual(last().binding, binding);
    assert.deepEqual(heard, []);
    last().told('SUBSCRIBED');
    assert.deepEqual(heard, ['reload', 'live']);
  });

  test('goes on after the last position that it heard, without reading anew', () => {
    last().told('SUBSCRIBED');
    insert({ id: 'x', change_seq: 41 });
    last().handlers.postgres_changes({ eventType: 'DELETE', new: {}, old: { id: 'x', change_seq: 42 }, errors: null });
    assert.deepEqual(heard.slice(2), [['INSERT', { id: 'x' }], ['DELETE', { id: 'x' }]], 'the position is no column');
    assert.equal(last().binding.after, 42, 'in the very object that supabase-js sends again');
    last().told('CHANNEL_ERROR', new Error('gone'));
    last().told('SUBSCRIBED');
    assert.deepEqual(heard.slice(4), ['gone', 'live']);
  });

  test('reads anew after a break where the server tells no positions', () => {
    last().told('SUBSCRIBED');
    insert({ id: 'x' });
    last().told('CHANNEL_ERROR');
    last().told('SUBSCRIBED');
    assert.deepEqual(heard.slice(3), ['not live', 'reload', 'live']);
  });

  test('that heard nothing goes on from where it began, if the server says where', () => {
    last().told('SUBSCRIBED');
    began(30);
    assert.equal(last().binding.after, 30);
    last().told('CHANNEL_ERROR');
    last().told('SUBSCRIBED');
    assert.deepEqual(heard, ['reload', 'live', 'not live', 'live'], 'nothing is read anew');
  });

  test('keeps the position it has when it is told where it began', () => {
    last().told('SUBSCRIBED');
    insert({ id: 'x', change_seq: 41 });
    last().told('CHANNEL_ERROR');
    last().told('SUBSCRIBED');
    began(90);
    assert.equal(last().binding.after, 41, 'what came in between has not been told yet');
  });

  test('reads at first even if it is told where it began before it stands', () => {
    began(30);
    last().told('SUBSCRIBED');
    assert.deepEqual(heard, ['reload', 'live']);
  });

  test('reads anew when its position is no longer kept, and goes on from there', () => {
    last().told('SUBSCRIBED');
    insert({ id: 'x', change_seq: 7 });
    const message = 'changes after 7 are no longer kept: load the rows anew, then go on from 90';
    last().handlers.system({ extension: 'postgres_changes', status: 'error', message });
    assert.equal(heard.at(-1), 'reload');
    assert.equal(last().binding.after, 0);
    insert({ id: 'y', change_seq: 91 });
    assert.equal(last().binding.after, 91);
  });

  test('says why it hears nothing', () => {
    last().told('SUBSCRIBED');
    last().handlers.system({ extension: 'postgres_changes', status: 'error', message: 'no such column' });
    last().handlers.system({ extension: 'postgres_changes', status: 'ok', message: 'Subscribed to PostgreSQL' });
    assert.equal(heard.at(-1), 'no such column');
  });

  test('reads a row that was too large for the feed', () => {
    last().told('SUBSCRIBED');
    insert({ id: 'x', change_seq: 5 }, { errors: ['Error 413: Payload Too Large'] });
    assert.equal(heard.at(-1), 'reload');
    assert.equal(last().binding.after, 5);
  });

  test('comes back when the server closes it for good, with its position', async () => {
    last().told('SUBSCRIBED');
    insert({ id: 'x', change_seq: 5 });
    last().told('CLOSED');
    await until('a new channel', () => client.channels.length === 2);
    assert.notEqual(last().topic, client.channels[0].topic);
    assert.equal(last().binding.after, 5);
    last().told('SUBSCRIBED');
    assert.deepEqual(heard.slice(3), ['not live', 'live']);
  });

  test('ends with its signal and says nothing more', () => {
    last().told('SUBSCRIBED');
    stop.abort();
    assert.equal(last().isRemoved, true);
    insert({ id: 'x' });
    last().told('CLOSED');
    assert.deepEqual(heard, ['reload', 'live']);
    assert.equal(client.channels.length, 1);
  });
});
