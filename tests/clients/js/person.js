// Somebody with an account and a matrix-js-sdk client: what the tests drive.
//
// HEARTH_URL names the homeserver, and HEARTH_CLIENT_LOG=1 lets the SDK talk. Nothing in here is told
// how the server works: all that a test learns, it learns from the SDK, and it waits for the SDK's
// own events instead of sleeping.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

// The runner installs the SDK under target/, out of the tree, where its plain name is not found.
const installed = process.env.HEARTH_NODE_MODULES;
/** A module of the SDK. */
export const part = (file) => {
  const name = `matrix-js-sdk/lib/${file}`;
  return import(installed ? pathToFileURL(join(installed, name)) : name);
};
export const sdk = await part('index.js');
export const { RoomHierarchy } = await part('room-hierarchy.js');

const baseUrl = process.env.HEARTH_URL;
if (!baseUrl) throw new Error('set HEARTH_URL to the base URL of a homeserver with open registration');

/** How long anything may take to reach a client that is waiting for it. */
export const PATIENCE_MS = 20_000;
export const PASSWORD = 'correct horse battery staple';

/** What tells that a client knows more than before. Threads are filled in by requests of their own. */
const NEWS = [
  sdk.ClientEvent.Sync,
  sdk.MatrixEventEvent.Replaced,
  sdk.ThreadEvent.Update,
  sdk.ThreadEvent.NewReply,
];

// The SDK tells its whole life on the console, partly past the logger it is given.
const talkative = Boolean(process.env.HEARTH_CLIENT_LOG);
if (!talkative) {
  for (const level of ['debug', 'info', 'log', 'warn', 'error']) console[level] = () => {};
}
const silence = { trace() {}, debug() {}, info() {}, warn() {}, error() {}, getChild: () => silence };
const logger = talkative ? undefined : silence;

/** A client that nobody has logged in with yet, or one that resumes a session. */
export function client(session = {}) {
  return sdk.createClient({ baseUrl, logger, timelineSupport: true, ...session });
}

/** A name that no earlier run on the same server has taken. */
export function fresh(name) {
  return `${name}-${randomUUID().slice(0, 8)}`;
}

/** A word that nobody has said before, of letters only. */
export function word() {
  return `ember${randomUUID().replace(/-/g, '').replace(/\d/g, (digit) => 'ghijklmnop'[digit])}`;
}

/** Registers through user-interactive authentication, as an app does, and returns the response. */
export function register(username, password = PASSWORD) {
  const visitor = client();
  const authentication = new sdk.InteractiveAuth({
    matrixClient: visitor,
    supportedStages: ['m.login.dummy'],
    doRequest: (auth) => visitor.registerRequest({ username, password, auth: auth ?? undefined }),
    stateUpdated: () => {},
    requestEmailToken: () => Promise.reject(new Error('no test has an email address')),
  });
  return authentication.attemptAuth();
}

export class Person {
  #watches = new Set();

  /** `options` are the SDK's, beside the session. */
  constructor(name, session, options = {}) {
    this.name = name;
    this.id = session.user_id;
    this.device = session.device_id;
    this.client = client({
      userId: session.user_id,
      deviceId: session.device_id,
      accessToken: session.access_token,
      ...options,
    });
    // Only the room itself tells of its threads.
    this.client.on(sdk.ClientEvent.Room, (room) =>
      this.client.reEmitter.reEmit(room, [sdk.ThreadEvent.Update, sdk.ThreadEvent.NewReply]),
    );
  }

  /** A new account, logged in with its password on a device of its own, and not syncing yet. */
  static async arrive(name) {
    const username = fresh(name);
    await register(username);
    return this.logIn(username);
  }

  static async logIn(username, password = PASSWORD) {
    const session = await client().loginRequest({
      type: 'm.login.password',
      identifier: { type: 'm.id.user', user: username },
      password,
    });
    return new this(username, session);
  }

  /** Starts the sync loop and waits until the first sync is in. */
  async sync(options = {}) {
    const synced = this.until('the first sync', () =>
      ['PREPARED', 'SYNCING'].includes(this.client.getSyncState()),
    );
    await this.client.startClient({ lazyLoadMembers: true, pendingEventOrdering: 'detached', ...options });
    await synced;
    return this;
  }

  /** The same person on a new device, with the first sync in. */
  async elsewhere(options = {}) {
    const device = await this.constructor.logIn(this.name);
    return device.sync(options);
  }

