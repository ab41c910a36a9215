// The live stream. It is read with fetch, because an EventSource cannot send a key.

import { failure, readAfter, request } from './api.js';

/** The longest silence before the connection counts as lost. The gateway sends comments more often. */
const SILENCE_MS = 20000;
/** The pause after a refusal, because a key will hardly get a missing right within seconds. */
const REFUSED_MS = 60000;
const WAIT_MS = [1000, 2000, 4000, 8000, 15000];

/**
 * Dispatches `changes` (detail: statuses by kind), `alert` (one was opened or closed), `reset` (something was
 * missed: reload) and `state` (`live`, `waiting`, `paused` while the tab is hidden, or `refused` for this key).
 */
export class LiveStream extends EventTarget {
  #last = null;
  #anew = true;
  #failures = 0;
  #abort = null;
  /** A promise that resolves when the hidden tab is shown again. */
  #away = null;
  state = 'waiting';

  /**
   * Closes the connection while the tab is hidden. Over plain HTTP a browser opens only six connections to a
   * gateway, and background tabs would use up all of them. When the tab is shown again, it starts from a fresh
   * snapshot.
   */
  #watch() {
    const looked = () => {
      const away = document.visibilityState === 'hidden';
      if (away) this.#leave();
      else this.#return();
    };
    document.addEventListener('visibilitychange', looked);
    window.addEventListener('pagehide', () => this.#leave());
    window.addEventListener('pageshow', looked);
    looked();
  }

  #leave() {
    this.#away ??= Promise.withResolvers();
    this.#last = null;
    this.cut();
    this.#change('paused');
  }

  #return() {
    if (!this.#away) return;
    this.#away.resolve();
    this.#away = null;
    this.#failures = 0;
    this.#change('waiting');
  }

  async run() {
    this.#watch();
    for (;;) {
      await this.#away?.promise;
      try {
        await this.#once();
        // The stream ended cleanly: reconnect soon, but not in a tight loop.
        await wait(500);
      } catch (error) {
        // It was closed on purpose, so this is not an error.
        if (this.#away) continue;
        if (error.status === 403) {
          this.#change('refused');
          await wait(REFUSED_MS);
          continue;
        }
        const most = WAIT_MS[Math.min(this.#failures, WAIT_MS.length - 1)];
        this.#failures += 1;
        this.#change('waiting');
        await wait(most * (0.5 + Math.random() / 2));
      }
    }
  }

  /** Ends the connection. It is reopened as after any other end. */
  cut() {
    this.#abort?.abort();
  }

  #change(state) {
    if (this.state === state) return;
    this.state = state;
    this.dispatchEvent(new CustomEvent('state', { detail: state }));
  }

  async #once() {
    this.#abort = new AbortController();
    const headers = { Accept: 'text/event-stream' };
    // Without an id to resume from, earlier changes are unknown.
    this.#anew = this.#last === null;
    if (this.#last) headers['Last-Event-ID'] = this.#last;
    const response = await request('/v1/live/stream', { headers, signal: this.#abort.signal });
    if (!response.ok) throw await failure(response);
    const reader = response.body.getReader();
    const decoder = new TextDecoder();
    let rest = '';
    for (;;) {
      const watchdog = setTimeout(() => this.cut(), SILENCE_MS);
      const { done, value } = await reader.read().finally(() => clearTimeout(watchdog));
      if (done || this.#away) return;
      rest += decoder.decode(value, { stream: true });
      const end = rest.lastIndexOf('\n\n');
      if (end < 0) continue;
      this.#read(rest.slice(0, end));
      rest = rest.slice(end + 2);
    }
  }

  #read(texts) {
    const changes = { meter: [], vehicle: [] };
    let changed = false;
    for (const block of texts.split('\n\n')) {
      const event = {};
      for (const line of block.split('\n')) {
        const colon = line.indexOf(': ');
        if (colon > 0) event[line.slice(0, colon)] = line.slice(colon + 2);
      }
      if (event.id) this.#last = event.id;
      if (event.event === 'meter' || event.event === 'vehicle') {
        changes[event.event].push(JSON.parse(event.data));
        changed = true;
      } else if (event.event === 'alert') {
        this.dispatchEvent(new Event('alert'));
      } else if (event.event === 'ready') {
        this.#failures = 0;
        readAfter(JSON.parse(event.data).readAfter);
        this.#change('live');
        if (this.#anew) this.dispatchEvent(new Event('reset'));
      } else if (event.event === 'reset') {
        readAfter(JSON.parse(event.data).readAfter);
        this.dispatchEvent(new Event('reset'));
      }
    }
    if (changed) this.dispatchEvent(new CustomEvent('changes', { detail: changes }));
  }
}

function wait(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
