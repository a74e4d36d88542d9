// Starts the real binary: the simulated providers, a server with a database of its own, and two tenants.

import { execFile, spawn } from 'node:child_process';
import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** The binary under test; `WASEL_BIN` names another one. */
export const BINARY = process.env.WASEL_BIN ?? fileURLToPath(new URL('../../target/debug/wasel', import.meta.url));

/** How long anything is waited for. Generous: a failure is the only thing that takes this long. */
export const PATIENCE = 20_000;

const START_PATIENCE = 60_000;
const STOP_PATIENCE = 30_000;

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until `check` returns something true and returns that. `what` names it in the failure. */
export async function until(what, check, patience = PATIENCE) {
  const deadline = Date.now() + patience;
  for (;;) {
    const result = await check();
    if (result) return result;
    if (Date.now() > deadline) {
      const seen = what instanceof Function ? what() : what;
      throw new Error(`not within ${patience / 1000} s: ${seen}`);
    }
    await sleep(25);
  }
}

/** A port that is free now. */
export async function freePort() {
  const server = createServer();
  await new Promise((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** A directory that the database's own account may pass through when the tests run as root. */
export async function temporaryDirectory() {
  const directory = await mkdtemp(join(tmpdir(), 'wasel-js-'));
  await chmod(directory, 0o711);
  return directory;
}

/** One process of the binary, with what it printed. */
export class Process {
  constructor(args, environment = {}) {
    // Variables of the developer's own must not change what is tested.
    const { PATH, HOME, TMPDIR, LANG } = process.env;
    const env = { PATH, HOME, TMPDIR, LANG, NO_COLOR: '1', ...environment };
    for (const name of Object.keys(env)) if (env[name] === undefined) delete env[name];
    this.name = `wasel ${args[0]}`;
    this.output = '';
    this.child = spawn(BINARY, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    const keep = (chunk) => {
      this.output += chunk;
    };
    this.child.stdout.on('data', keep);
    this.child.stderr.on('data', keep);
    this.ended = new Promise((resolve) => {
      this.child.once('error', (error) => {
        this.output += `\n${error}`;
        resolve('could not start');
      });
      this.child.once('exit', (code, signal) => resolve(code ?? signal));
    });
    this.isRunning = true;
    this.ended.then(() => {
      this.isRunning = false;
    });
    // If the test run is cut short, nothing is left behind.
    this.#abandon = () => this.child.kill('SIGKILL');
    process.once('exit', this.#abandon);
  }

  #abandon;

  /** Waits for words in the output; returns the match. */
  async said(pattern) {
    return until(
      () => `${this.name} says ${pattern}; it said:\n${this.output}`,
      () => {
        const match = this.output.match(pattern);
        if (!match && !this.isRunning) throw new Error(`${this.name} ended; it said:\n${this.output}`);
        return match;
      },
      START_PATIENCE,
    );
  }

  /** Asks it to stop and waits until it has. */
  async stop() {
    if (this.isRunning) this.child.kill('SIGTERM');
    let timer;
    const late = new Promise((resolve) => {
      timer = setTimeout(() => resolve('late'), STOP_PATIENCE);
    });
    const end = await Promise.race([this.ended, late]);
    clearTimeout(timer);
    process.removeListener('exit', this.#abandon);
    if (end !== 'late') return end;
    this.child.kill('SIGKILL');
    await this.ended;
    throw new Error(`${this.name} did not stop within ${STOP_PATIENCE / 1000} s; it said:\n${this.output}`);
  }
}

/** JSON in, JSON out. Returns `{status, headers, body}`; does not throw on a refusal. */
export async function request(method, url, { token, body, headers = {} } = {}) {
  const isText = typeof body === 'string' || body instanceof Uint8Array || body instanceof URLSearchParams;
  const response = await fetch(url, {
    method,
    headers: {
      ...(token && { authorization: `Bearer ${token}` }),
      ...(body !== undefined && !isText && { 'content-type': 'application/json' }),
      ...headers,
    },
    body: body === undefined || isText ? body : JSON.stringify(body),
  });
  const text = await response.text();
  const isJson = response.headers.get('content-type')?.startsWith('application/json');
  return { status: response.status, headers: response.headers, body: isJson && text ? JSON.parse(text) : text };
}

/** As {@link request}, for calls that must succeed; returns the body. */
export async function call(method, url, options) {
  const { status, body } = await request(method, url, options);
  if (status < 200 || status > 299) throw new Error(`${method} ${url} → ${status}: ${JSON.stringify(body)}`);
  return body;
}

/** The simulated providers. */
export class Simulator {
  static async start() {
    const simulator = new Simulator();
    simulator.process = new Process(['simulate', '--listen', '127.0.0.1:0']);
    [, simulator.base] = await simulator.process.said(/TWILIO_API_BASE=(\S+)/);
    await simulator.process.said(/Control: /);
    simulator.whatsappWebUrl = simulator.process.output.match(/WHATSAPP_WEB_URL=(\S+)/)?.[1];
    return simulator;
  }

  control(method, path, body) {
    return call(method, `${this.base}/sim${path}`, { body });
  }

  stop() {
    return this.process.stop();
  }
}

/** What a Supabase project's database holds before anything of ours is in it; the lender has made the three roles. */
const PROJECT = `
ALTER ROLE service_role BYPASSRLS;
CREATE ROLE supabase_auth_admin NOINHERIT CREATEROLE LOGIN;
CREATE ROLE owner LOGIN CREATEROLE CREATEDB;
GRANT anon, authenticated, service_role TO owner;
CREATE DATABASE project OWNER owner;
\\connect project
CREATE SCHEMA auth AUTHORIZATION supabase_auth_admin;
GRANT USAGE ON SCHEMA auth TO anon, authenticated, service_role, owner;
CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $$
  SELECT (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid $$;
CREATE FUNCTION auth.role() RETURNS text LANGUAGE sql STABLE AS $$
  SELECT nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role' $$;
CREATE FUNCTION auth.jwt() RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT nullif(current_setting('request.jwt.claims', true), '')::jsonb $$;
GRANT ALL ON SCHEMA public TO owner;
ALTER DEFAULT PRIVILEGES FOR ROLE owner IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES FOR ROLE owner IN SCHEMA public GRANT ALL ON FUNCTIONS TO anon, authenticated, service_role;
CREATE PUBLICATION supabase_realtime;
ALTER PUBLICATION supabase_realtime OWNER TO owner;
`;

/** A Postgres that is not ours, set up as Supabase does. Another server's private one is lent for it. */
class GivenPostgres {
  static async start(simulator) {
    const given = new GivenPostgres();
    given.lender = await Server.launched({ simulator });
    const sockets = join(given.lender.dataDirectory, 'run');
    const child = run('psql', [`host=${sockets} user=postgres dbname=postgres`, '-X', '-q', '-v', 'ON_ERROR_STOP=1']);
    child.child.stdin.end(PROJECT);
    await child;
    given.database = `host=${sockets} user=owner dbname=project`;
    given.url = `postgres://owner@localhost/project?host=${encodeURIComponent(sockets)}`;
    return given;
  }

  stop() {
    return this.lender.stop();
  }
}

/**
 * The server, with its private database in a temporary directory. It keeps address and data over a restart. With
 * `WASEL_TEST_GIVEN_POSTGRES=1` the database is one it was given by `DATABASE_URL`.
 */
export class Server {
  static async start({ simulator, environment = {} }) {
    if (process.env.WASEL_TEST_GIVEN_POSTGRES !== '1') return Server.launched({ simulator, environment });
    const given = await GivenPostgres.start(simulator);
    try {
      return await Server.launched({ simulator, environment: { DATABASE_URL: given.url, ...environment }, given });
    } catch (error) {
      await given.stop();
      throw error;
    }
  }

  static async launched({ simulator, environment = {}, given }) {
    const server = new Server();
    server.given = given;
    server.directory = await temporaryDirectory();
    server.dataDirectory = join(server.directory, 'data');
    const sockets = encodeURIComponent(join(server.dataDirectory, 'run'));
    server.databaseUrl = given?.url ?? `postgres://postgres@localhost/wasel?host=${sockets}`;
    server.database = given?.database ?? `host=${join(server.dataDirectory, 'run')} user=postgres dbname=wasel`;
    server.port = await freePort();
    server.base = `http://127.0.0.1:${server.port}`;
    server.environment = {
      PORT: String(server.port),
      WASEL_SERVER_LISTEN: '127.0.0.1',
      PUBLIC_URL: server.base,
      WASEL_DATA_DIR: server.dataDirectory,
      META_GRAPH_BASE: simulator.base,
      TWILIO_API_BASE: simulator.base,
      OUTBOX_RETRY_BASE: '50ms',
      // The tests poll more than a person would.
      WASEL_LIMITS_API_REQUESTS: '0',
      WASEL_LIMITS_ORG_SENDS_PER_MINUTE: '0',
      WASEL_LIMITS_USER_SENDS_PER_MINUTE: '0',
      ...environment,
    };
    await server.launch();
    const secrets = await readFile(join(server.dataDirectory, 'secrets.toml'), 'utf8');
    [, server.anonKey] = secrets.match(/^SUPABASE_ANON_KEY = "(.+)"$/m);
    [, server.serviceRoleKey] = secrets.match(/^SUPABASE_SERVICE_ROLE_KEY = "(.+)"$/m);
    return server;
  }

  async launch() {
    this.process = new Process(['serve'], this.environment);
    await this.process.said(/ ready /);
  }

  /** Stops it and, after `meanwhile`, starts it again at the same address. */
  async restart(meanwhile = async () => {}) {
    await this.process.stop();
    await meanwhile();
    await this.launch();
  }

  /** Declares tenants; returns what `wasel apply --json` prints. */
  async apply(declaration) {
    const child = run(BINARY, ['apply', '--json', '-'], { env: { ...process.env, ...this.environment } });
    child.child.stdin.end(declaration);
    return JSON.parse((await child).stdout);
  }

  /** Runs SQL past the server, as anybody with access to the database might; returns the rows as text. */
  async psql(sql) {
    const { stdout } = await run('psql', [this.database, '-X', '-q', '-At', '-v', 'ON_ERROR_STOP=1', '-c', sql]);
    return stdout.trim();
  }

  request(method, path, options) {
    return request(method, this.base + path, options);
  }

  call(method, path, options) {
    return call(method, this.base + path, options);
  }

  async stop() {
    await this.process.stop();
    await rm(this.directory, { recursive: true, force: true });
    await this.given?.stop();
  }
}

const PASSWORD = 'correct horse battery staple';

/** What a tenant is called at its providers. All of it is made up. */
function tenant(letter, digit) {
  const account = { accountSid: `AC${digit.repeat(32)}`, authToken: `twilio-token-${letter}` };
  return {
    slug: `tenant-${letter}`,
    email: `owner@tenant-${letter}.example`,
    password: PASSWORD,
    meta: {
      wabaId: `10229012934039${digit}`,
      phoneNumberId: `10654035224292${digit}`,
      displayNumber: `+2021234567${digit}`,
      accessToken: `meta-token-${letter}`,
      appSecret: `meta-secret-${letter}`,
      verifyToken: `meta-verify-${letter}`,
    },
    sms: { ...account, number: `+1500555000${digit}`, address: `+1500555000${digit}` },
    whatsapp: { ...account, number: `+1415523888${digit}`, address: `whatsapp:+1415523888${digit}` },
  };
}

function declaration({ slug, email, password, meta, sms, whatsapp }) {
  return `
[[organizations]]
slug = "${slug}"
name = "${slug}"
timezone = "Africa/Cairo"
locale = "ar-EG"
[[organizations.users]]
email = "${email}"
password = "${password}"
role = "owner"
full_name = "Owner"
[[organizations.channels]]
kind = "whatsapp_cloud"
name = "WhatsApp"
waba_id = "${meta.wabaId}"
phone_number_id = "${meta.phoneNumberId}"
display_phone_number = "${meta.displayNumber}"
access_token = "${meta.accessToken}"
app_secret = "${meta.appSecret}"
verify_token = "${meta.verifyToken}"
[[organizations.channels]]
kind = "twilio_sms"
name = "SMS"
account_sid = "${sms.accountSid}"
auth_token = "${sms.authToken}"
from = "${sms.number}"
[[organizations.channels]]
kind = "twilio_whatsapp"
name = "WhatsApp by Twilio"
account_sid = "${whatsapp.accountSid}"
auth_token = "${whatsapp.authToken}"
from = "${whatsapp.number}"
`;
}

async function register(simulator, server, { meta, sms, whatsapp }) {
  await simulator.control('PUT', '/meta/numbers', {
    waba_id: meta.wabaId,
    phone_number_id: meta.phoneNumberId,
    display_phone_number: meta.displayNumber,
    access_token: meta.accessToken,
    app_secret: meta.appSecret,
    verify_token: meta.verifyToken,
    webhook_url: `${server.base}/api/webhooks/whatsapp`,
  });
  const number = ({ number }, channel) => ({ number, channel, webhook_url: `${server.base}/api/webhooks/twilio` });
  await simulator.control('PUT', '/twilio/accounts', {
    account_sid: sms.accountSid,
    auth_token: sms.authToken,
    numbers: [number(sms, 'sms'), number(whatsapp, 'whatsapp')],
  });
}

/** The address the server's own mails come from, where it sends any. */
export const MAIL_FROM = 'no-reply@wasel.example';

/** A mailbox of the server's own at the simulated mail server; returns the variables that name it. */
async function mailServer(simulator) {
  const { smtp } = await simulator.control('GET', '/email/server');
  const [user, password] = ['wasel', 'mail-password'];
  await simulator.control('PUT', '/email/mailboxes', {
    address: MAIL_FROM,
    user,
    password,
    webhook_url: 'http://127.0.0.1:9/',
    webhook_secret: 'unused',
  });
  return { SMTP_URL: `smtp://${user}:${password}@${smtp}`, MAIL_FROM: `Wasel <${MAIL_FROM}>` };
}

/**
 * Server, simulator and the tenants `a` and `b`, each with a token, its channels by kind, and its names at the
 * providers.
 */
export async function startWorld(options = {}) {
  const simulator = await Simulator.start();
  const world = { simulator };
  world.stop = async () => {
    await world.server?.stop();
    await simulator.stop();
  };
  try {
    const { linkedPhones, mail, environmentOf, ...rest } = options;
    const phones = linkedPhones ? { WHATSAPP_WEB_URL: simulator.whatsappWebUrl } : {};
    const post = mail ? await mailServer(simulator) : {};
    const environment = { ...phones, ...post, ...environmentOf?.(simulator), ...rest.environment };
    const server = await Server.start({ simulator, ...rest, environment });
    world.server = server;
    const tenants = [tenant('a', '1'), tenant('b', '2')];
    const { organizations } = await server.apply(tenants.map(declaration).join('\n'));
    for (const tenant of tenants) {
      const made = organizations.find((organization) => organization.slug === tenant.slug);
      tenant.orgId = made.id;
      tenant.userId = made.users[0].id;
      tenant.channels = Object.fromEntries(made.channels.map(({ kind, id }) => [kind, id]));
      await register(simulator, server, tenant);
      const { email, password } = tenant;
      const session = await server.call('POST', '/auth/v1/token?grant_type=password', {
        headers: { apikey: server.anonKey },
        body: { email, password },
      });
      tenant.token = session.access_token;
    }
    [world.a, world.b] = tenants;
    return world;
  } catch (error) {
    await world.stop();
    throw error;
  }
}
