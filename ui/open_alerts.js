// The open alerts, loaded once for everything on the page that shows them.

import { get } from './api.js';

/** How often to reload. Values change while an alert is open. The stream reports opened and closed alerts at once. */
const REFRESH_MS = 30000;
/** The most severe come first, and nobody reads more than these beside other figures. */
const SHOWN = 100;

/** Dispatches `change` after each load that succeeded, and `failure` (detail: the error) after another. */
export class OpenAlerts extends EventTarget {
  /** Null until they were loaded. */
  items = null;
  /** Whether more are open than `items` holds. */
  more = false;
  #loading = null;
  #again = false;

  constructor(stream) {
    super();
    stream.addEventListener('alert', this.load);
    stream.addEventListener('reset', this.load);
    setInterval(() => document.hidden || this.load(), REFRESH_MS);
  }

  /** Loads them. However many events come while a request is under way, one more follows it. */
  load = () => {
    this.#again = this.#loading !== null;
    this.#loading ??= this.#run().finally(() => {
      this.#loading = null;
    });
    return this.#loading;
  };

  async #run() {
    do {
      this.#again = false;
      try {
        const { items, next } = await get(`/v1/alerts?state=open&order=-severity&limit=${SHOWN}`);
        this.items = items;
        this.more = next !== null;
        this.dispatchEvent(new Event('change'));
      } catch (error) {
        this.dispatchEvent(new CustomEvent('failure', { detail: error }));
      }
    } while (this.#again);
  }
}
