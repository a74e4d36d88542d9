// supabase.storage as it is: on a directory, and on an S3 service.

import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { after, before, describe, test } from 'node:test';

import { supabase, signedIn } from './feed.mjs';
import { startWorld, until } from './harness.mjs';

const BUCKET = 'whatsapp-media';
const PNG = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==', 'base64');
const PDF = Buffer.concat([Buffer.from('%PDF-1.7\n'), Buffer.alloc(300_000, 7)]);

/** What the call gave; its error is a failure. */
async function good(call) {
  const { data, error } = await call;
  assert.equal(error, null, error && JSON.stringify(error));
  return data;
}

/** A refusal as the client tells it: its own status and the one Storage means. */
async function refused(call, statusCode, status = 400) {
  const { data, error } = await call;
  assert.equal(data === null || data === false, true, JSON.stringify(data));
  assert.equal(error?.name, 'StorageApiError', String(error));
  assert.deepEqual([error.status, error.statusCode], [status, statusCode], error.message);
  assert.ok(error.message);
  return error;
}

const bytes = async (blob) => Buffer.from(await blob.arrayBuffer());

describe('supabase.storage on a directory', () => {
  let world;
  let files;
  let others;
  let nobody;
  before(async () => {
    world = await startWorld();
    files = (await signedIn(world.server, world.a)).storage.from(BUCKET);
    others = (await signedIn(world.server, world.b)).storage.from(BUCKET);
    nobody = supabase(world.server).storage.from(BUCKET);
  });
  after(() => world?.stop());

  for (const [what, body, options] of [
    ['a Blob', () => new Blob([PNG], { type: 'image/png' })],
    ['a File', () => new File([PNG], 'x.png', { type: 'image/png' })],
    ['a Buffer', () => PNG, { contentType: 'image/png' }],
    ['a Buffer of no type', () => PNG],
    ['an ArrayBuffer', () => new Uint8Array(PNG).buffer, { contentType: 'image/png' }],
    ['a stream', () => new Blob([PNG]).stream(), { contentType: 'image/png', duplex: 'half' }],
    ['a stream of Node', () => Readable.from([PNG.subarray(0, 20), PNG.subarray(20)]), { contentType: 'image/png', duplex: 'half' }],
    [
      'a form',
      () => {
        const form = new FormData();
        form.append('file', new Blob([PNG], { type: 'image/png' }), 'x.png');
        return form;
      },
    ],
  ]) {
    test(`${what} is uploaded and comes back as it was`, async () => {
      const path = `kinds/${what.replaceAll(' ', '-')}.png`;
      const made = await good(files.upload(path, body(), { cacheControl: '60', metadata: { by: 'منى' }, ...options }));
      assert.deepEqual([made.path, made.fullPath], [path, `${BUCKET}/${path}`]);
      const blob = await good(files.download(path));
      assert.equal(blob.type, 'image/png');
      assert.deepEqual(await bytes(blob), PNG);
      const info = await good(files.info(path));
      assert.equal(info.id, made.id);
      assert.deepEqual(
        [info.name, info.size, info.contentType, info.cacheControl, info.metadata],
        [path, PNG.length, 'image/png', 'max-age=60', { by: 'منى' }],
      );
      await refused(others.download(path), '404');
    });
  }

  test('a text is uploaded as the client types it by itself', async () => {
    await good(files.upload('text.txt', 'مرحبا'));
    const blob = await good(files.download('text.txt'));
    assert.deepEqual([await blob.text(), blob.type], ['مرحبا', 'text/plain;charset=utf-8']);
  });

  test('a path is taken once, unless it is to be replaced', async () => {
    const path = 'فواتير/مارس ٢٠٢٦/فاتورة (1).png';
    await good(files.upload(path, PNG, { contentType: 'image/png' }));
    const error = await refused(files.upload(path, PDF, { contentType: 'application/pdf' }), '409');
    assert.match(error.message, /already exists/);
    await good(files.upload(path, PDF, { contentType: 'application/pdf', upsert: true }));
    assert.deepEqual(await bytes(await good(files.download(path))), PDF);
    await good(files.update(path, new Blob([PNG], { type: 'image/png' })));
    assert.deepEqual(await bytes(await good(files.download(path))), PNG);
    await good(others.upload(path, PDF, { contentType: 'application/pdf' }));
    assert.deepEqual(await bytes(await good(files.download(path))), PNG, "another organisation's is another file");
  });

  test('what WhatsApp does not take is refused with its reason', async () => {
    const html = new Blob(['<script>alert(1)</script>'], { type: 'text/html' });
    assert.match((await refused(files.upload('x.html', html), '415')).message, /text\/html/);
    await refused(files.upload('x.png', new Blob(['no picture'], { type: 'image/png' })), '415');
    const large = new Blob([PNG, Buffer.alloc(5 * 1024 * 1024)], { type: 'image/png' });
    await refused(files.upload('large.png', large), '413');
    await refused(files.upload('a|b.png', PNG, { contentType: 'image/png' }), '400');
    await refused(supabase(world.server).storage.from('avatars').download('x'), '403');
    assert.deepEqual(await good(files.list('', { search: 'large' })), []);
  });

  test('who is not signed in reads and writes nothing', async () => {
    await good(files.upload('mine.png', PNG, { contentType: 'image/png' }));
    await refused(nobody.download('mine.png'), '403');
    await refused(nobody.upload('theirs.png', PNG, { contentType: 'image/png' }), '403');
    await refused(nobody.list(), '403');
    await refused(nobody.remove(['mine.png']), '403');
    await refused(nobody.createSignedUrl('mine.png', 60), '403');
  });

  test('exists tells both ways', async () => {
    await good(files.upload('here.png', PNG, { contentType: 'image/png' }));
    assert.equal(await good(files.exists('here.png')), true);
    assert.equal((await files.exists('nowhere.png')).data, false);
    assert.equal((await others.exists('here.png')).data, false);
    await refused(files.info('nowhere.png'), '404');
  });

  test('list shows folders and files, in order and in part', async () => {
    for (const path of ['l/b.txt', 'l/a.txt', 'l/c/d.txt', 'l/c/e.txt']) await good(files.upload(path, 'x'));
    const all = await good(files.list('l'));
    assert.deepEqual(all.map(({ name, id }) => [name, id === null]), [['c', true], ['a.txt', false], ['b.txt', false]]);
    assert.equal(all[1].metadata.size, 1);
    assert.equal(all[1].metadata.mimetype, 'text/plain;charset=UTF-8');
    const part = await good(files.list('l', { limit: 1, offset: 1, sortBy: { column: 'name', order: 'desc' } }));
    assert.deepEqual(part.map(({ name }) => name), ['b.txt']);
    assert.deepEqual((await good(files.list('l', { search: 'a' }))).map(({ name }) => name), ['a.txt']);
    assert.deepEqual(await good(others.list('l')), []);
  });

  test('remove answers with what was there', async () => {
    await good(files.upload('r/1.txt', '1'));
    await good(files.upload('r/2.txt', '2'));
    assert.deepEqual(await good(others.remove(['r/1.txt'])), []);
    const removed = await good(files.remove(['r/1.txt', 'r/none.txt', 'r/2.txt']));
    assert.deepEqual(removed.map(({ name }) => name).sort(), ['r/1.txt', 'r/2.txt']);
    assert.equal(removed[0].bucket_id, BUCKET);
    await refused(files.download('r/1.txt'), '404');
  });

  test('move and copy', async () => {
    await good(files.upload('m/1.txt', 'one'));
    await good(files.upload('m/2.txt', 'two'));
    await refused(others.move('m/1.txt', 'm/3.txt'), '404');
    await refused(others.copy('m/1.txt', 'm/3.txt'), '404');
    await refused(files.move('m/1.txt', 'm/2.txt'), '409');
    assert.equal((await good(files.move('m/1.txt', 'm/3.txt'))).message, 'Successfully moved');
    assert.equal((await good(files.copy('m/3.txt', 'm/4.txt'))).path, `${BUCKET}/m/4.txt`);
    await refused(files.copy('m/3.txt', 'm/2.txt'), '409');
    await refused(files.download('m/1.txt'), '404');
    for (const path of ['m/3.txt', 'm/4.txt']) assert.equal(await (await good(files.download(path))).text(), 'one');
  });

  test('a signed address opens its file to anybody, for a while', async () => {
    await good(files.upload('s/مرحبا بك.png', PNG, { contentType: 'image/png' }));
    const { signedUrl } = await good(files.createSignedUrl('s/مرحبا بك.png', 60));
    const got = await fetch(signedUrl);
    assert.deepEqual([got.status, got.headers.get('content-type')], [200, 'image/png']);
    assert.deepEqual(Buffer.from(await got.arrayBuffer()), PNG);
    const part = await fetch(signedUrl, { headers: { range: 'bytes=1-3' } });
    assert.deepEqual([part.status, await part.text()], [206, 'PNG']);
    // In ASCII: the client escapes the name twice in a signed address.
    const named = await good(files.createSignedUrl('s/مرحبا بك.png', 60, { download: 'picture.png' }));
    const saved = await fetch(named.signedUrl);
    assert.match(saved.headers.get('content-disposition'), /^attachment; filename\*=UTF-8''picture/);
    assert.equal((await fetch(signedUrl.slice(0, -3))).status, 400);
    await refused(others.createSignedUrl('s/مرحبا بك.png', 60), '404');
    await refused(files.createSignedUrl('s/none.png', 60), '404');
    const many = await good(files.createSignedUrls(['s/مرحبا بك.png', 's/none.png'], 60));
    assert.equal((await fetch(many[0].signedUrl)).status, 200);
    assert.deepEqual([many[1].signedUrl, many[1].path], [null, 's/none.png']);
    assert.match(many[1].error, /does not exist/);
    await good(files.copy('s/مرحبا بك.png', 's/why?.png'));
    const odd = await good(files.createSignedUrls(['s/why?.png'], 60));
    assert.equal((await fetch(odd[0].signedUrl)).status, 200);
    const theirs = await good(others.createSignedUrls(['s/مرحبا بك.png'], 60));
    assert.equal(theirs[0].signedUrl, null);
    const brief = await good(files.createSignedUrl('s/مرحبا بك.png', 1));
    await until('it is over', async () => (await fetch(brief.signedUrl)).status === 400);
    const sized = await files.createSignedUrl('s/مرحبا بك.png', 60, { transform: { width: 10 } });
    assert.match(sized.error.message, /transform/);
    await refused(files.download('s/مرحبا بك.png', { transform: { width: 10 } }), '409');
  });

  test('a signed upload needs nobody signed in, and takes its path only', async () => {
    const { token, path, signedUrl } = await good(files.createSignedUploadUrl('u/1.png'));
    assert.ok(signedUrl.includes(token));
    await refused(nobody.uploadToSignedUrl('u/2.png', token, PNG, { contentType: 'image/png' }), '400');
    const made = await good(nobody.uploadToSignedUrl(path, token, new Blob([PNG], { type: 'image/png' })));
    assert.equal(made.fullPath, `${BUCKET}/u/1.png`);
    assert.deepEqual(await bytes(await good(files.download('u/1.png'))), PNG);
    await refused(nobody.uploadToSignedUrl(path, token, PNG, { contentType: 'image/png' }), '409');
    await refused(files.createSignedUploadUrl('u/1.png'), '409');
    const again = await good(files.createSignedUploadUrl('u/1.png', { upsert: true }));
    await good(nobody.uploadToSignedUrl('u/1.png', again.token, PDF, { contentType: 'application/pdf' }));
    assert.deepEqual(await bytes(await good(files.download('u/1.png'))), PDF);
  });

  test('getPublicUrl works for the public folder of the organisation, and for nothing else', async () => {
    const path = `${world.a.orgId}/public/شعار.png`;
    await good(files.upload(path, PNG, { contentType: 'image/png' }));
    const { publicUrl } = files.getPublicUrl(path).data;
    const got = await fetch(publicUrl);
    assert.deepEqual([got.status, got.headers.get('cache-control')], [200, 'public, max-age=3600']);
    assert.deepEqual(Buffer.from(await got.arrayBuffer()), PNG);
    const known = await fetch(publicUrl, { headers: { 'if-none-match': got.headers.get('etag') } });
    assert.equal(known.status, 304);
    const saved = await fetch(files.getPublicUrl(path, { download: true }).data.publicUrl);
    assert.match(saved.headers.get('content-disposition'), /^attachment/);
    const named = await fetch(files.getPublicUrl(path, { download: 'صورة.png' }).data.publicUrl);
    assert.match(named.headers.get('content-disposition'), /^attachment; filename\*=UTF-8''%D8%B5/);
    await refused(others.upload(path, PNG, { contentType: 'image/png', upsert: true }), '403');
    await good(files.upload('public/logo.png', PNG, { contentType: 'image/png' }));
    assert.equal((await fetch(files.getPublicUrl('public/logo.png').data.publicUrl)).status, 400);
    const sized = await fetch(files.getPublicUrl(path, { transform: { width: 10 } }).data.publicUrl);
    assert.equal((await sized.json()).code, 'NotSupported');
  });

  test('there is one bucket, and it stays', async () => {
    const { storage } = await signedIn(world.server, world.a);
    const buckets = await good(storage.listBuckets());
    assert.deepEqual(buckets.map(({ id, public: open }) => [id, open]), [[BUCKET, false]]);
    assert.ok((await good(storage.getBucket(BUCKET))).allowed_mime_types.includes('image/jpeg'));
    await refused(storage.getBucket('avatars'), '404');
    await refused(storage.createBucket(BUCKET), '409');
    await refused(storage.createBucket('avatars'), '409');
    await refused(storage.updateBucket(BUCKET, { public: true }), '409');
    await refused(storage.emptyBucket(BUCKET), '409');
    await refused(storage.deleteBucket(BUCKET), '409');
  });

  test('a page of a listed origin may send what the client sends, and reads errors', async () => {
    const origin = 'http://localhost:5173';
    const asked = 'authorization, apikey, x-client-info, content-type, x-upsert, cache-control, x-metadata';
    const path = `/storage/v1/object/${BUCKET}/x.png`;
    const preflight = await world.server.request('OPTIONS', path, {
      headers: { origin, 'access-control-request-method': 'PUT', 'access-control-request-headers': asked },
    });
    assert.equal(preflight.headers.get('access-control-allow-origin'), origin);
    assert.match(preflight.headers.get('access-control-allow-methods'), /PUT/);
    for (const header of asked.split(', ')) assert.ok(preflight.headers.get('access-control-allow-headers').includes(header));
    const error = await world.server.request('GET', path, { headers: { origin } });
    assert.deepEqual([error.status, error.headers.get('access-control-allow-origin')], [400, origin]);
  });

  test('a file for a message, as the document uploads it, can be fetched by a provider', async () => {
    const form = new FormData();
    form.append('file', new Blob([PNG], { type: 'image/png' }), 'صورة.png');
    form.append('org_id', world.a.orgId);
    const response = await fetch(`${world.server.base}/api/media/upload`, {
      method: 'POST',
      headers: { authorization: `Bearer ${world.a.token}` },
      body: form,
    });
    const made = await response.json();
    assert.deepEqual([made.success, made.media_type], [true, 'image'], JSON.stringify(made));
    assert.deepEqual(Buffer.from(await (await fetch(made.media_url)).arrayBuffer()), PNG);
  });
});

