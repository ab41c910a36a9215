// A client for Wattgate in plain JavaScript: retries, batches, a session. Node 18 or newer, or a browser.
//
//   WATTGATE_URL=http://127.0.0.1:3000 WATTGATE_KEY=… node integrations/wattgate.mjs
//
// sends an hour of readings and prints the session's energy. `Wattgate` is meant to be copied.

const BATCH = 500;
const WAIT_MS_MIN = 500;
const WAIT_MS_MAX = 60_000;

/** Whether the same request may get another answer later. Proxies have 5xx of their own (520 to 529). */
const isTemporary = (status) => status >= 500 || [408, 425, 429].includes(status);

/** The milliseconds to wait by a Retry-After header (a number or a date). NaN means that it names no future time. */
function retryAfter(value) {
  const text = value?.trim() ?? '';
  const pause = /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - Date.now();
  // 0 would mean a loop without a pause.
  return pause > 0 ? pause : NaN;
}

/** Sends readings until they are accepted, or until another try makes no sense. */
export class Wattgate {
  constructor(url, key, giveUpAfterMs = 300_000) {
    this.url = url;
    this.key = key;
    this.giveUpAfterMs = giveUpAfterMs;
  }

  /** Sends a request, and repeats it after a temporary error or an incomplete answer. That is always safe. */
  async request(path, body, type = 'application/json') {
    const headers = {};
    if (body !== undefined) headers['Content-Type'] = type;
    if (this.key) headers.Authorization = `Bearer ${this.key}`;
    const began = Date.now();
    for (let wait = WAIT_MS_MIN; ; wait = Math.min(2 * wait, WAIT_MS_MAX)) {
      let pause = wait;
      let why;
      try {
        const answer = await fetch(this.url + path, {
          method: body === undefined ? 'GET' : 'POST', body, headers, signal: AbortSignal.timeout(30_000),
        });
        if (answer.ok) return await answer.json();
        const detail = await answer.text().catch(() => '(the answer was cut)');
        if (!isTemporary(answer.status)) throw new Refused(`${path}: ${answer.status} ${detail}`);
        // The gateway knows best when it has room.
        pause = retryAfter(answer.headers.get('retry-after')) || wait;
        why = answer.status;
      } catch (error) {
        if (error instanceof Refused) throw error;
        // A failure of the connection, the name lookup or TLS, a reset, or a truncated answer.
        why = error.cause?.code ?? error.message;
      }
      // Jitter, so that clients that were refused together do not retry together.
      pause *= 1 + Math.random() / 4;
      if (Date.now() - began + pause > this.giveUpAfterMs) throw new Refused(`${path}: given up, the last answer was ${why}`);
      console.error(`${path}: ${why}, again in ${(pause / 1000).toFixed(1)} s`);
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }

  /** Sends readings of meters or vehicles. Returns the refused ones, each with its error. */
  async send(stream, readings, ack = 'durable') {
    const refused = [];
    for (let start = 0; start < readings.length; start += BATCH) {
      const batch = readings.slice(start, start + BATCH);
      const body = batch.map((reading) => `${JSON.stringify(reading)}\n`).join('');
      const answer = await this.request(`/v1/ingestion/${stream}?ack=${ack}`, body, 'application/x-ndjson');
      // Partly accepted. Wrong readings stay wrong, so they are returned and not sent again. A reading with several
      // faults has an error for each.
      const why = new Map();
      for (const error of answer.errors) why.set(error.index, [...why.get(error.index) ?? [], error.message]);
      for (const [index, messages] of why) refused.push([batch[index], messages.join('; ')]);
    }
    return refused;
  }

  startSession(sessionId, vehicleId, meterId, startedAt) {
    return this.request('/v1/sessions', JSON.stringify({ sessionId, vehicleId, meterId, startedAt }));
  }

  async endSession(sessionId, endedAt) {
    const path = `/v1/sessions/${encodeURIComponent(sessionId)}`;
    await this.request(`${path}/end`, JSON.stringify({ endedAt }));
    return this.request(path);
  }
}

class Refused extends Error {}

const isRun = typeof process !== 'undefined' && import.meta.url === `file://${process.argv[1]}`;
if (isRun) {
  const gateway = new Wattgate(process.env.WATTGATE_URL ?? 'http://127.0.0.1:3000', process.env.WATTGATE_KEY);
  const now = Math.floor(Date.now() / 1000) * 1000;
  const at = (minutes) => new Date(now - minutes * 60_000).toISOString();
  const minutes = Array.from({ length: 60 }, (_, n) => 59 - n);
  const session = `javascript-${now}`;
  await gateway.startSession(session, 'javascript-car', 'javascript-meter', at(60));
  const refused = [
    ...await gateway.send('meter', minutes.map((m) => (
      { meterId: 'javascript-meter', kwhConsumedAc: 0.12, voltage: 231, timestamp: at(m) }))),
    ...await gateway.send('vehicle', minutes.map((m) => (
      { vehicleId: 'javascript-car', soc: 81, kwhDeliveredDc: 0.108, batteryTemp: 30.5, timestamp: at(m) })), 'committed'),
  ];
  for (const [reading, why] of refused) console.error(`refused: ${why}:`, reading);
  console.log(JSON.stringify(await gateway.endSession(session, at(0))));
}
