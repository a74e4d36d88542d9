// Accounts with the unmodified supabase-js: signing in, joining by invitation, changing oneself, getting back in by
// mail, signing out; and tokens that somebody forged.

import assert from 'node:assert/strict';
import { createHmac, generateKeyPairSync, randomUUID, sign as signWith } from 'node:crypto';
import { after, afterEach, before, describe, test } from 'node:test';

import { Feed, supabase } from './feed.mjs';
import { request, sleep, startWorld, until } from './harness.mjs';

const JWT_SECRET = 'the secret that signs tokens in these tests';
const PASSWORD = 'a password of their own';

let world;
const clients = [];

before(async () => {
  world = await startWorld({ mail: true, environment: { JWT_SECRET } });
});
after(() => world?.stop());
afterEach(async () => {
  for (const client of clients.splice(0)) {
    await client.removeAllChannels();
    await client.realtime.disconnect();
  }
});

const newClient = (options) => {
  const client = supabase(world.server, options);
  clients.push(client);
  return client;
};

let lastPerson = 0;
const newAddress = () => `person-${(lastPerson += 1)}@people.example`;

/** An invitation by the tenant's owner, with its link and the token in it. */
async function invite(tenant, email, role = 'agent', more = {}) {
  const made = await world.server.call('POST', '/v1/invitations', {
    token: tenant.token,
    body: { email, role, ...more },
  });
  return { ...made, token: new URL(made.link).searchParams.get('token') };
}

/** A new member of the tenant, who signed up by invitation. */
async function newMember(tenant, role = 'agent') {
  const email = newAddress();
  const { token } = await invite(tenant, email, role);
  const client = newClient();
  const options = { data: { invitation: token, full_name: 'Sara Ali' } };
  const { data, error } = await client.auth.signUp({ email, password: PASSWORD, options });
  assert.equal(error, null);
  return { client, email, user: data.user, session: data.session };
}

async function signIn(email, password = PASSWORD) {
  const client = newClient();
  const { data, error } = await client.auth.signInWithPassword({ email, password });
  assert.equal(error, null);
  return { client, session: data.session };
}

/** Somebody who got back in by the code of a mail. */
async function recovered(email, token) {
  const client = newClient();
  const { data, error } = await client.auth.verifyOtp({ email, token, type: 'recovery' });
  assert.equal(error, null);
  return { client, session: data.session };
}

/** A mail to an address, by its number, with its link and its six digits. */
async function mailTo(address, count = 1) {
  const mail = await until(`mail ${count} to ${address}`, async () => {
    const all = await world.simulator.control('GET', '/email/received');
    return all.filter(({ recipients }) => recipients.includes(address))[count - 1];
  });
  const [link] = mail.text.match(/https?:\S+/);
  return { ...mail, link, token: new URL(link).searchParams.get('token'), code: mail.text.replace(link, '').match(/\b\d{6}\b/)?.[0] };
}

const statusOf = async (token, path = '/v1/conversations') => (await world.server.request('GET', path, { token })).status;

const encode = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');

/** A token with these claims, signed by this secret. */
function jwt(claims, secret = JWT_SECRET, header = { alg: 'HS256', typ: 'JWT' }) {
  const body = `${encode(header)}.${encode(claims)}`;
  return `${body}.${createHmac('sha256', secret).update(body).digest('base64url')}`;
}

/** What another identity provider with our secret would say of a tenant's owner. */
const claimsOf = (tenant, more = {}) => ({
  sub: tenant.userId,
  role: 'authenticated',
  aud: 'authenticated',
  exp: Math.floor(Date.now() / 1000) + 600,
  app_metadata: { org_id: tenant.orgId },
  ...more,
});

