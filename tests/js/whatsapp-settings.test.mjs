// The example page in a real browser: somebody signs in, links a phone, and unlinks it again.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { after, afterEach, before, test } from 'node:test';

import { startBrowser } from './browser.mjs';
import { PATIENCE, startWorld, temporaryDirectory } from './harness.mjs';

const EXAMPLE = fileURLToPath(new URL('../../examples/whatsapp-settings/', import.meta.url));
const VITE = fileURLToPath(new URL('../../node_modules/vite/bin/vite.js', import.meta.url));
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css' };
const BUSINESS = '+201001234567';

let world;
let directory;
let site;
let origin;
let browser;
let context;
let page;
let complaints;

before(async () => {
  directory = await temporaryDirectory();
  site = await serve(directory);
  origin = `http://127.0.0.1:${site.address().port}`;
  world = await startWorld({ linkedPhones: true, environment: { ALLOWED_ORIGINS: origin } });
  await promisify(execFile)(process.execPath, [VITE, 'build', '--outDir', directory, '--emptyOutDir'], {
    cwd: EXAMPLE,
    env: { ...process.env, VITE_WASEL_URL: world.server.base, VITE_WASEL_ANON_KEY: world.server.anonKey },
  });
  await world.simulator.control('POST', '/whatsapp-web/phones', { number: BUSINESS, name: 'عيادة النور' });
  browser = await startBrowser();
});
after(async () => {
  await browser?.close();
  await world?.stop();
  await new Promise((resolve) => (site ? site.close(resolve) : resolve()));
  if (directory) await rm(directory, { recursive: true, force: true });
});
afterEach(async () => {
  await context?.close();
  context = undefined;
});

/** The built page, on an address that is not the server's. */
async function serve(root) {
  const server = createServer(async ({ url }, response) => {
    const path = normalize(new URL(url, 'http://localhost').pathname);
    const file = path === '/' ? '/index.html' : path;
    try {
      const body = await readFile(join(root, file));
      response.writeHead(200, { 'content-type': TYPES[extname(file)] ?? 'application/octet-stream' }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server;
}

/** A new visitor gives these words. */
async function enter({ email, password }) {
  context = await browser.newContext({ locale: 'ar-EG', viewport: { width: 390, height: 844 } });
  context.setDefaultTimeout(PATIENCE);
  page = await context.newPage();
  complaints = [];
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
  await page.goto(origin);
  await page.getByLabel('البريد الإلكتروني').fill(email);
  await page.getByLabel('كلمة المرور').fill(password);
  await page.getByRole('button', { name: 'دخول' }).click();
}

async function signIn(tenant) {
  await enter(tenant);
  await page.locator('[data-testid=whatsapp][data-live=true]').waitFor();
}

const button = (name) => page.getByRole('button', { name, exact: true });
const settings = (status) => page.locator(`[data-testid=whatsapp][data-status=${status}]`);

/** The phone scans what the page shows. */
async function scan({ token }) {
  const { data } = await world.server.call('GET', '/v1/sessions', { token });
  const { code } = await world.server.call('GET', `/v1/sessions/${data[0].id}/qr`, { token });
  await world.simulator.control('POST', '/whatsapp-web/scan', { number: BUSINESS, qr: code });
}

test('a phone is linked by QR and unlinked again, without a reload and without a complaint', async () => {
  await signIn(world.a);
  assert.deepEqual(await page.evaluate(() => [document.dir, document.documentElement.lang]), ['rtl', 'ar']);
  await page.getByText('غير متصل').waitFor();
  await page.evaluate(() => {
    window.sameVisit = true;
  });
  await button('ربط واتساب').click();
  const qr = page.getByAltText('رمز QR لربط واتساب');
  await qr.waitFor();
  assert.match(await qr.getAttribute('src'), /^data:image\/png;base64,/);
  const left = Number(/\d+/.exec(await page.locator('.countdown').innerText())[0]);
  assert.ok(left > 0 && left <= 60, `${left} s are left`);
  await page.locator('.countdown').filter({ hasNotText: ` ${left} ` }).waitFor();
  await scan(world.a);
  await settings('connected').waitFor();
  assert.equal(await page.getByTestId('phone-number').innerText(), BUSINESS);
  assert.equal(await page.getByTestId('display-name').innerText(), 'عيادة النور');
  assert.equal(await qr.isVisible(), false);
  assert.equal(await page.evaluate(() => window.sameVisit), true);
  // Another visit sees it connected from the start.
  await page.reload();
  await settings('connected').waitFor();
  await button('قطع الاتصال').click();
  await button('إلغاء').click();
  await button('قطع الاتصال').click();
  await button('نعم، اقطع الاتصال').click();
  await page.locator('[data-reason=logged_out]').waitFor();
  await button('ربط واتساب').waitFor();
  assert.deepEqual(complaints, []);
});

test('a number gets a code to type in, and a wrong one is refused in words', async () => {
  await signIn(world.a);
  const number = page.getByRole('textbox');
  await number.fill('12');
  await button('الحصول على رمز').click();
  await page.getByRole('alert').waitFor();
  await number.fill(BUSINESS);
  await button('الحصول على رمز').click();
  const code = page.getByTestId('pairing-code');
  await code.waitFor();
  assert.match(await code.innerText(), /^[0-9A-Z]{4}-?[0-9A-Z]{4}$/);
  assert.equal(await page.getByRole('alert').count(), 0, 'the refusal is over');
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth), 'it fits a phone');
});

test('a wrong password is said to be wrong', async () => {
  await enter({ ...world.a, password: 'wrong' });
  await page.getByRole('alert').filter({ hasText: 'غير صحيحة' }).waitFor();
});
