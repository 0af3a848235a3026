// Rooms among rooms, through matrix-js-sdk: spaces, the public directory, summaries, upgrades.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { Person, RoomHierarchy, fresh, refusedWith, roomOf, sdk, word } from './person.js';

let alice, bob;
before(async () => {
  [alice, bob] = await Promise.all([Person.arrive('alice'), Person.arrive('bob')]);
  await Promise.all([alice.sync(), bob.sync()]);
});
after(() => [alice, bob].forEach((person) => person?.leave()));

const make = async (options) => (await alice.client.createRoom(options)).room_id;
const putIn = (space, child, content = {}) =>
  alice.client.sendStateEvent(space, 'm.space.child', { via: [alice.client.getDomain()], ...content }, child);

/** A space in which anybody is welcome. */
const makeSpace = (name) => make({ preset: 'public_chat', name, creation_content: { type: 'm.space' } });

/** All rooms of a space that somebody may know of, page by page. */
async function walk(person, space, pageSize, ...options) {
  const hierarchy = new RoomHierarchy(await person.inRoom(space), pageSize, ...options);
  while (hierarchy.canLoadMore) {
    const page = await hierarchy.load();
    assert.ok(page.length <= pageSize);
    assert.ok(page.length > 0, 'a page that leads on is not empty');
  }
  return hierarchy;
}

const names = (hierarchy) => hierarchy.rooms.map((room) => room.name);

describe('a space', () => {
  test('has its rooms in their order, some of them suggested, page by page', async () => {
    const [top, inner] = [await makeSpace('Top'), await makeSpace('Inner')];
    const open = (name) => make({ preset: 'public_chat', name });
    const [first, deep, last] = [await open('First'), await open('Deep'), await open('Last')];
    await putIn(top, last, { order: 'c' });
    await putIn(top, inner, { order: 'b' });
    await putIn(top, first, { order: 'a', suggested: true });
    await putIn(inner, deep);
    await putIn(inner, top);
    await bob.client.joinRoom(top);
    const room = await bob.inRoom(top);
    assert.ok(room.isSpaceRoom());
    assert.equal(room.currentState.getStateEvents('m.space.child').length, 3);

    const found = await walk(bob, top, 2);
    assert.deepEqual(names(found), ['Top', 'First', 'Inner', 'Deep', 'Last']);
    assert.deepEqual([found.isSuggested(top, first), found.isSuggested(top, last)], [true, undefined]);
    assert.deepEqual(found.backRefs.get(deep), [inner]);
    assert.deepEqual([...found.viaMap.get(deep)], [alice.client.getDomain()]);
    assert.equal(found.roomMap.get(inner).room_type, 'm.space');

    assert.deepEqual(names(await walk(bob, top, 2, 1)), ['Top', 'First', 'Inner', 'Last']);
    assert.deepEqual(names(await walk(bob, top, 2, undefined, true)), ['Top', 'First']);

    await alice.client.sendStateEvent(top, 'm.space.child', {}, inner);
    assert.deepEqual(names(await walk(bob, top, 10)), ['Top', 'First', 'Last'], 'what was taken out is not there');
    await assert.rejects(
      bob.client.sendStateEvent(top, 'm.space.child', { via: ['localhost'] }, deep),
      refusedWith('M_FORBIDDEN'),
    );
  });

  test('opens its rooms to its members', async () => {
    const space = await makeSpace('Guild');
    const allow = [{ type: 'm.room_membership', room_id: space }];
    const rule = { type: 'm.room.join_rules', content: { join_rule: 'restricted', allow } };
    const workshop = await make({ preset: 'private_chat', name: 'Workshop', initial_state: [rule] });
    const vault = await make({ preset: 'private_chat', name: 'Vault' });
    await putIn(space, workshop, { order: 'a' });
    await putIn(space, vault, { order: 'b' });

    await assert.rejects(bob.client.joinRoom(workshop), refusedWith('M_FORBIDDEN'));
    await assert.rejects(bob.client.getRoomSummary(workshop), refusedWith('M_NOT_FOUND'));
    await bob.client.joinRoom(space);
    const found = await walk(bob, space, 10);
    assert.deepEqual(names(found), ['Guild', 'Workshop'], 'the vault is for the invited');
    assert.equal(found.roomMap.get(workshop).join_rule, 'restricted');
    assert.deepEqual((await bob.client.getRoomSummary(workshop)).allowed_room_ids, [space]);

    await bob.client.joinRoom(workshop);
    const room = await bob.inRoom(workshop);
    const id = await alice.say({ roomId: workshop }, 'welcome to the guild');
    await bob.sees(room, id);
    await assert.rejects(bob.client.joinRoom(vault), refusedWith('M_FORBIDDEN'));
  });

  test('that is closed is no way in', async () => {
    const closed = await make({ preset: 'private_chat', name: 'Closed', creation_content: { type: 'm.space' } });
    await putIn(closed, await make({ preset: 'public_chat', name: 'Inside' }));
    await assert.rejects(bob.client.getRoomHierarchy(closed), refusedWith('M_FORBIDDEN'));
  });
});

