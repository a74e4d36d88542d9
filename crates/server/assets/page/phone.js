// The simulated phone, in the demo only: a customer's end of a conversation, and faults to provoke.

import { tick } from './bubbles.js';
import { $, h, reconcile, sendOnEnter, toEnd } from './dom.js';
import { channels } from './rows.js';
import { json, Problem, request } from './session.js';
import { clock, said, t } from './words.js';

/** `redraw`, and `follow` a conversation that was opened; null until the phone has started, and outside the demo. */
export let phone = null;
/** Where the simulator is. */
let base = '';
let lines = [];
let phones = [];
const thread = new Map();
let typingUntil = 0;

const sim = async (path, options) => (await request(`${base}/sim${path}`, options)).json();
const tell = async (path, options) => { await request(`${base}/sim${path}`, options); };
const attempt = (work) => async (...given) => {
  $('sim-error').textContent = '';
  try { await work(...given); } catch (error) { $('sim-error').textContent = said(error); }
};
const line = () => $('sim-line').value;
const customer = () => $('sim-customer').value;
const query = () => new URLSearchParams({ line: line(), customer: customer() });
const mine = (event) => event.line === line() && event.customer === customer();

function drawPhone() {
  const last = [...thread.values()];
  const items = last.map((m) => ({ key: m.id, data: m, make: () => simBubble(m) }));
  if (typingUntil > Date.now()) items.push({ key: 'typing', data: '', make: () => h('li', { class: 'day' }, t('typing')) });
  reconcile($('sim-messages'), items);
}
function simBubble(m) {
  const own = m.origin === 'customer';
  const quoted = m.context_id && thread.get(m.context_id);
  const file = m.provider === 'meta' && m.kind === 'image' && m.content?.id;
  const emojis = [m.customer_reaction, m.business_reaction].filter(Boolean);
  return h('li', { class: `bubble ${own ? 'ours' : ''}`, 'data-testid': 'sim-message', 'data-tick': m.tick },
    quoted && h('div', { class: 'quoted', dir: 'auto' }, quoted.text ?? t(quoted.kind)),
    m.revoked ? h('div', { class: 'soft' }, t('revoked')) : [
      file && h('img', { src: `${base}/sim/media/${encodeURIComponent(file)}`, alt: t('image') }),
      m.text ? h('div', { class: 'body', dir: 'auto' }, m.text) : !file && h('div', { class: 'soft' }, t(m.kind))],
    h('div', { class: 'meta' }, emojis.length > 0 && h('span', { class: 'reactions' }, emojis.map((emoji) => h('span', {}, emoji))),
      m.edited && h('span', {}, t('edited')), h('time', { datetime: m.at }, clock(m.at)),
      own && tick({ accepted: 'sent', canceled: 'cancelled', scheduled: 'queued' }[m.tick] ?? m.tick)));
}

const options = (select, list) => {
  const chosen = select.value;
  select.replaceChildren(...list.map(([value, label]) => h('option', { value }, label)));
  if (list.some(([value]) => value === chosen)) select.value = chosen;
};
async function loadPhones() {
  [lines, phones] = await Promise.all([sim('/lines'), sim('/phones')]);
  options($('sim-line'), lines.map((l) => [l.line, `${l.channel === 'sms' ? 'SMS' : 'WhatsApp'} · \u2066${l.number}\u2069`]));
  options($('sim-customer'), phones.map(({ customer: c }) => [c.number, `\u2068${c.name || '—'}\u2069 · \u2066${c.number}\u2069`]));
}
async function loadSimThread() {
  const asked = query().toString();
  const list = line() && customer() ? await sim(`/thread?${asked}`) : [];
  if (asked !== query().toString()) return;
  thread.clear();
  for (const message of list) thread.set(message.id, message);
  typingUntil = 0;
  drawPhone();
  toEnd($('sim-scroller'));
}

/** Shows the phone of the conversation that was opened. */
const follow = attempt(async (conversation) => {
  const values = Object.values(channels.get(conversation?.channel_id)?.settings ?? {}).map(String);
  const itsLine = lines.find((l) => values.includes(l.line) || values.includes(l.number));
  const number = conversation?.phone_number;
  if (!itsLine || !number) return;
  if (!phones.some((entry) => entry.customer.number === number)) {
    // The simulator keeps nothing over a restart; the server does.
    await tell('/customers', json('PUT', { number, name: conversation.customer_name ?? '' }));
    await loadPhones();
  }
  $('sim-line').value = itsLine.line;
  $('sim-customer').value = number;
  await loadSimThread();
});

