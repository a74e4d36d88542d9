// Hooks for a Wasel server. Nothing here touches the browser before a component is mounted.

export { WaselProvider } from './context.js';
export type { ClientOption, WaselProviderProps } from './context.js';
export type { WaselClient } from './client.js';
export type { Identity } from './identity.js';
export { WaselError } from './errors.js';
export { useConversations } from './conversations.js';
export type {
  Conversation,
  ConversationFilter,
  UseConversations,
  UseConversationsOptions,
} from './conversations.js';
export { useMessages } from './messages.js';
export type { Message, SendOptions, ThreadMessage, UseMessages, UseMessagesOptions } from './messages.js';
export type { OutboundContent } from './content.js';
export { useWhatsAppSession } from './session.js';
export type {
  ConnectOptions,
  UseWhatsAppSession,
  UseWhatsAppSessionOptions,
  WhatsAppSession,
} from './session.js';
export { useTwilioMessages, useWhatsApp } from './logs.js';
export type {
  LoggedSend,
  MessageLog,
  SendResult,
  UseMessageLogsOptions,
  UseTwilioMessages,
  UseWhatsApp,
} from './logs.js';
export { useTyping } from './typing.js';
export type { Typist, UseTyping } from './typing.js';
export { useOnline, usePresence } from './presence.js';
export type { OnlinePerson, UsePresence, UsePresenceOptions } from './presence.js';
export { resumable } from './resumable.js';
export type { Change, RowOf, StreamedName, Subscription, SubscriptionEvents } from './resumable.js';
export type { Database, Json, Tables, TablesInsert, TablesUpdate } from './database.types.js';
