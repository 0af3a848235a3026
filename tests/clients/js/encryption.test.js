// End-to-end encryption through matrix-js-sdk: every message decrypts for whom it should, and for nobody else.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import {
  CryptoEvent,
  DecryptionFailureCode,
  ENCRYPTED,
  EncryptedPerson,
  Flow,
  readsExactly,
  twoInAnEncryptedRoom,
  verifyEachOther,
} from './encrypted.js';
import { fetched, opened, picture, sealed, upload } from './media.js';

/** More than one response to a sync has room for. */
const MANY_KEYS = 110;

describe('an encrypted conversation', () => {
  let alice, bob, roomId, hers, his;
  before(async () => ({ alice, bob, roomId, hers, his } = await twoInAnEncryptedRoom()));
  after(() => [alice, bob].forEach((person) => person?.leave()));

  test('goes both ways, in order, and the server sees none of it', async () => {
    for (const [speaker, room, text, listener] of [
      [alice, hers, 'can anybody hear us?', bob],
      [bob, his, 'nobody but you 🔒', alice],
      [alice, hers, 'then listen', bob],
    ]) {
      const id = await speaker.say(room, text);
      for (const reader of [speaker, listener]) assert.equal(await reader.reads(room, id), text);
      assert.ok(!JSON.stringify(await listener.wire(roomId, id)).includes(text));
    }
  });

  test('has pictures in it, which the server keeps and can not look at', async () => {
    const [bytes, small] = [picture(640, 480), picture(320, 240)];
    const [file, thumbnail] = await Promise.all(
      [bytes, small].map(async (plain) => {
        const { secret, file } = await sealed(plain);
        return { ...file, url: await upload(alice, secret, undefined, 'application/octet-stream') };
      }),
    );
    const info = { mimetype: 'image/png', w: 640, h: 480, thumbnail_file: thumbnail };
    const content = { msgtype: 'm.image', body: 'embers.png', file, info };
    const { event_id: id } = await alice.client.sendMessage(roomId, content);
    assert.equal(await bob.reads(his, id), 'embers.png');
    const received = (await bob.sees(his, id)).getContent();
    for (const [{ url, ...keys }, plain] of [[received.file, bytes], [received.info.thumbnail_file, small]]) {
      const kept = await fetched(bob, url);
      assert.equal(kept.type, 'application/octet-stream');
      assert.ok(!kept.bytes.includes('IHDR'), 'nothing of the picture is to be seen');
      assert.deepEqual(await opened(kept.bytes, keys), plain);
    }
  });

  test('is closed to who is not in the room, whatever of it they get hold of', async () => {
    const eve = await EncryptedPerson.arrive('eve');
    await eve.sync();
    const id = await alice.say(hers, 'a secret');
    assert.equal(await bob.reads(his, id), 'a secret');
    await eve.catchesUp();
    assert.equal(await eve.opens(await alice.wire(roomId, id)), undefined);
    eve.leave();
  });

  test('reaches a device that was away while the key was changed more often than one sync can tell', async () => {
    bob.goesAway();
    const said = [];
    for (let number = 0; number < MANY_KEYS; number += 1) {
      await alice.crypto.forceDiscardSession(roomId);
      const text = `whisper ${number}`;
      said.push({ text, wire: await alice.wire(roomId, await alice.say(hers, text)) });
    }
    assert.equal(new Set(said.map(({ wire }) => wire.content.session_id)).size, MANY_KEYS);
    bob.comesBack();
    await readsExactly(bob, said, []);
  });

  test('begins when a room becomes encrypted that was not', async () => {
    const { room_id: open } = await alice.client.createRoom({ preset: 'private_chat', invite: [bob.id] });
    await bob.inRoom(open, 'invite');
    await bob.client.joinRoom(open);
    const [mine, theirs] = await Promise.all([alice.inRoom(open), bob.inRoom(open)]);
    await alice.until('bob to join', () => mine.getMember(bob.id)?.membership === 'join');
    await bob.sees(theirs, await alice.say(mine, 'for everybody'));
    await alice.client.sendStateEvent(open, ENCRYPTED.type, ENCRYPTED.content, '');
    await Promise.all([
      alice.until('the encryption', () => mine.hasEncryptionStateEvent()),
      bob.until('the encryption', () => theirs.hasEncryptionStateEvent()),
    ]);
    assert.equal(await bob.reads(theirs, await alice.say(mine, 'for us')), 'for us');
    assert.equal(await alice.reads(mine, await bob.say(theirs, 'as it should be')), 'as it should be');
  });
});

