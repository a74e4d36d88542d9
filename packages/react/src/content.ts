import type { Json } from './database.types.js';

interface Media {
  caption?: string;
  /** Shown for a document. */
  filename?: string;
  /** Audio as a voice note. */
  voice?: boolean;
}

/** Where a file comes from: a public address (or `/v1/media/{id}` of the server), or an id of the provider's own upload. */
type MediaSource = { link: string } | { provider_id: string };

/** What can be sent: the body of `POST /v1/messages`. */
export type OutboundContent =
  | { type: 'text'; body: string; preview_url?: boolean }
  | ({ type: 'image' | 'video' | 'audio' | 'document' | 'sticker' } & MediaSource & Media)
  | { type: 'location'; latitude: number; longitude: number; name?: string; address?: string }
  | { type: 'email'; subject: string; text?: string; html?: string }
  | { type: 'contacts'; contacts: Json[] }
  | { type: 'interactive'; interactive: Json }
  | {
      type: 'template';
      name?: string;
      language?: string;
      components?: Json[];
      content_sid?: string;
      variables?: { [name: string]: Json };
      text?: string;
    }
  | { type: 'reaction'; message_id: string; emoji: string };

/** The text that a list shows, until the server has said its own. */
export function textOf(content: OutboundContent): string | null {
  switch (content.type) {
    case 'text':
      return content.body;
    case 'email':
      return content.text ?? content.subject;
    case 'location':
      return content.name ?? content.address ?? null;
    case 'template':
      return content.text ?? content.name ?? null;
    case 'reaction':
      return content.emoji;
    case 'contacts':
    case 'interactive':
      return null;
    default:
      return content.caption ?? null;
  }
}
