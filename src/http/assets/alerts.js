// What wants somebody to look.

import { explain, get } from './api.js';
import { choice, h, name, set } from './dom.js';
import { count, dateTime, exact, isNumber, span } from './format.js';

const REFRESH_MS = 10000;
const SHOWN = 200;

const WORDS = {
  efficiency_low: 'Efficiency is low',
  efficiency_falling: 'Efficiency falls against its own past',
  battery_hot: 'Battery is hot',
  battery_temperature: 'Battery is hot',
  device_silent: 'Device is silent',
  silent: 'Device is silent',
  implausible_reading: 'Implausible reading',
};

export class Alerts {
  title = 'Alerts';
  #timer;
  #state = 'open';
  #asked = 0;

  constructor() {
    this.number = h('p', { class: 'muted', role: 'status' }, 'Loading');
    this.body = h('div', {});
    this.el = h('div', { class: 'view' },
      h('div', { class: 'list-head' }, h('h1', { tabindex: -1 }, 'Alerts'), this.number,
        choice('State', [['open', 'Open'], ['closed', 'Closed']], 'open', (state) => {
          this.#state = state;
          this.#load();
        })),
      h('section', { class: 'panel', 'aria-label': 'Alerts' }, this.body));
    this.#timer = setInterval(() => document.hidden || this.#load(), REFRESH_MS);
    this.#load();
  }

  destroy() {
    this.#asked += 1;
    clearInterval(this.#timer);
  }

  async #load() {
    const asked = (this.#asked += 1);
    try {
      const answer = await get(`/v1/alerts?state=${this.#state}&limit=${SHOWN}`);
      if (asked !== this.#asked) return;
      this.#show(answer.items, answer.next !== null && answer.next !== undefined);
    } catch (error) {
      if (asked === this.#asked) set(this.number, explain(error));
    }
  }

  #show(items, more) {
    set(this.number, `${count(items.length)}${more ? ' and more' : ''} ${this.#state}`);
    if (items.length === 0) {
      set(this.body, h('p', { class: 'muted empty' },
        this.#state === 'open' ? 'Nothing wants to be looked at.' : 'None has closed yet.'));
      return;
    }
    // A link that has the focus must not be replaced under it.
    if (this.body.contains(document.activeElement)) return;
    set(this.body, h('div', { class: 'scroll' }, h('table', {},
      h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'What'), h('th', { scope: 'col' }, 'Device'),
        h('th', { scope: 'col' }, 'Since'), h('th', { scope: 'col', class: 'n' }, 'Value'),
        h('th', { scope: 'col', class: 'n' }, 'Bound'))),
      h('tbody', {}, items.map((alert) => row(alert))))));
  }
}

function row(alert) {
  const opened = Date.parse(alert.openedAt);
  const closed = alert.closedAt ? Date.parse(alert.closedAt) : null;
  const kind = alert.meterId !== undefined && alert.meterId !== null ? 'meter' : 'vehicle';
  const id = alert.meterId ?? alert.vehicleId ?? alert.deviceId ?? '';
  const value = (n) => (isNumber(n) ? String(Math.round(n * 100) / 100) : '');
  return h('tr', {},
    h('th', { scope: 'row' }, h('span', { class: 'status' },
      h('span', { class: `sign ${alert.severity === 'critical' ? 'critical' : 'warning'}`, 'aria-hidden': 'true' },
        alert.severity === 'critical' ? '◆' : '▲'),
      alert.title ?? WORDS[alert.kind] ?? alert.kind),
    alert.detail && h('div', { class: 'muted small' }, alert.detail)),
    h('td', {}, h('a', { href: `#/${kind}s/${encodeURIComponent(id)}` }, name(id))),
    h('td', { title: exact(opened) }, dateTime(opened),
      h('div', { class: 'muted small' }, closed ? `for ${span((closed - opened) / 1000)}` : '')),
    h('td', { class: 'n' }, value(alert.value)),
    h('td', { class: 'n' }, value(alert.bound)));
}
