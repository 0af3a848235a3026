// A Hearth of a test's own, on SQLite, which the test configures, stops, backs up and starts again.
//
// HEARTH_BINARY names the binary. There is none where the tests run against a server that was there before.

import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

export const binary = process.env.HEARTH_BINARY;

const START_MS = 30_000;

async function freePort() {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  probe.close();
  await once(probe, 'close');
  return port;
}

export class Server {
  #folder;
  #process;
  #port;
  /** What it is to be configured with from its next start on, beside what every test needs: environment variables. */
  settings = {};

  static async create() {
    const server = new Server();
    server.#folder = await mkdtemp(join(tmpdir(), 'hearth-own-'));
    server.#port = await freePort();
    server.url = `http://127.0.0.1:${server.#port}`;
    await server.start();
    return server;
  }

  get #data() {
    return join(this.#folder, 'data');
  }

  get #backup() {
    return join(this.#folder, 'backup');
  }

  get #env() {
    // Settings of whoever runs the tests must not reach this server.
    const own = Object.entries(process.env).filter(([key]) => !key.startsWith('HEARTH_'));
    return {
      ...Object.fromEntries(own),
      HEARTH_SERVER_NAME: 'localhost',
      HEARTH_DATA_DIR: this.#data,
      HEARTH_LISTEN: JSON.stringify([`127.0.0.1:${this.#port}`]),
      HEARTH_REGISTRATION__MODE: 'open',
      HEARTH_RATE_LIMITS__ENABLED: 'false',
      ...this.settings,
    };
  }

  async start() {
    this.#process = spawn(binary, ['serve'], { cwd: this.#folder, env: this.#env, stdio: 'ignore' });
    const deadline = Date.now() + START_MS;
    while (!(await this.#isHealthy())) {
      if (this.#process.exitCode !== null) throw new Error(`the server ended with ${this.#process.exitCode}`);
      if (Date.now() > deadline) throw new Error('the server did not start in time');
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  async #isHealthy() {
    try {
      return (await fetch(`${this.url}/health`)).ok;
    } catch {
      return false;
    }
  }

  async stop() {
    if (this.#process.exitCode !== null) return;
    const ended = once(this.#process, 'exit');
    this.#process.kill('SIGTERM');
    await ended;
  }

  async restart() {
    await this.stop();
    await this.start();
  }

  /** Does what the operator does at the command line, such as `send-notice NAME TEXT`. */
  async admin(...command) {
    await promisify(execFile)(binary, ['admin', ...command], { cwd: this.#folder, env: this.#env });
  }

  /** Copies the data folder while the server is stopped, and starts the server again. */
  async backUp() {
    await this.stop();
    await cp(this.#data, this.#backup, { recursive: true });
    await this.start();
  }

  /** Puts the backup in the place of the data folder, and starts the server again. */
  async restore() {
    await this.stop();
    await rm(this.#data, { recursive: true });
    await cp(this.#backup, this.#data, { recursive: true });
    await this.start();
  }

  async remove() {
    await this.stop();
    await rm(this.#folder, { recursive: true });
  }
}
