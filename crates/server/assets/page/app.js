// The plain page: sign in, watch conversations live, answer them; in the demo, with a simulated phone beside it.
// One idea runs through it: rows live in Maps by id, the change feed and the API write into those Maps, and draw()
// makes the screen match them. Nothing a customer wrote ever becomes markup: text goes in as text nodes.

// ---------------------------------------------------------------- words

const WORDS = {
  en: {
    signIn: 'Sign in', signOut: 'Sign out', email: 'E-mail', password: 'Password', conversations: 'Conversations', search: 'Search',
    show: 'Show', active: 'Open', archived: 'Archived', blocked: 'Blocked', all: 'All', loadMore: 'Load more', loadOlder: 'Load older messages',
    none: 'No conversations yet. They appear here when a customer writes.', noMatch: 'Nothing matches.', chooseOne: 'Choose a conversation.', back: 'Back to the list',
    messages: 'Messages', write: 'Write a message', send: 'Send', live: 'Live', reconnecting: 'Reconnecting…', today: 'Today', yesterday: 'Yesterday', unread: 'unread',
    windowClosed: '24-hour window closed: only templates can be sent until the customer writes again.', windowUntil: 'Free-form messages until',
    lineStopped: 'This line is stopped; messages wait until it is put right.',
    queued: 'Queued', sending: 'Sending', sent: 'Sent', delivered: 'Delivered', read: 'Read', failed: 'Failed', unknown: 'Outcome unknown', cancelled: 'Cancelled',
    again: 'Try again', edited: 'edited', revoked: 'This message was deleted.', unsupported: 'A message of a kind that cannot be shown here.', order: 'Order', template: 'Template',
    image: 'Image', audio: 'Audio', voice: 'Voice message', video: 'Video', document: 'Document', sticker: 'Sticker', location: 'Location', contacts: 'Contact',
    interactive: 'Choice', button: 'Choice', system: 'Notice', reaction: 'Reaction', text: 'Message', earlier: 'An earlier message', download: 'Download', fetching: 'Fetching the file…',
    mediaLost: 'The file could not be fetched.', offline: 'The server cannot be reached.', newFrom: 'New message from', phone: 'Simulated phone', phoneShort: 'Phone',
    phoneAbout: 'Be the customer: what you send here goes through the simulated provider and its webhooks.', line: 'Business line', customer: 'Customer',
    customerSees: 'What the customer sees', writeAsCustomer: 'Write as the customer', sendImage: 'Image', sendVoice: 'Voice note', sendLocation: 'Location', sendReaction: 'React 👍', markRead: 'Mark read',
    newCustomer: 'New customer', name: 'Name', number: 'Number, with +', add: 'Add', breakThings: 'Break things', breakAbout: 'Each applies to everything until switched off.',
    noBusinessMessage: 'The business has not written here yet.', typing: 'typing…', deleted: 'Deleted',
    delay_webhook: 'Delay webhooks by 3 s', drop_webhook: 'Lose every second webhook or so', duplicate_webhook: 'Deliver webhooks twice', reorder_webhook: 'Reorder webhooks',
    delay: 'Slow provider, 3 s', rate_limited: 'Too many requests (429)', server_error: 'Provider down (500)', expired_token: 'Expired token (401), stops the line',
  },
  ar: {
    signIn: 'تسجيل الدخول', signOut: 'خروج', email: 'البريد الإلكتروني', password: 'كلمة المرور', conversations: 'المحادثات', search: 'بحث',
    show: 'عرض', active: 'المفتوحة', archived: 'المؤرشفة', blocked: 'المحظورة', all: 'الكل', loadMore: 'عرض المزيد', loadOlder: 'عرض رسائل أقدم',
    none: 'لا محادثات بعد. تظهر هنا عندما يكتب أحد العملاء.', noMatch: 'لا نتائج مطابقة.', chooseOne: 'اختر محادثة.', back: 'العودة إلى القائمة',
    messages: 'الرسائل', write: 'اكتب رسالة', send: 'إرسال', live: 'مباشر', reconnecting: 'جارٍ إعادة الاتصال…', today: 'اليوم', yesterday: 'أمس', unread: 'غير مقروءة',
    windowClosed: 'انتهت مهلة 24 ساعة: لا تُرسل إلا القوالب حتى يكتب العميل من جديد.', windowUntil: 'الرسائل الحرة متاحة حتى',
    lineStopped: 'هذا الخط متوقف؛ تنتظر الرسائل حتى يُصلَح.',
    queued: 'في الانتظار', sending: 'جارٍ الإرسال', sent: 'أُرسلت', delivered: 'وصلت', read: 'قُرئت', failed: 'فشل الإرسال', unknown: 'النتيجة غير معروفة', cancelled: 'أُلغيت',
    again: 'إعادة المحاولة', edited: 'معدّلة', revoked: 'حُذفت هذه الرسالة.', unsupported: 'رسالة من نوع لا يمكن عرضه هنا.', order: 'طلب', template: 'قالب',
    image: 'صورة', audio: 'صوت', voice: 'رسالة صوتية', video: 'فيديو', document: 'مستند', sticker: 'ملصق', location: 'موقع', contacts: 'جهة اتصال',
    interactive: 'اختيار', button: 'اختيار', system: 'تنبيه', reaction: 'تفاعل', text: 'رسالة', earlier: 'رسالة سابقة', download: 'تنزيل', fetching: 'جارٍ جلب الملف…',
    mediaLost: 'تعذّر جلب الملف.', offline: 'تعذّر الوصول إلى الخادم.', newFrom: 'رسالة جديدة من', phone: 'هاتف المحاكاة', phoneShort: 'الهاتف',
    phoneAbout: 'كن أنت العميل: ما ترسله هنا يمر عبر المزوّد المُحاكى وإشعاراته.', line: 'خط الشركة', customer: 'العميل',
    customerSees: 'ما يراه العميل', writeAsCustomer: 'اكتب كعميل', sendImage: 'صورة', sendVoice: 'رسالة صوتية', sendLocation: 'موقع', sendReaction: 'تفاعل 👍', markRead: 'قراءة الرسائل',
    newCustomer: 'عميل جديد', name: 'الاسم', number: 'الرقم مع +', add: 'إضافة', breakThings: 'إحداث أعطال', breakAbout: 'يسري كل عطل على كل شيء حتى تطفئه.',
    noBusinessMessage: 'لم تكتب الشركة هنا بعد.', typing: 'يكتب الآن…', deleted: 'محذوفة',
    delay_webhook: 'تأخير الإشعارات 3 ثوانٍ', drop_webhook: 'ضياع نصف الإشعارات تقريباً', duplicate_webhook: 'تكرار الإشعارات', reorder_webhook: 'تبديل ترتيب الإشعارات',
    delay: 'مزوّد بطيء، 3 ثوانٍ', rate_limited: 'طلبات كثيرة (429)', server_error: 'المزوّد معطّل (500)', expired_token: 'رمز منتهي الصلاحية (401)، يوقف الخط',
    'error.window_closed': 'انتهت مهلة 24 ساعة: لا تُرسل إلا القوالب حتى يكتب العميل من جديد.', 'error.opted_out': 'أوقف هذا العميل استقبال الرسائل.',
    'error.invalid_credentials': 'البريد أو كلمة المرور غير صحيحة.', 'error.offline': 'تعذّر الوصول إلى الخادم.',
  },
};
let lang = localStorage.getItem('wasel.lang') ?? (navigator.language.startsWith('ar') ? 'ar' : 'en');
const t = (key) => WORDS[lang][key] ?? WORDS.en[key] ?? key;
/** An error in the reader's words where there are some, else as the server put it. */
const said = (error) => WORDS[lang][`error.${error.code}`] ?? error.message;
const locale = () => navigator.languages.find((tag) => tag.startsWith(lang)) ?? (lang === 'ar' ? 'ar-EG' : 'en');
const inWords = (date, options) => new Intl.DateTimeFormat(locale(), options).format(new Date(date));
const clock = (date) => inWords(date, { hour: 'numeric', minute: '2-digit' });
const dayOf = (date) => new Date(date).toDateString();
function dayName(date) {
  const ago = Math.round((new Date(dayOf(Date.now())) - new Date(dayOf(date))) / 86_400_000);
  if (ago === 0 || ago === 1) return t(ago ? 'yesterday' : 'today');
  return inWords(date, { weekday: 'long', day: 'numeric', month: 'long', year: 'numeric' });
}
function applyLanguage() {
  document.documentElement.lang = lang;
  document.documentElement.dir = lang === 'ar' ? 'rtl' : 'ltr';
  for (const el of document.querySelectorAll('[data-t]')) el.textContent = t(el.dataset.t);
  for (const el of document.querySelectorAll('[data-t-label]')) el.setAttribute('aria-label', t(el.dataset.tLabel));
  for (const el of document.querySelectorAll('[data-t-hint]')) el.placeholder = t(el.dataset.tHint);
  $('language').textContent = lang === 'ar' ? 'English' : 'العربية';
  $('language').lang = lang === 'ar' ? 'en' : 'ar';
}

