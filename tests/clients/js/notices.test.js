// A notice of the server's through matrix-js-sdk: its sender and its room wear the operator's picture.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { binary, Server } from './server.js';

describe('a server notice', { skip: !binary && 'this needs a server of its own' }, () => {
  let server, Person, media, bytes, avatar;

  before(async () => {
    server = await Server.create();
    process.env.HEARTH_URL = server.url;
    // Only now is there a homeserver to read the address of.
    ({ Person } = await import('./person.js'));
    media = await import('./media.js');
    const operator = await Person.arrive('operator');
    bytes = media.picture(300, 300);
    avatar = await media.upload(operator, bytes, 'hearth.png');
    server.settings.HEARTH_SERVER_NOTICES__LOCALPART = 'notices';
    server.settings.HEARTH_SERVER_NOTICES__AVATAR_URL = avatar;
    await server.restart();
  });
  after(() => server?.remove());

  test('comes from somebody with a picture, in a room with a picture', async () => {
    const member = await Person.arrive('member');
    await member.sync();
    await server.admin('send-notice', member.name, 'the hearth is lit');
    const invited = await member.until('the invitation', () =>
      member.client.getRooms().find((room) => room.getMyMembership() === 'invite'),
    );
    assert.equal(invited.getMxcAvatarUrl(), avatar, 'whoever is invited sees it already');
    await member.client.joinRoom(invited.roomId);
    const room = await member.inRoom(invited.roomId);
    const isNotice = (event) => event.getContent().msgtype === 'm.server_notice';
    const notice = await member.until('the notice', () => room.getLiveTimeline().getEvents().find(isNotice));
    assert.equal(notice.getContent().body, 'the hearth is lit');
    const sender = room.getMember(notice.getSender());
    for (const mxc of [room.getMxcAvatarUrl(), sender.getMxcAvatarUrl()]) {
      assert.equal(mxc, avatar);
      assert.deepEqual((await media.fetched(member, mxc)).bytes, bytes);
      const { bytes: small } = await media.fetched(member, mxc, { size: [96, 96, 'crop'] });
      assert.deepEqual(media.sizeOf(small), [96, 96]);
    }
    member.leave();
  });
});