describe('joining', () => {
  test('signUp with an invitation gives a session in its tenant and role', async () => {
    const email = newAddress();
    const { token, mail } = await invite(world.a, email, 'agent', { channel_ids: [world.a.channels.twilio_sms] });
    assert.equal(mail, 'queued');
    const client = newClient();
    const events = [];
    client.auth.onAuthStateChange((event) => events.push(event));
    const options = { data: { invitation: token, full_name: 'Sara', team: 'sales' } };
    const { data, error } = await client.auth.signUp({ email, password: PASSWORD, options });
    assert.equal(error, null);
    assert.equal(data.user.email, email);
    assert.equal(data.user.app_metadata.org_id, world.a.orgId);
    assert.deepEqual(data.user.user_metadata, { full_name: 'Sara', team: 'sales' });
    await until('the event', () => events.includes('SIGNED_IN'));
    const { data: channels } = await world.server.call('GET', '/v1/channels', { token: data.session.access_token });
    assert.deepEqual(channels.map(({ id }) => id), [world.a.channels.twilio_sms]);
    await signIn(email);

    const again = await newClient().auth.signUp({ email, password: PASSWORD, options });
    assert.equal(again.error.code, 'otp_expired');
    assert.equal(again.error.status, 403);
  });

  test('without an invitation nobody signs up, by any of the ways', async () => {
    const { auth } = newClient();
    const email = newAddress();
    const refused = async (answer, code, status) => {
      const { error } = await answer;
      assert.deepEqual([error.code, error.status], [code, status]);
    };
    await refused(auth.signUp({ email, password: PASSWORD }), 'signup_disabled', 422);
    await refused(auth.signUp({ email, password: PASSWORD, options: { data: { invitation: 'x' } } }), 'otp_expired', 403);
    await refused(auth.signInAnonymously(), 'signup_disabled', 422);
    await refused(auth.signInWithOtp({ email }), 'otp_disabled', 422);
    await refused(auth.resend({ type: 'signup', email }), 'validation_failed', 400);
    const { token } = await invite(world.a, email);
    const { error } = await auth.signUp({ email, password: 'short', options: { data: { invitation: token } } });
    assert.equal(error.name, 'AuthWeakPasswordError');
    assert.deepEqual(error.reasons, ['length']);
    const { status, body } = await request('GET', `${world.server.base}/auth/v1/authorize?provider=google`);
    assert.deepEqual([status, body.code], [400, 'validation_failed']);
  });

  test('the mailed link signs in by verifyOtp, and updateUser sets the password', async () => {
    const email = newAddress();
    const made = await invite(world.a, email, 'viewer', { full_name: 'Omar' });
    const mail = await mailTo(email);
    assert.equal(mail.subject, 'دعوة إلى tenant-a');
    assert.match(mail.html, /dir="rtl"/);
    assert.notEqual(mail.token, made.token);
    const client = newClient();
    const { data, error } = await client.auth.verifyOtp({ token_hash: mail.token, type: 'invite' });
    assert.equal(error, null);
    assert.equal(data.user.user_metadata.full_name, 'Omar');
    assert.ok(data.user.email_confirmed_at);
    assert.equal((await client.auth.updateUser({ password: PASSWORD })).error, null);
    await signIn(email);
    const other = await newClient().auth.verifyOtp({ token_hash: made.token, type: 'invite' });
    assert.equal(other.error.code, 'otp_expired', 'the other link of the same invitation has ended too');
  });

  test('somebody of another tenant joins with their password and has both', async () => {
    const { token } = await invite(world.b, world.a.email, 'viewer');
    const signUp = (password) =>
      newClient().auth.signUp({ email: world.a.email, password, options: { data: { invitation: token } } });
    assert.equal((await signUp('not her password')).error.code, 'user_already_exists');
    const { data, error } = await signUp(world.a.password);
    assert.equal(error, null);
    assert.equal(data.user.id, world.a.userId);
    assert.equal(data.user.app_metadata.org_id, world.b.orgId);
    const { access_token } = data.session;
    assert.equal(await statusOf(access_token), 200);
    const { status } = await world.server.request('GET', '/v1/invitations', { token: access_token });
    assert.equal(status, 403, 'a viewer there');
  });

  test('inviteUserByEmail works with the service-role key only', async () => {
    const admin = supabase({ base: world.server.base, anonKey: world.server.serviceRoleKey });
    const email = newAddress();
    const options = { data: { org_slug: world.b.slug, role: 'admin' } };
    const { data, error } = await admin.auth.admin.inviteUserByEmail(email, options);
    assert.equal(error, null);
    const { token } = await mailTo(email);
    const joined = await newClient().auth.verifyOtp({ token_hash: token, type: 'invite' });
    assert.equal(joined.data.user.id, data.user.id);
    assert.equal(joined.data.user.app_metadata.org_id, world.b.orgId);
    const refused = await newClient().auth.admin.inviteUserByEmail(newAddress(), options);
    assert.equal(refused.error.code, 'not_admin');
  });
});

