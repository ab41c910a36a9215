// One meter.

import { DeviceAlerts } from './alerts.js';
import { explain, get, now, pages } from './api.js';
import { Chart, fromZero, gapOf, intervalOf, withGaps } from './charts.js';
import { choice, h, name, panel, set, text } from './dom.js';
import { count, exact, fixed, isNumber, kwh, none } from './format.js';
import { Sessions } from './sessions.js';
import { freshFor } from './store.js';
import { HISTORY_PAGES, WINDOWS, age, box } from './vehicle.js';

/**
 * The average power up to a reading, in kW. Null if unknown: after a gap in a register, or if a register fell. An
 * interval reading after a gap counts as one usual interval of the device. For display only: the gateway decides
 * what counts.
 */
export function power(before, reading, interval) {
  const since = before ? reading.at - before.at : Infinity;
  const known = since > 0 && since <= gapOf(interval);
  if (reading.kind === 'interval') {
    const seconds = known ? since : interval;
    return seconds ? (reading.kwh * 3600) / seconds : null;
  }
  // A register of 0 is a placeholder or a real start.
  if (!known || before.kind !== 'register' || before.kwh <= 0 || reading.kwh < before.kwh) return null;
  return ((reading.kwh - before.kwh) * 3600) / since;
}

export class Meter {
  #id;
  #hours = 24;
  #timer;
  #stream;
  #asked = 0;
  /** Whether a load has finished, successfully or not. */
  #settled = false;
  #readings = [];
  #last = null;
  /** How old its last reading may be before it is stale, in milliseconds. */
  #fresh = 0;
  /** The usual time between its readings, in seconds; null if unknown. */
  #interval = null;

  constructor(context, id) {
    const { stream } = context;
    this.#id = id;
    this.#stream = stream;
    this.alerts = new DeviceAlerts(context, 'meter', id);
    this.title = id;
    this.state = h('span', { class: 'pill' }, 'Loading');
    this.heard = h('span', { class: 'muted' });
    this.note = h('p', { class: 'notice', role: 'status', hidden: true });
    this.figures = Object.fromEntries(['power', 'voltage', 'energy', 'kind']
      .map((key) => [key, h('dd', {}, none)]));
    this.draw = new Chart({
      label: 'Power',
      series: [{ label: 'Power', colour: 'ac', unit: 'kW', places: 2, scale: 'kW', range: fromZero, step: true }],
    });
    this.voltage = new Chart({
      label: 'Voltage',
      series: [{ label: 'Voltage', colour: 'accent', unit: 'V', places: 1, scale: 'V' }],
    });
    this.sessions = new Sessions('meter', id);
    const f = this.figures;
    this.el = h('div', { class: 'view' },
      h('p', { class: 'crumb' }, h('a', { href: '#/meters' }, 'Meters')),
      h('div', { class: 'list-head' }, h('h1', { tabindex: -1 }, name(id)), this.state, this.heard,
        choice('Window', WINDOWS, '24', (hours) => {
          this.#hours = Number(hours);
          this.#load();
        })),
      this.note, this.alerts.el,
      h('dl', { class: 'figures wide' }, box('Power', f.power, 'ac'), box('Voltage', f.voltage),
        box('Last reading', f.energy), box('Energy kind', f.kind)),
      h('div', { class: 'columns even' },
        h('div', {}, panel('Power', null, this.draw.el), panel('Voltage', null, this.voltage.el)),
        h('div', {}, this.sessions.el)));
    stream.addEventListener('changes', this.#changes);
    stream.addEventListener('reset', this.#missed);
    this.#timer = setInterval(() => this.#last && age(this.state, this.heard, this.#last, this.#fresh), 1000);
    this.#load();
  }

  destroy() {
    this.#asked += 1;
    clearInterval(this.#timer);
    this.#stream.removeEventListener('changes', this.#changes);
    this.#stream.removeEventListener('reset', this.#missed);
    for (const part of [this.draw, this.voltage, this.sessions, this.alerts]) part.destroy();
  }

  #window() {
    const to = now();
    return [to - this.#hours * 3600000, to];
  }

  async #load() {
    const asked = (this.#asked += 1);
    const [from, to] = this.#window();
    this.sessions.show(to - from);
    const id = encodeURIComponent(this.#id);
    try {
      this.#live(await get(`/v1/live/meters/${id}`));
      this.#readings = [];
      let next = null;
      const path = `/v1/history/meter/${id}?from=${encodeURIComponent(new Date(from).toISOString())}`;
      for await (const page of pages(path, 1000, HISTORY_PAGES)) {
        if (asked !== this.#asked) return;
        for (const reading of page.items) this.#add(reading);
        next = page.next;
      }
      this.#say(next === null ? null : `The charts show only the first ${count(this.#readings.length)} readings of this period.`);
      this.#show();
    } catch (error) {
      if (asked !== this.#asked) return;
      this.#say(explain(error));
      if (this.#last === null) {
        this.el.classList.toggle('unknown', error.status === 404);
        text(this.state, error.status === 404 ? 'Unknown' : 'Not loaded');
      }
      for (const chart of [this.draw, this.voltage]) chart.fail(none);
    } finally {
      if (asked === this.#asked) this.#settled = true;
    }
  }

  #say(what) {
    this.note.hidden = what === null;
    set(this.note, what);
  }

  #add(status) {
    const reading = {
      at: Date.parse(status.timestamp) / 1000, kwh: status.kwhConsumedAc, kind: status.energyKind, volts: status.voltage,
    };
    const before = this.#readings.at(-1);
    if (before && reading.at <= before.at) return;
    this.#readings.push(reading);
  }

  #show() {
    const [from, to] = this.#window();
    const window = [from / 1000, to / 1000];
    const readings = this.#readings;
    const at = readings.map((reading) => reading.at);
    const interval = intervalOf(at, this.#interval);
    const kw = readings.map((reading, n) => power(readings[n - 1], reading, interval));
    const [times, powers, volts] = withGaps([at, kw, readings.map((reading) => reading.volts)], interval);
    this.draw.show([times, powers], window);
    this.voltage.show([times, volts], window);
  }

  /** Reloads after something was missed or could not be loaded. */
  #missed = () => this.#settled && this.#load();

  #changes = (event) => {
    const mine = event.detail.meter.filter((s) => s.meterId === this.#id);
    if (mine.length === 0) return;
    for (const status of mine) {
      this.#live(status);
      this.#add(status);
    }
    this.#show();
  };

  #live(status) {
    this.el.classList.remove('unknown');
    this.#last = Date.parse(status.timestamp);
    this.#fresh = freshFor(status);
    this.#interval = status.intervalSeconds;
    text(this.figures.power, isNumber(status.powerKw) ? `${fixed(status.powerKw, 2)} kW` : none);
    text(this.figures.voltage, `${fixed(status.voltage, 1)} V`);
    text(this.figures.energy, kwh(status.kwhConsumedAc));
    text(this.figures.kind, status.energyKind === 'register' ? 'register (running total)' : 'interval');
    this.heard.title = exact(this.#last);
    age(this.state, this.heard, this.#last, this.#fresh);
  }
}
