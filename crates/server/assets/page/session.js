// Requests to the server, and the session that authorises them.

import { t } from './words.js';

export class Problem extends Error {
  constructor(status, code, message) { super(message); Object.assign(this, { status, code }); }
}

/** fetch that throws a Problem for anything but success. Knows the error shapes of /v1, /api, /auth/v1 and /sim. */
export async function request(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Problem(0, 'offline', t('offline'));
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const words = typeof body.error === 'string' ? body.error : body.error?.message ?? body.message;
  throw new Problem(response.status, body.error?.code ?? body.code, words ?? response.statusText);
}
export const json = (method, body) => ({ method, headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });

/** The demo's sign-in and the simulator's address; null where this is not the demo. */
export let demo = null;
/** The tokens and when they end (ms); null while nobody is signed in. Kept for the tab, so that reload goes on. */
export let session = JSON.parse(sessionStorage.getItem('wasel.session') ?? 'null');
let refreshing = null;
let refreshTimer = 0;
let over = () => {};
/** What to do when the server ends the session. */
export const whenOver = (work) => { over = work; };

async function grant(type, body) {
  const answer = await (await request(`/auth/v1/token?grant_type=${type}`, json('POST', body))).json();
  keep({ access_token: answer.access_token, refresh_token: answer.refresh_token, expires_at: Date.now() + answer.expires_in * 1000 });
}
export const signIn = (credentials) => grant('password', credentials);
function keep(next) {
  session = next;
  clearTimeout(refreshTimer);
  if (!next) return sessionStorage.removeItem('wasel.session');
  sessionStorage.setItem('wasel.session', JSON.stringify(next));
  // Should it fail, the next request tries again.
  refreshTimer = setTimeout(() => refresh().catch(() => {}), Math.max(5_000, next.expires_at - Date.now() - 120_000));
}
export const forgetSession = () => keep(null);
/** A new token for the old one; one request however many wait for it. Where the session is over, back to the form. */
function refresh() {
  refreshing ??= (async () => {
    try {
      await grant('refresh_token', { refresh_token: session?.refresh_token ?? '' });
    } catch (error) {
      if (error.status < 400 || error.status >= 500 || error.status === 429) throw error;
      // The demo's data may be new while this tab is old.
      if (demo && session) return await signIn({ email: demo.email, password: demo.password });
      over();
      throw error;
    }
  })().finally(() => { refreshing = null; });
  return refreshing;
}

/** `request` with the session's token, renewed where it has run out. */
export async function api(path, options = {}) {
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
export const get = async (path) => (await api(path)).json();

/** Learns whether this is the demo; there, a newcomer is signed in without typing anything. */
export async function begin() {
  demo = (await (await request('/page/settings.json')).json()).demo;
  if (!session && demo) await signIn({ email: demo.email, password: demo.password });
}