  /**
   * Looks now, and again after each sync response has been taken in (and after other news, and after
   * each of `events`), until `look` finds something, and returns it.
   */
  until(what, look, ...events) {
    events.unshift(...NEWS);
    return new Promise((resolve, reject) => {
      const end = () => {
        clearTimeout(timer);
        events.forEach((event) => this.client.off(event, again));
        this.#watches.delete(end);
      };
      const again = () => {
        try {
          const found = look();
          if (!found) return;
          end();
          resolve(found);
        } catch (error) {
          end();
          reject(error);
        }
      };
      const timer = setTimeout(() => {
        end();
        reject(new Error(`${this.name} waited ${PATIENCE_MS / 1000} s in vain for ${what}`));
      }, PATIENCE_MS);
      this.#watches.add(end);
      events.forEach((event) => this.client.on(event, again));
      again();
    });
  }

  /** The room, as soon as this client knows it with the given membership. */
  inRoom(roomId, membership = 'join') {
    return this.until(`${membership} in ${roomId}`, () => {
      const room = this.client.getRoom(roomId);
      return room?.getMyMembership() === membership && room;
    });
  }

  /** The event with this id, as soon as it is in the room's live timeline. */
  sees(room, eventId) {
    return this.until(`event ${eventId}`, () =>
      this.client
        .getRoom(room.roomId)
        ?.getLiveTimeline()
        .getEvents()
        .find((event) => event.getId() === eventId),
    );
  }

  /** Sends a text and returns its event id. */
  async say(room, text) {
    return (await this.client.sendTextMessage(room.roomId, text)).event_id;
  }

  /**
   * The thread that begins, or is to begin, at an event: opened, as it is in an app before one writes in it. In a
   * thread that is not open the SDK gets stuck when the echo of what it sends comes before the answer.
   */
  async thread(room, rootId) {
    const root = await this.sees(room, rootId);
    const known = this.client.getRoom(room.roomId);
    const thread = known.getThread(rootId) ?? known.createThread(rootId, root, [root], true);
    return this.until('the thread to open', () => thread.initialEventsFetched && thread);
  }

  /** Says something in a thread. */
  async reply(room, rootId, text, more = {}) {
    await this.thread(room, rootId);
    const content = { msgtype: 'm.text', body: text, ...more };
    return (await this.client.sendMessage(room.roomId, rootId, content)).event_id;
  }

  async edit(room, eventId, text) {
    const content = { msgtype: 'm.text', body: text };
    const relation = { rel_type: 'm.replace', event_id: eventId };
    const edit = { ...content, body: `* ${text}`, 'm.new_content': content, 'm.relates_to': relation };
    return (await this.client.sendMessage(room.roomId, edit)).event_id;
  }

  async react(room, eventId, key) {
    const content = { 'm.relates_to': { rel_type: 'm.annotation', event_id: eventId, key } };
    return (await this.client.sendEvent(room.roomId, 'm.reaction', content)).event_id;
  }

  /** Asserts that what this person sends is refused, and gives it up: the SDK would let nothing pass it. */
  async isRefused(sending, errcode) {
    await assert.rejects(sending, refusedWith(errcode));
    for (const room of this.client.getRooms()) {
      const unsent = room.getPendingEvents().filter((event) => event.status === sdk.EventStatus.NOT_SENT);
      for (const event of unsent) this.client.cancelPendingEvent(event);
    }
  }

  leave() {
    this.#watches.forEach((end) => end());
    this.client.stopClient();
  }
}

/** Two people in a private room that the first made and the second was invited to. */
export async function twoInARoom(options = {}, syncOptions = {}) {
  const [alice, bob] = await Promise.all([Person.arrive('alice'), Person.arrive('bob')]);
  await Promise.all([alice.sync(syncOptions), bob.sync(syncOptions)]);
  const { room_id: roomId } = await alice.client.createRoom({
    preset: 'private_chat',
    name: 'The hearth',
    invite: [bob.id],
    ...options,
  });
  await bob.inRoom(roomId, 'invite');
  await bob.client.joinRoom(roomId);
  const [hers, his] = await Promise.all([alice.inRoom(roomId), bob.inRoom(roomId)]);
  await alice.until('bob to join', () => hers.getMember(bob.id)?.membership === 'join');
  return { alice, bob, roomId, hers, his };
}

/** The id of a public room that the first of some people makes and the others join. */
export async function roomOf([creator, ...others], options = {}) {
  const { room_id: roomId } = await creator.client.createRoom({ preset: 'public_chat', ...options });
  for (const person of others) await person.client.joinRoom(roomId);
  const rooms = await Promise.all([creator, ...others].map((person) => person.inRoom(roomId)));
  const everybody = () => rooms[0].getJoinedMemberCount() === rooms.length;
  await creator.until('everybody to be there', everybody);
  return roomId;
}

/** Asserts on the errcode with which a request is refused. */
export function refusedWith(errcode) {
  return (error) => {
    if (error.errcode !== errcode) throw new Error(`refused with ${error.errcode ?? error}, not with ${errcode}`);
    return true;
  };
}