// ---------------------------------------------------------------- elements

const $ = (id) => document.getElementById(id);

/** An element. Attributes that are null or false are left out; `on…` are listeners. */
function h(tag, attributes, ...children) {
  const el = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith('on')) el.addEventListener(name.slice(2), value);
    else if (value != null && value !== false) el.setAttribute(name, value === true ? '' : value);
  }
  el.append(...children.flat().filter((child) => child != null && child !== false));
  return el;
}

/** Makes the children match `items` ({key, data, make}), touching only what changed, so that focus and playback stay. */
function reconcile(parent, items) {
  const focused = document.activeElement.closest('[data-key]');
  const focusKey = focused?.parentElement === parent ? focused.dataset.key : null;
  const wanted = new Set(items.map((item) => item.key));
  for (const node of [...parent.children]) if (!wanted.has(node.dataset.key)) node.remove();
  const present = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  let next = parent.firstElementChild;
  for (const { key, data, make } of items) {
    const print = JSON.stringify([lang, data]);
    let node = present.get(key);
    if (node?.print !== print) {
      const fresh = make();
      fresh.dataset.key = key;
      fresh.print = print;
      if (next === node && node) next = fresh;
      node?.replaceWith(fresh);
      node = fresh;
    }
    if (node === next) next = next.nextElementSibling;
    else parent.insertBefore(node, next);
  }
  if (focusKey != null && !parent.contains(document.activeElement)) {
    const node = [...parent.children].find((child) => child.dataset.key === focusKey);
    node?.querySelector('a, button, audio, video')?.focus({ preventScroll: true });
  }
}

