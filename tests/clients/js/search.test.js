// Searching through matrix-js-sdk: what was said in one's rooms, and who else is there.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { Person, roomOf, word } from './person.js';

let alice, bob;
before(async () => {
  [alice, bob] = await Promise.all([Person.arrive('alice'), Person.arrive('bob')]);
  await alice.client.setDisplayName('Alice of the hearth');
  await Promise.all([alice.sync(), bob.sync()]);
});
after(() => [alice, bob].forEach((person) => person?.leave()));

describe('a search for words', () => {
  const found = ({ results }) => results.map((result) => result.context.getEvent().getId());
  const search = async (person, term, filter) => found(await person.client.searchRoomEvents({ term, filter }));

  /** The answer as it is, where the SDK has no words for the question. */
  async function ask(person, term, more = {}, nextBatch) {
    const body = { search_categories: { room_events: { search_term: term, order_by: 'recent', ...more } } };
    const answer = await person.client.search({ body, next_batch: nextBatch });
    return answer.search_categories.room_events;
  }
  const hits = ({ results }) => results.map(({ result }) => result.event_id);

  test('finds what was said, the newest first, with what stood around it', async () => {
    const term = word();
    const room = { roomId: await roomOf([alice, bob]) };
    const question = await alice.say(room, 'is it warm?');
    const first = await bob.say(room, `as warm as ${term} can be`);
    const between = await alice.say(room, 'and now?');
    const second = await bob.say(room, `${term}, still`);
    const results = await alice.client.searchRoomEvents({ term });
    assert.deepEqual(found(results), [second, first]);
    assert.ok(results.highlights.includes(term));
    assert.ok(results.count > 0);
    assert.equal(results.next_batch, undefined);
    const [newer, older] = results.results.map(({ context }) => context);
    assert.equal(older.getEvent().getContent().body, `as warm as ${term} can be`);
    assert.deepEqual(older.getTimeline().map((event) => event.getId()), [question, first, between]);
    assert.deepEqual(newer.getTimeline().map((event) => event.getId()), [between, second]);

    const nothing = await alice.client.searchRoomEvents({ term: word() });
    assert.deepEqual([nothing.results, nothing.next_batch], [[], undefined]);
  });

  test('comes in pages', async () => {
    const term = word();
    const room = { roomId: await roomOf([alice, bob]) };
    const said = [];
    for (let number = 0; number < 5; number += 1) said.push(await alice.say(room, `${term} number ${number}`));
    let results = await bob.client.searchRoomEvents({ term, filter: { limit: 2 } });
    assert.deepEqual(found(results), said.slice(-2).reverse());
    let pages = 1;
    while (results.next_batch) {
      results = await bob.client.backPaginateRoomEventsSearch(results);
      assert.ok((pages += 1) < 10, 'the pages come to an end');
    }
    assert.deepEqual(found(results), said.toReversed());
    assert.ok(pages >= 3, `five came in ${pages} pages of two`);
  });

  test('looks where it is told to', async () => {
    const term = word();
    const one = { roomId: await roomOf([alice, bob]) };
    const other = { roomId: await roomOf([alice, bob]) };
    const hers = await alice.say(one, `${term} from alice`);
    const his = await bob.say(one, `${term} from bob`);
    const there = await alice.say(other, `${term} elsewhere`);
    assert.deepEqual(await search(bob, term), [there, his, hers]);
    assert.deepEqual(await search(bob, term, { rooms: [one.roomId] }), [his, hers]);
    assert.deepEqual(await search(bob, term, { not_rooms: [one.roomId] }), [there]);
    assert.deepEqual(await search(bob, term, { senders: [alice.id] }), [there, hers]);
    assert.deepEqual(await search(bob, term, { types: ['m.room.topic'] }), []);
  });

  test('looks at messages, names and topics', async () => {
    const term = word();
    const roomId = await roomOf([alice, bob]);
    const body = await alice.say({ roomId }, `a message about ${term}`);
    const { event_id: name } = await alice.client.setRoomName(roomId, `House of ${term}`);
    const { event_id: topic } = await alice.client.setRoomTopic(roomId, `all about ${term}`);
    assert.deepEqual(await search(bob, term), [topic, name, body]);
    for (const [key, id] of [['content.body', body], ['content.name', name], ['content.topic', topic]]) {
      const { search_categories: answer } = await bob.client.searchMessageText({ query: term, keys: [key] });
      assert.deepEqual(hits(answer.room_events), [id], key);
    }
  });

  test('groups what it finds, and pages in a group', async () => {
    const term = word();
    const one = { roomId: await roomOf([alice, bob]) };
    const other = { roomId: await roomOf([alice, bob]) };
    const elsewhere = await alice.say(other, `${term} elsewhere`);
    const said = [];
    for (const person of [alice, bob, bob]) said.push(await person.say(one, `${term} here`));
    const by = (...keys) => ({ groupings: { group_by: keys.map((key) => ({ key })) } });

    const { groups, ...all } = await ask(bob, term, by('room_id', 'sender'));
    assert.deepEqual(hits(all), [...said.toReversed(), elsewhere]);
    const members = (group) => group.results.toSorted();
    assert.deepEqual(Object.keys(groups.room_id).sort(), [one.roomId, other.roomId].sort());
    assert.deepEqual(members(groups.room_id[one.roomId]), said.toSorted());
    assert.deepEqual(members(groups.room_id[other.roomId]), [elsewhere]);
    assert.deepEqual(members(groups.sender[alice.id]), [said[0], elsewhere].sort());
    assert.deepEqual(members(groups.sender[bob.id]), [said[1], said[2]].sort());

    const small = { ...by('room_id'), filter: { limit: 2 } };
    const page = await ask(bob, term, small);
    assert.deepEqual(hits(page), [said[2], said[1]]);
    const rest = await ask(bob, term, small, page.groups.room_id[one.roomId].next_batch);
    assert.deepEqual(hits(rest), [said[0]], 'the other room is not in this group');
  });

  test('tells the state of the rooms and who spoke, when asked', async () => {
    const term = word();
    const roomId = await roomOf([alice, bob]);
    const id = await alice.say({ roomId }, term);
    const context = { before_limit: 0, after_limit: 0, include_profile: true };
    const answer = await ask(bob, term, { include_state: true, event_context: context });
    assert.deepEqual(hits(answer), [id]);
    const types = answer.state[roomId].map((event) => event.type);
    assert.ok(types.includes('m.room.create') && types.includes('m.room.member'));
    const around = answer.results[0].context;
    assert.equal(around.profile_info[alice.id].displayname, 'Alice of the hearth');
    assert.deepEqual([around.events_before ?? [], around.events_after ?? []], [[], []]);
    const page = await bob.client.createMessagesRequest(roomId, around.start, 1, 'b');
    assert.equal(page.chunk.length, 1, 'one may read on from there');

    const plain = await ask(bob, term);
    assert.deepEqual([plain.state ?? {}, plain.groups ?? {}], [{}, {}]);
  });

  test('ranks what it finds, if nothing else is asked for', async () => {
    const term = word();
    const room = { roomId: await roomOf([alice, bob]) };
    const said = [];
    const filler = 'about nothing much, at some length, for nobody in particular';
    for (const text of [term, `${filler} ${term} ${filler}`, `${term} ${term} ${term}`]) {
      said.push(await alice.say(room, text));
    }
    const answer = await ask(bob, term, { order_by: undefined });
    assert.deepEqual(hits(answer).sort(), said.toSorted());
    const ranks = answer.results.map(({ rank }) => rank);
    assert.deepEqual(ranks, ranks.toSorted((a, b) => b - a));
  });

  test('finds only what one may read', async () => {
    const term = word();
    const guarded = { type: 'm.room.history_visibility', content: { history_visibility: 'joined' } };
    const roomId = await roomOf([alice], { initial_state: [guarded] });
    const early = await alice.say({ roomId }, `${term} among ourselves`);
    assert.deepEqual(await search(bob, term), [], 'he was never there');
    await bob.client.joinRoom(roomId);
    assert.deepEqual(await search(bob, term), [], 'it was said before he came');
    const meanwhile = await alice.say({ roomId }, `${term} for bob`);
    assert.deepEqual(await search(bob, term), [meanwhile]);
    await bob.client.leave(roomId);
    const late = await alice.say({ roomId }, `${term} behind his back`);
    assert.deepEqual(await search(bob, term), [meanwhile], 'it was said after he left');
    assert.deepEqual(await search(alice, term), [late, meanwhile, early]);
    await bob.client.forget(roomId);
    assert.deepEqual(await search(bob, term), [], 'he has forgotten the room');
  });

  test('finds neither what was taken back nor what is encrypted', async () => {
    const term = word();
    const roomId = await roomOf([alice, bob]);
    const kept = await alice.say({ roomId }, `${term} stays`);
    const regretted = await alice.say({ roomId }, `${term} goes`);
    assert.deepEqual(await search(bob, term), [regretted, kept]);
    await alice.client.redactEvent(roomId, regretted);
    assert.deepEqual(await search(bob, term), [kept]);
    assert.deepEqual(await search(alice, term), [kept]);

    const secret = { type: 'm.room.encryption', content: { algorithm: 'm.megolm.v1.aes-sha2' } };
    await roomOf([alice], { name: `The secret ${term}`, initial_state: [secret] });
    assert.deepEqual(await search(alice, term), [kept]);
  });

  test('begins where one has been before', async () => {
    const wrong = { httpStatus: 400 };
    await assert.rejects(ask(alice, 'ember', {}, 'nowhere'), wrong);
    await assert.rejects(ask(alice, 'ember', { order_by: 'chance' }), wrong);
    await assert.rejects(alice.client.search({ body: { search_categories: { room_events: {} } } }), wrong);
  });
});

