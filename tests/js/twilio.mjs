// Twilio's webhooks as the official SDK signs them, and a stand-in for its API that keeps what it is sent.

import { createServer } from 'node:http';

import twilio from 'twilio';

const { RequestClient, getExpectedTwilioSignature } = twilio;

export const WEBHOOK = '/api/webhooks/twilio';

/** Parameters as an object, as the SDK takes them: a repeated name has a list of values. */
export function asObject(params) {
  const object = {};
  for (const [name, value] of params) {
    if (name in object) object[name] = [object[name], value].flat();
    else object[name] = value;
  }
  return object;
}

/** Posts a form that the SDK signed for `signedUrl`. `params` is a list of pairs. */
export function post(server, path, params, { authToken, signedUrl = server.base + path, change = (s) => s } = {}) {
  const signature = change(getExpectedTwilioSignature(authToken, signedUrl, asObject(params)));
  return server.request('POST', path, {
    body: new URLSearchParams(params),
    headers: { 'x-twilio-signature': signature, 'i-twilio-idempotency-token': crypto.randomUUID() },
  });
}

let lastNumber = 15005550100;
/** A customer nobody has heard of yet. */
export const newCustomer = () => `+${(lastNumber += 1)}`;
export const newSid = (prefix = 'SM') => prefix + crypto.randomUUID().replaceAll('-', '');

/** An inbound SMS as Twilio posts it. */
export function inboundSms({ sms }, from, body, more = []) {
  const sid = newSid();
  return [
    ['ToCountry', 'US'],
    ['ToState', ''],
    ['SmsMessageSid', sid],
    ['NumMedia', '0'],
    ['ToCity', ''],
    ['FromZip', ''],
    ['SmsSid', sid],
    ['FromState', ''],
    ['SmsStatus', 'received'],
    ['FromCity', ''],
    ['Body', body],
    ['FromCountry', 'US'],
    ['To', sms.number],
    ['ToZip', ''],
    ['NumSegments', '1'],
    ['MessageSid', sid],
    ['AccountSid', sms.accountSid],
    ['From', from],
    ['ApiVersion', '2010-04-01'],
    ...more,
  ];
}

/** An inbound WhatsApp text as Twilio posts it. */
export function inboundWhatsapp({ whatsapp }, from, body) {
  const sid = newSid();
  return [
    ['SmsMessageSid', sid],
    ['NumMedia', '0'],
    ['ProfileName', 'Mona'],
    ['MessageType', 'text'],
    ['SmsSid', sid],
    ['WaId', from.replace('+', '')],
    ['SmsStatus', 'received'],
    ['Body', body],
    ['To', `whatsapp:${whatsapp.number}`],
    ['NumSegments', '1'],
    ['ReferralNumMedia', '0'],
    ['MessageSid', sid],
    ['AccountSid', whatsapp.accountSid],
    ['From', `whatsapp:${from}`],
    ['ApiVersion', '2010-04-01'],
  ];
}

/** All but the order: the same elements, in an order that the seed decides. */
export function shuffled(list, seed) {
  let state = seed;
  // Park and Miller's generator: the same order in every run.
  const next = () => (state = (state * 48271) % 2147483647);
  return list
    .map((item) => [next(), item])
    .toSorted(([a], [b]) => a - b)
    .map(([, item]) => item);
}

/** The SDK's own HTTP client, pointed at a stand-in. It keeps what the queries asked and the answers as they came. */
export class Redirected extends RequestClient {
  constructor(base) {
    super();
    this.base = base;
    this.answers = [];
  }

  async request(options) {
    const { pathname, search, searchParams } = new URL(options.uri);
    const answer = await super.request({ ...options, uri: this.base + pathname + search });
    const { statusCode, body } = answer;
    this.answers.push({
      query: [...searchParams.keys(), ...Object.keys(options.params ?? {})],
      status: statusCode,
      body: typeof body === 'string' && body ? JSON.parse(body) : body,
    });
    return answer;
  }
}

/** Stands in for api.twilio.com: keeps every request and takes every message. */
export class StandIn {
  static async start() {
    const standIn = new StandIn();
    standIn.requests = [];
    standIn.server = createServer((request, response) => {
      const chunks = [];
      request.on('data', (chunk) => chunks.push(chunk));
      request.on('end', () => standIn.#answer(request, Buffer.concat(chunks).toString(), response));
    });
    await new Promise((resolve) => standIn.server.listen(0, '127.0.0.1', resolve));
    standIn.base = `http://127.0.0.1:${standIn.server.address().port}`;
    return standIn;
  }

  #answer({ method, url, headers }, body, response) {
    const { pathname, search } = new URL(url, this.base);
    const params = [...new URLSearchParams(body)];
    const [, version, , account] = pathname.split('/');
    if (method !== 'POST' || !pathname.endsWith('/Messages.json')) {
      this.requests.push({ method, path: pathname, search, headers, params });
      const refusal = {
        code: 20404,
        message: 'not here',
        more_info: 'https://www.twilio.com/docs/errors/20404',
        status: 404,
      };
      response.writeHead(404, { 'content-type': 'application/json' }).end(JSON.stringify(refusal));
      return;
    }
    const form = asObject(params);
    const media = [form.MediaUrl ?? []].flat();
    const service = form.MessagingServiceSid ?? null;
    const sid = newSid(media.length > 0 ? 'MM' : 'SM');
    const uri = `/${version}/Accounts/${account}/Messages/${sid}`;
    const now = new Date().toUTCString().replace('GMT', '+0000');
    const message = {
      account_sid: account,
      api_version: version,
      body: form.Body ?? '',
      date_created: now,
      date_sent: null,
      date_updated: now,
      direction: 'outbound-api',
      error_code: null,
      error_message: null,
      from: service ? null : form.From,
      messaging_service_sid: service,
      num_media: String(media.length),
      num_segments: service ? '0' : '1',
      price: null,
      price_unit: null,
      sid,
      status: service ? 'accepted' : 'queued',
      subresource_uris: { media: `${uri}/Media.json` },
      to: form.To,
      uri: `${uri}.json`,
    };
    this.requests.push({ method, path: pathname, search, headers, params, message });
    response.writeHead(201, { 'content-type': 'application/json' }).end(JSON.stringify(message));
  }

  /** The one request for a message with this provider id. */
  requestOf(sid) {
    return this.requests.find(({ message }) => message?.sid === sid);
  }

  stop() {
    return new Promise((resolve) => {
      this.server.close(resolve);
      this.server.closeAllConnections();
    });
  }
}
