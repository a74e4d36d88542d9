// Read by the compiler only: what applications write, and what must not compile.

import { createClient } from '@supabase/supabase-js';
import {
  WaselProvider,
  resumable,
  useConversations,
  useMessages,
  useOnline,
  usePresence,
  useTwilioMessages,
  useTyping,
  useWhatsApp,
  useWhatsAppSession,
} from '@wasel/react';
import type { Database, Tables, WaselError } from '@wasel/react';

const untyped = createClient('http://localhost:3001', 'key');
const typed = createClient<Database>('http://localhost:3001', 'key');

export const providers = [
  <WaselProvider client={untyped} />,
  <WaselProvider client={typed} baseUrl="http://localhost:3001" />,
  <WaselProvider client={typed} accessToken={async () => null} identity={null} />,
];

export function Inbox() {
  const { conversations, totalUnread, loadMore } = useConversations({ filter: { status: 'active', assignedTo: 'me' } });
  const row: Tables<'conversations'> | undefined = conversations[0];
  const unread: number = totalUnread;
  // @ts-expect-error: no such status
  useConversations({ filter: { status: 'open' } });
  return <button onClick={() => void loadMore()}>{`${row?.customer_name} ${unread}`}</button>;
}

export function Thread({ id }: { id: string }) {
  const { messages, send, retry, error } = useMessages(id, { pageSize: 20, client: typed });
  const { typing, setTyping } = useTyping(id);
  const problem: WaselError | null = error;
  void send('text');
  void send({ type: 'image', link: 'https://example.com/a.png', caption: 'a' }, { replyTo: id });
  // @ts-expect-error: an image comes from somewhere
  void send({ type: 'image', caption: 'a' });
  // @ts-expect-error: messages have no such column
  void messages[0]?.subject;
  setTyping(true);
  return (
    <ul>
      {problem?.code}
      {typing.map((typist) => typist.name)}
      {messages.map((message) => (
        <li key={message.key} onClick={() => void retry(message.key)}>
          {message.body}
        </li>
      ))}
    </ul>
  );
}

export function Phone() {
  const { qrCode, expiresAt, connect, logout } = useWhatsAppSession();
  const end: Date | null = expiresAt;
  return (
    <button onClick={() => void (qrCode ? logout() : connect({ phoneNumber: '+201001234567' }))}>{end?.toString()}</button>
  );
}

export async function Log() {
  const { sendSMS } = useTwilioMessages({ limit: 10 });
  const { sendMessage, messages } = useWhatsApp();
  const sent = await sendSMS({ to: '+201001234567', message: 'hello' });
  const id: string = sent.success ? sent.messageId : sent.error.message;
  // @ts-expect-error: a message goes to somebody
  void sendMessage({ message: 'hello' });
  return [id, messages[0]?.status, useOnline(id), usePresence().people[0]?.onlineAt];
}

resumable(
  typed,
  { table: 'whatsapp_messages' },
  { change: ({ type, row }) => [type, row.content], reload: () => {}, live: () => {} },
  new AbortController().signal,
);
// @ts-expect-error: no such table
resumable(typed, { table: 'letters' }, { change: () => {}, reload: () => {}, live: () => {} }, AbortSignal.abort());
