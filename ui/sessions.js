// The charging sessions of one device: a timeline with bars, and a list.

import { explain, get, now, pages } from './api.js';
import { h, name, panel, set } from './dom.js';
import { count, dateTime, day, exact, fixed, percent, span, time } from './format.js';

/** A timeline shows at most the newest 5,000 sessions of a window. More bars would merge anyway. */
const PAGES_MAX = 5;
const LISTED = 10;
const REFRESH_MS = 30000;

const other = {
  vehicle: { key: 'meterId', label: 'Meter', href: '#/meters/' },
  meter: { key: 'vehicleId', label: 'Vehicle', href: '#/vehicles/' },
};

export class Sessions {
  #kind;
  #id;
  /** The length of the window, in milliseconds. */
  #length = 0;
  #from = 0;
  #to = 0;
  #sessions = null;
  #more = false;
  /** The energy of the newest sessions, by id. */
  #energy = new Map();
  #asked = 0;
  #timer;

  constructor(kind, id) {
    this.#kind = kind;
    this.#id = id;
    this.number = h('span', { class: 'muted' });
    this.body = h('div', {}, h('p', { class: 'muted empty' }, 'Loading'));
    this.el = panel('Charging sessions', this.number, this.body);
    this.#timer = setInterval(() => document.hidden || this.#load(), REFRESH_MS);
  }

  destroy() {
    this.#asked += 1;
    clearInterval(this.#timer);
  }

  /** Shows the sessions that overlap the last so many milliseconds. Each refresh moves the window to the present. */
  show(length) {
    this.#length = length;
    this.#load();
  }

  async #load() {
    const asked = (this.#asked += 1);
    const to = now();
    const from = to - this.#length;
    const time = (ms) => encodeURIComponent(new Date(ms).toISOString());
    const path = `/v1/sessions?${this.#kind}Id=${encodeURIComponent(this.#id)}&order=-startedAt`
      + `&from=${time(from)}&to=${time(to)}`;
    const found = [];
    let next = null;
    try {
      for await (const page of pages(path, 1000, PAGES_MAX)) {
        if (asked !== this.#asked) return;
        found.push(...page.items);
        next = page.next;
      }
    } catch (error) {
      if (asked === this.#asked && !this.#sessions) set(this.body, h('p', { class: 'muted empty' }, explain(error)));
      return;
    }
    if (asked !== this.#asked) return;
    [this.#from, this.#to] = [from, to];
    this.#more = next !== null;
    this.#sessions = found.map(timed);
    this.#draw();
    // The table appears before the energies, which take longer.
    const charged = await get(`${path}&energy=true&limit=${LISTED}`).catch(() => null);
    if (charged === null || asked !== this.#asked) return;
    this.#energy = new Map(charged.items.map((item) => [item.sessionId, item]));
    this.#draw();
  }

  #draw() {
    const end = (s) => s.end ?? now();
    const inside = this.#sessions;
    set(this.number, this.#more ? `more than ${count(inside.length)} in this period` : `${count(inside.length)} in this period`);
    if (inside.length === 0) {
      set(this.body, h('p', { class: 'muted empty' }, 'No sessions in this period.'));
      return;
    }
    const width = this.#to - this.#from;
    const bars = inside.map((s) => {
      const bar = h('i', { class: s.end === null ? 'open' : '', title: this.#words(s) });
      const from = Math.max(0, (s.start - this.#from) / width);
      const to = Math.min(1, (end(s) - this.#from) / width);
      bar.style.insetInlineStart = `${100 * from}%`;
      bar.style.width = `${Math.max(0.3, 100 * (to - from))}%`;
      return bar;
    });
    const { key, label, href } = other[this.#kind];
    const listed = inside.slice(0, LISTED);
    set(this.body,
      h('div', { class: 'timeline', 'aria-hidden': 'true' }, bars),
      h('div', { class: 'timeline-ends muted small', 'aria-hidden': 'true' },
        h('span', {}, dateTime(this.#from)), h('span', {}, dateTime(this.#to))),
      h('div', { class: 'scroll' }, h('table', {},
        h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'From'), h('th', { scope: 'col' }, 'To'),
          h('th', { scope: 'col' }, label), h('th', { scope: 'col', class: 'n wide' }, 'Duration'),
          h('th', { scope: 'col', class: 'n wide' }, 'AC → DC, kWh'), h('th', { scope: 'col', class: 'n' }, 'Efficiency'))),
        h('tbody', {}, listed.map((s) => h('tr', {},
          h('td', { class: 'at', title: exact(s.start) }, `${day(s.start)}, ${time(s.start)}`),
          h('td', {}, s.end === null ? h('span', { class: 'status' }, h('span', { class: 'sign good', 'aria-hidden': 'true' }, '●'), 'open') : time(s.end)),
          h('td', {}, h('a', { href: href + encodeURIComponent(s[key]) }, name(s[key]))),
          h('td', { class: 'n wide' }, span((end(s) - s.start) / 1000)),
          h('td', { class: 'n wide' }, energyOf(this.#energy.get(s.sessionId))),
          h('td', { class: 'n' }, percent(this.#energy.get(s.sessionId)?.efficiencyRatio))))))),
      inside.length > LISTED && h('p', { class: 'muted small' },
        `The newest ${LISTED} of ${count(inside.length)}${this.#more ? '+' : ''} sessions. `, h('a', { href: '#/sessions' }, 'All sessions')));
  }

  #words(s) {
    const { key } = other[this.#kind];
    return `${time(s.start)} – ${s.end === null ? 'open' : time(s.end)}, ${s[key]}`;
  }
}

/** A session with its times as numbers. */
export const timed = (session) => ({
  ...session, start: Date.parse(session.startedAt), end: session.endedAt ? Date.parse(session.endedAt) : null,
});

/** AC and DC of a session, in kWh. */
export const energyOf = (session) => (session?.totalEnergyConsumedAc === undefined ? ''
  : `${fixed(session.totalEnergyConsumedAc, 2)} → ${fixed(session.totalEnergyDeliveredDc, 2)}`);
