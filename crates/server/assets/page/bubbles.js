// How a message looks: its bubble, by kind, with its ticks and files.

import { h, pause } from './dom.js';
import { summary } from './rows.js';
import { api } from './session.js';
import { clock, inWords, t } from './words.js';

const TICKS = { queued: '◷', pending: '◷', sending: '◷', sent: '✓', delivered: '✓✓', read: '✓✓', failed: '!', unknown: '?', cancelled: '×' };
export function tick(status) {
  const label = t(status === 'pending' ? 'queued' : status);
  return h('span', { class: 'tick', 'data-status': status, role: 'img', 'aria-label': label, title: label }, TICKS[status] ?? '');
}
/** `emojis` are the reactions to it; `quoted` is the message it answers, where that is loaded. */
export function bubble(message, emojis, quoted) {
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
/** Media id → { el, load } of the open conversation: kept, so that drawing again neither fetches nor stops playback. */
const files = new Map();

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

/** Lets go of the files of a conversation that was closed. */
export function forgetFiles() {
  for (const file of files.values()) if (file.url) URL.revokeObjectURL(file.url);
  files.clear();
}
/** The server has fetched a file from the provider: whoever waits for it asks at once. */
export const fileArrived = (id) => files.get(id)?.wake?.();
