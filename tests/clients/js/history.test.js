// A long history through matrix-js-sdk: limited timelines, scrolling back to the first event,
// and opening the room at an event in its middle.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { Person, sdk, twoInARoom } from './person.js';

const MESSAGES = 75;

describe('a long history', () => {
  let alice, bob, roomId, hers;
  const said = [];

  before(async () => {
    ({ alice, bob, roomId, hers } = await twoInARoom());
    for (let number = 0; number < MESSAGES; number += 1) {
      const [speaker, room] = number % 3 ? [alice, hers] : [bob, { roomId }];
      said.push(await speaker.say(room, `message ${number}`));
    }
  });
  after(() => [alice, bob].forEach((person) => person?.leave()));

  /** A new device of bob's that has only the last few events. */
  async function newDevice() {
    const device = await Person.logIn(bob.name);
    await device.sync({ initialSyncLimit: 10 });
    return [device, await device.inRoom(roomId)];
  }

  const messagesIn = (timeline) =>
    timeline.filter((event) => event.getType() === 'm.room.message').map((event) => event.getId());

  test('a new device starts with the newest events and a token to the older ones', async () => {
    const [device, room] = await newDevice();
    const timeline = room.getLiveTimeline();
    assert.equal(timeline.getEvents().length, 10);
    assert.deepEqual(messagesIn(timeline.getEvents()), said.slice(-10));
    assert.ok(timeline.getPaginationToken(sdk.Direction.Backward));
    device.leave();
  });

  test('members who have been silent are loaded when they are asked for', async () => {
    const { room_id: quiet } = await alice.client.createRoom({ preset: 'public_chat', name: 'Soliloquy' });
    await bob.client.joinRoom(quiet);
    const transaction = alice.client.makeTxnId();
    for (let number = 0; number < 12; number += 1) {
      await alice.client.sendMessage(quiet, { msgtype: 'm.notice', body: 'a monologue' }, `${transaction}.${number}`);
    }
    const device = await Person.logIn(alice.name);
    await device.sync({ initialSyncLimit: 5 });
    const room = await device.inRoom(quiet);
    assert.equal(room.getMember(bob.id), null, 'nothing in the timeline needs him');
    assert.equal(room.getJoinedMemberCount(), 2, 'but the summary counts him');
    await room.loadMembersIfNeeded();
    assert.equal(room.getMember(bob.id).membership, 'join');
    device.leave();
  });

  test('scrolling back reaches the creation of the room, each event once and in order', async () => {
    const [device, room] = await newDevice();
    const events = () => room.getLiveTimeline().getEvents();
    let pages = 0;
    while (room.oldState.paginationToken !== null) {
      await device.client.scrollback(room, 20);
      assert.ok((pages += 1) < 20, 'the pages come to an end');
    }
    assert.ok(pages >= 4, `the history came in ${pages} pages of 20`);
    assert.equal(events()[0].getType(), 'm.room.create');
    assert.deepEqual(messagesIn(events()), said);
    const ids = events().map((event) => event.getId());
    assert.equal(new Set(ids).size, ids.length);
    device.leave();
  });

  test('the room opens at an event in its middle and pages to both ends', async () => {
    const [device, room] = await newDevice();
    const middle = said[Math.floor(MESSAGES / 2)];
    const view = new sdk.TimelineWindow(device.client, room.getUnfilteredTimelineSet(), { windowLimit: 1000 });
    await view.load(middle, 10);
    const around = messagesIn(view.getEvents());
    assert.ok(around.includes(middle) && around.length < 30);
    for (const direction of [sdk.Direction.Backward, sdk.Direction.Forward]) {
      let pages = 0;
      while (view.canPaginate(direction) && (await view.paginate(direction, 15))) {
        assert.ok((pages += 1) < 20, 'the pages come to an end');
      }
    }
    assert.equal(view.getEvents()[0].getType(), 'm.room.create');
    assert.deepEqual(messagesIn(view.getEvents()), said);
    device.leave();
  });

  test('what was said while a device slept is there when it wakes', async () => {
    const [device, room] = await newDevice();
    device.client.stopClient();
    const missed = [];
    for (let number = 0; number < 5; number += 1) missed.push(await alice.say(hers, `missed ${number}`));
    await device.sync();
    for (const id of missed) await device.sees(room, id);
    assert.deepEqual(messagesIn(device.client.getRoom(roomId).getLiveTimeline().getEvents()).slice(-5), missed);
    said.push(...missed);
    device.leave();
  });
});