describe('sessions', () => {
  test('getUser, getClaims and the state changes tell who is signed in', async () => {
    const { email, user } = await newMember(world.a);
    const client = newClient();
    const events = [];
    client.auth.onAuthStateChange((event, session) => events.push([event, session?.user?.id]));
    await until('the first event', () => events.length > 0);
    await client.auth.signInWithPassword({ email, password: PASSWORD });
    const { data: claims, error } = await client.auth.getClaims();
    assert.equal(error, null);
    assert.equal(claims.claims.sub, user.id);
    assert.equal(claims.claims.app_metadata.org_id, world.a.orgId);
    assert.equal(claims.claims.user_metadata.full_name, 'Sara Ali');
    assert.equal((await client.auth.getUser()).data.user.id, user.id);
    await client.auth.refreshSession();
    await client.auth.updateUser({ data: { theme: 'dark' } });
    await client.auth.signOut();
    await until('the last event', () => events.some(([event]) => event === 'SIGNED_OUT'));
    assert.deepEqual(
      events.map(([event]) => event),
      ['INITIAL_SESSION', 'SIGNED_IN', 'TOKEN_REFRESHED', 'USER_UPDATED', 'SIGNED_OUT'],
    );
  });

  test('two tabs that refresh at once both stay signed in', async () => {
    const { session } = await newMember(world.a);
    const { refresh_token } = session;
    const tabs = await Promise.all([1, 2].map(() => newClient().auth.refreshSession({ refresh_token })));
    for (const { data, error } of tabs) {
      assert.equal(error, null);
      assert.equal(await statusOf(data.session.access_token), 200);
    }
    assert.notEqual(tabs[0].data.session.refresh_token, tabs[1].data.session.refresh_token);
  });

  test('a refresh token that comes back after the window ends its session, access tokens too', async () => {
    const { session, user } = await newMember(world.a);
    const { data: next } = await newClient().auth.refreshSession(session);
    await world.server.psql(`
      UPDATE wasel.refresh_tokens t SET used_at = used_at - interval '1 minute'
      FROM wasel.auth_sessions s WHERE s.id = t.session_id AND s.user_id = '${user.id}'`);
    const { error } = await newClient().auth.refreshSession(session);
    assert.equal(error.code, 'refresh_token_already_used');
    await until('the end of the access token', async () => (await statusOf(next.session.access_token)) === 401);
  });

  test('signOut ends what its scope says, at once', async () => {
    const { email } = await newMember(world.a);
    const [one, two, three] = [await signIn(email), await signIn(email), await signIn(email)];
    const alive = () => Promise.all([one, two, three].map(async ({ session }) => (await statusOf(session.access_token)) === 200));
    assert.deepEqual(await alive(), [true, true, true]);
    await one.client.auth.signOut({ scope: 'others' });
    assert.deepEqual(await alive(), [true, false, false]);
    const four = await signIn(email);
    await four.client.auth.signOut({ scope: 'local' });
    assert.deepEqual(await alive(), [true, false, false]);
    await one.client.auth.signOut();
    assert.deepEqual(await alive(), [false, false, false]);
  });

  test('whoever was signed out elsewhere hears nothing more', async () => {
    const { email } = await newMember(world.a);
    const [listener, other] = [await signIn(email), await signIn(email)];
    const feed = await Feed.open(listener.client, 'ended', { table: 'conversations' });
    await other.client.auth.signOut({ scope: 'others' });
    await until('the end of the channel', () => feed.statuses.some((status) => status !== 'SUBSCRIBED'), 30_000);
  });

  test('a removed account opens nothing any more', async () => {
    const { session, user } = await newMember(world.a);
    assert.equal(await statusOf(session.access_token), 200);
    await world.server.psql(`DELETE FROM wasel.users WHERE id = '${user.id}'`);
    await until('the end of the token', async () => (await statusOf(session.access_token)) === 401);
  });
});

