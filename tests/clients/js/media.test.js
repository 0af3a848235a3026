// Media through matrix-js-sdk: pictures that are sent and shown, in whole and small, and worn by people and rooms.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { ask, fetched, picture, sizeOf, upload } from './media.js';
import { refusedWith, twoInARoom, word } from './person.js';

let alice, bob, roomId, hers, his;
before(async () => ({ alice, bob, roomId, hers, his } = await twoInARoom()));
after(() => [alice, bob].forEach((person) => person?.leave()));

describe('a picture', () => {
  test('is sent, and shown whole and in several sizes', async () => {
    assert.ok(await bob.client.isVersionSupported('v1.11'), 'apps look for this before they ask with a token');
    const bytes = picture(800, 600);
    const url = await upload(alice, bytes, 'fire place.png');
    const info = { mimetype: 'image/png', w: 800, h: 600, size: bytes.length };
    const content = { msgtype: 'm.image', body: 'fire place.png', url, info };
    const { event_id: id } = await alice.client.sendMessage(roomId, content);
    const event = await bob.sees(his, id);
    const { url: mxc } = event.getContent();

    const whole = await fetched(bob, mxc);
    assert.deepEqual(whole.bytes, bytes);
    assert.equal(whole.type, 'image/png');
    assert.match(whole.headers.get('Content-Disposition'), /^inline; filename/);
    for (const size of [[32, 32, 'crop'], [96, 96, 'crop'], [320, 240, 'scale'], [640, 480, 'scale']]) {
      const thumbnail = await fetched(bob, mxc, { size });
      assert.equal(thumbnail.type, 'image/png', 'what is transparent stays so');
      assert.deepEqual(sizeOf(thumbnail.bytes), size.slice(0, 2));
    }
    const { bytes: again } = await fetched(alice, mxc, { size: [320, 240, 'scale'] });
    assert.deepEqual(sizeOf(again), [320, 240]);
  });

  test('is fetched in parts, and not again by who has it', async () => {
    const bytes = picture(640, 480);
    const mxc = await upload(alice, bytes, 'parts.png');
    const end = await fetched(bob, mxc, { headers: { Range: 'bytes=100-' } });
    assert.deepEqual([end.status, end.bytes], [206, bytes.subarray(100)]);
    assert.equal(end.headers.get('Content-Range'), `bytes 100-${bytes.length - 1}/${bytes.length}`);
    const etag = end.headers.get('ETag');
    const known = await ask(bob, mxc, { headers: { 'If-None-Match': etag } });
    assert.equal(known.status, 304);
  });

  test('may be uploaded by two people, each with a URI of their own', async () => {
    const bytes = picture(64, 64);
    const [first, second] = [await upload(alice, bytes, 'mine.png'), await upload(bob, bytes, 'his.png')];
    assert.notEqual(first, second);
    for (const mxc of [first, second]) assert.deepEqual((await fetched(alice, mxc)).bytes, bytes);
  });

  test('is closed to who has no token', async () => {
    const mxc = await upload(alice, picture(16, 16), 'private.png');
    const address = alice.client.mxcUrlToHttp(mxc, undefined, undefined, undefined, false, true, true);
    const stranger = await fetch(address);
    assert.deepEqual([stranger.status, (await stranger.json()).errcode], [401, 'M_MISSING_TOKEN']);
    const old = await fetch(alice.client.mxcUrlToHttp(mxc));
    assert.deepEqual([old.status, (await old.json()).errcode], [404, 'M_NOT_FOUND']);
  });

  test('may be named before it is uploaded', async () => {
    const created = await alice.client.http.authedRequest('POST', '/create', undefined, undefined, {
      prefix: '/_matrix/media/v1',
    });
    const { content_uri: mxc, unused_expires_at: expires } = created;
    assert.ok(expires > Date.now());
    const [, , server, id] = mxc.split('/');
    const put = (person, bytes) =>
      person.client.http.authedRequest('PUT', `/upload/${server}/${id}`, { filename: 'late.png' }, bytes, {
        prefix: '/_matrix/media/v3',
        headers: { 'Content-Type': 'image/png' },
      });

    const content = { msgtype: 'm.image', body: 'late.png', url: mxc };
    const { event_id: eventId } = await alice.client.sendMessage(roomId, content);
    await bob.sees(his, eventId);
    const impatient = await ask(bob, mxc, { query: { timeout_ms: 0 } });
    assert.deepEqual([impatient.status, (await impatient.json()).errcode], [504, 'M_NOT_YET_UPLOADED']);
    await assert.rejects(put(bob, picture(8, 8)), refusedWith('M_FORBIDDEN'));

    const bytes = picture(320, 240);
    const shown = fetched(bob, mxc);
    await put(alice, bytes);
    assert.deepEqual((await shown).bytes, bytes);
    await assert.rejects(put(alice, picture(8, 8)), refusedWith('M_CANNOT_OVERWRITE_MEDIA'));
    assert.deepEqual((await fetched(bob, mxc)).bytes, bytes);
  });

  test('has to be of a size that the server names', async () => {
    const { 'm.upload.size': size } = await alice.client.getMediaConfig(true);
    assert.ok(size > 1_000_000);
  });
});

