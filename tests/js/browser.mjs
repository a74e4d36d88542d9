// A real browser for pages on this machine.

import { chromium } from 'playwright-core';

/** `CHROMIUM` names another binary. */
const BROWSER = process.env.CHROMIUM ?? '/usr/bin/chromium';

export function startBrowser() {
  const { PATH, HOME, TMPDIR } = process.env;
  return chromium.launch({
    executablePath: BROWSER,
    // No proxy and no other setting of the developer's: everything is on this machine.
    env: { PATH, HOME, ...(TMPDIR && { TMPDIR }) },
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
}
