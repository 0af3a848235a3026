// What relates to a message, through matrix-js-sdk: edits, reactions and threads, as they come and as
// a device finds them that comes later.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { roomOf, sdk, twoInARoom } from './person.js';

const ids = (events) => events.map((event) => event.getId());

describe('edits', () => {
  let alice, bob, roomId, hers, his;
  before(async () => ({ alice, bob, roomId, hers, his } = await twoInARoom()));
  after(() => [alice, bob].forEach((person) => person?.leave()));

  /** A message of alice's that she has edited twice, as both have seen. */
  async function edited() {
    const id = await alice.say(hers, 'cake');
    const heard = await bob.sees(his, id);
    const edits = [];
    for (const text of ['chocolate cake', 'carrot cake']) {
      edits.push(await alice.edit(hers, id, text));
      // The next edit is a later one by the clock, too.
      await bob.until(`the edit to ${text}`, () => heard.getContent().body === text);
    }
    return { id, heard, edits };
  }

  test('the last one is what the others read', async () => {
    const { heard, edits } = await edited();
    assert.equal(heard.replacingEventId(), edits[1]);
    assert.equal(heard.getOriginalContent().body, 'cake');
  });

  test('come with the message after a reload', async () => {
    const { id, edits } = await edited();
    for (let number = 0; number < 5; number += 1) await alice.say(hers, `later ${number}`);
    const device = await bob.elsewhere({ initialSyncLimit: 3 });
    const room = await device.inRoom(roomId);
    assert.equal(room.findEventById(edits[1]), undefined, 'the edit itself is not in the timeline');

    const served = await device.client.fetchRoomEvent(roomId, id);
    assert.equal(served.content.body, 'cake', 'the message is left as it is');
    assert.equal(device.client.getEventMapper()(served).getContent().body, 'carrot cake');

    const timeline = await device.client.getEventTimeline(room.getUnfilteredTimelineSet(), id);
    const message = timeline.getEvents().find((event) => event.getId() === id);
    assert.equal(message.getContent().body, 'carrot cake');
    assert.equal(message.replacingEventId(), edits[1]);
    device.leave();
  });

  test('are listed, the newest first', async () => {
    const { id, edits } = await edited();
    const { originalEvent, events } = await bob.client.relations(roomId, id, 'm.replace', 'm.room.message');
    assert.equal(originalEvent.getId(), id);
    assert.deepEqual(ids(events), edits.toReversed());
  });

  test('give way to the ones before when they are redacted', async () => {
    const { id, heard, edits } = await edited();
    await alice.client.redactEvent(roomId, edits[1]);
    await bob.until('the edit before', () => heard.getContent().body === 'chocolate cake');
    const served = await bob.client.fetchRoomEvent(roomId, id);
    assert.equal(served.unsigned['m.relations']['m.replace'].event_id, edits[0]);

    await alice.client.redactEvent(roomId, id);
    await bob.until('the redaction', () => heard.isRedacted());
    const redacted = await bob.client.fetchRoomEvent(roomId, id);
    assert.deepEqual(redacted.content, {});
    assert.equal(redacted.unsigned['m.relations'], undefined);
  });

  test('are only for what one has said oneself', async () => {
    const id = await alice.say(hers, 'mine');
    await bob.sees(his, id);
    await alice.sees(hers, await bob.edit(his, id, 'not hers'));
    for (const room of [hers, his]) assert.equal(room.findEventById(id).getContent().body, 'mine');
    const served = await alice.client.fetchRoomEvent(roomId, id);
    assert.equal(served.unsigned['m.relations'], undefined);
  });
});