describe('a file', () => {
  test('that could run is saved and not shown', async () => {
    const page = Buffer.from('<!doctype html><script>document.title = "run"</script>');
    for (const type of ['text/html', 'image/svg+xml', 'image/png']) {
      const mxc = await upload(alice, page, 'page.html', type);
      const { headers, bytes, type: served } = await fetched(bob, mxc);
      assert.deepEqual(bytes, page);
      assert.match(headers.get('Content-Security-Policy'), /^sandbox;/);
      assert.equal(headers.get('X-Content-Type-Options'), 'nosniff');
      assert.match(headers.get('Content-Disposition'), /^attachment/, type);
      assert.notEqual(served, 'image/png', 'nobody takes it for a picture');
    }
  });

  test('keeps a name in any language', async () => {
    const mxc = await upload(alice, Buffer.from('ash'), 'Glut & Asche – 灰.txt', 'text/plain');
    const { headers, type } = await fetched(bob, mxc);
    assert.match(type, /^text\/plain/);
    const [, name] = /filename\*=utf-8''([^;]+)/i.exec(headers.get('Content-Disposition'));
    assert.equal(decodeURIComponent(name), 'Glut & Asche – 灰.txt');
  });
});

describe('a picture is worn', () => {
  /** What somebody else gets to see of it in a list of people or rooms. */
  async function looksLike(person, mxc, bytes) {
    assert.deepEqual((await fetched(person, mxc)).bytes, bytes);
    const { bytes: small } = await fetched(person, mxc, { size: [96, 96, 'crop'] });
    assert.deepEqual(sizeOf(small), [96, 96]);
  }

  test('by a person, in rooms and in the profile', async () => {
    const bytes = picture(300, 200);
    const avatar = await upload(alice, bytes, 'portrait.png');
    const seen = bob.until('the avatar', () => his.getMember(alice.id)?.getMxcAvatarUrl() === avatar);
    await alice.client.setAvatarUrl(avatar);
    await seen;
    const { avatar_url: mxc } = await bob.client.getProfileInfo(alice.id);
    assert.equal(mxc, avatar);
    await looksLike(bob, mxc, bytes);
  });

  test('by a room', async () => {
    const bytes = picture(256, 256);
    const avatar = await upload(alice, bytes, 'room.png');
    await alice.client.sendStateEvent(roomId, 'm.room.avatar', { url: avatar }, '');
    const mxc = await bob.until('the avatar', () => his.getMxcAvatarUrl());
    assert.equal(mxc, avatar);
    await looksLike(bob, mxc, bytes);
  });

  test('by somebody who is found in the user directory', async () => {
    const bytes = picture(128, 160);
    const avatar = await upload(bob, bytes, 'bob.png');
    const term = word();
    await bob.client.setDisplayName(`Bob ${term}`);
    await bob.client.setAvatarUrl(avatar);
    const { results } = await alice.client.searchUserDirectory({ term });
    assert.deepEqual(results.map((user) => [user.user_id, user.avatar_url]), [[bob.id, avatar]]);
    await looksLike(alice, results[0].avatar_url, bytes);
    await alice.until('the new name', () => hers.getMember(bob.id)?.name === `Bob ${term}`);
  });
});
