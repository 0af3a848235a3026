// A conversation through matrix-js-sdk: two people, one room, all that they see of each other.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { Person, fresh, refusedWith, sdk, twoInARoom } from './person.js';

describe('two people in a room', () => {
  let alice, bob, roomId, hers, his;
  before(async () => ({ alice, bob, roomId, hers, his } = await twoInARoom()));
  after(() => [alice, bob].forEach((person) => person?.leave()));

  test('the state tells who made it and who is there', async () => {
    const create = his.currentState.getStateEvents('m.room.create', '');
    assert.equal(create.getSender(), alice.id);
    const { joined } = await bob.client.getJoinedRoomMembers(roomId);
    assert.deepEqual(Object.keys(joined).sort(), [alice.id, bob.id].sort());
    assert.equal(his.getJoinRule(), 'invite');
    assert.equal(his.name, 'The hearth');
    assert.ok((await bob.client.getJoinedRooms()).joined_rooms.includes(roomId));
  });

  test('texts go both ways, in order', async () => {
    const said = [];
    for (const [speaker, room, text, listener] of [
      [alice, hers, 'is it warm in there?', bob],
      [bob, his, 'come and see', alice],
      [alice, hers, 'on my way 🔥', bob],
    ]) {
      const id = await speaker.say(room, text);
      assert.equal((await listener.sees(room, id)).getContent().body, text);
      said.push(id);
    }
    await alice.sees(hers, said.at(-1));
    for (const room of [hers, his]) {
      const ids = room.getLiveTimeline().getEvents().map((event) => event.getId());
      assert.deepEqual(ids.filter((id) => said.includes(id)), said);
    }
  });

  test('the sender recognises its own message by its transaction id', async () => {
    const transaction = alice.client.makeTxnId();
    const { event_id: id } = await alice.client.sendMessage(roomId, { msgtype: 'm.notice', body: 'once' }, transaction);
    const again = await alice.client.http.authedRequest(
      'PUT',
      `/rooms/${encodeURIComponent(roomId)}/send/m.room.message/${encodeURIComponent(transaction)}`,
      undefined,
      { msgtype: 'm.notice', body: 'once' },
    );
    assert.equal(again.event_id, id, 'the same transaction is not sent twice');
    await bob.sees(his, id);
    await alice.sees(hers, id);
    const copies = hers.getLiveTimeline().getEvents().filter((event) => event.getContent().body === 'once');
    assert.equal(copies.length, 1);
  });

  test('typing is seen, and its end', async () => {
    const typing = () => his.getMember(alice.id).typing;
    const begun = bob.until('alice typing', typing);
    await alice.client.sendTyping(roomId, true, 30_000);
    await begun;
    const ended = bob.until('alice to stop typing', () => !typing());
    await alice.client.sendTyping(roomId, false);
    await ended;
  });

  test('a read receipt is seen by the sender', async () => {
    const id = await alice.say(hers, 'have you read this?');
    const message = await bob.sees(his, id);
    await bob.client.sendReadReceipt(message);
    await alice.until('the receipt', () => hers.getEventReadUpTo(bob.id, true) === id);
    assert.ok(hers.getUsersReadUpTo(hers.findEventById(id)).includes(bob.id));
  });

  test('a private receipt is kept from the others', async () => {
    const secret = await bob.sees(his, await alice.say(hers, 'and this?'));
    await bob.client.sendReadReceipt(secret, sdk.ReceiptType.ReadPrivate);
    const open = await bob.sees(his, await alice.say(hers, 'then this?'));
    await bob.client.sendReadReceipt(open);
    const receipts = [];
    const collect = (event) => receipts.push(...Object.keys(event.getContent()));
    alice.client.on(sdk.RoomEvent.Receipt, collect);
    await alice.until('the receipt', () => hers.getEventReadUpTo(bob.id, true) === open.getId());
    alice.client.off(sdk.RoomEvent.Receipt, collect);
    assert.ok(!receipts.includes(secret.getId()));
  });

  test('unread messages are counted until they are read', async () => {
    const unread = () => his.getUnreadNotificationCount(sdk.NotificationCountType.Total);
    const latest = his.getLiveTimeline().getEvents().at(-1);
    await bob.client.sendReadReceipt(latest);
    await bob.until('nothing unread', () => unread() === 0);
    await alice.say(hers, 'one');
    const last = await alice.say(hers, 'two');
    await bob.until('two unread', () => unread() === 2);
    await bob.client.setRoomReadMarkers(roomId, last, await bob.sees(his, last));
    await bob.until('nothing unread', () => unread() === 0);
    await bob.until('the marker', () =>
      his.getAccountData('m.fully_read')?.getContent().event_id === last,
    );
  });

  test('a mention is a highlight', async () => {
    const highlights = () => his.getUnreadNotificationCount(sdk.NotificationCountType.Highlight);
    const { event_id: id } = await alice.client.sendMessage(roomId, {
      msgtype: 'm.text',
      body: 'you there!',
      'm.mentions': { user_ids: [bob.id] },
    });
    await bob.until('a highlight', () => highlights() === 1);
    await bob.client.sendReadReceipt(await bob.sees(his, id));
    await bob.until('no highlight', () => highlights() === 0);
  });

  test('a redacted message loses its text for both', async () => {
    const id = await alice.say(hers, 'I never said that');
    const heard = await bob.sees(his, id);
    await alice.sees(hers, id);
    const gone = bob.until('the redaction', () => heard.isRedacted());
    await alice.client.redactEvent(roomId, id, undefined, { reason: 'regret' });
    await gone;
    assert.equal(heard.getContent().body, undefined);
    const fetched = await bob.client.fetchRoomEvent(roomId, id);
    assert.deepEqual(fetched.content, {});
    assert.equal(fetched.unsigned.redacted_because.content.reason, 'regret');
  });

  test('a new name and topic are seen', async () => {
    const renamed = bob.until('the name', () => his.name === 'By the fire');
    await alice.client.setRoomName(roomId, 'By the fire');
    await renamed;
    const state = () => his.currentState.getStateEvents('m.room.topic', '')?.getContent().topic;
    const seen = bob.until('the topic', () => state() === 'embers');
    await alice.client.setRoomTopic(roomId, 'embers');
    await seen;
    assert.equal((await bob.client.getStateEvent(roomId, 'm.room.topic', '')).topic, 'embers');
    await assert.rejects(bob.client.setRoomName(roomId, 'mine now'), refusedWith('M_FORBIDDEN'));
  });

  test('power is given and then used', async () => {
    const powerful = bob.until('the power', () =>
      his.getMember(bob.id).powerLevel === 50,
    );
    await alice.client.setPowerLevel(roomId, bob.id, 50);
    await powerful;
    const seen = alice.until('the name', () => hers.name === 'Ours');
    await bob.client.setRoomName(roomId, 'Ours');
    await seen;
  });
});