describe('reactions', () => {
  let alice, bob, roomId, hers, his;
  before(async () => ({ alice, bob, roomId, hers, his } = await twoInARoom()));
  after(() => [alice, bob].forEach((person) => person?.leave()));

  /** Who reacted to an event with what, as a client shows it. */
  function reactions(room, id) {
    const found = room.relations.getChildEventsForEvent(id, 'm.annotation', 'm.reaction');
    const keys = found?.getSortedAnnotationsByKey() ?? [];
    return keys
      .filter(([, events]) => events.size > 0)
      .map(([key, events]) => [key, [...events].map((event) => event.getSender()).sort()]);
  }

  const all = () => [alice.id, bob.id].sort();
  const count = (room, id) => reactions(room, id).reduce((sum, [, senders]) => sum + senders.length, 0);

  test('are counted by what they say', async () => {
    const id = await alice.say(hers, 'it burns');
    await bob.sees(his, id);
    await bob.react(his, id, '🎉');
    await bob.react(his, id, '🔥');
    await alice.react(hers, id, '🔥');
    for (const [person, room] of [[alice, hers], [bob, his]]) {
      await person.until('three reactions', () => count(room, id) === 3);
      assert.deepEqual(reactions(room, id), [['🔥', all()], ['🎉', [bob.id]]]);
    }
  });

  test('are counted no more when they are redacted', async () => {
    const id = await alice.say(hers, 'it burns low');
    await bob.sees(his, id);
    const regretted = await bob.react(his, id, '👍');
    const other = await alice.react(hers, id, '👍');
    await alice.until('both', () => count(hers, id) === 2);
    await bob.client.redactEvent(roomId, regretted);
    await alice.until('one of them to go', () => count(hers, id) === 1);
    assert.deepEqual(reactions(hers, id), [['👍', [alice.id]]]);

    const { events } = await bob.client.relations(roomId, id, 'm.annotation', 'm.reaction');
    assert.deepEqual(ids(events), [other]);
    await bob.isRefused(bob.client.redactEvent(roomId, other), 'M_FORBIDDEN');
  });

  test('are made once by each with the same', async () => {
    const id = await alice.say(hers, 'who is for tea?');
    const first = await bob.react(his, id, '🫖');
    await bob.isRefused(bob.react(his, id, '🫖'), 'M_DUPLICATE_ANNOTATION');
    await bob.client.redactEvent(roomId, first);
    const again = await bob.react(his, id, '🫖');
    await alice.sees(hers, again);
    assert.deepEqual(reactions(hers, id), [['🫖', [bob.id]]]);
  });

  test('are found by a device that comes later', async () => {
    const id = await alice.say(hers, 'long ago');
    const regretted = await alice.react(hers, id, '👎');
    await bob.react(his, id, '👍');
    await alice.react(hers, id, '👍');
    await alice.client.redactEvent(roomId, regretted);
    for (let number = 0; number < 5; number += 1) await alice.say(hers, `since then ${number}`);

    const device = await bob.elsewhere({ initialSyncLimit: 3 });
    const room = await device.inRoom(roomId);
    assert.deepEqual(reactions(room, id), []);
    await device.client.scrollback(room, 10);
    assert.deepEqual(reactions(room, id), [['👍', all()]]);
    device.leave();
  });
});