describe('updateUser', () => {
  test('a new password ends the other sessions and keeps this one', async () => {
    const { email, client, session } = await newMember(world.a);
    const other = await signIn(email);
    const same = await client.auth.updateUser({ password: PASSWORD });
    assert.deepEqual([same.error.code, same.error.status], ['same_password', 422]);
    const weak = await client.auth.updateUser({ password: '1234567' });
    assert.equal(weak.error.name, 'AuthWeakPasswordError');
    assert.equal((await client.auth.updateUser({ password: 'another good one' })).error, null);
    assert.equal(await statusOf(session.access_token), 200);
    assert.equal(await statusOf(other.session.access_token), 401);
    assert.equal((await other.client.auth.refreshSession()).error.status, 400);
    await signIn(email, 'another good one');
  });

  test('data is merged, and rights are nobody’s own to set', async () => {
    const { client } = await newMember(world.a);
    await client.auth.updateUser({ data: { theme: 'dark', org_id: world.b.orgId, role: 'owner' } });
    const { data } = await client.auth.updateUser({ data: { theme: null, full_name: 'عمر' } });
    assert.deepEqual(data.user.user_metadata, { full_name: 'عمر', org_id: world.b.orgId, role: 'owner' });
    assert.equal(data.user.app_metadata.org_id, world.a.orgId);
    const { data: fresh } = await client.auth.refreshSession();
    const { status } = await world.server.request('GET', '/v1/invitations', { token: fresh.session.access_token });
    assert.equal(status, 403, 'still an agent');
    const refused = await client.auth.updateUser({ app_metadata: { org_id: world.b.orgId } });
    assert.deepEqual([refused.error.code, refused.error.status], ['not_admin', 403]);
    const large = await client.auth.updateUser({ data: { x: 'a'.repeat(5000) } });
    assert.equal(large.error.code, 'validation_failed');
  });

  test('a new address counts once its mail was answered', async () => {
    const { email } = await newMember(world.a);
    const unproved = await (await signIn(email)).client.auth.updateUser({ email: newAddress() });
    assert.deepEqual([unproved.error.code, unproved.error.status], ['email_not_confirmed', 422]);
    // The first mail was the invitation; whoever opens the second reads mail there.
    await newClient().auth.resetPasswordForEmail(email);
    const { client } = await recovered(email, (await mailTo(email, 2)).code);
    const address = newAddress();
    const needed = await client.auth.updateUser({ email: address });
    assert.deepEqual([needed.error.code, needed.error.status], ['reauthentication_needed', 400]);
    await client.auth.updateUser({ password: 'one more of their own' });
    const signedIn = await signIn(email, 'one more of their own');
    const taken = await signedIn.client.auth.updateUser({ email: world.b.email });
    assert.equal(taken.error.code, 'email_exists');
    const { data, error } = await signedIn.client.auth.updateUser({ email: address });
    assert.equal(error, null);
    assert.deepEqual([data.user.email, data.user.new_email], [email, address]);
    const { code } = await mailTo(address);
    const changed = await newClient().auth.verifyOtp({ email: address, token: code, type: 'email_change' });
    assert.equal(changed.data.user.email, address);
    assert.equal(await statusOf(signedIn.session.access_token), 401, 'the other sessions end');
    await signIn(address, 'one more of their own');
  });
});

