// One vehicle.

import { DeviceAlerts } from './alerts.js';
import { explain, get, now, pages } from './api.js';
import { Chart, fromZero, hundred, intervalOf, withGaps } from './charts.js';
import { choice, h, name, panel, set, text } from './dom.js';
import { REASONS, bars, costOf, status, windowOf, zone } from './energy.js';
import { celsius, count, exact, isNumber, kwh, none, percent, span } from './format.js';
import { Sessions } from './sessions.js';
import { freshFor } from './store.js';

export const WINDOWS = [['1', '1 h'], ['6', '6 h'], ['24', '24 h'], ['168', '7 days']];
/** 20,000 readings: a week at two per minute. */
export const HISTORY_PAGES = 20;
const REFRESH_MS = 30000;
const DAYS = 30;

export class Vehicle {
  #id;
  #hours = 24;
  #timers = [];
  #stream;
  #asked = 0;
  /** Whether a load has finished, successfully or not. */
  #settled = false;
  #columns = [[], [], []];
  #last = null;
  /** How old its last reading may be before it is stale, in milliseconds. */
  #fresh = 0;
  /** The usual time between its readings, in seconds; null if unknown. */
  #interval = null;

  constructor(context, id) {
    const { stream } = context;
    this.#id = id;
    this.#stream = stream;
    this.title = id;
    this.state = h('span', { class: 'pill' }, 'Loading');
    this.heard = h('span', { class: 'muted' });
    this.note = h('p', { class: 'notice', role: 'status', hidden: true });
    this.figures = Object.fromEntries(['soc', 'temp', 'ratio', 'ac', 'dc', 'lost', 'quality']
      .map((key) => [key, h('dd', {}, none)]));
    this.ratioStatus = h('span', {});
    this.cost = h('dd', { class: 'small' });
    this.alerts = new DeviceAlerts(context, 'vehicle', id);
    this.charge = new Chart({
      label: 'Charge and battery temperature',
      series: [
        { label: 'Charge', colour: 'dc', unit: '%', places: 1, scale: '%', range: hundred },
        { label: 'Battery', colour: 'warm', unit: '°C', places: 1, scale: '°C' },
      ],
    });
    this.energy = new Chart({
      label: 'Energy over time',
      empty: 'No energy in this period.',
      series: [
        { label: 'AC, from the grid', colour: 'ac', unit: 'kWh', places: 2, scale: 'kWh', range: fromZero, bars: { size: 0.38, align: -1 } },
        { label: 'DC, to the battery', colour: 'dc', unit: 'kWh', places: 2, scale: 'kWh', range: fromZero, bars: { size: 0.38, align: 1 } },
      ],
    });
    this.days = new Chart({
      label: `Daily efficiency, last ${DAYS} days`,
      empty: 'No energy from a known meter on these days.',
      series: [{ label: 'Efficiency', colour: 'accent', unit: '%', places: 1, scale: '%', range: ratioRange, dots: true }],
    });
    this.sessions = new Sessions('vehicle', id);
    this.energyPanel = panel('Energy', null, this.energy.el);
    this.daysPanel = panel('Daily efficiency', h('span', { class: 'muted' }, `last ${DAYS} days`), this.days.el);
    this.places = h('p', { class: 'muted small' });
    const f = this.figures;
    this.el = h('div', { class: 'view' },
      h('p', { class: 'crumb' }, h('a', { href: '#/vehicles' }, 'Vehicles')),
      h('div', { class: 'list-head' }, h('h1', { tabindex: -1 }, name(id)), this.state, this.heard,
        choice('Window', WINDOWS, '24', (hours) => {
          this.#hours = Number(hours);
          this.#load();
        })),
      this.note, this.alerts.el,
      h('dl', { class: 'figures wide' },
        box('Charge', f.soc), box('Battery', f.temp), box('AC, from the grid', f.ac, 'ac'), box('DC, to the battery', f.dc, 'dc'),
        h('div', {}, h('dt', {}, 'Efficiency'), f.ratio, h('dd', { class: 'small' }, this.ratioStatus)),
        h('div', {}, h('dt', {}, h('i', { class: 'key lost' }), 'Losses'), f.lost, this.cost),
        box('Coverage', f.quality)),
      this.places,
      h('div', { class: 'columns even' },
        h('div', {}, panel('Charge and temperature', null, this.charge.el), this.energyPanel),
        h('div', {}, this.sessions.el, this.daysPanel)));
    stream.addEventListener('changes', this.#changes);
    stream.addEventListener('reset', this.#missed);
    this.#timers.push(setInterval(() => this.#age(), 1000));
    this.#timers.push(setInterval(() => document.hidden || this.#loadEnergy(), REFRESH_MS));
    this.#load();
    this.#loadDays();
  }

  destroy() {
    this.#asked += 1;
    this.#timers.forEach((timer) => clearInterval(timer));
    this.#stream.removeEventListener('changes', this.#changes);
    this.#stream.removeEventListener('reset', this.#missed);
    for (const part of [this.charge, this.energy, this.days, this.sessions, this.alerts]) part.destroy();
  }

  #window() {
    const to = now();
    return [to - this.#hours * 3600000, to];
  }

  #base() {
    return `${encodeURIComponent(this.#id)}?from=${encodeURIComponent(new Date(this.#window()[0]).toISOString())}`;
  }

  async #load() {
    const asked = (this.#asked += 1);
    const [from, to] = this.#window();
    this.sessions.show(to - from);
    try {
      this.#live(await get(`/v1/live/vehicles/${encodeURIComponent(this.#id)}`));
      this.#loadEnergy();
      const columns = [[], [], []];
      let next = null;
      for await (const page of pages(`/v1/history/vehicle/${this.#base()}`, 1000, HISTORY_PAGES)) {
        if (asked !== this.#asked) return;
        for (const reading of page.items) {
          columns[0].push(Date.parse(reading.timestamp) / 1000);
          columns[1].push(reading.soc);
          columns[2].push(reading.batteryTemp);
        }
        next = page.next;
      }
      this.#columns = columns;
      this.#say(next === null ? null : `The charts show only the first ${count(columns[0].length)} readings of this period.`);
      this.#drawCharge();
    } catch (error) {
      if (asked === this.#asked) this.#fail(error);
    } finally {
      if (asked === this.#asked) this.#settled = true;
    }
  }

  #fail(error) {
    this.#say(explain(error));
    if (this.#last === null) {
      this.el.classList.toggle('unknown', error.status === 404);
      text(this.state, error.status === 404 ? 'Unknown' : 'Not loaded');
    }
    for (const chart of [this.charge, this.energy, this.days]) chart.fail(none);
  }

  #say(what) {
    this.note.hidden = what === null;
    set(this.note, what);
  }

  #drawCharge() {
    const [from, to] = this.#window();
    this.charge.show(withGaps(this.#columns, intervalOf(this.#columns[0], this.#interval)), [from / 1000, to / 1000]);
  }

  async #loadEnergy() {
    const asked = this.#asked;
    const hours = this.#hours;
    try {
      const path = `/v1/analytics/performance/${this.#base()}`;
      const bucket = hours > 48 ? 'day' : 'hour';
      const answer = await get(`${path}&bucket=${bucket}&tz=${encodeURIComponent(zone)}`);
      if (asked !== this.#asked) return;
      this.#showPerformance(answer);
      this.energy.show(bars(answer, 'totalEnergyConsumedAc'), windowOf(answer));
    } catch (error) {
      if (asked === this.#asked) this.#say(explain(error));
    }
  }

  #showPerformance(answer) {
    const { ratio, ac, dc, lost, quality } = this.figures;
    set(ratio, percent(answer.efficiencyRatio));
    const reason = REASONS[answer.efficiencyReason];
    set(this.ratioStatus, status(answer.efficiencyStatus), reason && `: ${reason}`);
    set(ac, kwh(answer.totalEnergyConsumedAc));
    set(dc, kwh(answer.totalEnergyDeliveredDc));
    // Energy that was charged at an unknown meter is not a loss at a known one.
    const gone = Math.max(0, answer.totalEnergyConsumedAc - answer.matchedEnergyDeliveredDc);
    set(lost, isNumber(answer.efficiencyRatio) ? kwh(gone) : none);
    set(this.cost, isNumber(answer.efficiencyRatio) ? costOf(gone, answer.lostCost, answer.currency) : '');
    const { method, meters, sessions } = answer.attribution;
    set(quality, method === 'none' ? none : percent(100 * answer.quality.coverage));
    const words = {
      session: `matched by ${count(sessions)} ${sessions === 1 ? 'session' : 'sessions'}`,
      reading: 'named in its readings', same_id: 'the meter with the same id', mixed: 'matched by sessions and by its readings',
    };
    const { gaps, resets, suspect } = answer.quality;
    const marks = [
      gaps > 0 && `${count(gaps)} ${gaps === 1 ? 'gap' : 'gaps'}`,
      resets > 0 && `${count(resets)} register ${resets === 1 ? 'reset' : 'resets'}`,
      suspect > 0 && `${count(suspect)} suspect ${suspect === 1 ? 'reading' : 'readings'}`,
    ].filter(Boolean);
    set(this.places, meters.length === 0 ? 'No meter is known for this period.' : [
      'Charged at ', meters.slice(0, 8).map((meter, n) => [
        n > 0 && ', ', h('a', { href: `#/meters/${encodeURIComponent(meter)}` }, name(meter))]),
      meters.length > 8 && ` and ${meters.length - 8} more`, `: ${words[method] ?? method}.`],
    marks.length > 0 && ` Data quality: ${marks.join(', ')}.`);
  }

  async #loadDays() {
    const from = new Date(now());
    from.setHours(0, 0, 0, 0);
    from.setDate(from.getDate() - DAYS + 1);
    try {
      const id = encodeURIComponent(this.#id);
      const query = `from=${encodeURIComponent(from.toISOString())}&bucket=day&tz=${encodeURIComponent(zone)}`;
      const answer = await get(`/v1/analytics/performance/${id}?${query}`);
      const some = answer.series.filter((part) => isNumber(part.efficiencyRatio));
      this.days.show([
        // A day's bar is drawn at the middle of the day, even for today.
        some.map((part) => Date.parse(part.start) / 1000 + 43200),
        some.map((part) => part.efficiencyRatio),
      ], [from.getTime() / 1000, from.getTime() / 1000 + DAYS * 86400]);
    } catch {
      // The other parts of the page report the error.
    }
  }

  /** Reloads after something was missed or could not be loaded. */
  #missed = () => this.#settled && this.#load();

  #changes = (event) => {
    const mine = event.detail.vehicle.filter((s) => s.vehicleId === this.#id);
    if (mine.length === 0) return;
    for (const reading of mine) {
      this.#live(reading);
      const at = Date.parse(reading.timestamp) / 1000;
      const [times, soc, temp] = this.#columns;
      if (times.length > 0 && at <= times.at(-1)) continue;
      times.push(at);
      soc.push(reading.soc);
      temp.push(reading.batteryTemp);
    }
    this.#drawCharge();
  };

  #live(reading) {
    this.el.classList.remove('unknown');
    this.#last = Date.parse(reading.timestamp);
    this.#fresh = freshFor(reading);
    this.#interval = reading.intervalSeconds;
    text(this.figures.soc, percent(reading.soc));
    text(this.figures.temp, celsius(reading.batteryTemp));
    this.heard.title = exact(this.#last);
    this.#age();
  }

  #age() {
    if (this.#last === null) return;
    age(this.state, this.heard, this.#last, this.#fresh);
  }
}

/** Shows how long ago a device was last seen. */
export function age(state, heard, last, fresh) {
  const old = now() - last;
  const silent = old > fresh;
  text(state, silent ? 'Silent' : 'Live');
  state.className = silent ? 'pill warning' : 'pill good';
  text(heard, `last seen ${old < 1500 ? 'now' : `${span(old / 1000)} ago`}`);
}

export function box(label, value, mark) {
  return h('div', {}, h('dt', {}, mark && h('i', { class: `key ${mark}` }), label), value);
}

/** The scale of efficiency is 50% to 105%. Lower values extend it. */
function ratioRange(u, least) {
  return [least !== null && least < 50 ? 0 : 50, 105];
}
