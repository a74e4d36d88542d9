// Linking a phone: the state of the organisation's session as its row has it, the code to scan or to type in, and in the
// demo a simulated phone that scans it.

import { $ } from './dom.js';
import { sessions } from './rows.js';
import { api, demo, get, json, request } from './session.js';
import { said, t } from './words.js';

/** The simulated phone that is linked in the demo where no number was given. */
const SIMULATED = { number: '+201000000099', name: 'Wasel' };
const sim = (path, body) => request(`${demo.simulator_url}/sim/whatsapp-web${path}`, json('POST', body));

/** The one the documents mean: the oldest that serves a channel, else the oldest. */
const current = () => [...sessions.values()].sort((a, b) => !a.channel_id - !b.channel_id || (a.created_at < b.created_at ? -1 : 1))[0];
const valid = (row) => row?.qr_expires_at && new Date(row.qr_expires_at) > Date.now();

export async function loadSessions() {
  const { data } = await get('/v1/sessions');
  for (const row of data) {
    const known = sessions.get(row.id);
    // A picture of an older code is of no use.
    const picture = known?.qr_expires_at === row.qr_expires_at ? known?.qr_code : null;
    sessions.set(row.id, { ...known, ...row, qr_code: picture });
  }
  const row = current();
  if (row?.status === 'qr_pending' && !row.qr_code && !row.pairing_code) {
    // The list leaves the pictures out; the change feed brings them from now on. It may have run out just now.
    const qr = await get(`/v1/sessions/${row.id}/qr`).catch(() => null);
    if (qr && sessions.has(row.id)) sessions.set(row.id, { ...sessions.get(row.id), qr_code: qr.qr_code, qr_expires_at: qr.expires_at });
  }
}

export function drawLinked() {
  if (!$('linked').open) return;
  const row = current();
  const status = row?.status ?? 'disconnected';
  const waits = status === 'qr_pending' && valid(row);
  const connected = status === 'connected';
  $('linked-state').dataset.status = status;
  $('linked-state').replaceChildren(t(`session.${status}`));
  if (connected && row.phone_number) {
    const number = document.createElement('bdi');
    number.dir = 'ltr';
    number.textContent = row.phone_number;
    $('linked-state').append(' ', number);
  }
  const qr = waits && !row.pairing_code ? row.qr_code : null;
  $('linked-qr').hidden = !qr;
  if (qr && $('linked-qr').src !== qr) $('linked-qr').src = qr;
  $('linked-code').textContent = (waits && row.pairing_code) || row?.passkey_code || '';
  $('linked-advice').textContent = row?.passkey_request || row?.passkey_code ? t('linkPasskey')
    : qr ? t('linkScan') : waits && row.pairing_code ? t('linkType') : (row?.connection_error ?? '');
  $('linked-start').hidden = connected || !!qr;
  $('linked-by-code').hidden = connected;
  $('linked-scan').hidden = !demo?.simulated_phones || !(qr || (waits && row.pairing_code));
  $('linked-scan').textContent = t(qr ? 'scanSimulated' : 'typeSimulated');
  $('linked-out').hidden = !row || !(row.linked_at || waits);
}

let busy = false;
const attempt = (work) => async (event) => {
  event?.preventDefault();
  if (busy) return;
  busy = true;
  $('linked-error').textContent = '';
  for (const button of $('linked').querySelectorAll('button.works')) button.disabled = true;
  try { await work(); } catch (error) { $('linked-error').textContent = said(error); }
  for (const button of $('linked').querySelectorAll('button.works')) button.disabled = false;
  busy = false;
  drawLinked();
};

/** The documents' path makes the session where there is none. */
async function start(body) {
  await api('/api/sessions/init', json('POST', body));
  await loadSessions();
}

/** Listens to the panel's elements. */
export function startLinked() {
  $('linked-open').addEventListener('click', () => {
    $('linked').showModal();
    drawLinked();
    attempt(loadSessions)();
  });
  $('linked-close').addEventListener('click', () => $('linked').close());
  $('linked-start').addEventListener('click', attempt(() => start({})));
  $('linked-by-code').addEventListener('submit', attempt(() => start(Object.fromEntries(new FormData($('linked-by-code'))))));
  $('linked-out').addEventListener('click', attempt(async () => {
    await api(`/v1/sessions/${current().id}/logout`, { method: 'POST' });
    await loadSessions();
  }));
  $('linked-scan').addEventListener('click', attempt(async () => {
    const row = current();
    const number = row.pair_with_phone ?? SIMULATED.number;
    await sim('/phones', { ...SIMULATED, number });
    if (row.pairing_code) await sim('/enter-code', { number, code: row.pairing_code });
    // The text is what a camera would read.
    else await sim('/scan', { number, qr: (await get(`/v1/sessions/${row.id}/qr`)).code });
  }));
  // A code that has run out is not shown, whoever is late with the next one.
  setInterval(drawLinked, 1000);
}