describe('supabase.storage on an S3 service', () => {
  let world;
  let files;
  const stored = () => world.simulator.control('GET', '/s3');
  before(async () => {
    world = await startWorld({
      environmentOf: (simulator) => ({
        WASEL_STORAGE_URL: 's3://wasel-files/media',
        WASEL_STORAGE_ENDPOINT: `${simulator.base}/s3`,
        WASEL_STORAGE_ACCESS_KEY_ID: 'SIMULATEDKEY',
        WASEL_STORAGE_SECRET_ACCESS_KEY: 'simulated/secret+key',
      }),
    });
    files = (await signedIn(world.server, world.a)).storage.from(BUCKET);
  });
  after(() => world?.stop());

  test('a small and a large file come back as they were, the large one in parts', async () => {
    const large = Buffer.concat([PDF, Buffer.alloc(11 * 1024 * 1024, 9)]);
    await good(files.upload('small.png', PNG, { contentType: 'image/png' }));
    await good(files.upload('large.pdf', new Blob([large], { type: 'application/pdf' })));
    assert.deepEqual(await bytes(await good(files.download('small.png'))), PNG);
    assert.ok((await bytes(await good(files.download('large.pdf')))).equals(large));
    const { objects, uploads, completed } = await stored();
    assert.deepEqual([objects.length, uploads, completed], [2, 0, 1]);
    assert.ok(objects.every(({ key }) => key.startsWith(`wasel-files/media/storage/${world.a.orgId}/`)));
    const { signedUrl } = await good(files.createSignedUrl('large.pdf', 60));
    const part = await fetch(signedUrl, { headers: { range: 'bytes=0-4' } });
    assert.deepEqual([part.status, await part.text()], [206, '%PDF-']);
  });

  test('copied, moved and removed, the objects follow', async () => {
    await good(files.copy('small.png', 'copy.png'));
    await good(files.move('copy.png', 'moved.png'));
    assert.deepEqual(await bytes(await good(files.download('moved.png'))), PNG);
    await good(files.remove(['small.png', 'large.pdf', 'moved.png']));
    await until('the objects are gone', async () => (await stored()).objects.length === 0);
  });
});
