// Pictures for the tests, and what an app does with media: it fetches them with its token, and encrypts what it sends
// where a room is encrypted (https://spec.matrix.org/v1.19/client-server-api/#sending-encrypted-attachments).

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { crc32, deflateSync } from 'node:zlib';

const { subtle } = globalThis.crypto;

/** A PNG of which a half is transparent, and which is unlike every other. */
export function picture(width, height) {
  const chunk = (type, data) => {
    const named = Buffer.concat([Buffer.from(type, 'latin1'), data]);
    const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
    length.writeUInt32BE(data.length);
    sum.writeUInt32BE(crc32(named));
    return Buffer.concat([length, named, sum]);
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 6], 8); // eight bits each of red, green, blue and alpha
  const [red, green, blue] = randomBytes(3);
  const left = Buffer.alloc(4 * Math.ceil(width / 2), Buffer.from([red, green, blue, 255]));
  const right = Buffer.alloc(4 * Math.floor(width / 2));
  const line = Buffer.concat([Buffer.from([0]), left, right]);
  const note = Buffer.from(`Comment\0${randomBytes(16).toString('hex')}`, 'latin1');
  return Buffer.concat([
    Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'),
    chunk('IHDR', header),
    chunk('tEXt', note),
    chunk('IDAT', deflateSync(Buffer.alloc(line.length * height, line))),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

/** Width and height of a PNG, as it says itself. */
export function sizeOf(png) {
  assert.equal(png.toString('latin1', 1, 4), 'PNG');
  return [png.readUInt32BE(16), png.readUInt32BE(20)];
}

/** Uploads a file and returns its URI. */
export async function upload(person, bytes, name, type = 'image/png') {
  const { content_uri: mxc } = await person.client.uploadContent(bytes, { name, type });
  assert.match(mxc, /^mxc:\/\/[^/]+\/[\w-]+$/);
  return mxc;
}

const WHOLE = [undefined, undefined, undefined];

/** Asks for what a URI names: all of it, or a thumbnail of a size such as [96, 96, 'crop']. */
export function ask(person, mxc, { size = WHOLE, query = {}, headers = {} } = {}) {
  const address = person.client.mxcUrlToHttp(mxc, ...size, false, true, true);
  assert.ok(address, `${mxc} is no URI that the SDK takes`);
  const url = new URL(address);
  for (const [key, value] of Object.entries(query)) url.searchParams.set(key, value);
  return fetch(url, { headers: { ...headers, Authorization: `Bearer ${person.client.getAccessToken()}` } });
}

/** The bytes that a URI names, their type, and all that is said of them. */
export async function fetched(person, mxc, options) {
  const answer = await ask(person, mxc, options);
  const bytes = Buffer.from(await answer.arrayBuffer());
  assert.ok(answer.ok, `${mxc} was answered with ${answer.status}: ${bytes.toString('utf8', 0, 300)}`);
  return { bytes, type: answer.headers.get('Content-Type'), status: answer.status, headers: answer.headers };
}

const base64 = (bytes) => Buffer.from(bytes).toString('base64').replace(/=+$/, '');
const digest = async (bytes) => base64(await subtle.digest('SHA-256', bytes));

/** Encrypts a file and returns it with what an event says of it. */
export async function sealed(bytes) {
  const key = await subtle.generateKey({ name: 'AES-CTR', length: 256 }, true, ['encrypt', 'decrypt']);
  const counter = Buffer.concat([randomBytes(8), Buffer.alloc(8)]);
  const secret = Buffer.from(await subtle.encrypt({ name: 'AES-CTR', counter, length: 64 }, key, bytes));
  const { kty, k, alg, key_ops, ext } = await subtle.exportKey('jwk', key);
  const hashes = { sha256: await digest(secret) };
  return { secret, file: { v: 'v2', key: { kty, k, alg, key_ops, ext }, iv: base64(counter), hashes } };
}

/** Decrypts a file with what an event says of it. */
export async function opened(secret, { key, iv, hashes }) {
  assert.equal(await digest(secret), hashes.sha256, 'the file is the one that was sent');
  const imported = await subtle.importKey('jwk', key, 'AES-CTR', false, ['decrypt']);
  const counter = Buffer.from(iv, 'base64');
  return Buffer.from(await subtle.decrypt({ name: 'AES-CTR', counter, length: 64 }, imported, secret));
}
