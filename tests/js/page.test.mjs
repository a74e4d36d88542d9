// The page of `wasel demo` in a real browser, as somebody sees it who has just typed `make demo`.

import assert from 'node:assert/strict';
import { mkdir, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { after, afterEach, before, describe, test } from 'node:test';

import { startBrowser } from './browser.mjs';
import { Process, PATIENCE, call, freePort, temporaryDirectory } from './harness.mjs';

const WIDE = { width: 1360, height: 860 };
const PHONE = { width: 390, height: 844 };

let directory;
let demo;
let base;
let simulator;
let browser;
let context;
let page;
let complaints;

before(async () => {
  directory = await temporaryDirectory();
  const [port, simulatorPort] = [await freePort(), await freePort()];
  demo = new Process(
    ['demo', '--data-dir', join(directory, 'data'), '--simulator-port', String(simulatorPort)],
    { PORT: String(port) },
  );
  [, base] = await demo.said(/Open +(\S+)/);
  await demo.said(/Ctrl-C/);
  simulator = `http://127.0.0.1:${simulatorPort}/sim`;
  browser = await startBrowser();
});
after(async () => {
  await browser?.close();
  await demo?.stop();
  if (directory) await rm(directory, { recursive: true, force: true });
});
afterEach(async () => {
  await context?.close();
  context = undefined;
});

/** A visit by somebody new. */
async function visit({ viewport = WIDE, locale = 'en-US' } = {}) {
  context = await browser.newContext({ viewport, locale, colorScheme: 'light' });
  context.setDefaultTimeout(PATIENCE);
  page = await context.newPage();
  complaints = [];
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
  await page.goto(base);
  await page.locator('[data-testid=live][data-state=live]').waitFor();
}

const conversations = () => page.getByTestId('conversation');
const messages = () => page.getByTestId('message');
const conversationOf = (name) => conversations().filter({ hasText: name });
const messageOf = (text) => messages().filter({ hasText: text });

async function open(name) {
  await conversationOf(name).click();
  await messages().first().waitFor();
}

/** A customer writes from a phone that is not on this page. */
const write = (line, from, body) => call('POST', `${simulator}/send`, { body: { line, from, type: 'text', body } });
const lineOf = async (channel) => (await call('GET', `${simulator}/lines`)).find((line) => line.channel === channel).line;

const hasNoSidewaysScroll = () => page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth);

