// The inbox: the list of conversations, the one that is open, and the box to answer it.

import { bubble, forgetFiles } from './bubbles.js';
import { $, h, keepAtEnd, reconcile, sendOnEnter, toEnd } from './dom.js';
import { phone } from './phone.js';
import {
  channels, conversations, forgetRows, hasWindow, learn, learnMessage, messages, reactions, summary, titleOf, windowOpen, writes,
} from './rows.js';
import { api, get, json, session } from './session.js';
import { clock, dayName, dayOf, inNumber, inWords, said, t } from './words.js';

/** Conversation id → text not yet sent. */
const drafts = new Map();
/** Conversations the server found for the search and the status chosen. */
let found = new Set();
/** Its conversation is in the address too, so that Back, reload and links work. */
export let openId = null;
let listCursor = null;
let threadCursor = null;
const fromAddress = () => decodeURIComponent(location.hash.slice(1)) || null;

// ---------------------------------------------------------------- loading

export async function loadChannels() {
  for (const channel of (await get('/v1/channels')).data) channels.set(channel.id, channel);
}
export async function loadConversations(more) {
  const query = new URLSearchParams({ limit: 50 });
  const [search, status] = [$('search').value.trim(), $('status').value];
  if (search) query.set('search', search);
  if (status) query.set('status', status);
  if (more) query.set('cursor', listCursor);
  const before = writes;
  const page = await get(`/v1/conversations?${query}`);
  if ($('search').value.trim() !== search || $('status').value !== status) return;
  if (!more) found = new Set();
  for (const row of page.data) {
    found.add(row.id);
    learn(conversations, row, before);
  }
  listCursor = page.next_cursor;
  draw();
}
async function loadThread(id, more) {
  const before = writes;
  const page = await get(`/v1/conversations/${id}/messages?limit=50${more ? `&cursor=${encodeURIComponent(threadCursor)}` : ''}`);
  if (id !== openId) return;
  for (const row of page.data) learnMessage(row, before);
  threadCursor = page.next_cursor;
  const from = $('scroller').scrollHeight - $('scroller').scrollTop;
  drawNow();
  $('scroller').scrollTop = more ? $('scroller').scrollHeight - from : $('scroller').scrollHeight;
}

// ---------------------------------------------------------------- opening

/** Shows the conversation `id`, or none where that is null. */
export async function openConversation(id) {
  if (openId) drafts.set(openId, $('text').value);
  openId = id;
  messages.clear();
  forgetFiles();
  threadCursor = null;
  $('send-error').textContent = '';
  $('text').value = drafts.get(id) ?? '';
  showView(id ? 'thread' : 'list');
  draw();
  if (!id || !session) return;
  try {
    const before = writes;
    if (!conversations.has(id)) learn(conversations, await get(`/v1/conversations/${id}`), before);
    await loadThread(id);
    phone?.follow(conversations.get(id));
    await markRead();
  } catch (error) {
    if (id === openId) $('send-error').textContent = said(error);
  }
}
/** Which pane a narrow screen shows: `list`, `thread` or `phone`. */
function showView(view) {
  document.body.dataset.view = view;
  $('phone-toggle').setAttribute('aria-pressed', view === 'phone');
}
export async function markRead() {
  const conversation = conversations.get(openId);
  const seen = document.visibilityState === 'visible' && $('scroller').offsetParent;
  if (!conversation?.unread_count || !seen) return;
  const before = writes;
  try {
    learn(conversations, await (await api(`/v1/conversations/${openId}/read`, json('POST', {}))).json(), before);
    draw();
  } catch (error) {
    // A viewer may look without it counting as read.
    if (error.status !== 403) $('send-error').textContent = said(error);
  }
}

// ---------------------------------------------------------------- answering