describe('while messages flow', () => {
  test('a device that is added reads from then on, and one that is removed no longer', async () => {
    const { alice, bob, hers } = await twoInAnEncryptedRoom();
    const flow = new Flow(alice, hers, () => alice.devicesOf(bob.id));
    await flow.goOn(5);

    const second = await bob.elsewhere();
    await alice.knowsDevice(bob.id, second.device);
    await flow.goOn(10);

    const until = flow.said.length;
    await second.catchesUp();
    await second.client.logout();
    await alice.forgetsDevice(bob.id, second.device);
    await flow.goOn(10);
    await flow.stop();

    await readsExactly(bob, flow.said, []);
    const readable = flow.for(second.device).filter((message) => flow.said.indexOf(message) < until);
    const unreadable = flow.notFor(second.device);
    assert.ok(readable.length >= 5, 'while the device was there, something was said');
    assert.ok(unreadable.some((message) => flow.said.indexOf(message) < until), 'and before');
    assert.ok(unreadable.some((message) => flow.said.indexOf(message) > until), 'and after');
    await readsExactly(second, readable, unreadable);
    [alice, bob, second].forEach((person) => person.leave());
  });

  test('somebody who joins reads from then on, and who leaves no longer', async () => {
    const { alice, bob, roomId, hers } = await twoInAnEncryptedRoom({ preset: 'public_chat' });
    const carol = await EncryptedPerson.arrive('carol');
    await carol.sync();
    const here = () => new Set(hers.getJoinedMembers().map((member) => member.userId));
    const flow = new Flow(alice, hers, here);
    await flow.goOn(5);

    await carol.client.joinRoom(roomId);
    const room = await carol.inRoom(roomId);
    await alice.until('carol to join', () => here().has(carol.id));
    await flow.goOn(10);
    const hello = await carol.say(room, 'hello, all of you');
    assert.equal(await alice.reads(hers, hello), 'hello, all of you');
    assert.equal(await bob.reads(room, hello), 'hello, all of you');

    const until = flow.said.length;
    await carol.client.leave(roomId);
    await alice.until('carol to leave', () => !here().has(carol.id));
    await flow.goOn(10);
    await flow.stop();

    await readsExactly(bob, flow.for(bob.id), []);
    await carol.catchesUp();
    const unreadable = flow.notFor(carol.id);
    assert.ok(flow.for(carol.id).length >= 5, 'while carol was there, something was said');
    assert.ok(unreadable.some((message) => flow.said.indexOf(message) < until), 'and before');
    assert.ok(unreadable.some((message) => flow.said.indexOf(message) > until), 'and after');
    await readsExactly(carol, flow.for(carol.id), unreadable);
    [alice, bob, carol].forEach((person) => person.leave());
  });

  test('all devices of everybody read what each of them says', async () => {
    const { alice, bob, roomId, hers } = await twoInAnEncryptedRoom();
    const [tablet, phone] = await Promise.all([alice.elsewhere(), bob.elsewhere()]);
    const everybody = [alice, tablet, bob, phone];
    for (const one of everybody) {
      await Promise.all(everybody.map((other) => one.knowsDevice(other.id, other.device)));
      await one.inRoom(roomId);
    }
    const ids = await Promise.all(everybody.map((speaker) => speaker.say(hers, `I am ${speaker.device}`)));
    for (const reader of everybody) {
      for (const [index, id] of ids.entries()) {
        assert.equal(await reader.reads(hers, id), `I am ${everybody[index].device}`);
      }
    }
    everybody.forEach((person) => person.leave());
  });
});

describe('recovery', () => {
  let alice, bob, roomId, hers, his;
  let recoveryKey;
  const said = [];

  before(async () => {
    ({ alice, bob, roomId, hers, his } = await twoInAnEncryptedRoom());
    said.push([await alice.say(hers, 'remember this'), 'remember this']);
    said.push([await bob.say(his, 'I will'), 'I will']);
    for (const [id, text] of said) for (const one of [alice, bob]) assert.equal(await one.reads(hers, id), text);
  });
  after(() => [alice, bob].forEach((person) => person?.leave()));

  test('cross-signing keys are made without the password the first time, and replaced with it only', async () => {
    assert.equal(await bob.setUpCrossSigning(), 0);
    await bob.trusts(bob.id, bob.device);
    assert.ok(await bob.crypto.isCrossSigningReady());
    const first = await bob.crypto.getCrossSigningKeyId();
    assert.equal(await bob.setUpCrossSigning({ setupNewCrossSigning: true }), 1);
    assert.notEqual(await bob.crypto.getCrossSigningKeyId(), first);
    await bob.trusts(bob.id, bob.device);
  });

  test('a backup is made of the keys that are there', async () => {
    let left;
    bob.client.on(CryptoEvent.KeyBackupSessionsRemaining, (count) => (left = count));
    recoveryKey = await bob.setUpRecovery();
    await bob.until('the backup', () => left === 0, CryptoEvent.KeyBackupSessionsRemaining);
    const backup = await bob.client.http.authedRequest('GET', '/room_keys/version');
    assert.equal(backup.count, said.length, 'each of the two spoke with a key of their own');
    assert.ok(await bob.crypto.isSecretStorageReady());
  });

  test('a new session reads the old messages with the recovery key, and not without', async () => {
    const device = await bob.elsewhere();
    const room = await device.inRoom(roomId);
    for (const [id] of said) {
      assert.equal(await device.failsToRead(room, id), DecryptionFailureCode.HISTORICAL_MESSAGE_BACKUP_UNCONFIGURED);
    }
    device.enterRecoveryKey(recoveryKey);
    await device.crypto.loadSessionBackupPrivateKeyFromSecretStorage();
    const restored = await device.crypto.restoreKeyBackup();
    assert.deepEqual([restored.imported, restored.total], [said.length, said.length]);
    for (const [id, text] of said) assert.equal(await device.reads(room, id), text);

    // The same secret storage holds the keys with which the new session is signed.
    await device.crypto.userHasCrossSigningKeys();
    assert.equal(await device.setUpCrossSigning(), 0);
    await Promise.all([device.trusts(bob.id, device.device), bob.trusts(bob.id, device.device)]);
    device.leave();
  });

  test('a recovery key of somebody else opens nothing', async () => {
    const device = await bob.elsewhere();
    await alice.setUpCrossSigning();
    device.enterRecoveryKey(await alice.setUpRecovery());
    await assert.rejects(device.crypto.loadSessionBackupPrivateKeyFromSecretStorage());
    const room = await device.inRoom(roomId);
    await device.failsToRead(room, said[0][0]);
    device.leave();
  });
});

