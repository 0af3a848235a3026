// Keeping a room in order, through matrix-js-sdk: power, who is in and who is out, what is taken down,
// reported, ignored, and whom a knock lets in.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { Person, refusedWith, roomOf } from './person.js';

let alice, bob, carol;
before(async () => {
  [alice, bob, carol] = await Promise.all(['alice', 'bob', 'carol'].map((name) => Person.arrive(name)));
  await Promise.all([alice, bob, carol].map((person) => person.sync()));
});
after(() => [alice, bob, carol].forEach((person) => person?.leave()));

const member = (person, roomId, other) => person.client.getRoom(roomId).getMember(other.id);

/** A public room of alice's in which bob is a moderator and carol is not. */
async function moderated() {
  const roomId = await roomOf([alice, bob, carol]);
  await alice.client.setPowerLevel(roomId, bob.id, 50);
  for (const person of [bob, carol]) {
    await person.until('the power', () => member(person, roomId, bob).powerLevel === 50);
  }
  return roomId;
}

describe('a moderator', () => {
  test('kicks with a reason whom they outrank, and nobody else', async () => {
    const roomId = await moderated();
    await bob.client.kick(roomId, carol.id, 'too loud');
    await carol.inRoom(roomId, 'leave');
    const kicked = member(carol, roomId, carol);
    assert.ok(kicked.isKicked());
    const { content, sender } = kicked.events.member.event;
    assert.deepEqual([content.reason, sender], ['too loud', bob.id]);
    await carol.isRefused(carol.say({ roomId }, 'was I?'), 'M_FORBIDDEN');

    await carol.client.joinRoom(roomId);
    await carol.inRoom(roomId);
    await assert.rejects(bob.client.kick(roomId, alice.id), refusedWith('M_FORBIDDEN'));
    await assert.rejects(carol.client.kick(roomId, bob.id), refusedWith('M_FORBIDDEN'));
    await assert.rejects(carol.client.ban(roomId, bob.id), refusedWith('M_FORBIDDEN'));
    await alice.until('carol again', () => member(alice, roomId, carol).membership === 'join');
    assert.equal(member(alice, roomId, bob).membership, 'join');
  });

  test('bans and takes the ban back', async () => {
    const roomId = await moderated();
    await bob.client.ban(roomId, carol.id, 'burnt the rug');
    await carol.inRoom(roomId, 'ban');
    assert.equal(member(carol, roomId, carol).events.member.getContent().reason, 'burnt the rug');
    await alice.until('the ban', () => member(alice, roomId, carol)?.membership === 'ban');
    assert.deepEqual(
      alice.client.getRoom(roomId).getMembersWithMembership('ban').map((banned) => banned.userId),
      [carol.id],
    );
    await assert.rejects(carol.client.joinRoom(roomId), refusedWith('M_FORBIDDEN'));
    await assert.rejects(alice.client.invite(roomId, carol.id), refusedWith('M_FORBIDDEN'));
    await carol.isRefused(carol.say({ roomId }, 'which rug?'), 'M_FORBIDDEN');

    await bob.client.unban(roomId, carol.id);
    await alice.until('the end of the ban', () => member(alice, roomId, carol).membership === 'leave');
    await carol.client.joinRoom(roomId);
    await bob.sees({ roomId }, await carol.say({ roomId }, 'sorry about the rug'));
  });

  test('takes down what others said', async () => {
    const roomId = await moderated();
    const rude = await carol.say({ roomId }, 'something rude');
    const own = await carol.say({ roomId }, 'something silly');
    const kind = await alice.say({ roomId }, 'something kind');
    const heard = await alice.sees({ roomId }, rude);
    await bob.sees({ roomId }, rude);
    await bob.client.redactEvent(roomId, rude, undefined, { reason: 'manners' });
    await alice.until('the redaction', () => heard.isRedacted());
    assert.deepEqual(heard.getContent(), {});
    const because = heard.getUnsigned().redacted_because;
    assert.deepEqual([because.sender, because.content.reason], [bob.id, 'manners']);

    await carol.isRefused(carol.client.redactEvent(roomId, kind), 'M_FORBIDDEN');
    await carol.client.redactEvent(roomId, own);
    await bob.until('the other redaction', () => bob.client.getRoom(roomId).findEventById(own)?.isRedacted());
    assert.equal(bob.client.getRoom(roomId).findEventById(kind).isRedacted(), false);
  });

  test('gives no more power than they have, and loses it when it is taken', async () => {
    const roomId = await moderated();
    const levels = await alice.client.getStateEvent(roomId, 'm.room.power_levels', '');
    const put = (person, more) =>
      person.client.sendStateEvent(roomId, 'm.room.power_levels', { ...levels, ...more }, '');
    // Otherwise only the owner of a room may change this at all.
    const open = { events: { ...levels.events, 'm.room.power_levels': 50 } };
    await put(alice, open);
    await assert.rejects(
      put(bob, { ...open, users: { ...levels.users, [bob.id]: 100 } }),
      refusedWith('M_FORBIDDEN'),
    );
    await put(bob, { ...open, users: { ...levels.users, [carol.id]: 50 } });
    await carol.until('the power', () => member(carol, roomId, carol).powerLevel === 50);
    await assert.rejects(carol.client.kick(roomId, bob.id), refusedWith('M_FORBIDDEN'));

    await put(alice, { users: {} });
    await carol.until('it to be taken', () => member(carol, roomId, carol).powerLevel === 0);
    await assert.rejects(bob.client.kick(roomId, carol.id), refusedWith('M_FORBIDDEN'));
  });

  test('is heard where the others are silent', async () => {
    const roomId = await moderated();
    const levels = await alice.client.getStateEvent(roomId, 'm.room.power_levels', '');
    await alice.client.sendStateEvent(roomId, 'm.room.power_levels', { ...levels, events_default: 50 }, '');
    await carol.until('silence', () => !carol.client.getRoom(roomId).maySendMessage());
    await carol.isRefused(carol.say({ roomId }, 'but'), 'M_FORBIDDEN');
    await carol.sees({ roomId }, await bob.say({ roomId }, 'order!'));
  });
});