/** randomUUID exists only on https and localhost; this page may be read over plain http in a private network. */
function uuid() {
  if (crypto.randomUUID) return crypto.randomUUID();
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** Shows the message at once; the same key on every try makes it one message however often it is asked for. */
async function send(conversation, body, key = uuid()) {
  const id = `local:${key}`;
  const show = (row) => {
    if (conversation.id === openId) messages.set(id, { id, channel_id: conversation.channel_id, direction: 'outbound', message_type: 'text', body, created_at: new Date().toISOString(), ...row });
    drawNow();
  };
  show({ status: 'queued' });
  toEnd($('scroller'));
  const before = writes;
  try {
    const options = json('POST', { conversation_id: conversation.id, content: { type: 'text', body }, request_id: key });
    options.headers['idempotency-key'] = key;
    const message = await (await api('/v1/messages', options)).json();
    messages.delete(id);
    if (conversation.id === openId) learnMessage(message, before);
  } catch (error) {
    const words = said(error);
    const refused = error.status >= 400 && error.status < 500 && error.status !== 429;
    if (!refused) return show({ status: 'failed', error_message: words, again: () => send(conversation, body, key) });
    // It will not do as it stands: back into the box with it.
    messages.delete(id);
    if (conversation.id !== openId) drafts.set(conversation.id, body);
    else {
      $('send-error').textContent = words;
      $('text').value ||= body;
    }
  }
  draw();
}

// ---------------------------------------------------------------- drawing

let drawing = 0;
export function draw() {
  drawing ||= setTimeout(drawNow, 0);
}
export function drawNow() {
  clearTimeout(drawing);
  drawing = 0;
  drawList();
  drawThread();
  const unread = [...conversations.values()].filter((conversation) => conversation.unread_count > 0).length;
  document.title = unread ? `(${unread}) Wasel` : 'Wasel';
}
function drawList() {
  const [search, status] = [$('search').value.trim().toLowerCase(), $('status').value];
  const matches = (c) => !search || found.has(c.id)
    || [c.customer_name, c.phone_number, c.last_message].some((text) => text?.toLowerCase().includes(search));
  const shown = [...conversations.values()].filter((c) => (!status || c.status === status) && matches(c));
  const at = (conversation) => Date.parse(conversation.last_message_at ?? 0);
  shown.sort((a, b) => at(b) - at(a) || (a.id < b.id ? 1 : -1));
  const today = dayOf(Date.now());
  reconcile($('conversations'), shown.map((c) => ({
    key: c.id,
    data: [c, c.id === openId, channels.get(c.channel_id)?.name, today],
    make: () => h('li', {}, h('a', {
      class: 'conversation', href: `#${c.id}`, 'data-testid': 'conversation', 'data-id': c.id, 'aria-current': c.id === openId && 'true',
    },
    h('span', { class: 'avatar', 'aria-hidden': 'true' }, [...titleOf(c)].find((sign) => /\p{L}/u.test(sign)) ?? '#'),
    h('span', { class: 'name', dir: 'auto' }, titleOf(c)),
    c.last_message_at && h('time', { datetime: c.last_message_at }, dayOf(c.last_message_at) === today ? clock(c.last_message_at) : inWords(c.last_message_at, { day: 'numeric', month: 'short' })),
    h('span', { class: 'last', dir: 'auto' }, c.last_message || '…'),
    c.unread_count > 0 ? h('span', { class: 'badge' }, inNumber(c.unread_count), h('span', { class: 'unseen' }, ` ${t('unread')}`)) : h('span'),
    h('span', { class: 'via' }, h('bdi', {}, channels.get(c.channel_id)?.name ?? ''), c.customer_name && c.phone_number && h('bdi', { dir: 'ltr' }, c.phone_number),
      c.tags.map((tag) => h('bdi', { class: 'tag' }, tag))))),
  })));
  $('no-conversations').hidden = shown.length > 0;
  $('no-conversations').textContent = t(search || status !== 'active' || conversations.size ? 'noMatch' : 'none');
  $('more').hidden = !listCursor;
}

function drawThread() {
  const conversation = conversations.get(openId);
  $('open').hidden = !conversation;
  $('nothing-open').hidden = !!conversation;
  if (!conversation) return;
  const channel = channels.get(conversation.channel_id);
  $('thread-title').textContent = titleOf(conversation);
  $('thread-about').replaceChildren(h('bdi', {}, channel?.name ?? ''), ...(conversation.customer_name && conversation.phone_number ? [' · ', h('bdi', { dir: 'ltr' }, conversation.phone_number)] : []));
  $('line-note').textContent = channel && channel.status !== 'active' ? `${t('lineStopped')} ${channel.status_reason ?? ''}` : '';
  const closed = hasWindow(conversation) && !windowOpen(conversation);
  $('window').classList.toggle('closed', closed);
  $('window').textContent = closed ? t('windowClosed') : hasWindow(conversation)
    ? `${t('windowUntil')} ${inWords(conversation.window_closes_at, { weekday: 'long', hour: 'numeric', minute: '2-digit' })}` : '';
  const list = [...messages.values()];
  const local = (message) => message.id.startsWith('local:');
  list.sort((a, b) => local(a) - local(b) || Date.parse(a.created_at) - Date.parse(b.created_at) || (a.id < b.id ? -1 : 1));
  const items = [];
  let day = null;
  for (const message of list) {
    if (dayOf(message.created_at) !== day) {
      day = dayOf(message.created_at);
      items.push({ key: day, data: dayName(message.created_at), make: () => h('li', { class: 'day' }, dayName(message.created_at)) });
    }
    const emojis = [...(reactions.get(`${message.channel_id} ${message.provider_message_id}`)?.values() ?? [])];
    const quoted = message.quoted_message_id && list.find((other) => other.provider_message_id === message.quoted_message_id);
    const { written, updated_at, ...shown } = message;
    items.push({ key: message.id, data: [shown, emojis, quoted && summary(quoted)], make: () => bubble(message, emojis, quoted) });
  }
  reconcile($('messages'), items);
  $('older').hidden = !threadCursor;
}

// ---------------------------------------------------------------- coming and going

/** Listens to the inbox's elements, and takes from the address which conversation to open once somebody is signed in. */
export function startInbox() {
  $('composer').addEventListener('submit', (event) => {
    event.preventDefault();
    const [conversation, body] = [conversations.get(openId), $('text').value.trim()];
    if (!conversation || !body) return;
    $('text').value = $('send-error').textContent = '';
    $('text').focus();
    send(conversation, body);
  });
  sendOnEnter($('text'));
  // What goes wrong is announced; the list stays as it was.
  const shown = (work) => () => work().catch((error) => { $('announce').textContent = said(error); });
  $('more').addEventListener('click', shown(() => loadConversations(true)));
  $('older').addEventListener('click', shown(() => loadThread(openId, true)));
  $('status').addEventListener('change', shown(() => loadConversations()));
  let typed = 0;
  $('search').addEventListener('input', () => {
    clearTimeout(typed);
    draw();
    typed = setTimeout(shown(() => loadConversations()), 200);
  });
  $('phone-toggle').addEventListener('click', () => {
    showView(document.body.dataset.view === 'phone' ? (openId ? 'thread' : 'list') : 'phone');
    markRead();
  });
  window.addEventListener('hashchange', () => openConversation(fromAddress()));
  for (const name of ['focus', 'visibilitychange']) window.addEventListener(name, () => { if (session) markRead(); });
  // The 24-hour window closes and days change without anybody writing.
  setInterval(draw, 30_000);
  keepAtEnd($('scroller'));

  openId = fromAddress();
  if (openId) showView('thread');
}

/** Forgets every row and draft of the session. */
export function emptyInbox() {
  forgetRows();
  drafts.clear();
  if (openId) location.hash = '';
  draw();
}
