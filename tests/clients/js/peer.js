// Somebody with an encrypting client whom another program drives, to talk with clients of other kinds: each line that
// it reads asks for something, {"do": "say", "room": …}, and one line answers it, {"id": …} or {"error": …}.

import { createInterface } from 'node:readline';

import { EncryptedPerson } from './encrypted.js';

let person;

const acts = {
  async arrive({ name }) {
    person = await EncryptedPerson.arrive(name);
    await person.sync();
    return { id: person.id, device: person.device };
  },

  async join({ room }) {
    await person.inRoom(room, 'invite');
    await person.client.joinRoom(room);
    await person.inRoom(room);
    await person.until('the encryption', () => person.client.getRoom(room).hasEncryptionStateEvent());
    return {};
  },

  async meet({ user, device }) {
    await person.knowsDevice(user, device);
    return {};
  },

  async say({ room, text }) {
    return { id: await person.say({ roomId: room }, text) };
  },

  async read({ room, event }) {
    return { text: await person.reads({ roomId: room }, event) };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { do: act, ...details } = JSON.parse(line);
  const answer = await acts[act](details).catch((error) => ({ error: String(error.stack ?? error) }));
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