/** Enter sends, Shift+Enter is a new line; Enter that ends an input method's composition is neither. */
function sendOnEnter(textarea) {
  textarea.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    textarea.form.requestSubmit();
  });
}
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const toEnd = (el) => { el.scrollTop = el.scrollHeight; };
/** Whoever reads at the end stays there when messages come, pictures load or the box changes; scrolling up lets go. */
function keepAtEnd(scroller) {
  let [stick, top] = [true, 0];
  scroller.addEventListener('scroll', () => {
    stick = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 80 || (stick && scroller.scrollTop >= top);
    top = scroller.scrollTop;
  });
  const observer = new ResizeObserver(() => { if (stick) toEnd(scroller); });
  for (const el of [scroller, ...scroller.children]) observer.observe(el);
}

/** randomUUID exists only on https and localhost; this page may be read over plain http in a private network. */
function uuid() {
  if (crypto.randomUUID) return crypto.randomUUID();
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

// ---------------------------------------------------------------- session and requests

class Problem extends Error {
  constructor(status, code, message) { super(message); Object.assign(this, { status, code }); }
}
/** fetch that throws a Problem for anything but success. Knows the error shapes of /v1, /auth/v1 and /sim. */
async function request(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Problem(0, 'offline', t('offline'));
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new Problem(response.status, body.error?.code ?? body.code, body.error?.message ?? body.message ?? response.statusText);
}
const json = (method, body) => ({ method, headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });

let demo = null;
let session = JSON.parse(sessionStorage.getItem('wasel.session') ?? 'null');
let refreshing = null;
let refreshTimer = 0;

async function grant(type, body) {
  const answer = await (await request(`/auth/v1/token?grant_type=${type}`, json('POST', body))).json();
  keep({ access_token: answer.access_token, refresh_token: answer.refresh_token, expires_at: Date.now() + answer.expires_in * 1000 });
}
function keep(next) {
  session = next;
  clearTimeout(refreshTimer);
  if (!next) return sessionStorage.removeItem('wasel.session');
  sessionStorage.setItem('wasel.session', JSON.stringify(next));
  // Should it fail, the next request tries again.
  refreshTimer = setTimeout(() => refresh().catch(() => {}), Math.max(5_000, next.expires_at - Date.now() - 120_000));
}
/** A new token for the old one; one request however many wait for it. Where the session is over, back to the form. */
function refresh() {
  refreshing ??= (async () => {
    try {
      await grant('refresh_token', { refresh_token: session?.refresh_token ?? '' });
    } catch (error) {
      if (error.status < 400 || error.status >= 500 || error.status === 429) throw error;
      // The demo's data may be new while this tab is old.
      if (demo && session) return await grant('password', { email: demo.email, password: demo.password });
      stop();
      throw error;
    }
  })().finally(() => { refreshing = null; });
  return refreshing;
}
async function api(path, options = {}) {
  if (session && session.expires_at - Date.now() < 60_000) await refresh();
  const authorised = () => ({ ...options, headers: { ...options.headers, authorization: `Bearer ${session?.access_token}` } });
  try {
    return await request(path, authorised());
  } catch (error) {
    if (error.status !== 401 || !session) throw error;
    await refresh();
    return request(path, authorised());
  }
}
const get = async (path) => (await api(path)).json();

// ---------------------------------------------------------------- what is known

const channels = new Map();
const conversations = new Map();
/** Of the open conversation only. */
const messages = new Map();
/** `channel provider-id` → actor → emoji: kept apart, because a reaction may come before its message. */
const reactions = new Map();
/** Media id → { el, load }. */
const files = new Map();
/** Conversation id → text not yet sent. */
const drafts = new Map();
let found = new Set();
let openId = null;
let listCursor = null;
let threadCursor = null;
let seq = null;
/** Counts rows written by the feed: an answer to an older request must not overwrite what the feed said meanwhile. */
let writes = 0;

function learn(map, row, before) {
  const known = map.get(row.id);
  if (before !== undefined && known?.written > before) return;
  map.set(row.id, { ...known, ...row, written: before === undefined ? ++writes : (known?.written ?? 0) });
}
function learnMessage(row, before) {
  // The bubble shown while sending gives way to the message it became.
  if (row.request_id) messages.delete(`local:${row.request_id}`);
  if (row.reactions) reactions.delete(`${row.channel_id} ${row.provider_message_id}`);
  for (const { actor, emoji } of row.reactions ?? []) learnReaction(row.channel_id, row.provider_message_id, actor, emoji);
  learn(messages, row, before);
}
function learnReaction(channel, target, actor, emoji) {
  const key = `${channel} ${target}`;
  if (!reactions.has(key)) reactions.set(key, new Map());
  if (emoji) reactions.get(key).set(actor, emoji);
  else reactions.get(key).delete(actor);
}
const hasWindow = (conversation) => ['whatsapp_cloud', 'twilio_whatsapp'].includes(channels.get(conversation.channel_id)?.kind);
const windowOpen = (conversation) => conversation.window_closes_at && new Date(conversation.window_closes_at) > Date.now();
/** The feed's rows are the table's: what the API works out is worked out here. */
function withWindow(row) {
  const closes = row.last_inbound_at && hasWindow(row) ? new Date(new Date(row.last_inbound_at).getTime() + 86_400_000) : null;
  return { ...row, window_closes_at: closes?.toISOString() ?? null };
}
const titleOf = (conversation) => conversation.customer_name || conversation.phone_number || '…';

// ---------------------------------------------------------------- loading

async function loadChannels() {
  for (const channel of (await get('/v1/channels')).data) channels.set(channel.id, channel);
}
async function loadConversations(more) {
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
async function open(id) {
  if (openId) drafts.set(openId, $('text').value);
  openId = id;
  messages.clear();
  for (const file of files.values()) if (file.url) URL.revokeObjectURL(file.url);
  files.clear();
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
async function markRead() {
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

// ---------------------------------------------------------------- the change feed

let feed = null;
function setLive(live) {
  $('live').dataset.state = live ? 'live' : 'reconnecting';
  $('live').textContent = t(live ? 'live' : 'reconnecting');
}
/** Loads, then follows; after a break goes on where it was. Ends with the session. */
async function follow() {
  const mine = (feed = { abort: null });
  let wait = 500;
  while (feed === mine) {
    try {
      if (seq === null) {
        // First where the feed stands, then the lists, then what happened since: no gap.
        const { next_cursor } = await get('/v1/changes?limit=1');
        await loadChannels();
        await loadConversations();
        if (openId) await open(openId);
        seq = next_cursor;
      }
      await stream(mine, () => { wait = 500; });
    } catch (error) {
      if (error.status === 410) seq = null;
    }
    if (feed !== mine) return;
    setLive(false);
    await Promise.race([pause(wait * (0.5 + Math.random())), new Promise((resolve) => { mine.hurry = resolve; })]);
    wait = Math.min(wait * 2, 15_000);
  }
}
async function stream(mine, onData) {
  mine.abort = new AbortController();
  // The server says something every 15 s; a line that is silent for longer is dead.
  let watchdog = setTimeout(() => mine.abort.abort(), 45_000);
  try {
    const response = await api(`/v1/changes?after=${seq}&tables=channels,conversations,messages,message_reactions,media`, {
      headers: { accept: 'text/event-stream' }, signal: mine.abort.signal,
    });
    setLive(true);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ''; ;) {
      const { value, done } = await reader.read();
      if (done || feed !== mine) return;
      clearTimeout(watchdog);
      watchdog = setTimeout(() => mine.abort.abort(), 45_000);
      onData();
      const blocks = (rest + value).split('\n\n');
      rest = blocks.pop();
      for (const block of blocks) {
        const data = block.split('\n').filter((line) => line.startsWith('data:')).map((line) => line.slice(5).trimStart()).join('\n');
        if (!data) continue;
        const change = JSON.parse(data);
        apply(change);
        seq = change.seq;
      }
      draw();
    }
  } finally {
    clearTimeout(watchdog);
    mine.abort.abort();
  }
}
function apply({ table, op, record, old_record }) {
  if (op === 'DELETE') {
    if (table === 'conversations') conversations.delete(old_record.id);
    if (table === 'messages') messages.delete(old_record.id);
    return;
  }
  if (table === 'channels') {
    learn(channels, record);
  } else if (table === 'conversations') {
    if (!channels.has(record.channel_id)) loadChannels().then(draw, () => {});
    learn(conversations, withWindow(record));
    if (record.id === openId && document.hasFocus()) markRead();
  } else if (table === 'messages') {
    const isNew = op === 'INSERT' && record.direction === 'inbound';
    if (isNew) announce(record);
    if (record.conversation_id === openId) learnMessage(record);
    else messages.delete(record.id);
  } else if (table === 'message_reactions') {
    learnReaction(record.channel_id, record.target_provider_message_id, record.actor, record.emoji);
  } else if (table === 'media' && record.status !== 'pending') {
    files.get(record.id)?.wake?.();
  }
}
function announce(message) {
  $('announce').textContent = `${t('newFrom')} ${message.customer_name || message.address || ''}: ${summary(message)}`;
}

// ---------------------------------------------------------------- drawing

let drawing = 0;
function draw() {
  drawing ||= setTimeout(drawNow, 0);
}
function drawNow() {
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
const inNumber = (number) => new Intl.NumberFormat(locale()).format(number);

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
function summary(message) {
  if (message.revoked_at) return t('revoked');
  return message.body || t(message.message_type);
}
const TICKS = { queued: '◷', pending: '◷', sending: '◷', sent: '✓', delivered: '✓✓', read: '✓✓', failed: '!', unknown: '?', cancelled: '×' };
function tick(status) {
  const label = t(status === 'pending' ? 'queued' : status);
  return h('span', { class: 'tick', 'data-status': status, role: 'img', 'aria-label': label, title: label }, TICKS[status] ?? '');
}
function bubble(message, emojis, quoted) {
  const ours = message.direction === 'outbound';
  return h('li', { class: `bubble ${ours ? 'ours' : ''}`, 'data-testid': 'message', 'data-id': message.id, 'data-status': message.status, 'data-direction': message.direction },
    message.quoted_message_id && h('div', { class: 'quoted', dir: 'auto' }, quoted ? summary(quoted) : t('earlier')),
    message.revoked_at ? h('div', { class: 'soft' }, t('revoked')) : contentOf(message),
    message.status === 'failed' && h('div', { class: 'error', dir: 'auto' }, message.error_message || t('failed')),
    message.again && h('button', { type: 'button', onclick: message.again }, t('again')),
    h('div', { class: 'meta' },
      emojis.length > 0 && h('span', { class: 'reactions' }, emojis.map((emoji) => h('span', {}, emoji))),
      message.edited_at && h('span', {}, t('edited')),
      h('time', { datetime: message.created_at, title: inWords(message.created_at, { dateStyle: 'full', timeStyle: 'medium' }) }, clock(message.created_at)),
      ours && tick(message.status)));
}
/** What a bubble holds, by kind; each kind is one shape for all providers. */
function contentOf(message) {
  const { message_type: kind, body } = message;
  const content = message.content ?? {};
  const text = body && h('div', { class: 'body', dir: 'auto' }, body);
  const soft = (words) => h('div', { class: 'soft', dir: 'auto' }, words);
  const choices = (list) => h('ul', { class: 'options' }, list.filter(Boolean).map((words) => h('li', { dir: 'auto' }, words)));
  switch (kind) {
    case 'image': case 'sticker': case 'audio': case 'video': case 'document':
      return [...(message.media ?? []).map((file) => mediaOf(kind, file)), text];
    case 'location': {
      const place = `${content.latitude},${content.longitude}`;
      const map = `https://www.openstreetmap.org/?mlat=${encodeURIComponent(content.latitude)}&mlon=${encodeURIComponent(content.longitude)}`;
      return [text ?? soft(t('location')), content.address && content.address !== body && h('div', { dir: 'auto' }, content.address),
        h('a', { href: map, target: '_blank', rel: 'noopener noreferrer', dir: 'ltr' }, place)];
    }
    case 'contacts':
      return [!content.contacts?.length && text, choices((content.contacts ?? []).map((card) =>
        [card.name?.formatted_name, ...(card.phones ?? []).map((entry) => `\u2066${entry.phone ?? ''}\u2069`)].filter(Boolean).join(' · ')))];
    case 'interactive': {
      const action = content.interactive?.action ?? {};
      const rows = (action.sections ?? []).flatMap((section) => section.rows ?? []).map((row) => row.title);
      return [text ?? soft(content.title ?? t('interactive')), content.description && soft(content.description),
        choices([...(action.buttons ?? []).map((entry) => entry.reply?.title), ...rows])];
    }
    case 'button':
      return text ?? soft(content.text ?? t('button'));
    case 'order':
      return [soft(t('order')), text, choices((content.product_items ?? []).map((item) =>
        `${item.quantity ?? 1} × ${item.product_retailer_id ?? ''} · ${item.item_price ?? ''} ${item.currency ?? ''}`))];
    case 'template':
      return [soft(t('template')), text];
    case 'unsupported':
      return soft(t('unsupported'));
    default:
      return text ?? soft(t(kind));
  }
}

// Files need the bearer token, so an <img src> cannot fetch them: they come as blobs.
function mediaOf(kind, { media_id: id, url, filename, voice }) {
  const label = filename || t(voice ? 'voice' : kind);
  if (!id) return h('div', {}, /^https?:/.test(url ?? '') ? h('a', { href: url, target: '_blank', rel: 'noopener noreferrer' }, label) : label);
  if (!files.has(id)) {
    const file = { el: h('div', { class: 'file' }), busy: false, url: null };
    file.load = () => { if (!file.busy && !file.url) loadFile(id, file, kind, label); };
    files.set(id, file);
    file.load();
  }
  return files.get(id).el;
}
async function loadFile(id, file, kind, label) {
  file.busy = true;
  file.el.replaceChildren(h('span', { class: 'soft' }, t('fetching')));
  for (let tries = 1; files.get(id) === file; tries++) {
    try {
      const blob = await (await api(`/v1/media/${encodeURIComponent(id)}`)).blob();
      if (files.get(id) !== file) return;
      file.url = URL.createObjectURL(blob);
      const download = h('a', { href: file.url, download: label }, `${t('download')}: ${label}`);
      const type = blob.type.split('/')[0];
      if (type === 'image') file.el.replaceChildren(h('img', { src: file.url, alt: label }));
      else if (type === 'audio' || type === 'video') file.el.replaceChildren(h(type, { src: file.url, controls: true, 'aria-label': label }));
      else file.el.replaceChildren(download);
      break;
    } catch (error) {
      // 409: the server is still fetching it from the provider. The feed tells when it has; asking again is for its lapses.
      if (error.status === 409 && tries < 30) {
        await Promise.race([pause(4000), new Promise((resolve) => { file.wake = resolve; })]);
        continue;
      }
      file.el.replaceChildren(h('span', { class: 'error' }, t('mediaLost')), ' ', h('button', { type: 'button', onclick: () => file.load() }, t('again')));
      break;
    }
  }
  file.busy = false;
}

// ---------------------------------------------------------------- answering

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

// ---------------------------------------------------------------- the simulated phone (demo only)

let phone = null;
const FAULTS = {
  delay_webhook: { delay_ms: 3000 }, drop_webhook: { probability: 0.5 }, duplicate_webhook: {}, reorder_webhook: {},
  delay: { delay_ms: 3000 }, rate_limited: {}, server_error: {}, expired_token: {},
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

async function startPhone(base) {
  const sim = async (path, options) => (await request(`${base}/sim${path}`, options)).json();
  const tell = async (path, options) => { await request(`${base}/sim${path}`, options); };
  const attempt = (work) => async (...given) => {
    $('sim-error').textContent = '';
    try { await work(...given); } catch (error) { $('sim-error').textContent = said(error); }
  };
  let lines = [];
  let phones = [];
  const thread = new Map();
  let typingUntil = 0;
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

  return {
    redraw: drawPhone,
    /** Shows the phone of the conversation that was opened. */
    follow: attempt(async (conversation) => {
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
    }),
  };
}

// ---------------------------------------------------------------- coming and going

function start() {
  $('sign-in').hidden = true;
  $('inbox').hidden = $('live').hidden = $('sign-out').hidden = false;
  setLive(false);
  follow();
}
/** Forgets everything of the session and shows the form. */
function stop() {
  feed?.abort?.abort();
  feed = null;
  seq = null;
  keep(null);
  for (const map of [channels, conversations, messages, reactions, drafts]) map.clear();
  if (openId) location.hash = '';
  $('inbox').hidden = $('live').hidden = $('sign-out').hidden = true;
  $('sign-in').hidden = false;
  if (demo) Object.assign($('sign-in').email, { value: demo.email });
  if (demo) Object.assign($('sign-in').password, { value: demo.password });
  draw();
}

$('sign-in').addEventListener('submit', async (event) => {
  event.preventDefault();
  $('sign-in-error').textContent = '';
  try {
    await grant('password', Object.fromEntries(new FormData($('sign-in'))));
    $('sign-in').reset();
    start();
  } catch (error) {
    $('sign-in-error').textContent = said(error);
  }
});
$('sign-out').addEventListener('click', async () => {
  try {
    await api('/auth/v1/logout?scope=local', { method: 'POST' });
  } catch (error) {
    // The session is forgotten here in any case; the server's half of it runs out by itself.
    console.warn('sign-out did not reach the server:', error.message);
  }
  stop();
});
$('composer').addEventListener('submit', (event) => {
  event.preventDefault();
  const [conversation, body] = [conversations.get(openId), $('text').value.trim()];
  if (!conversation || !body) return;
  $('text').value = $('send-error').textContent = '';
  $('text').focus();
  send(conversation, body);
});
sendOnEnter($('text'));
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
$('language').addEventListener('click', () => {
  lang = lang === 'ar' ? 'en' : 'ar';
  localStorage.setItem('wasel.lang', lang);
  applyLanguage();
  setLive($('live').dataset.state === 'live');
  drawNow();
  phone?.redraw();
});
$('phone-toggle').addEventListener('click', () => {
  showView(document.body.dataset.view === 'phone' ? (openId ? 'thread' : 'list') : 'phone');
  markRead();
});
// The open conversation is in the address, so that Back, reload and links work.
const fromAddress = () => decodeURIComponent(location.hash.slice(1)) || null;
window.addEventListener('hashchange', () => open(fromAddress()));
window.addEventListener('online', () => feed?.hurry?.());
for (const name of ['focus', 'visibilitychange']) window.addEventListener(name, () => { if (session) markRead(); });
// The 24-hour window closes and days change without anybody writing.
setInterval(draw, 30_000);

keepAtEnd($('scroller'));
keepAtEnd($('sim-scroller'));
applyLanguage();
openId = fromAddress();
if (openId) showView('thread');
try {
  demo = (await (await request('/page/settings.json')).json()).demo;
  if (!session && demo) await grant('password', { email: demo.email, password: demo.password });
} catch (error) {
  $('sign-in-error').textContent = said(error);
}
if (session) start();
else stop();
if (demo) {
  startPhone(demo.simulator_url).then((started) => {
    phone = started;
    if (conversations.has(openId)) phone.follow(conversations.get(openId));
  }, (error) => {
    $('phone').hidden = false;
    $('sim-error').textContent = said(error);
  });
}
