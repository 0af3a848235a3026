// Somebody whose matrix-js-sdk client encrypts, with the Rust crypto of matrix-sdk-crypto and its store in memory.
//
// HEARTH_NODES, if it is there, names all nodes of the homeserver, separated by spaces: each device then speaks to one
// of them, in turn, so that what one node takes has to arrive through another.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';

import { PASSWORD, PATIENCE_MS, Person, part, sdk } from './person.js';

export const { CryptoEvent, DecryptionFailureCode, VerificationPhase, VerifierEvent, decodeRecoveryKey } =
  await part('crypto-api/index.js');
const { VerificationMethod } = await part('types.js');

/** What makes a room encrypted from its creation on. */
export const ENCRYPTED = {
  type: 'm.room.encryption',
  state_key: '',
  content: { algorithm: 'm.megolm.v1.aes-sha2' },
};

const nodes = (process.env.HEARTH_NODES ?? process.env.HEARTH_URL).split(' ');
let devices = 0;

/** The connection of a device to its node, which can be held up. */
class Line {
  #open = Promise.resolve();
  #reopen = () => {};

  /** Syncs wait from now on, and so does the answer to the one that is under way. */
  hold() {
    this.#open = new Promise((resolve) => (this.#reopen = resolve));
  }

  release() {
    this.#reopen();
  }

  fetch = async (resource, options = {}) => {
    const url = new URL(resource);
    if (!url.pathname.endsWith('/sync')) return fetch(url, options);
    await this.#open;
    const answer = await fetch(url, options);
    await this.#open;
    return answer;
  };
}

export class EncryptedPerson extends Person {
  #line;
  #secrets;

  constructor(name, session) {
    const line = new Line();
    const secrets = { keys: new Map(), recoveryKey: undefined };
    super(name, session, {
      baseUrl: nodes[devices++ % nodes.length],
      fetchFn: line.fetch,
      cryptoCallbacks: {
        cacheSecretStorageKey: (id, _description, key) => secrets.keys.set(id, key),
        getSecretStorageKey: async ({ keys }) => {
          const [id] = Object.keys(keys);
          const key = secrets.keys.get(id) ?? secrets.recoveryKey;
          return key ? [id, key] : null;
        },
      },
    });
    this.#line = line;
    this.#secrets = secrets;
  }

  get crypto() {
    return this.client.getCrypto();
  }

  /** Starts the sync loop and waits until others find this device's keys. */
  async sync(options = {}) {
    await this.client.initRustCrypto({ useIndexedDB: false });
    await super.sync(options);
    await this.finds('its own keys on the server', async () => {
      const { device_keys: keys } = await this.client.downloadKeysForUsers([this.id]);
      return keys[this.id]?.[this.device];
    });
    return this;
  }

  /** Nothing more reaches this device until it comes back. */
  goesAway() {
    this.#line.hold();
  }

  comesBack() {
    this.#line.release();
  }

  /** Asks until there is an answer: the SDK's crypto does not announce all that it learns. */
  async finds(what, ask) {
    const deadline = Date.now() + PATIENCE_MS;
    for (;;) {
      const found = await ask();
      if (found) return found;
      if (Date.now() > deadline) throw new Error(`${this.name} waited ${PATIENCE_MS / 1000} s in vain for ${what}`);
      await pause(50);
    }
  }

  /** The ids of somebody's devices whose keys this client knows. */
  async devicesOf(userId) {
    const known = await this.crypto.getUserDeviceInfo([userId]);
    return new Set(known.get(userId)?.keys() ?? []);
  }

  knowsDevice(userId, device) {
    return this.finds(`${device} of ${userId}`, async () => (await this.devicesOf(userId)).has(device));
  }

  forgetsDevice(userId, device) {
    return this.finds(`the end of ${device}`, async () => !(await this.devicesOf(userId)).has(device));
  }