describe('a knock', () => {
  const knock = { type: 'm.room.join_rules', content: { join_rule: 'knock' } };

  test('is answered with an invitation', async () => {
    const options = { preset: 'private_chat', name: 'Club', initial_state: [knock] };
    const { room_id: roomId } = await alice.client.createRoom(options);
    await alice.inRoom(roomId);
    await carol.client.knockRoom(roomId, { reason: 'may I?' });
    const seen = await carol.inRoom(roomId, 'knock');
    assert.equal(seen.name, 'Club');
    const asking = await alice.until('the knock', () => {
      const found = member(alice, roomId, carol);
      return found?.membership === 'knock' && found;
    });
    assert.equal(asking.events.member.getContent().reason, 'may I?');
    await assert.rejects(carol.client.joinRoom(roomId), refusedWith('M_FORBIDDEN'));
    await alice.client.invite(roomId, carol.id);
    await carol.inRoom(roomId, 'invite');
    await carol.client.joinRoom(roomId);
    await carol.inRoom(roomId);
  });

  test('is turned away, or taken back', async () => {
    const { room_id: roomId } = await alice.client.createRoom({ preset: 'private_chat', initial_state: [knock] });
    await carol.client.knockRoom(roomId);
    await carol.inRoom(roomId, 'knock');
    await alice.client.kick(roomId, carol.id, 'members only');
    await carol.inRoom(roomId, 'leave');
    await carol.client.knockRoom(roomId);
    await carol.inRoom(roomId, 'knock');
    await carol.client.leave(roomId);
    await carol.inRoom(roomId, 'leave');
    await alice.client.ban(roomId, carol.id);
    await assert.rejects(carol.client.knockRoom(roomId), refusedWith('M_FORBIDDEN'));
  });

  test('is not heard where nobody may knock', async () => {
    const { room_id: roomId } = await alice.client.createRoom({ preset: 'private_chat' });
    await assert.rejects(carol.client.knockRoom(roomId), refusedWith('M_FORBIDDEN'));
  });
});

describe('against a nuisance', () => {
  test('one reports what they said and where', async () => {
    const roomId = await roomOf([alice, bob]);
    const id = await bob.say({ roomId }, 'buy my embers');
    assert.deepEqual(await alice.client.reportEvent(roomId, id, -100, 'advertising'), {});
    assert.deepEqual(await alice.client.reportRoom(roomId, 'nothing but advertising'), {});
    await assert.rejects(carol.client.reportEvent(roomId, id, -100, 'I was not there'), refusedWith('M_NOT_FOUND'));
    await assert.rejects(alice.client.reportEvent(roomId, '$nothing', 0, ''), refusedWith('M_NOT_FOUND'));
  });

  test('one hears neither their words nor their invitations', async () => {
    const nuisance = await Person.arrive('nuisance');
    const roomId = await roomOf([alice, carol]);
    await nuisance.client.joinRoom(roomId);
    const listed = carol.until('the list', () => carol.client.isUserIgnored(nuisance.id));
    await carol.client.setIgnoredUsers([nuisance.id]);
    await listed;

    const invite = { preset: 'private_chat', invite: [carol.id] };
    const { room_id: trap } = await nuisance.client.createRoom(invite);
    const words = await nuisance.say({ roomId }, 'come in, come in');
    await alice.sees({ roomId }, words);
    const { room_id: party } = await alice.client.createRoom(invite);
    await carol.inRoom(party, 'invite');
    await carol.sees({ roomId }, await alice.say({ roomId }, 'coming?'));
    assert.equal(carol.client.getRoom(trap), null, 'what came after the invitation is there, it is not');
    assert.equal(carol.client.getRoom(roomId).findEventById(words), undefined);

    const device = await carol.elsewhere();
    const room = await device.inRoom(roomId);
    await device.inRoom(party, 'invite');
    assert.equal(device.client.getRoom(trap), null);
    await device.client.scrollback(room, 50);
    assert.equal(room.findEventById(words), undefined);
    device.leave();
  });
});