describe('a dehydrated device', () => {
  // MSC3814: the server keeps a device for who has no session, and whoever logs in next takes its messages over.
  test('keeps the keys of what is said while nobody is logged in', async () => {
    const { alice, bob, roomId, hers, his } = await twoInAnEncryptedRoom();
    await alice.setUpCrossSigning();
    const recoveryKey = await alice.setUpRecovery();
    assert.ok(await alice.crypto.isDehydrationSupported());
    await alice.crypto.startDehydration();
    await bob.finds('the dehydrated device', async () => (await bob.devicesOf(alice.id)).size === 2);
    await alice.client.logout();
    await bob.forgetsDevice(alice.id, alice.device);
    const id = await bob.say(his, 'while you were away');

    const device = await alice.elsewhere();
    const room = await device.inRoom(roomId);
    await device.failsToRead(room, id);
    device.enterRecoveryKey(recoveryKey);
    await device.crypto.userHasCrossSigningKeys();
    await device.setUpCrossSigning();
    await device.crypto.startDehydration();
    assert.equal(await device.reads(hers, id), 'while you were away');
    [alice, bob, device].forEach((person) => person.leave());
  });
});

describe('two sessions of one user', () => {
  test('verify each other by emoji, and the new one gets the secrets of the old', async () => {
    const alice = await EncryptedPerson.arrive('alice');
    await alice.sync();
    await alice.setUpCrossSigning();
    await alice.setUpRecovery();
    const device = await alice.elsewhere();
    await device.finds('its own identity', () => device.crypto.userHasCrossSigningKeys());
    await alice.knowsDevice(alice.id, device.device);
    assert.ok(!(await alice.crypto.getDeviceVerificationStatus(alice.id, device.device)).crossSigningVerified);

    await verifyEachOther(alice, device);
    await Promise.all([alice.trusts(alice.id, device.device), device.trusts(alice.id, alice.device)]);
    await device.finds('the private keys', async () => {
      const { privateKeysCachedLocally: kept } = await device.crypto.getCrossSigningStatus();
      return kept.masterKey && kept.selfSigningKey && kept.userSigningKey;
    });
    const key = await device.finds('the key of the backup', () => device.crypto.getSessionBackupPrivateKey());
    assert.deepEqual(key, await alice.crypto.getSessionBackupPrivateKey());
    [alice, device].forEach((person) => person.leave());
  });
});

describe('a history that is shared', () => {
  // MSC4268: whoever invites sends the keys of the messages that the room's history visibility opens to new members.
  test('is read by who is invited, and by nobody who only finds the room', async () => {
    const alice = await EncryptedPerson.arrive('alice');
    const [carol, dave] = await Promise.all([EncryptedPerson.arrive('carol'), EncryptedPerson.arrive('dave')]);
    for (const person of [alice, carol, dave]) {
      await person.sync();
      await person.setUpCrossSigning();
      await person.trusts(person.id, person.device);
    }
    const { room_id: roomId } = await alice.client.createRoom({ preset: 'public_chat', initial_state: [ENCRYPTED] });
    const hers = await alice.inRoom(roomId);
    await alice.until('the encryption', () => hers.hasEncryptionStateEvent());
    const id = await alice.say(hers, 'before you came');
    await alice.reads(hers, id);

    await alice.client.invite(roomId, carol.id);
    await carol.inRoom(roomId, 'invite');
    await carol.client.joinRoom(roomId);
    const room = await carol.inRoom(roomId);
    assert.equal(await carol.reads(room, id), 'before you came');

    await dave.client.joinRoom(roomId);
    const outside = await dave.inRoom(roomId);
    await alice.until('dave to join', () => hers.getMember(dave.id)?.membership === 'join');
    assert.equal(await dave.reads(outside, await alice.say(hers, 'now that you are here')), 'now that you are here');
    await dave.failsToRead(outside, id);
    [alice, carol, dave].forEach((person) => person.leave());
  });
});
