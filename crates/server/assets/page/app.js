// The plain page: sign in, watch conversations live, answer them; in the demo, with a simulated phone beside it.
// One idea runs through it: rows live in Maps by id, the change feed and the API write into those Maps, and draw()
// makes the screen match them. Nothing a customer wrote ever becomes markup: text goes in as text nodes.
//
// Each file uses only those before it: words, dom and rows, session, bubbles, phone, inbox, linked, feed, app.

import { $, applyLanguage, keepAtEnd } from './dom.js';
import { follow, hurry, setLive, unfollow } from './feed.js';
import { drawNow, emptyInbox, openId, startInbox } from './inbox.js';
import { drawLinked, startLinked } from './linked.js';
import { phone, startPhone } from './phone.js';
import { conversations } from './rows.js';
import { api, begin, demo, forgetSession, session, signIn, whenOver } from './session.js';
import { said, switchLanguage } from './words.js';

function start() {
  $('sign-in').hidden = true;
  $('inbox').hidden = $('live').hidden = $('sign-out').hidden = false;
  setLive(false);
  follow();
}

/** Forgets everything of the session and shows the form. */
function stop() {
  unfollow();
  forgetSession();
  emptyInbox();
  $('linked').close();
  $('inbox').hidden = $('live').hidden = $('sign-out').hidden = true;
  $('sign-in').hidden = false;
  if (demo) Object.assign($('sign-in').email, { value: demo.email });
  if (demo) Object.assign($('sign-in').password, { value: demo.password });
}

$('sign-in').addEventListener('submit', async (event) => {
  event.preventDefault();
  $('sign-in-error').textContent = '';
  try {
    await signIn(Object.fromEntries(new FormData($('sign-in'))));
    $('sign-in').reset();
    start();
  } catch (error) {
    $('sign-in-error').textContent = said(error);
  }
});
$('sign-out').addEventListener('click', async () => {
  try {
    await api('/auth/v1/logout?scope=local', { method: 'POST' });
  } catch (error) {
    // The session is forgotten here in any case; the server's half of it runs out by itself.
    console.warn('sign-out did not reach the server:', error.message);
  }
  stop();
});

$('language').addEventListener('click', () => {
  switchLanguage();
  applyLanguage();
  setLive($('live').dataset.state === 'live');
  drawNow();
  drawLinked();
  phone?.redraw();
});
window.addEventListener('online', hurry);
whenOver(stop);

startInbox();
startLinked();
keepAtEnd($('sim-scroller'));
applyLanguage();
try {
  await begin();
} catch (error) {
  $('sign-in-error').textContent = said(error);
}
if (session) start();
else stop();
if (demo) {
  startPhone(demo.simulator_url).then(() => {
    if (conversations.has(openId)) phone.follow(conversations.get(openId));
  }, (error) => {
    $('phone').hidden = false;
    $('sim-error').textContent = said(error);
  });
}