const sendAs = (content) => tell('/send', json('POST', { line: line(), from: customer(), ...content }));
const quick = {
  image: () => sendAs({ type: 'image', data: picture(), mime_type: 'image/png' }),
  audio: () => sendAs({ type: 'audio', voice: true }),
  location: () => sendAs({ type: 'location', latitude: 30.0444, longitude: 31.2357, name: 'ميدان التحرير', address: 'القاهرة' }),
  reaction: () => {
    const target = [...thread.values()].reverse().find((message) => message.origin !== 'customer');
    if (!target) throw new Problem(0, 'none', t('noBusinessMessage'));
    return sendAs({ type: 'reaction', message_id: target.id, emoji: '👍' });
  },
  read: () => tell('/read', json('POST', { line: line(), customer: customer() })),
};
/** A picture worth looking at, made here so that nothing has to be shipped. */
function picture() {
  const canvas = h('canvas', { width: 480, height: 320 });
  const draw2d = canvas.getContext('2d');
  const sky = draw2d.createLinearGradient(0, 0, 0, 320);
  sky.addColorStop(0, '#f7b267');
  sky.addColorStop(1, '#7a3e9d');
  draw2d.fillStyle = sky;
  draw2d.fillRect(0, 0, 480, 320);
  draw2d.fillStyle = '#fff3d6';
  draw2d.beginPath();
  draw2d.arc(120 + Math.random() * 240, 130, 46, 0, 2 * Math.PI);
  draw2d.fill();
  return canvas.toDataURL('image/png').split(',')[1];
}

/** What each fault is asked for with; index.html's words are under the same names. */
const FAULTS = {
  delay_webhook: { delay_ms: 3000 }, drop_webhook: { probability: 0.5 }, duplicate_webhook: {}, reorder_webhook: {},
  delay: { delay_ms: 3000 }, rate_limited: {}, server_error: {}, expired_token: {},
};

/** Shows the phone of the simulator at `simulator`, and follows it from then on. */
export async function startPhone(simulator) {
  base = simulator;
  for (const button of $('sim-quick').children) button.addEventListener('click', attempt(() => quick[button.dataset.quick]()));
  for (const select of [$('sim-line'), $('sim-customer')]) select.addEventListener('change', attempt(loadSimThread));
  $('sim-composer').addEventListener('submit', attempt(async (event) => {
    event.preventDefault();
    const body = $('sim-text').value.trim();
    if (!body) return;
    await sendAs({ type: 'text', body });
    $('sim-text').value = '';
  }));
  sendOnEnter($('sim-text'));
  $('sim-new').addEventListener('submit', attempt(async (event) => {
    event.preventDefault();
    const { name, number } = Object.fromEntries(new FormData($('sim-new')));
    await tell('/customers', json('PUT', { name: name.trim(), number }));
    await loadPhones();
    $('sim-customer').value = number;
    $('sim-new').reset();
    await loadSimThread();
    $('sim-text').focus();
  }));
  const plan = await sim('/faults');
  $('sim-faults').append(...Object.keys(FAULTS).map((kind) => h('label', { class: 'switch' },
    h('input', { type: 'checkbox', name: kind, checked: plan.faults.some((fault) => fault.kind === kind) }), h('span', { 'data-t': kind }, t(kind)))));
  $('sim-faults').addEventListener('change', attempt(() => {
    const on = [...$('sim-faults').querySelectorAll(':checked')].map(({ name: kind }) => ({ kind, ...FAULTS[kind] }));
    return tell('/faults', json('PUT', { faults: on }));
  }));

  await loadPhones();
  const events = new EventSource(`${base}/sim/events`);
  // Also after a break: whatever was missed is read anew.
  events.onopen = attempt(async () => { await loadPhones(); await loadSimThread(); });
  events.onmessage = attempt(async ({ data }) => {
    const event = JSON.parse(data);
    if (event.event === 'missed') await loadSimThread();
    if (event.event === 'typing' && mine(event)) {
      typingUntil = Date.now() + 25_000;
      setTimeout(drawPhone, 25_100);
      drawPhone();
    }
    if (event.event !== 'message' && event.event !== 'message_changed') return;
    if (!phones.some((entry) => entry.customer.number === event.message.customer)) await loadPhones();
    if (!mine(event.message)) return;
    if (event.event === 'message' && event.message.origin !== 'customer') typingUntil = 0;
    thread.set(event.message.id, event.message);
    drawPhone();
  });
  $('phone').hidden = $('phone-toggle').hidden = false;
  phone = { redraw: drawPhone, follow };
}