describe('getting back in', () => {
  test('resetPasswordForEmail, verifyOtp with the code, updateUser, signIn', async () => {
    const { email } = await newMember(world.a);
    const { error } = await newClient().auth.resetPasswordForEmail(email);
    assert.equal(error, null);
    // The first mail was the invitation.
    const { code, token } = await mailTo(email, 2);
    const client = newClient();
    const wrong = await client.auth.verifyOtp({ email, token: code === '000000' ? '000001' : '000000', type: 'recovery' });
    assert.deepEqual([wrong.error.code, wrong.error.status], ['otp_expired', 403]);
    const { data } = await client.auth.verifyOtp({ email, token: code, type: 'recovery' });
    assert.equal(data.user.email, email);
    await client.auth.updateUser({ password: 'remembered this time' });
    await signIn(email, 'remembered this time');
    const used = await newClient().auth.verifyOtp({ token_hash: token, type: 'recovery' });
    assert.equal(used.error.code, 'otp_expired', 'link and code are one');
  });

  test('nobody learns whether there is such a person', async () => {
    const { email } = await newMember(world.a);
    const answersTo = async (address) => {
      const answers = [];
      for (const path of ['recover', 'recover', 'resend', 'recover', 'recover']) {
        const { status, body } = await request('POST', `${world.server.base}/auth/v1/${path}`, {
          body: { email: address, type: 'email_change' },
        });
        answers.push([status, body]);
      }
      const { error } = await newClient().auth.verifyOtp({ email: address, token: 'abcdef', type: 'recovery' });
      return { answers, error: [error.status, error.code, error.message] };
    };
    const known = await answersTo(email);
    assert.deepEqual(known, await answersTo('nobody@people.example'));
    assert.deepEqual(known.answers[0], [200, {}]);
    assert.deepEqual([known.answers[4][0], known.answers[4][1].code], [429, 'over_email_send_rate_limit']);
  });

  test('the link waits for a press of its button, then the page finds the session in its address', async () => {
    const { email, user } = await newMember(world.a);
    const redirectTo = `${world.server.base}/reset`;
    await newClient().auth.resetPasswordForEmail(email, { redirectTo });
    const { link } = await mailTo(email, 2);
    for (let n = 0; n < 2; n += 1) {
      const { status, body } = await request('GET', link);
      assert.equal(status, 200);
      assert.match(body, /<form method="post">/);
    }
    const press = () =>
      fetch(link, { method: 'POST', redirect: 'manual', headers: { 'content-type': 'application/x-www-form-urlencoded' } });
    const pressed = await press();
    assert.equal(pressed.status, 303);
    const landed = new URL(pressed.headers.get('location'));
    assert.equal(landed.origin + landed.pathname, redirectTo);

    const { events, session } = await open(landed.href);
    assert.equal(session.user.id, user.id);
    assert.deepEqual(events.slice(-1), ['PASSWORD_RECOVERY']);

    const again = new URL((await press()).headers.get('location'));
    const { error } = await open(again.href);
    assert.equal(error.details.code, 'otp_expired');
  });
});

/** A page at this address in a browser, as far as the client looks at one. */
async function open(href) {
  const { window, document } = globalThis;
  const location = new URL(href);
  globalThis.window = { location, history: { replaceState() {} }, addEventListener() {}, removeEventListener() {} };
  globalThis.document = { visibilityState: 'visible', addEventListener() {}, removeEventListener() {} };
  try {
    const client = newClient({ auth: { persistSession: false, autoRefreshToken: false, detectSessionInUrl: true } });
    const events = [];
    client.auth.onAuthStateChange((event) => events.push(event));
    const { error } = await client.auth.initialize();
    if (!error) await until('the event', () => events.includes('PASSWORD_RECOVERY'));
    const { data } = await client.auth.getSession();
    return { events, error, session: data.session };
  } finally {
    Object.assign(globalThis, { window, document });
    if (window === undefined) delete globalThis.window;
    if (document === undefined) delete globalThis.document;
  }
}

