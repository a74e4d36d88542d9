// The change feed: everything that happens on the server, as it happens, written into the rows.

import { fileArrived } from './bubbles.js';
import { $, pause } from './dom.js';
import { draw, loadChannels, loadConversations, markRead, openConversation, openId } from './inbox.js';
import { drawLinked, loadSessions } from './linked.js';
import { channels, conversations, learn, learnMessage, learnReaction, messages, sessions, summary, withWindow } from './rows.js';
import { api, get } from './session.js';
import { t } from './words.js';

/** The stream under way: `abort` ends it, `hurry` ends the wait before the next try. */
let feed = null;
/** The last change applied; null before the first load and when the server no longer has what came after it. */
let seq = null;

export function setLive(live) {
  $('live').dataset.state = live ? 'live' : 'reconnecting';
  $('live').textContent = t(live ? 'live' : 'reconnecting');
}

/** Loads, then follows; after a break goes on where it was. Ends with the session. */
export async function follow() {
  const mine = (feed = { abort: null });
  let wait = 500;
  while (feed === mine) {
    try {
      if (seq === null) {
        // First where the feed stands, then the lists, then what happened since: no gap.
        const { next_cursor } = await get('/v1/changes?limit=1');
        await loadChannels();
        await loadConversations();
        await loadSessions();
        drawLinked();
        if (openId) await openConversation(openId);
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
/** Ends the feed; the next one loads everything anew. */
export function unfollow() {
  feed?.abort?.abort();
  feed = null;
  seq = null;
}
/** The network is back: no need to wait out the pause. */
export const hurry = () => feed?.hurry?.();

async function stream(mine, onData) {
  mine.abort = new AbortController();
  // The server says something every 15 s; a line that is silent for longer is dead.
  let watchdog = setTimeout(() => mine.abort.abort(), 45_000);
  try {
    const response = await api(`/v1/changes?after=${seq}&tables=channels,conversations,messages,message_reactions,media,whatsapp_sessions`, {
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
    if (table === 'whatsapp_sessions') {
      sessions.delete(old_record.id);
      drawLinked();
    }
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
  } else if (table === 'whatsapp_sessions') {
    learn(sessions, record);
    drawLinked();
  } else if (table === 'media' && record.status !== 'pending') {
    fileArrived(record.id);
  }
}
function announce(message) {
  $('announce').textContent = `${t('newFrom')} ${message.customer_name || message.address || ''}: ${summary(message)}`;
}
