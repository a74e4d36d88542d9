// Meta's side of a webhook: payloads in the form of Meta's own samples, in Meta's own bytes, signed as Meta signs.

import { createHmac, randomBytes } from 'node:crypto';

/** A message id as Meta makes them. */
export const wamid = () => `wamid.${randomBytes(24).toString('base64')}`;

/** JSON as Meta writes it: non-ASCII and slashes escaped. A server that signs its own rewriting of it fails on this. */
export function metaBytes(payload) {
  return JSON.stringify(payload)
    .replace(/[\u0080-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`)
    .replaceAll('/', '\\/');
}

/** `X-Hub-Signature-256` of these bytes. */
export const metaSignature = (secret, bytes) => `sha256=${createHmac('sha256', secret).update(bytes).digest('hex')}`;

/** Posts bytes to the webhook address, signed with the tenant's app secret unless told otherwise. */
export function postMeta(server, tenant, bytes, { headers, path = '/api/webhooks/whatsapp' } = {}) {
  return server.request('POST', path, {
    body: bytes,
    headers: {
      'content-type': 'application/json',
      ...(headers ?? { 'x-hub-signature-256': metaSignature(tenant.meta.appSecret, bytes) }),
    },
  });
}

/** Posts a payload that must be taken. */
export async function deliver(server, tenant, payload) {
  const { status, body } = await postMeta(server, tenant, metaBytes(payload));
  if (status !== 200) throw new Error(`the webhook was answered ${status}: ${JSON.stringify(body)}`);
}

const now = () => String(Math.floor(Date.now() / 1000));

function envelope({ meta }, value) {
  return {
    object: 'whatsapp_business_account',
    entry: [
      {
        id: meta.wabaId,
        changes: [
          {
            value: {
              messaging_product: 'whatsapp',
              metadata: {
                display_phone_number: meta.displayNumber.replace('+', ''),
                phone_number_id: meta.phoneNumberId,
              },
              ...value,
            },
            field: 'messages',
          },
        ],
      },
    ],
  };
}

/** A customer's message of any type; `message` holds the type and its object. */
export function inbound(tenant, { from = '16505551234', name = 'Sheena Nelson', id = wamid(), ...message }) {
  return envelope(tenant, {
    contacts: [{ profile: { name }, wa_id: from, user_id: `US.${from}` }],
    messages: [{ from, from_user_id: `US.${from}`, id, timestamp: now(), ...message }],
  });
}

/** A customer's text. */
export const inboundText = (tenant, body, rest = {}) => inbound(tenant, { type: 'text', text: { body }, ...rest });

/** News of a message we sent. */
export function status(tenant, { id, to, status, ...rest }) {
  return envelope(tenant, { statuses: [{ id, status, timestamp: now(), recipient_id: to, ...rest }] });
}
