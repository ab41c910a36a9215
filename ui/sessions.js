// The charging sessions of one device: a line of time with their bars, and a list.

import { explain, get, now, pages } from './api.js';
import { h, name, panel, set } from './dom.js';
import { count, dateTime, day, exact, fixed, percent, span, time } from './format.js';

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
  #from = 0;
  #to = 0;
  #sessions = null;
  #more = false;
  #energy = new Map();
  #timer;
  #gone = false;

  constructor(kind, id) {
    this.#kind = kind;
    this.#id = id;
    this.number = h('span', { class: 'muted' });
    this.body = h('div', {}, h('p', { class: 'muted empty' }, 'Loading'));
    this.el = panel('Charging sessions', this.number, this.body);
    this.#timer = setInterval(() => document.hidden || this.#load(), REFRESH_MS);
  }

  destroy() {
    this.#gone = true;
    clearInterval(this.#timer);
  }

  /** Shows those that reach into a window, in milliseconds. */
  show(from, to) {
    [this.#from, this.#to] = [from, to];
    if (this.#sessions) this.#draw();
    else this.#load();
  }

  async #load() {
    const found = [];
    this.#more = false;
    try {
      const path = `/v1/sessions?${this.#kind}Id=${encodeURIComponent(this.#id)}`;
      let next = null;
      for await (const page of pages(path, 1000, PAGES_MAX)) {
        found.push(...page.items);
        next = page.next;
      }
      this.#more = next !== null;
    } catch (error) {
      if (!this.#sessions) set(this.body, h('p', { class: 'muted empty' }, explain(error)));
      return;
    }
    if (this.#gone) return;
    this.#sessions = found.map((s) => ({
      ...s, start: Date.parse(s.startedAt), end: s.endedAt ? Date.parse(s.endedAt) : null,
    })).sort((a, b) => b.start - a.start);
    this.#draw();
  }

  #draw() {
    const end = (s) => s.end ?? now();
    const inside = this.#sessions.filter((s) => s.start < this.#to && end(s) > this.#from);
    set(this.number, `${count(inside.length)} in this period${this.#more ? ', of the first 5,000' : ''}`);
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
    const cells = listed.map(() => [h('td', { class: 'n wide' }), h('td', { class: 'n' })]);
    set(this.body,
      h('div', { class: 'timeline', 'aria-hidden': 'true' }, bars),
      h('div', { class: 'timeline-ends muted small', 'aria-hidden': 'true' },
        h('span', {}, dateTime(this.#from)), h('span', {}, dateTime(this.#to))),
      h('div', { class: 'scroll' }, h('table', {},
        h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'From'), h('th', { scope: 'col' }, 'To'),
          h('th', { scope: 'col' }, label), h('th', { scope: 'col', class: 'n wide' }, 'Duration'),
          h('th', { scope: 'col', class: 'n wide' }, 'AC → DC, kWh'), h('th', { scope: 'col', class: 'n' }, 'Efficiency'))),
        h('tbody', {}, listed.map((s, n) => h('tr', {},
          h('td', { class: 'at', title: exact(s.start) }, `${day(s.start)}, ${time(s.start)}`),
          h('td', {}, s.end === null ? h('span', { class: 'status' }, h('span', { class: 'sign good', 'aria-hidden': 'true' }, '●'), 'open') : time(s.end)),
          h('td', {}, h('a', { href: href + encodeURIComponent(s[key]) }, name(s[key]))),
          h('td', { class: 'n wide' }, span((end(s) - s.start) / 1000)),
          cells[n]))))),
      inside.length > LISTED && h('p', { class: 'muted small' }, `The newest ${LISTED} of ${count(inside.length)} sessions.`));
    listed.forEach((s, n) => this.#fillEnergy(s, cells[n]));
  }

  #words(s) {
    const { key } = other[this.#kind];
    return `${time(s.start)} – ${s.end === null ? 'open' : time(s.end)}, ${s[key]}`;
  }

  /** The energy of a session that has ended changes seldom: it is asked for once. */
  async #fillEnergy(session, [energy, ratio]) {
    const known = session.end === null ? null : this.#energy.get(session.sessionId);
    try {
      const found = known ?? await get(`/v1/sessions/${encodeURIComponent(session.sessionId)}`);
      if (this.#gone) return;
      this.#energy.set(session.sessionId, found);
      set(energy, `${fixed(found.totalEnergyConsumedAc, 2)} → ${fixed(found.totalEnergyDeliveredDc, 2)}`);
      set(ratio, percent(found.efficiencyRatio));
    } catch {
      // The session is shown without it.
    }
  }
}