  /** The text of an event that came encrypted, as soon as it is there and this client can decrypt it. */
  async reads(room, eventId) {
    const event = await this.sees(room, eventId);
    assert.ok(event.isEncrypted(), `${eventId} was sent in the clear`);
    const isClear = () => event.getClearContent() && !event.isBeingDecrypted() && !event.isDecryptionFailure();
    try {
      await this.until(`what ${eventId} says`, isClear, sdk.MatrixEventEvent.Decrypted);
    } catch (error) {
      throw new Error(`${error.message}: ${event.decryptionFailureReason}`);
    }
    return event.getContent().body;
  }

  /** Waits until an event is there that this client cannot decrypt, and returns why not. */
  async failsToRead(room, eventId) {
    const event = await this.sees(room, eventId);
    await this.until('the failure', () => event.isDecryptionFailure(), sdk.MatrixEventEvent.Decrypted);
    return event.decryptionFailureReason;
  }

  /** An event as the server has it, which must be encrypted. */
  async wire(roomId, eventId) {
    const event = await this.client.fetchRoomEvent(roomId, eventId);
    assert.equal(event.type, 'm.room.encrypted', `${eventId} was sent in the clear`);
    return event;
  }

  /** The text of an event that came from anywhere, or undefined if this device does not have its key now. */
  async opens(wire) {
    const event = new sdk.MatrixEvent(structuredClone(wire));
    await this.client.decryptEventIfNeeded(event);
    return event.isDecryptionFailure() ? undefined : event.getContent().body;
  }

  /** Waits until everything has arrived that was on the way to this device before. */
  async catchesUp() {
    await this.client.setAccountData('org.example.barrier', { at: `${Date.now()} ${this.device}` });
  }

  /** Makes cross-signing keys, or fetches them from secret storage; returns how often the password was asked for. */
  async setUpCrossSigning(options = {}) {
    let asked = 0;
    await this.crypto.bootstrapCrossSigning({
      ...options,
      authUploadDeviceSigningKeys: async (request) => {
        try {
          return await request(null);
        } catch (error) {
          const session = error.data?.session;
          if (!session) throw error;
          asked += 1;
          const identifier = { type: 'm.id.user', user: this.id };
          return request({ type: 'm.login.password', identifier, password: PASSWORD, session });
        }
      },
    });
    return asked;
  }

  /** Makes secret storage and a key backup, and returns the recovery key as a person writes it down. */
  async setUpRecovery() {
    const key = await this.crypto.createRecoveryKeyFromPassphrase();
    await this.crypto.bootstrapSecretStorage({ createSecretStorageKey: async () => key, setupNewKeyBackup: true });
    return key.encodedPrivateKey;
  }

  enterRecoveryKey(text) {
    this.#secrets.recoveryKey = decodeRecoveryKey(text);
  }

  /** Whether this client trusts a device because its owner has signed it. */
  trusts(userId, device) {
    return this.finds(`trust in ${device}`, async () => {
      const status = await this.crypto.getDeviceVerificationStatus(userId, device);
      return status?.crossSigningVerified;
    });
  }
}

/** Two people in an encrypted room. */
export async function twoInAnEncryptedRoom(options = {}) {
  const [alice, bob] = await Promise.all([EncryptedPerson.arrive('alice'), EncryptedPerson.arrive('bob')]);
  await Promise.all([alice.sync(), bob.sync()]);
  const { room_id: roomId } = await alice.client.createRoom({
    preset: 'private_chat',
    name: 'Behind closed doors',
    invite: [bob.id],
    initial_state: [ENCRYPTED],
    ...options,
  });
  await bob.inRoom(roomId, 'invite');
  await bob.client.joinRoom(roomId);
  const [hers, his] = await Promise.all([alice.inRoom(roomId), bob.inRoom(roomId)]);
  await alice.until('bob to join', () => hers.getMember(bob.id)?.membership === 'join');
  return { alice, bob, roomId, hers, his };
}