describe('the page', () => {
  test('signs in by itself and shows the seeded conversations, without a complaint in the console', async () => {
    await visit();
    for (const name of ['منى السيد', 'خالد العتيبي', 'Emma Brown', 'ليلى حسن']) await conversationOf(name).waitFor();
    await conversations().nth(4).waitFor();
    assert.equal(await conversations().count(), 5);
    assert.equal(await page.locator('input[type=password]').isVisible(), false, 'nobody is asked for a password');
    assert.deepEqual(complaints, []);
  });

  test('an opened conversation shows its thread, oldest first', async () => {
    await visit();
    await open('Emma Brown');
    await messageOf('Can someone come today?').waitFor();
    const texts = await messages().allInnerTexts();
    const at = (words) => texts.findIndex((text) => text.includes(words));
    assert.ok(at('The heating in flat 4') >= 0);
    assert.ok(at('The heating in flat 4') < at('Can someone come today?'));
    assert.equal(await messages().first().getAttribute('data-direction'), 'inbound');
    assert.equal(await messageOf('متى ينتهي').count(), 0, 'nothing of another conversation');
  });

  test('opening a conversation leaves nothing unread in it', async () => {
    await visit();
    const conversation = conversationOf('خالد العتيبي');
    assert.match(await conversation.innerText(), /unread/);
    await open('خالد العتيبي');
    await conversation.filter({ hasNotText: 'unread' }).waitFor();
  });

  test('an answer appears at once and gets its ticks up to read', async () => {
    await visit();
    await open('Emma Brown');
    const answer = `Our plumber comes at 5 pm. ${Date.now()}`;
    await page.getByTestId('composer').fill(answer);
    await page.getByTestId('send').click();
    await messageOf(answer).waitFor();
    assert.equal(await messageOf(answer).getAttribute('data-direction'), 'outbound');
    assert.equal(await page.getByTestId('composer').inputValue(), '');
    for (const status of ['delivered', 'read']) {
      await page.locator(`[data-testid=message][data-status=${status}]`).filter({ hasText: answer }).waitFor();
    }
    assert.equal(await messageOf(answer).count(), 1, 'once, however it got there');
    await conversationOf('Emma Brown').filter({ hasText: answer }).waitFor();
    assert.deepEqual(complaints, []);
  });

  test('what the simulated phone sends appears without a reload', async () => {
    await visit();
    await open('منى السيد');
    await page.evaluate(() => {
      window.sameVisit = true;
    });
    const text = `شكراً، الأحد الساعة العاشرة ${Date.now()}`;
    await page.getByTestId('sim-text').fill(text);
    await page.getByTestId('sim-send').click();
    await messageOf(text).waitFor();
    assert.equal(await messageOf(text).getAttribute('data-direction'), 'inbound');
    assert.equal(await page.evaluate(() => window.sameVisit), true);
  });

  test('a message to another conversation moves it up and counts as unread', async () => {
    await visit();
    await open('Emma Brown');
    const text = `Where is my parcel? ${Date.now()}`;
    await write(await lineOf('sms'), '+15550001111', text);
    const first = conversations().first().filter({ hasText: text });
    await first.waitFor();
    assert.equal(await messageOf(text).count(), 0, 'the open thread is another');
    assert.match(await first.innerText(), /unread/);
  });

  test("a new customer's conversation appears by itself, and markup in a message is only text", async () => {
    await visit();
    const text = '<img src=x onerror="window.hacked=true"><b>bold</b>';
    await write(await lineOf('whatsapp'), '+201112223334', text);
    await conversationOf('<b>bold</b>').waitFor();
    await conversationOf('<b>bold</b>').click();
    await messageOf(text).waitFor();
    assert.equal(await page.evaluate(() => window.hacked), undefined);
  });

  test('the search finds by name and by number', async () => {
    await visit();
    await conversations().nth(4).waitFor();
    for (const words of ['Emma', '447700900123']) {
      await page.getByTestId('search').fill(words);
      await page.waitForFunction(() => document.querySelectorAll('[data-testid=conversation]').length === 1);
      await conversationOf('Emma Brown').waitFor();
    }
    await page.getByTestId('search').fill('');
    await conversations().nth(4).waitFor();
  });

  test('the language switch turns the page around, and the choice stays', async () => {
    await visit();
    const direction = () => page.evaluate(() => [document.documentElement.dir, document.documentElement.lang]);
    assert.deepEqual(await direction(), ['ltr', 'en']);
    await page.getByTestId('language').click();
    assert.deepEqual(await direction(), ['rtl', 'ar']);
    await page.getByRole('heading', { name: 'المحادثات' }).waitFor();
    const [list, thread] = await Promise.all(['.list', '.thread'].map((part) => page.locator(part).boundingBox()));
    assert.ok(list.x > thread.x, 'the list is on the right');
    await page.reload();
    await page.locator('[data-testid=live][data-state=live]').waitFor();
    assert.deepEqual(await direction(), ['rtl', 'ar']);
    await page.getByTestId('language').click();
    assert.deepEqual(await direction(), ['ltr', 'en']);
  });

  test('a browser set to Arabic gets Arabic from the start', async () => {
    await visit({ locale: 'ar-EG' });
    assert.equal(await page.evaluate(() => document.documentElement.dir), 'rtl');
  });

  for (const locale of ['en-US', 'ar-EG']) {
    test(`on a phone of 390 px it is one column after the other (${locale})`, async () => {
      await visit({ viewport: PHONE, locale });
      await conversationOf('Emma Brown').waitFor();
      assert.ok(await hasNoSidewaysScroll(), 'the list fits');
      await open('Emma Brown');
      assert.equal(await conversations().first().isVisible(), false, 'the thread has the whole screen');
      assert.ok(await hasNoSidewaysScroll(), 'the thread fits');
      const send = await page.getByTestId('send').boundingBox();
      assert.ok(send.x >= 0 && send.x + send.width <= PHONE.width && send.y + send.height <= PHONE.height, 'send is in reach');
      const answer = `From the phone, ${locale} ${Date.now()}`;
      await page.getByTestId('composer').fill(answer);
      await page.getByTestId('send').click();
      await messageOf(answer).waitFor();
      await page.goBack();
      await conversationOf('Emma Brown').waitFor();
      assert.equal(await page.getByTestId('composer').isVisible(), false);
    });
  }

  test('a picture of the inbox can be taken', async () => {
    await visit();
    await open('منى السيد');
    const answer = 'وعليكم السلام، نعم: الأحد الساعة العاشرة صباحاً. هل يناسبكم؟';
    await page.getByTestId('composer').fill(answer);
    await page.getByTestId('send').click();
    await page.locator('[data-testid=message][data-status=read]').filter({ hasText: answer }).waitFor();
    const target = process.env.UPDATE_SCREENS
      ? fileURLToPath(new URL('../../docs/screens/inbox.png', import.meta.url))
      : join(directory, 'inbox.png');
    await mkdir(dirname(target), { recursive: true });
    await page.screenshot({ path: target });
    assert.ok((await stat(target)).size > 10_000, 'there is something on it');
  });
});

test('a phone is linked on the page: the code is shown, the simulated phone scans it, and it is connected', async () => {
  await visit();
  await page.locator('#linked-open').click();
  await page.locator('#linked-start').click();
  await page.locator('#linked-qr:not([hidden])').waitFor();
  await page.locator('#linked-scan').click();
  await page.locator('#linked-state[data-status=connected]').waitFor();
  assert.equal(await page.locator('#linked-qr').isVisible(), false);
  // A customer of that phone writes, is seen in the inbox and gets an answer, end to end encrypted.
  const [business] = await call('GET', `${simulator}/whatsapp-web/phones`);
  const customer = '+201119876543';
  await call('POST', `${simulator}/whatsapp-web/phones`, { body: { number: customer, name: 'سلمى فؤاد' } });
  await call('POST', `${simulator}/whatsapp-web/send`, { body: { from: customer, to: business.number, text: 'أين طلبي؟' } });
  await page.locator('#linked-close').click();
  await open('سلمى فؤاد');
  await messageOf('أين طلبي؟').waitFor();
  await page.getByTestId('composer').fill('في الطريق إليك');
  await page.keyboard.press('Enter');
  const sent = messageOf('في الطريق إليك');
  await sent.waitFor();
  await sent.and(page.locator('[data-status=delivered]')).waitFor();
  assert.deepEqual(complaints, []);
});