describe('coming and going', () => {
  let alice, bob, roomId, hers, his;
  before(async () => ({ alice, bob, roomId, hers, his } = await twoInARoom()));
  after(() => [alice, bob].forEach((person) => person?.leave()));

  test('an invite shows the name of the room and who sent it', async () => {
    const carol = await Person.arrive('carol');
    await carol.sync();
    await alice.client.invite(roomId, carol.id);
    const room = await carol.inRoom(roomId, 'invite');
    assert.equal(room.name, 'The hearth');
    assert.equal(room.getMember(carol.id).events.member.getSender(), alice.id);
    await carol.client.leave(roomId);
    await carol.inRoom(roomId, 'leave');
    await alice.until('the refusal', () => hers.getMember(carol.id)?.membership === 'leave');
    carol.leave();
  });

  test('a public room is joined by its alias', async () => {
    const localpart = fresh('square');
    const { room_id: square } = await alice.client.createRoom({ preset: 'public_chat', room_alias_name: localpart });
    const alias = `#${localpart}:${alice.client.getDomain()}`;
    assert.equal((await bob.client.getRoomIdForAlias(alias)).room_id, square);
    await bob.client.joinRoom(alias);
    const room = await bob.inRoom(square);
    assert.equal(room.getCanonicalAlias(), alias);
    await alice.until('bob to join', () =>
      alice.client.getRoom(square)?.getMember(bob.id)?.membership === 'join',
    );
  });

  test('who leaves is seen to leave, cannot speak any more, and forgets the room', async () => {
    const left = alice.until('bob to leave', () => hers.getMember(bob.id).membership === 'leave');
    await bob.client.leave(roomId);
    await left;
    await bob.inRoom(roomId, 'leave');
    await assert.rejects(bob.say(his, 'can you hear me?'), refusedWith('M_FORBIDDEN'));
    await bob.client.forget(roomId);
    assert.equal(bob.client.getRoom(roomId), null);
    await assert.rejects(bob.client.roomState(roomId), refusedWith('M_FORBIDDEN'));
    assert.ok(!(await bob.client.getJoinedRooms()).joined_rooms.includes(roomId));
  });

  test('who is not let in stays outside', async () => {
    const { room_id: closed } = await alice.client.createRoom({ preset: 'private_chat' });
    await assert.rejects(bob.client.joinRoom(closed), refusedWith('M_FORBIDDEN'));
    await assert.rejects(bob.say({ roomId: closed }, 'knock, knock'), refusedWith('M_FORBIDDEN'));
  });
});
