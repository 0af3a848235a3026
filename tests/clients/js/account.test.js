// Accounts through matrix-js-sdk: registration, login, what an account keeps, logout.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { Person, client, fresh, refusedWith, register, sdk, twoInARoom } from './person.js';

describe('an account', () => {
  test('is registered through user-interactive authentication', async () => {
    const username = fresh('newcomer');
    assert.equal(await client().isUsernameAvailable(username), true);
    const session = await register(username);
    assert.equal(session.user_id.split(':')[0], `@${username}`);
    assert.ok(session.access_token && session.device_id, 'registration logs in as well');
    assert.equal(await client().isUsernameAvailable(username), false);
    await assert.rejects(register(username), refusedWith('M_USER_IN_USE'));
  });

  test('is logged in to with its password only', async () => {
    const username = fresh('member');
    await register(username, 'open sesame please');
    const { flows } = await client().loginFlows();
    assert.ok(flows.some((flow) => flow.type === 'm.login.password'));
    const member = await Person.logIn(username, 'open sesame please');
    const me = await member.client.whoami();
    assert.deepEqual([me.user_id, me.device_id], [member.id, member.device]);
    await assert.rejects(Person.logIn(username, 'open barley'), refusedWith('M_FORBIDDEN'));
  });

  test('renews its access with a refresh token', async () => {
    const username = fresh('member');
    const { user_id: userId } = await register(username, 'open sesame please');
    const session = await client().loginRequest({
      type: 'm.login.password',
      identifier: { type: 'm.id.user', user: username },
      password: 'open sesame please',
      refresh_token: true,
    });
    const renewed = await client().refreshToken(session.refresh_token);
    assert.notEqual(renewed.access_token, session.access_token);
    const me = await client({ accessToken: renewed.access_token, userId }).whoami();
    assert.equal(me.user_id, userId);
  });

  test('lists its devices and names them', async () => {
    const member = await Person.arrive('member');
    await member.client.setDeviceDetails(member.device, { display_name: 'by the window' });
    const { devices } = await member.client.getDevices();
    assert.equal(devices.length, 2, 'one from registration and one from the login');
    assert.equal(devices.find((device) => device.device_id === member.device).display_name, 'by the window');
  });

  test('loses one session at logout and keeps the others', async () => {
    const username = fresh('member');
    await register(username);
    const [here, there] = [await Person.logIn(username), await Person.logIn(username)];
    const token = here.client.getAccessToken();
    await here.client.logout();
    await assert.rejects(client({ accessToken: token, userId: here.id }).whoami(), refusedWith('M_UNKNOWN_TOKEN'));
    assert.equal((await there.client.whoami()).device_id, there.device);
  });

  test('learns from its sync loop that it was logged out elsewhere', async () => {
    const username = fresh('member');
    await register(username);
    const [here, there] = [await Person.logIn(username), await Person.logIn(username)];
    await here.sync();
    let loggedOut = null;
    here.client.on(sdk.HttpApiEvent.SessionLoggedOut, (error) => (loggedOut = error));
    await there.client.http.authedRequest('POST', '/logout/all');
    const error = await here.until('the logout', () => loggedOut, sdk.HttpApiEvent.SessionLoggedOut);
    assert.equal(error.errcode, 'M_UNKNOWN_TOKEN');
    here.leave();
  });
});

describe('what an account keeps', () => {
  let alice, bob, roomId, hers, his;
  before(async () => ({ alice, bob, roomId, hers, his } = await twoInARoom()));
  after(() => [alice, bob].forEach((person) => person?.leave()));

  test('account data reaches its other devices', async () => {
    const elsewhere = await Person.logIn(alice.name);
    await elsewhere.sync();
    const seen = elsewhere.until('the account data', () =>
      elsewhere.client.getAccountData('org.example.lamp'),
    );
    await alice.client.setAccountData('org.example.lamp', { lit: true });
    assert.deepEqual((await seen).getContent(), { lit: true });
    elsewhere.leave();
    const unsynced = await Person.logIn(alice.name);
    assert.deepEqual(await unsynced.client.getAccountDataFromServer('org.example.lamp'), { lit: true });
    assert.equal(await unsynced.client.getAccountDataFromServer('org.example.nothing'), null);
  });

  test('tags and account data of a room come down its sync', async () => {
    const tagged = alice.until('the tag', () => hers.tags['m.favourite']);
    await alice.client.setRoomTag(roomId, 'm.favourite', { order: 0.5 });
    assert.deepEqual(await tagged, { order: 0.5 });

    const kept = alice.until('the data', () => hers.getAccountData('org.example.seat'));
    await alice.client.setRoomAccountData(roomId, 'org.example.seat', { by: 'the fire' });
    assert.deepEqual((await kept).getContent(), { by: 'the fire' });
  });

  test('a display name is seen by the others in the room', async () => {
    const seen = bob.until('the new name', () =>
      his.getMember(alice.id)?.name === 'Alice of the hearth',
    );
    await alice.client.setDisplayName('Alice of the hearth');
    await seen;
    assert.equal((await bob.client.getProfileInfo(alice.id)).displayname, 'Alice of the hearth');
  });

  test('an avatar is seen by the others in the room', async () => {
    const avatar = 'mxc://localhost/portrait';
    const seen = bob.until('the avatar', () =>
      his.getMember(alice.id)?.getMxcAvatarUrl() === avatar,
    );
    await alice.client.setAvatarUrl(avatar);
    await seen;
    assert.equal((await bob.client.getProfileInfo(alice.id, 'avatar_url')).avatar_url, avatar);
  });

  test('presence with a status message is seen by those who share a room', async () => {
    const seen = bob.until('the presence', () =>
      bob.client.getUser(alice.id)?.presenceStatusMsg === 'fetching wood',
    );
    await alice.client.setPresence({ presence: 'unavailable', status_msg: 'fetching wood' });
    await seen;
  });

  test('an ignored user is not heard any more', async () => {
    const nuisance = await Person.arrive('nuisance');
    await alice.client.invite(roomId, nuisance.id);
    await nuisance.client.joinRoom(roomId);
    const before = await nuisance.say({ roomId }, 'before');
    await bob.sees(his, before);

    const ignored = bob.until('the list', () => bob.client.isUserIgnored(nuisance.id));
    await bob.client.setIgnoredUsers([nuisance.id]);
    await ignored;
    const unheard = await nuisance.say({ roomId }, 'still there?');
    await alice.sees(hers, unheard);
    await bob.sees(his, await alice.say(hers, 'after'));
    assert.equal(his.findEventById(unheard), undefined, 'what comes after the ignored message is there, it is not');
  });
});
