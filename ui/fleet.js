// The fleet at a glance.

import { AttentionPanel } from './alerts.js';
import { explain, now, pages, request } from './api.js';
import { Spark } from './charts.js';
import { h, name, panel, set, text } from './dom.js';
import { Energy } from './energy.js';
import { bytes, count, kilowatts, none, percent, rate, span } from './format.js';
import { CHARGING_KW, isStale, powerOf, powerOfAll, tally } from './store.js';

const SCRAPE_MS = 5000;
/** Ten minutes of scrapes. */
const POINTS = 120;
/** A line with fewer points than this is aligned right, where it will continue. */
const POINTS_MIN = 24;
const SESSIONS_MS = 30000;
const SESSIONS_SHOWN = 12;
/** 10,000 open sessions. If there are more, the numbers get a "+". */
const SESSIONS_PAGES = 10;
/** Infrequent readings get the rate of the last minute, because over five seconds it jumps between 0 and 1. */
const RATE_SCRAPES = 12;

/** Sums the samples of Prometheus text by metric, ignoring labels. */
export function sums(metrics) {
  const found = new Map();
  for (const line of metrics.split('\n')) {
    if (line === '' || line[0] === '#') continue;
    const end = line.search(/[{ ]/);
    const value = Number(line.slice(line.lastIndexOf(' ') + 1));
    const metric = line.slice(0, end);
    if (Number.isFinite(value)) found.set(metric, (found.get(metric) ?? 0) + value);
  }
  return found;
}

/** The rates of the last minutes. They are kept while other views are open. */
const history = { accepted: [], stored: [], power: [], last: null };
/** Ten minutes of seconds. */
const POWER_POINTS = 600;

export class Fleet {
  title = 'Fleet';
  #timers = [];
  #store;
  #sessions = null;
  #more = false;
  #dirty = false;

  constructor(context) {
    const { store } = context;
    this.#store = store;
    this.energy = new Energy();
    this.alerts = new AttentionPanel(context);
    this.#tiles();
    this.charging = h('div', {}, h('p', { class: 'muted empty' }, 'Loading'));
    this.chargingCount = h('span', { class: 'muted' });
    this.empty = emptyFleet();
    this.el = h('div', { class: 'view' },
      h('h1', { class: 'sr', tabindex: -1 }, 'Fleet'),
      this.empty,
      h('div', { class: 'tiles' }, this.tiles),
      h('div', { class: 'columns' },
        h('div', {}, this.energy.summary, this.energy.ranking),
        h('div', {}, this.alerts.el, panel('Charging now', this.chargingCount, this.charging), this.energy.spread)),
      // The gateway's own figures come last, because charger operators rarely need them.
      h('div', { class: 'tiles plumbing' }, this.plumbing));
    store.load('vehicle').catch(() => {});
    store.load('meter').catch(() => {});
    store.addEventListener('change', this.#changed);
    this.#every(SCRAPE_MS, () => this.#scrape());
    this.#every(SESSIONS_MS, () => this.#loadSessions());
    this.#every(1000, () => this.#showDevices());
    // The first rate appears after one second instead of five.
    this.#timers.push(setTimeout(() => this.#scrape(), 1100));
  }

  destroy() {
    this.#timers.forEach((timer) => clearInterval(timer));
    this.#store.removeEventListener('change', this.#changed);
    this.energy.destroy();
    this.alerts.destroy();
  }

  #every(ms, run) {
    run();
    this.#timers.push(setInterval(() => document.hidden || run(), ms));
  }

  #changed = () => {
    this.#dirty = true;
  };

  #tiles() {
    this.accepted = h('strong', {}, none);
    this.stored = h('span', {}, none);
    this.spark = new Spark(['accent', 'dc']);
    this.lag = h('strong', {}, none);
    this.waits = h('span', {}, none);
    this.fill = h('i', {});
    this.fillText = h('span', { class: 'muted' }, none);
    this.counts = { vehicle: h('strong', {}, none), meter: h('strong', {}, none) };
    this.stale = { vehicle: h('span', {}, none), meter: h('span', {}, none) };
    this.shares = { vehicle: h('i', {}), meter: h('i', {}) };
    const devices = (kind, label) => tile(label,
      h('a', { href: `#/${kind}s` }, this.counts[kind], h('span', { class: 'unit' }, ' live')),
      h('div', { class: 'bar', 'aria-hidden': 'true' }, this.shares[kind]),
      this.stale[kind]);
    this.power = h('strong', {}, none);
    this.powerOf = h('span', {}, none);
    this.powerLine = new Spark(['ac']);
    this.cars = h('strong', {}, none);
    this.idle = h('span', {}, none);
    this.carsShare = h('i', { class: 'dc' });
    this.tiles = [
      tile('Power now', this.power, this.powerLine.el, this.powerOf),
      tile('Charging', [this.cars, h('span', { class: 'unit' }, ' vehicles')],
        h('div', { class: 'bar', 'aria-hidden': 'true' }, this.carsShare), this.idle),
      devices('vehicle', 'Vehicles'), devices('meter', 'Meters'),
    ];
    this.plumbing = [
      tile('Readings accepted', [this.accepted, h('span', { class: 'unit' }, ' /s')], this.spark.el,
        h('span', {}, h('i', { class: 'key dc' }), this.stored, ' /s stored')),
      tile('Write lag', this.lag,
        h('div', { class: 'bar', 'aria-hidden': 'true' }, this.fill),
        h('span', {}, this.waits, ' · ', this.fillText)),
    ];
  }

  async #scrape() {
    try {
      const response = await request('/metrics');
      if (response.ok) this.#showMetrics(sums(await response.text()));
    } catch {
      // The health indicator already shows that the gateway is unreachable.
    }
  }

  #showMetrics(found) {
    const at = performance.now();
    const accepted = found.get('wattgate_readings_accepted_total') ?? 0;
    const stored = (found.get('wattgate_readings_stored_total') ?? 0)
      + (found.get('wattgate_readings_duplicate_total') ?? 0);
    const last = history.last;
    // If counters fell, the gateway was restarted.
    if (last && at - last.at > 500 && accepted >= last.accepted && stored >= last.stored) {
      const seconds = (at - last.at) / 1000;
      history.accepted.push((accepted - last.accepted) / seconds);
      history.stored.push((stored - last.stored) / seconds);
      for (const column of [history.accepted, history.stored]) {
        if (column.length > POINTS) column.shift();
      }
    }
    if (!last || at - last.at > 500) history.last = { at, accepted, stored };
    if (history.accepted.length > 0) {
      text(this.accepted, rate(recent(history.accepted)));
      text(this.stored, rate(recent(history.stored)));
      this.spark.show([history.accepted, history.stored], Math.max(POINTS_MIN, history.accepted.length));
    }
    const waiting = found.get('wattgate_wal_readings') ?? 0;
    const oldest = found.get('wattgate_wal_oldest_seconds') ?? 0;
    const limit = found.get('wattgate_wal_limit_bytes') ?? 0;
    const used = found.get('wattgate_wal_bytes') ?? 0;
    text(this.lag, waiting === 0 ? '0 s' : oldest < 10 ? `${oldest.toFixed(1)} s` : span(oldest));
    this.lag.className = waiting > 0 && oldest > 15 ? 'attention' : '';
    text(this.waits, `${count(waiting)} waiting`);
    const share = limit > 0 ? (100 * used) / limit : 0;
    this.fill.style.width = `${Math.min(100, share)}%`;
    this.fill.className = share > 80 ? 'critical' : share > 50 ? 'warning' : 'accent';
    text(this.fillText, `log ${bytes(used)} of ${bytes(limit)} (${percent(share, 0)})`);
  }

  #showDevices() {
    const { devices, complete } = this.#store;
    for (const kind of ['vehicle', 'meter']) {
      const { live, stale } = tally(devices[kind]);
      if (devices[kind].size === 0 && !complete[kind]) continue;
      text(this.counts[kind], count(live));
      text(this.stale[kind], stale === 0 ? 'none silent' : `${count(stale)} silent`);
      // A meter should always report. A vehicle that has left need not, and one that should has an alert.
      this.stale[kind].className = stale > 0 && kind === 'meter' ? 'attention' : '';
      const all = live + stale;
      this.shares[kind].className = 'dc';
      this.shares[kind].style.width = `${all > 0 ? (100 * live) / all : 0}%`;
    }
    this.#showPower();
    this.empty.hidden = !(complete.vehicle && complete.meter
      && devices.vehicle.size === 0 && devices.meter.size === 0);
    if (this.#dirty) {
      this.#dirty = false;
      this.#showSessions();
    }
  }

  #showPower() {
    const { devices, complete } = this.#store;
    if (!complete.meter) return;
    const power = powerOfAll(devices.meter);
    text(this.power, kilowatts(power));
    const drawing = [...devices.meter.values()].filter((meter) => powerOf(meter) > CHARGING_KW).length;
    text(this.powerOf, `at ${count(drawing)} of ${count(devices.meter.size)} meters`);
    history.power.push(power ?? 0);
    if (history.power.length > POWER_POINTS) history.power.shift();
    this.powerLine.show([history.power], Math.max(POINTS_MIN, history.power.length));
  }

  async #loadSessions() {
    try {
      const found = [];
      let next = null;
      for await (const page of pages('/v1/sessions?active=true&order=-startedAt', 1000, SESSIONS_PAGES)) {
        found.push(...page.items);
        next = page.next;
      }
      this.#more = next !== null;
      this.#sessions = found.map((s) => ({ ...s, from: Date.parse(s.startedAt) }));
      this.#showSessions();
    } catch (error) {
      if (this.#sessions === null) set(this.charging, h('p', { class: 'muted empty' }, explain(error)));
    }
  }

  /** The power of an open session: that of its meter or, if the meter does not report, of its vehicle. */
  #state(session) {
    const { meter, vehicle } = this.#store.devices;
    const sources = [meter.get(session.meterId), vehicle.get(session.vehicleId)];
    const source = sources.find((device) => powerOf(device) !== null);
    const power = powerOf(source);
    return { session, power, charging: power > CHARGING_KW, vehicle: sources[1] };
  }

  #showSessions() {
    if (this.#sessions === null) return;
    const open = this.#sessions.map((session) => this.#state(session));
    const charging = open.filter((s) => s.charging).sort((a, b) => b.power - a.power);
    const idle = open.filter((s) => !s.charging && s.power !== null).sort((a, b) => a.session.from - b.session.from);
    const unknown = open.filter((s) => s.power === null);
    const more = this.#more ? '+' : '';
    text(this.cars, `${count(charging.length)}${more}`);
    text(this.idle, [`${count(idle.length)} plugged in idle`, unknown.length > 0 && `${count(unknown.length)} unknown`].filter(Boolean).join(' · '));
    this.carsShare.style.width = `${open.length > 0 ? (100 * charging.length) / open.length : 0}%`;
    text(this.chargingCount, `${count(charging.length)}${more} charging · ${count(idle.length)} idle`);
    if (open.length === 0) {
      set(this.charging, h('p', { class: 'muted empty' }, 'No open sessions.'));
      return;
    }
    // Do not replace a link that has the focus.
    if (this.charging.contains(document.activeElement)) return;
    // Show some of both: the sessions with the most power, and those that have been idle for longest.
    const half = Math.max(SESSIONS_SHOWN / 2, SESSIONS_SHOWN - idle.length);
    const shown = [...charging.slice(0, half), ...idle, ...unknown].slice(0, SESSIONS_SHOWN);
    set(this.charging, h('div', { class: 'scroll' }, h('table', { class: 'charging' },
      h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Vehicle'), h('th', { scope: 'col', class: 'wide' }, 'Meter'),
        h('th', { scope: 'col', class: 'n' }, 'Power'), h('th', { scope: 'col', class: 'n' }, 'Duration'), h('th', { scope: 'col', class: 'n' }, 'Charge'))),
      h('tbody', {}, shown.map(chargingRow)))),
    open.length > shown.length
      && h('p', { class: 'muted small' }, `${count(shown.length)} of ${count(open.length)}${more} open sessions. `, h('a', { href: '#/sessions' }, 'All sessions')));
  }
}