/** Messages that somebody sends one after the other, with whom the sender knew at each of them. */
export class Flow {
  said = [];
  #speaker;
  #room;
  #audience;
  #stopped = false;
  #running;

  /** `audience` returns a set: whom the speaker knows at that moment. */
  constructor(speaker, room, audience) {
    this.#speaker = speaker;
    this.#room = room;
    this.#audience = audience;
    this.#running = this.#run();
    this.#running.catch(() => {});
  }

  async #run() {
    while (!this.#stopped) {
      const known = await this.#audience();
      const text = `message ${this.said.length}`;
      const id = await this.#speaker.say(this.#room, text);
      this.said.push({ id, text, known, knownAfter: await this.#audience() });
    }
  }

  /** Waits until so many more were sent. */
  async goOn(count) {
    const wanted = this.said.length + count;
    while (this.said.length < wanted) await Promise.race([pause(10), this.#running]);
  }

  /** Lets the last one end, and returns the messages with what the server has of each. */
  async stop() {
    this.#stopped = true;
    await this.#running;
    for (const message of this.said) message.wire = await this.#speaker.wire(this.#room.roomId, message.id);
    return this.said;
  }

  /**
   * The messages that somebody has to be able to read: the speaker knew them at this message and at the one before. (An
   * SDK that has just heard of a join does not wait for all that it starts then.)
   */
  for(who) {
    const knewBefore = (index) => index === 0 || this.said[index - 1].known.has(who);
    return this.said.filter(({ known }, index) => known.has(who) && knewBefore(index));
  }

  /** The messages that somebody must not be able to read: the speaker did not know them. */
  notFor(who) {
    return this.said.filter(({ known, knownAfter }) => !known.has(who) && !knownAfter.has(who));
  }
}

/** Asserts that a device can decrypt the messages it should, and then that it can't decrypt those it should not. */
export async function readsExactly(person, readable, unreadable) {
  for (const { wire, text } of readable) {
    assert.equal(await person.finds(`the key of "${text}"`, () => person.opens(wire)), text);
  }
  for (const { wire, text } of unreadable) {
    assert.equal(await person.opens(wire), undefined, `${person.name} can read "${text}"`);
  }
}

function withinPatience(what, promise) {
  const late = pause(PATIENCE_MS, undefined, { ref: false }).then(() => {
    throw new Error(`waited ${PATIENCE_MS / 1000} s in vain for ${what}`);
  });
  return Promise.race([promise, late]);
}

/** Two sessions of one user verify each other: both show the same emoji, and both confirm them. */
export async function verifyEachOther(asking, asked) {
  await Promise.all([asking.knowsDevice(asked.id, asked.device), asked.knowsDevice(asking.id, asking.device)]);
  const arrival = once(asked.client, CryptoEvent.VerificationRequestReceived);
  const request = await asking.crypto.requestOwnUserVerification();
  const [incoming] = await withinPatience('the request', arrival);
  await incoming.accept();
  await asking.finds('the request to be accepted', () => request.phase === VerificationPhase.Ready);

  const mine = await request.startVerification(VerificationMethod.Sas);
  const theirs = await asked.finds('the start', () => {
    try {
      return incoming.verifier;
    } catch {
      return undefined; // between two states of its own the SDK does not say
    }
  });
  const shown = (verifier) =>
    new Promise((resolve) => {
      verifier.once(VerifierEvent.ShowSas, resolve);
      const early = verifier.getShowSasCallbacks();
      if (early) resolve(early);
    });
  const screens = Promise.all([shown(mine), shown(theirs)]);
  const done = Promise.all([mine.verify(), theirs.verify()]);
  done.catch(() => {});
  const [hers, his] = await withinPatience('the emoji', Promise.race([screens, done.then(() => screens)]));
  assert.equal(hers.sas.emoji.length, 7);
  assert.deepEqual(hers.sas, his.sas);
  await Promise.all([hers.confirm(), his.confirm()]);
  await withinPatience('the end of the verification', done);
}