describe('tokens', () => {
  test('an application with its own sign-in and our secret needs no session here', async () => {
    const client = newClient({ accessToken: async () => jwt(claimsOf(world.a, { session_id: randomUUID(), iss: 'https://id.example' })) });
    await Feed.open(client, 'third-party', { table: 'conversations' });
    assert.equal(await statusOf(jwt(claimsOf(world.a))), 200);
  });

  test('forged, expired, foreign and unsigned tokens open nothing', async () => {
    const claims = claimsOf(world.a);
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const body = `${encode({ alg: 'ES256', typ: 'JWT', kid: 'x' })}.${encode(claims)}`;
    const byOtherKey = signWith('sha256', Buffer.from(body), { key: privateKey, dsaEncoding: 'ieee-p1363' });
    const good = jwt(claims);
    const bad = {
      'another secret': jwt(claims, 'another secret'),
      'the anon key as the secret': jwt(claims, world.server.anonKey),
      'no algorithm': `${encode({ alg: 'none' })}.${encode(claims)}.`,
      'no algorithm, a signature': jwt(claims, JWT_SECRET, { alg: 'none' }),
      'another key': `${body}.${byOtherKey.toString('base64url')}`,
      'an algorithm that the signature is not of': jwt(claims, JWT_SECRET, { alg: 'HS512' }),
      expired: jwt(claimsOf(world.a, { exp: Math.floor(Date.now() / 1000) - 120 })),
      'no expiry': jwt({ ...claims, exp: undefined }),
      'another audience': jwt(claimsOf(world.a, { aud: 'elsewhere' })),
      'a made-up role': jwt(claimsOf(world.a, { role: 'postgres' })),
      'no signature': good.split('.').slice(0, 2).join('.'),
      'a session of ours that never was': jwt(claimsOf(world.a, { iss: `${world.server.base}/auth/v1`, session_id: randomUUID() })),
      rubbish: 'a.b.c',
      'too long': `${'a'.repeat(7000)}.b.c`,
    };
    assert.equal(await statusOf(good), 200);
    for (const [what, token] of Object.entries(bad)) {
      assert.equal(await statusOf(token), 401, what);
      const { data, error } = await newClient().auth.getUser(token);
      assert.equal(data.user, null, what);
      assert.equal(error.status, error.name === 'AuthSessionMissingError' ? 400 : 403, what);
    }
  });

  test('a token of one tenant opens no other', async () => {
    assert.equal(await statusOf(jwt(claimsOf(world.b, { app_metadata: { org_id: world.a.orgId } }))), 403);
    const { status } = await world.server.request('GET', '/v1/invitations', {
      token: jwt(claimsOf(world.b)),
      headers: { 'x-org-id': world.a.orgId },
    });
    assert.equal(status, 403);
    const said = jwt(claimsOf(world.b, { app_metadata: {}, user_metadata: { org_id: world.a.orgId } }));
    const { data } = await world.server.call('GET', '/v1/channels', { token: said });
    assert.ok(data.every(({ id }) => Object.values(world.b.channels).includes(id)));
  });

  test('errors are in the shape the client reads, on paths that do not exist too', async () => {
    for (const path of ['/auth/v1/user', '/auth/v1/factors']) {
      const { status, headers, body } = await request('GET', world.server.base + path);
      assert.ok([401, 404].includes(status));
      assert.equal(typeof body.code, 'string');
      assert.equal(typeof body.message, 'string');
      assert.equal(headers.get('x-supabase-api-version'), '2024-01-01');
    }
  });
});

test('nothing of all this is in the log', async () => {
  await sleep(100);
  const { output } = world.server.process;
  assert.ok(!output.includes(PASSWORD));
  assert.ok(!/person-\d+@people\.example/.test(output));
  assert.ok(!/eyJ[\w-]+\.eyJ/.test(output), 'no token');
});