describe('a search for people', () => {
  async function search(person, term, limit) {
    const { results, limited } = await person.client.searchUserDirectory({ term, limit });
    return { ids: results.map((user) => user.user_id).sort(), results, limited };
  }

  test('finds those with whom one shares a room, by what they are called', async () => {
    const term = word();
    const avatar = 'mxc://localhost/portrait';
    const friend = await Person.arrive('friend');
    await friend.client.setDisplayName(`Friend ${term}`);
    await friend.client.setAvatarUrl(avatar);
    const invite = { preset: 'private_chat', invite: [friend.id] };
    const { room_id: roomId } = await alice.client.createRoom(invite);
    await friend.client.joinRoom(roomId);
    for (const name of [term, term.toUpperCase(), friend.name, friend.name.toUpperCase()]) {
      const { results, limited } = await search(alice, name);
      const seen = results.map(({ user_id, display_name, avatar_url }) => [user_id, display_name, avatar_url]);
      assert.deepEqual(seen, [[friend.id, `Friend ${term}`, avatar]], name);
      assert.equal(limited, false);
    }
    const later = word();
    await friend.client.setDisplayName(`Friend ${later}`);
    assert.deepEqual((await search(alice, later)).ids, [friend.id]);
    assert.deepEqual((await search(alice, term)).ids, [], 'nobody is called that any more');
  });

  test('finds those who are where anybody may be', async () => {
    const term = word();
    const regular = await Person.arrive('regular');
    await regular.client.setDisplayName(`Regular ${term}`);
    await regular.client.createRoom({ preset: 'public_chat' });
    assert.deepEqual((await search(alice, term)).ids, [regular.id]);
  });

  test('tells when there would be more', async () => {
    const term = word();
    const crowd = await Promise.all([1, 2, 3].map(() => Person.arrive('somebody')));
    const { room_id: roomId } = await alice.client.createRoom({ preset: 'public_chat' });
    for (const person of crowd) {
      await person.client.setDisplayName(`Somebody ${term}`);
      await person.client.joinRoom(roomId);
    }
    const all = crowd.map((person) => person.id).sort();
    const some = await search(alice, term, 2);
    assert.deepEqual([some.results.length, some.limited], [2, true]);
    assert.ok(some.ids.every((id) => all.includes(id)));
    const every = await search(alice, term, 3);
    assert.deepEqual([every.ids, every.limited], [all, false]);
  });
});