describe('threads', () => {
  const THREADS = { threadSupport: true };
  let alice, bob, roomId, hers, his;
  before(async () => ({ alice, bob, roomId, hers, his } = await twoInARoom({}, THREADS)));
  after(() => [alice, bob].forEach((person) => person?.leave()));

  /** The thread of an event, as soon as a client has loaded it with this many replies. */
  function thread(person, rootId, length) {
    return person.until(`a thread with ${length} replies`, () => {
      const found = person.client.getRoom(roomId).getThread(rootId);
      return found?.initialEventsFetched && found.length === length && found;
    });
  }

  const listed = (room) => ids(room.threadsTimelineSets[0].getLiveTimeline().getEvents());
  const bundled = async (person, rootId) =>
    (await person.client.fetchRoomEvent(roomId, rootId)).unsigned['m.relations']?.['m.thread'];

  /** A device of bob's that has seen nothing but the last word in the room, which is in no thread. */
  async function newDevice() {
    const last = await alice.say(hers, 'by the way');
    const device = await bob.elsewhere({ ...THREADS, initialSyncLimit: 1 });
    const room = await device.inRoom(roomId);
    assert.deepEqual(ids(room.getLiveTimeline().getEvents()), [last]);
    return [device, room];
  }

  test('grow beside the conversation', async () => {
    const rootId = await alice.say(hers, 'who brings wood?');
    const first = await bob.reply(his, rootId, 'I do');
    let seen = await thread(alice, rootId, 1);
    assert.equal(seen.rootEvent.getContent().body, 'who brings wood?');
    assert.equal(seen.replyToEvent.getContent().body, 'I do');
    assert.equal(seen.hasCurrentUserParticipated, true, 'she began it');

    const second = await bob.reply(his, rootId, 'tomorrow');
    seen = await thread(alice, rootId, 2);
    assert.deepEqual(ids(seen.events), [rootId, first, second]);
    assert.equal(seen.replyToEvent.getId(), second);
    const main = ids(hers.getLiveTimeline().getEvents());
    assert.ok(main.includes(rootId) && !main.includes(first) && !main.includes(second));
  });

  test('are listed by their last words, with what was said last', async () => {
    const alone = { roomId: await roomOf([alice, bob]) };
    const say = (text) => alice.say(alone, text);
    const [quiet, lively, own] = [await say('quiet'), await say('lively'), await say('my own')];
    await alice.reply(alone, own, 'talking to myself');
    await alice.reply(alone, lively, 'anybody?');
    await bob.reply(alone, quiet, 'psst');
    const last = await bob.reply(alone, lively, 'me!');
    await bob.react(alone, last, '👋');
    await say('by the way');

    const device = await bob.elsewhere({ ...THREADS, initialSyncLimit: 1 });
    const room = await device.inRoom(alone.roomId);
    await room.createThreadsTimelineSets();
    await room.fetchRoomThreads();
    // The SDK shows the oldest first.
    await device.until('the list', () => listed(room).join() === [own, quiet, lively].join());
    const found = await device.until('the thread', () => {
      const thread = room.getThread(lively);
      return thread?.initialEventsFetched && thread;
    });
    assert.equal(found.length, 2);
    assert.equal(found.hasCurrentUserParticipated, true);
    assert.equal(found.replyToEvent.getContent().body, 'me!');
    assert.equal(room.getThread(own).hasCurrentUserParticipated, false);

    /** All of a list, one by one. */
    async function pages(list) {
      const seen = [];
      let from = null;
      do {
        const page = await device.client.createThreadListMessagesRequest(alone.roomId, from, 1, 'b', list);
        assert.ok(page.chunk.length <= 1 && seen.length < 10);
        seen.push(...page.chunk.map((event) => event.event_id));
        from = page.end;
      } while (from);
      return seen;
    }
    assert.deepEqual(await pages(sdk.ThreadFilterType.All), [lively, quiet, own]);
    assert.deepEqual(await pages(sdk.ThreadFilterType.My), [lively, quiet]);
    device.leave();
  });

  test('are read and counted apart from the conversation', async () => {
    const rootId = await alice.say(hers, 'a long story');
    await bob.client.sendReadReceipt(await bob.sees(his, rootId));
    const main = () => his.getRoomUnreadNotificationCount();
    const inThread = (type) => his.getThreadUnreadNotificationCount(rootId, type);
    await bob.until('nothing unread', () => main() === 0);

    await alice.reply(hers, rootId, 'once upon a time');
    const mention = { 'm.mentions': { user_ids: [bob.id] } };
    const lastId = await alice.reply(hers, rootId, 'there was bob', mention);
    const aside = await alice.say(hers, 'are you listening?');
    await bob.until('all three', () => main() === 1 && inThread() === 2);
    assert.equal(inThread(sdk.NotificationCountType.Highlight), 1);

    await bob.client.sendReadReceipt(await bob.sees(his, aside));
    await bob.until('the conversation to be read', () => main() === 0);
    assert.equal(inThread(), 2, 'the thread is not');

    const seen = await thread(bob, rootId, 2);
    const last = seen.events.at(-1);
    assert.equal(last.getId(), lastId);
    await bob.client.sendReadReceipt(last);
    await bob.until('the thread to be read', () => inThread() === 0);
    await alice.until('the receipt', () => hers.getThread(rootId)?.getEventReadUpTo(bob.id, true) === lastId);
    assert.equal(hers.getEventReadUpTo(bob.id, true), aside, 'that of the conversation stays where it is');

    const [device, room] = await newDevice();
    assert.equal(room.getThreadUnreadNotificationCount(rootId), 0);
    assert.equal(room.getRoomUnreadNotificationCount(), 1, 'the last word');
    device.leave();
  });

  test('shrink and vanish with what is redacted', async () => {
    const rootId = await alice.say(hers, 'not a good idea');
    const first = await bob.reply(his, rootId, 'indeed');
    await thread(alice, rootId, 1);
    const second = await bob.reply(his, rootId, 'or is it?');
    await thread(alice, rootId, 2);
    await bob.client.redactEvent(roomId, second);
    const seen = await thread(alice, rootId, 1);
    // The SDK counts at once and looks for the last reply afterwards.
    await alice.until('the last reply', () => seen.replyToEvent?.getId() === first);
    const { count, latest_event: latest } = await bundled(alice, rootId);
    assert.deepEqual([count, latest.event_id], [1, first]);

    await bob.client.redactEvent(roomId, first);
    await alice.until('the redaction', () => hers.findEventById(first)?.isRedacted());
    assert.equal(await bundled(alice, rootId), undefined);
    const { chunk } = await alice.client.createThreadListMessagesRequest(roomId, null);
    assert.ok(!chunk.some((event) => event.event_id === rootId), 'it is no thread any more');
  });

  test('hold edits and reactions', async () => {
    const rootId = await alice.say(hers, 'a poll');
    const answer = await bob.reply(his, rootId, 'yse');
    await thread(alice, rootId, 1);
    await bob.edit(his, answer, 'yes');
    await alice.react(hers, answer, '👍');

    const [device, room] = await newDevice();
    await room.createThreadsTimelineSets();
    await room.fetchRoomThreads();
    const found = await thread(device, rootId, 1);
    await device.until('the edit', () => found.findEventById(answer)?.getContent().body === 'yes');
    const reactions = await device.until('the reaction', () =>
      room.relations.getChildEventsForEvent(answer, 'm.annotation', 'm.reaction'),
    );
    assert.deepEqual(reactions.getSortedAnnotationsByKey().map(([key]) => key), ['👍']);
    device.leave();
  });

  test('do not begin inside a thread', async () => {
    const rootId = await alice.say(hers, 'a box');
    const inside = await bob.reply(his, rootId, 'a smaller box');
    const nested = { msgtype: 'm.text', body: 'a tiny box' };
    await alice.isRefused(alice.client.sendMessage(roomId, inside, nested), 'M_UNKNOWN');
  });

  test('are paged to their roots and open at a reply', async () => {
    const rootId = await alice.say(hers, 'tell me everything');
    const told = [];
    for (let number = 0; number < 60; number += 1) told.push(await bob.reply(his, rootId, `part ${number}`));
    const [device, room] = await newDevice();
    await room.createThreadsTimelineSets();
    await room.fetchRoomThreads();
    const found = await thread(device, rootId, told.length);
    const loaded = found.events.length;
    assert.ok(loaded > 0 && loaded < told.length, 'the first page holds not all of it');
    assert.deepEqual(ids(found.events), told.slice(-loaded));

    const middle = told[3];
    const around = await device.client.getEventTimeline(found.timelineSet, middle);
    assert.notEqual(around, found.liveTimeline);
    assert.deepEqual(ids(around.getEvents()).slice(0, 6), [rootId, ...told.slice(0, 5)]);

    let pages = 0;
    while (found.liveTimeline.getPaginationToken(sdk.Direction.Backward)) {
      await device.client.paginateEventTimeline(found.liveTimeline, { backwards: true, limit: 5 });
      assert.ok((pages += 1) < 20, 'the pages come to an end');
    }
    const timelines = [];
    for (let one = around; one; one = one.getNeighbouringTimeline(sdk.Direction.Forward)) timelines.push(one);
    const whole = new Set([...timelines, found.liveTimeline].flatMap((timeline) => ids(timeline.getEvents())));
    assert.deepEqual([...whole].sort(), [rootId, ...told].sort());
    device.leave();
  });
});