describe('the directory', () => {
  const search = (term, options = {}) =>
    bob.client.publicRooms({ filter: { generic_search_term: term }, ...options });

  test('is searched and read page by page, the greatest room first', async () => {
    const term = word();
    const publish = (name, more = {}) => make({ preset: 'public_chat', visibility: 'public', name, ...more });
    const small = await publish('Small', { topic: `about ${term}` });
    const great = await publish(`The ${term.toUpperCase()}`);
    await publish('Elsewhere');
    await bob.client.joinRoom(great);

    const first = await search(term, { limit: 1 });
    assert.deepEqual(first.chunk.map((room) => room.room_id), [great]);
    assert.equal(first.chunk[0].num_joined_members, 2);
    const second = await search(term, { limit: 1, since: first.next_batch });
    assert.deepEqual(second.chunk.map((room) => room.room_id), [small]);
    assert.equal(second.chunk[0].topic, `about ${term}`);
    assert.equal(second.next_batch, undefined);
    assert.equal((await bob.client.publicRooms({ limit: 2 })).chunk.length, 2);
  });

  test('shows a room for as long as its owner wants', async () => {
    const term = word();
    const room = await make({ preset: 'public_chat', name: term });
    const listed = async () => (await search(term)).chunk.map((found) => found.room_id);
    assert.deepEqual(await listed(), []);
    await alice.client.setRoomDirectoryVisibility(room, 'public');
    assert.deepEqual(await listed(), [room]);
    assert.equal((await bob.client.getRoomDirectoryVisibility(room)).visibility, 'public');
    await bob.client.joinRoom(room);
    await assert.rejects(bob.client.setRoomDirectoryVisibility(room, 'private'), refusedWith('M_FORBIDDEN'));
    await alice.client.setRoomDirectoryVisibility(room, 'private');
    assert.deepEqual(await listed(), []);
  });

  test('is not asked to sum up a room for those who may not know of it', async () => {
    const localpart = fresh('parlour');
    const room = await make({ preset: 'public_chat', room_alias_name: localpart, name: 'Parlour', topic: 'tea' });
    const alias = `#${localpart}:${alice.client.getDomain()}`;
    const summary = await bob.client.getRoomSummary(alias);
    const { room_id: id, name, topic, canonical_alias: canonical } = summary;
    assert.deepEqual([id, name, topic, canonical], [room, 'Parlour', 'tea', alias]);
    assert.equal(summary.num_joined_members, 1);
    assert.equal(summary.membership, 'leave');

    const closed = await make({ preset: 'private_chat', name: 'Study' });
    await assert.rejects(bob.client.getRoomSummary(closed), refusedWith('M_NOT_FOUND'));
    await alice.client.invite(closed, bob.id);
    assert.equal((await bob.client.getRoomSummary(closed)).membership, 'invite');
  });
});

describe('an upgrade', () => {
  test('leads everybody into the new room', async () => {
    const localpart = fresh('hall');
    const alias = `#${localpart}:${alice.client.getDomain()}`;
    const options = { room_version: '11', room_alias_name: localpart, name: 'Hall', topic: 'echoes' };
    const old = await roomOf([alice, bob], options);
    await alice.client.setPowerLevel(old, bob.id, 50);
    const { replacement_room: replacement } = await alice.client.upgradeRoom(old, '12');

    const before = bob.client.getRoom(old);
    const tombstone = await bob.until('the tombstone', () =>
      before.currentState.getStateEvents('m.room.tombstone', ''),
    );
    assert.equal(tombstone.getContent().replacement_room, replacement);
    await bob.client.joinRoom(replacement);
    const room = await bob.inRoom(replacement);
    assert.deepEqual([room.name, room.getVersion(), room.getCanonicalAlias()], ['Hall', '12', alias]);
    assert.equal(room.findPredecessor().roomId, old);
    assert.equal(room.getMember(bob.id).powerLevel, 50, 'power is kept');
    assert.deepEqual(
      bob.client.getRoomUpgradeHistory(replacement, true).map((one) => one.roomId),
      [old, replacement],
    );
    assert.equal((await bob.client.getRoomIdForAlias(alias)).room_id, replacement);
    assert.deepEqual(bob.client.getVisibleRooms().filter((one) => [old, replacement].includes(one.roomId)), [room]);
  });

  test('leaves the old room to those with power', async () => {
    const old = await roomOf([alice, bob]);
    const version = bob.client.getRoom(old).getVersion();
    await assert.rejects(bob.client.upgradeRoom(old, version), refusedWith('M_FORBIDDEN'));
    await assert.rejects(alice.client.upgradeRoom(old, 'no-such-version'), refusedWith('M_UNSUPPORTED_ROOM_VERSION'));
    await alice.client.upgradeRoom(old, version);
    await bob.isRefused(bob.say({ roomId: old }, 'is anybody here?'), 'M_FORBIDDEN');
    await bob.sees({ roomId: old }, await alice.say({ roomId: old }, 'we have moved'));
  });
});
