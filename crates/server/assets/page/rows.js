// What is known: rows in Maps by id, written by the change feed and by answers of the API.

import { t } from './words.js';

export const channels = new Map();
export const conversations = new Map();
/** Linked phones. */
export const sessions = new Map();
/** Of the open conversation only. */
export const messages = new Map();
/** `channel provider-id` → actor → emoji: kept apart, because a reaction may come before its message. */
export const reactions = new Map();
/** Counts rows written by the feed: an answer to an older request must not overwrite what the feed said meanwhile. */
export let writes = 0;

export function forgetRows() {
  for (const map of [channels, conversations, sessions, messages, reactions]) map.clear();
}

/** Merges a row in. `before` is what `writes` was when an answer was asked for; the feed's rows come without it. */
export function learn(map, row, before) {
  const known = map.get(row.id);
  if (before !== undefined && known?.written > before) return;
  map.set(row.id, { ...known, ...row, written: before === undefined ? ++writes : (known?.written ?? 0) });
}
export function learnMessage(row, before) {
  // The bubble shown while sending gives way to the message it became.
  if (row.request_id) messages.delete(`local:${row.request_id}`);
  if (row.reactions) reactions.delete(`${row.channel_id} ${row.provider_message_id}`);
  for (const { actor, emoji } of row.reactions ?? []) learnReaction(row.channel_id, row.provider_message_id, actor, emoji);
  learn(messages, row, before);
}
export function learnReaction(channel, target, actor, emoji) {
  const key = `${channel} ${target}`;
  if (!reactions.has(key)) reactions.set(key, new Map());
  if (emoji) reactions.get(key).set(actor, emoji);
  else reactions.get(key).delete(actor);
}

export const hasWindow = (conversation) => ['whatsapp_cloud', 'twilio_whatsapp'].includes(channels.get(conversation.channel_id)?.kind);
export const windowOpen = (conversation) => conversation.window_closes_at && new Date(conversation.window_closes_at) > Date.now();
/** The feed's rows are the table's: what the API works out is worked out here. */
export function withWindow(row) {
  const closes = row.last_inbound_at && hasWindow(row) ? new Date(new Date(row.last_inbound_at).getTime() + 86_400_000) : null;
  return { ...row, window_closes_at: closes?.toISOString() ?? null };
}
export const titleOf = (conversation) => conversation.customer_name || conversation.phone_number || '…';
/** A message in one line. */
export function summary(message) {
  if (message.revoked_at) return t('revoked');
  return message.body || t(message.message_type);
}
