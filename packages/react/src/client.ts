import type { SupabaseClient } from '@supabase/supabase-js';

import type { Database } from './database.types.js';
import { WaselError, errorOf, errorOfAnswer } from './errors.js';

/** `createClient(WASEL_URL, ANON_KEY)`, with or without the type argument `Database`. */
export type WaselClient = SupabaseClient<Database>;

export interface CallOptions {
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

/** Our own API beside what supabase-js covers. */
export interface Api {
  /** JSON in, JSON out. Throws a {@link WaselError}. */
  call<Answer>(method: 'GET' | 'POST', path: string, options?: CallOptions): Promise<Answer>;
}

/** The client's own address: the WebSocket's without its path. */
export function baseUrlOf(client: WaselClient): string {
  // Older clients have no `endpointURL`.
  const realtime: { endpointURL?(): string; endPoint?: string } = client.realtime;
  const feed = realtime.endpointURL?.() ?? realtime.endPoint ?? '';
  const address = /^(ws|http)(s?:.*?)\/realtime\/v1(\/|\?|$)/.exec(feed);
  if (!address) throw new WaselError('the client has no address: give `baseUrl`', { code: 'no_base_url' });
  return `http${address[2]}`;
}

export function apiOf(baseUrl: () => string, token: () => Promise<string | null>, orgId: string | null): Api {
  return {
    async call<Answer>(method: 'GET' | 'POST', path: string, options: CallOptions = {}): Promise<Answer> {
      const bearer = await token();
      if (bearer === null) throw new WaselError('nobody is signed in', { code: 'unauthenticated', status: 401 });
      let response: Response;
      let text: string;
      try {
        response = await fetch(baseUrl().replace(/\/+$/, '') + path, {
          method,
          headers: {
            authorization: `Bearer ${bearer}`,
            ...(orgId !== null && { 'x-org-id': orgId }),
            ...(options.body !== undefined && { 'content-type': 'application/json' }),
            ...options.headers,
          },
          ...(options.body !== undefined && { body: JSON.stringify(options.body) }),
          ...(options.signal && { signal: options.signal }),
        });
        text = await response.text();
      } catch (cause) {
        if (options.signal?.aborted) throw cause;
        throw new WaselError('the server cannot be reached', { code: 'network', cause });
      }
      let body: unknown = null;
      try {
        body = text === '' ? null : JSON.parse(text);
      } catch (cause) {
        const message = `the server answered ${response.status} without JSON`;
        throw new WaselError(message, { code: 'error', status: response.status, cause });
      }
      if (!response.ok) throw errorOfAnswer(response.status, body);
      return body as Answer;
    },
  };
}

/** What a query of supabase-js answers, or its error thrown. */
export async function rowsOf<Row>(
  query: PromiseLike<{ data: Row[] | null; error: unknown; status: number }>,
): Promise<Row[]> {
  const { data, error, status } = await query;
  if (error) throw errorOf(error, status);
  return data ?? [];
}
