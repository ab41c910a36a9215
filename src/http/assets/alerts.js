// What wants somebody to look.

import { explain, get, now } from './api.js';
import { choice, h, name, set } from './dom.js';
import { celsius, count, dateTime, exact, isNumber, none, percent, span } from './format.js';

/** Values change while an alert is open; that it opens or closes is heard at once. */
const REFRESH_MS = 30000;
const SHOWN = 200;

/** What each kind is called, and how its numbers are read. */
const KINDS = {
  efficiency_low: ['Efficiency is low', (n) => percent(n)],
  efficiency_anomaly: ['Efficiency falls behind its own past', (n) => percent(n)],
  battery_temperature: ['Battery is hot', celsius],
  silent: ['Device is silent', span],
  implausible_reading: ['Readings are implausible', number],
};

function number(value) {
  return isNumber(value) ? count(Math.round(value)) : none;
}

export class Alerts {
  title = 'Alerts';
  #timer;
  #state = 'open';
  #asked = 0;

  #stream;

  constructor({ stream }) {
    this.#stream = stream;
    stream.addEventListener('alert', this.#changed);
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
    this.#stream.removeEventListener('alert', this.#changed);
  }

  #changed = () => this.#load();

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
        h('th', { scope: 'col' }, 'Since'), h('th', { scope: 'col', class: 'n' }, 'For'),
        h('th', { scope: 'col', class: 'n' }, 'Value'),
        h('th', { scope: 'col', class: 'n' }, 'Bound'))),
      h('tbody', {}, items.map((alert) => row(alert))))));
  }
}

function row(alert) {
  const opened = Date.parse(alert.openedAt);
  const closed = alert.closedAt ? Date.parse(alert.closedAt) : null;
  const [words, shown] = KINDS[alert.kind] ?? [alert.kind, number];
  const kind = alert.meterId === undefined ? 'vehicle' : 'meter';
  const id = alert.meterId ?? alert.vehicleId ?? '';
  return h('tr', {},
    h('th', { scope: 'row' }, h('span', { class: 'status' },
      h('span', { class: 'sign warning', 'aria-hidden': 'true' }, '▲'), words)),
    h('td', {}, h('a', { href: `#/${kind}s/${encodeURIComponent(id)}` }, name(id))),
    h('td', { class: 'at', title: exact(opened) }, dateTime(opened)),
    h('td', { class: 'n' }, span(((closed ?? now()) - opened) / 1000)),
    h('td', { class: 'n' }, shown(alert.value)),
    h('td', { class: 'n' }, shown(alert.bound)));
}
