// The operator restores a backup while people's clients run: matrix-js-sdk goes on by itself and shows what is there.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { binary, Server } from './server.js';

describe('a backup that is restored', { skip: !binary && 'this needs a server of its own' }, () => {
  let server, alice, bob, hers, his, lostRoom;

  const texts = (room) =>
    room
      .getLiveTimeline()
      .getEvents()
      .map((event) => event.getContent().body)
      .filter(Boolean);

  before(async () => {
    server = await Server.create();
    process.env.HEARTH_URL = server.url;
    // Only now is there a homeserver to read the address of.
    const { twoInARoom } = await import('./person.js');
    ({ alice, bob, hers, his } = await twoInARoom());
    await bob.sees(his, await alice.say(hers, 'kept'));
    await server.backUp();
    for (const number of [1, 2, 3]) await alice.say(hers, `lost ${number}`);
    ({ room_id: lostRoom } = await bob.client.createRoom({ name: 'lost' }));
    await bob.inRoom(lostRoom);
    await bob.until('what will be lost', () => texts(his).includes('lost 3'));
    await server.restore();
  });
  after(async () => {
    [alice, bob].forEach((person) => person?.leave());
    await server?.remove();
  });

  test('a client that has seen what is lost sees all that is said afterwards, however long the log becomes', async () => {
    const said = [];
    for (let number = 1; number <= 30; number += 1) said.push(`new ${number}`);
    for (const text of said.slice(0, 2)) await alice.say(hers, text);
    await bob.until('the first news', () => texts(his).includes('new 2'));
    for (const text of said.slice(2)) await alice.say(hers, text);
    await bob.until('the last news', () => texts(his).includes('new 30'));
    assert.deepEqual(texts(his).filter((text) => text.startsWith('new')), said, 'each once and in order');
    assert.equal(bob.client.getSyncState(), 'SYNCING');
  });

  test('a client that was away while the log grew past its place misses nothing', async () => {
    const { Person } = await import('./person.js');
    const device = await Person.logIn(bob.name);
    await device.sync();
    const room = await device.inRoom(hers.roomId);
    await device.until('the room to be there', () => texts(room).includes('new 30'));
    await alice.say(hers, 'to both');
    for (const person of [bob, device]) {
      await person.until('the same on both devices', () => texts(person.client.getRoom(hers.roomId)).includes('to both'));
    }
    device.leave();
  });

  test('what they say themselves arrives, and scrolling back reaches the creation of the room', async () => {
    await alice.sees(hers, await bob.say(his, 'I am back'));
    const timeline = his.getLiveTimeline();
    const bottom = () => timeline.getEvents()[0];
    for (let page = 0; page < 20 && bottom().getType() !== 'm.room.create'; page += 1) {
      if (!(await bob.client.paginateEventTimeline(timeline, { backwards: true, limit: 30 }))) break;
    }
    assert.equal(bottom().getType(), 'm.room.create');
    assert.equal(texts(his).filter((text) => text === 'kept').length, 1);
  });

  test('a room that is gone takes nothing more', async () => {
    const room = bob.client.getRoom(lostRoom);
    await assert.rejects(bob.say(room, 'is anybody there?'), (error) => error.errcode === 'M_FORBIDDEN');
  });
});
