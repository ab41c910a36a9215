// The real binary with its embedded PostgreSQL, started for a test.

import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const BINARY = process.env.WATTGATE;
/** The limit of every wait. Anything that takes longer is stuck. */
export const PATIENCE_MS = 60000;

export class Gateway {
  constructor(options = []) {
    this.options = options;
    this.data = mkdtempSync(join(tmpdir(), 'wattgate-browser-'));
    // PostgreSQL's user must be able to enter the directory, even if root runs the tests.
    chmodSync(this.data, 0o755);
    this.listen = '127.0.0.1:0';
  }

  /** Starts it. Waits until it is ready, unless the test runs without a database. */
  async start({ ready = true } = {}) {
    this.child = spawn(BINARY, ['--listen', this.listen, '--data-dir', this.data, '--wal-limit', '64MiB', ...this.options],
      { stdio: ['ignore', 'pipe', 'ignore'], env: { ...process.env, DATABASE_URL: undefined } });
    this.ended = new Promise((resolve) => this.child.once('exit', resolve));
    for await (const line of createInterface({ input: this.child.stdout })) {
      const [, url] = /^listening on (\S+)/.exec(line) ?? [];
      const [, psql] = /^database: (.+)/.exec(line) ?? [];
      if (url) {
        this.url = url;
        // After a restart it listens on the same address.
        this.listen = new URL(url).host;
      }
      // If the database is embedded, a second line follows at once.
      if (psql) this.psql = psql;
      if (psql || (url && this.options.includes('--database-url'))) break;
    }
    this.child.stdout.resume();
    if (ready) await until(async () => (await fetch(`${this.url}/health`)).ok, 'the gateway is ready');
    return this;
  }

  /** Kills it. */
  async kill() {
    this.child.kill('SIGKILL');
    await this.ended;
  }

  async remove() {
    this.child.kill('SIGTERM');
    await this.ended;
    rmSync(this.data, { recursive: true, force: true });
  }

  /** Creates a key with these rights. */
  key(rights) {
    const args = ['keys', 'create', '--name', `test-${rights}`, '--rights', rights, '--data-dir', this.data];
    const printed = execFileSync(BINARY, args, { env: { ...process.env, DATABASE_URL: undefined }, encoding: 'utf8' });
    return printed.trim().split(/\s+/).at(-1);
  }

  async call(method, path, body, key) {
    const response = await fetch(this.url + path, {
      method, body: body && JSON.stringify(body),
      headers: { 'content-type': 'application/json', ...(key && { authorization: `Bearer ${key}` }) },
    });
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    return response.json();
  }

  /** Runs SQL in the embedded database. */
  sql(text) {
    return execFileSync('sh', ['-c', `${this.psql} -d wattgate -XAtq -v ON_ERROR_STOP=1 -f -`], { input: text, encoding: 'utf8' });
  }

  /** Stores readings; they are in PostgreSQL when this returns. */
  store(kind, readings, key) {
    return this.call('POST', `/v1/ingestion/${kind}?ack=committed`, readings, key);
  }
}

/** Waits for a condition. */
export async function until(condition, what) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    try {
      if (await condition()) return;
    } catch {
      // Not yet.
    }
    if (Date.now() > deadline) throw new Error(`it never came that ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const at = (minutesAgo) => new Date(Date.now() - minutesAgo * 60000).toISOString();

export const vehicle = (vehicleId, soc, minutesAgo = 0, kwhDeliveredDc = 0.1) =>
  ({ vehicleId, soc, kwhDeliveredDc, batteryTemp: 24.5, timestamp: at(minutesAgo) });

export const meter = (meterId, voltage, minutesAgo = 0, kwhConsumedAc = 0.12) =>
  ({ meterId, voltage, kwhConsumedAc, timestamp: at(minutesAgo) });