/** The mean of the last minute. */
function recent(rates) {
  const some = rates.slice(-RATE_SCRAPES);
  return some.reduce((a, b) => a + b, 0) / some.length;
}

function chargingRow({ session, power, charging, vehicle }) {
  const soc = h('i', { class: 'dc' });
  soc.style.width = `${vehicle?.soc ?? 0}%`;
  const state = charging ? kilowatts(power)
    : power === null ? h('span', { class: 'muted' }, 'unknown')
      : h('span', { class: 'attention' }, 'idle');
  return h('tr', {},
    h('th', { scope: 'row' }, h('a', { href: `#/vehicles/${encodeURIComponent(session.vehicleId)}` }, name(session.vehicleId))),
    h('td', { class: 'wide' }, h('a', { href: `#/meters/${encodeURIComponent(session.meterId)}` }, name(session.meterId))),
    h('td', { class: 'n' }, state),
    h('td', { class: 'n' }, span((now() - session.from) / 1000)),
    h('td', { class: 'n soc' }, percent(vehicle?.soc, 0), h('div', { class: 'bar', 'aria-hidden': 'true' }, soc),
      vehicle && isStale(vehicle) && h('span', { class: 'attention' }, 'silent')));
}

function tile(label, value, middle, below) {
  return h('section', { class: 'tile', 'aria-label': label },
    h('h2', {}, label), h('p', { class: 'value' }, value), middle, h('p', { class: 'below' }, below));
}

/** The first steps, while no reading has arrived yet. */
function emptyFleet() {
  const example = [
    `curl ${location.origin}/v1/ingestion/vehicle -H 'content-type: application/json' \\`,
    `  -d '{"vehicleId":"VEH-001","soc":80.5,"kwhDeliveredDc":0.3,"batteryTemp":31.5,`,
    `       "timestamp":"${new Date().toISOString()}"}'`,
  ].join('\n');
  return h('div', { hidden: true }, panel('No device has reported yet', null,
    h('p', {}, 'Send the first reading. It appears here within two seconds.'),
    h('pre', { tabindex: 0, role: 'region', 'aria-label': 'Example' }, example),
    h('p', { class: 'muted' }, 'Every endpoint is described on the page ', h('a', { href: '/docs' }, 'API'), '.')));
}
