// The energy of the fleet: consumed, delivered and lost, and by which vehicles. All numbers come from the gateway;
// this page sums nothing.

import { explain, get, now } from './api.js';
import { Chart, fromZero } from './charts.js';
import { choice, h, name, panel, set } from './dom.js';
import { STATUSES, count, fixed, isNumber, kwh, money, none, percent } from './format.js';

const REFRESH_MS = 30000;
const WORST = 10;
const UNKNOWN = 'Not available.';
const CURRENCIES = ['EUR', 'USD', 'GBP', 'CHF', 'SEK', 'NOK', 'DKK', 'PLN', 'INR', 'CNY', 'JPY', 'AUD', 'CAD'];

const WINDOWS = [['1h', '1 h'], ['today', 'Today'], ['24h', '24 h'], ['7d', '7 days']];
const HOURS = { '1h': 1, '24h': 24, '7d': 168 };

/** The start of a window, as the gateway accepts it. */
function start(window) {
  if (window === 'today') {
    const midnight = new Date(now());
    midnight.setHours(0, 0, 0, 0);
    // Exactly at midnight the day would be an empty window.
    return new Date(Math.min(midnight.getTime(), now() - 1000));
  }
  // Rounded to five minutes, so that all tabs request the same window and share the gateway's work.
  const to = Math.floor(now() / 300000) * 300000;
  return new Date(to - HOURS[window] * 3600000);
}

function storedPrice() {
  try {
    const stored = JSON.parse(localStorage.getItem('wattgate-price') ?? 'null');
    if (isNumber(stored?.price) && CURRENCIES.includes(stored.currency)) return stored;
  } catch {
    // The stored value was not written by this page.
  }
  return { price: null, currency: 'EUR' };
}

/** The cost of energy, by the gateway's tariff or else by the price entered on the fleet page. */
export function costOf(energy, byTariff, tariffCurrency, { price, currency } = storedPrice()) {
  if (isNumber(byTariff)) return money(byTariff, tariffCurrency ?? currency);
  return price === null ? '' : money(energy * price, currency);
}

/** Days begin at midnight in this time zone. */
export const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;

/** A series as chart data: the middles of its parts, AC, DC. Empty if all values are 0. */
export function bars(answer, ac) {
  const parts = answer.series ?? [];
  const some = parts.some((part) => part[ac] > 0 || part.totalEnergyDeliveredDc > 0);
  if (!some) return [[], [], []];
  return [
    parts.map((part) => (Date.parse(part.start) + Date.parse(part.end)) / 2000),
    parts.map((part) => part[ac]), parts.map((part) => part.totalEnergyDeliveredDc),
  ];
}

/** The window of a response, in seconds. */
export const windowOf = (answer) =>
  [answer.timeWindowStart, answer.timeWindowEnd].map((at) => Date.parse(at) / 1000);

const vehicleHref = (id) => `#/vehicles/${encodeURIComponent(id)}`;

export class Energy {
  #window = 'today';
  #price = storedPrice();
  #fleet = null;
  #worst = null;
  #timer;
  #asked = 0;

  constructor() {
    this.worth = h('strong', {}, none);
    this.worthEnergy = h('dd', { class: 'small' });
    this.in = h('strong', {}, none);
    this.out = h('strong', {}, none);
    this.ratio = h('strong', {}, none);
    this.lost = h('strong', {}, none);
    this.cost = h('dd', { class: 'small' });
    this.unassigned = h('strong', {}, none);
    this.matchedAc = h('dd', { class: 'small' });
    this.matchedDc = h('dd', { class: 'small' });
    this.of = h('dd', { class: 'small' });
    this.apart = h('p', { class: 'muted small' });
    this.flow = h('div', { class: 'flow', 'aria-hidden': 'true' }, h('i', { class: 'dc' }), h('i', { class: 'lost' }), h('i', { class: 'rest' }));
    this.chart = new Chart({
      label: 'Energy over time',
      empty: 'No energy in this period.',
      series: [
        { label: 'AC, all meters', colour: 'ac', unit: 'kWh', places: 1, scale: 'kWh', range: fromZero, bars: { size: 0.4, align: -1 } },
        { label: 'DC, all vehicles', colour: 'dc', unit: 'kWh', places: 1, scale: 'kWh', range: fromZero, bars: { size: 0.4, align: 1 } },
      ],
    });
    this.statuses = h('div', {});
    this.table = h('div', {});
    this.note = h('p', { class: 'notice', hidden: true, role: 'status' });
    const windows = choice('Window', WINDOWS, this.#window, (value) => {
      this.#window = value;
      this.refresh();
    });
    this.summary = panel('Energy', windows, this.note, h('dl', { class: 'figures led' },
      h('div', { class: 'lead' }, h('dt', {}, 'One more percent saves'), h('dd', {}, this.worth), this.worthEnergy),
      figure('From the grid (AC)', this.in, 'ac', this.matchedAc),
      figure('Unattributed (AC)', this.unassigned, 'rest', h('dd', { class: 'small' }, 'no vehicle known')),
      figure('Into batteries (DC)', this.out, 'dc', this.matchedDc),
      figure('Efficiency', this.ratio, null, this.of),
      figure('Losses', this.lost, 'lost', this.cost)),
    this.flow,
    h('ul', { class: 'legend parts' }, [['dc', 'into batteries'], ['lost', 'losses'], ['rest', 'unattributed']].map(([key, words]) =>
      h('li', {}, h('i', { class: `key ${key}` }), words))),
    this.apart, this.chart.el);
    this.spread = panel('Vehicles by efficiency', null, this.statuses);
    this.ranking = panel('Largest losses', this.#priceForm(), this.table);
    set(this.statuses, h('p', { class: 'muted empty' }, 'Loading'));
    set(this.table, h('p', { class: 'muted empty' }, 'Loading'));
    this.#timer = setInterval(() => document.hidden || this.refresh(), REFRESH_MS);
    this.refresh();
  }

  destroy() {
    clearInterval(this.#timer);
    this.#asked += 1;
    this.chart.destroy();
  }

  async refresh() {
    const asked = (this.#asked += 1);
    const from = encodeURIComponent(start(this.#window).toISOString());
    try {
      const [fleet, worst] = await Promise.all([
        get(`/v1/analytics/fleet?from=${from}&bucket=${this.#window === '7d' ? 'day' : 'hour'}&tz=${encodeURIComponent(zone)}`),
        get(`/v1/analytics/performance?from=${from}&sort=lost&limit=${WORST}`),
      ]);
      // Ignore all responses but the one to the latest request.
      if (asked !== this.#asked) return;
      this.#worst = worst;
      this.#say(null);
      this.#showFleet(fleet);
      this.#showWorst();
    } catch (error) {
      if (asked === this.#asked) this.#fail(error);
    }
  }

  /** Keeps what was shown before. What was never loaded is marked as not available. */
  #fail(error) {
    this.#say(explain(error));
    this.chart.fail(UNKNOWN);
    if (this.#fleet === null) {
      for (const part of [this.statuses, this.table]) set(part, h('p', { class: 'muted empty' }, UNKNOWN));
    }
  }

  #say(what) {
    this.note.hidden = what === null;
    set(this.note, what);
  }

  #showFleet(fleet) {
    this.#fleet = fleet;
    this.chart.show(bars(fleet, 'meterEnergyAc'), windowOf(fleet));
    const ac = fleet.totalEnergyConsumedAc;
    const dc = fleet.matchedEnergyDeliveredDc;
    const metered = fleet.meterEnergyAc;
    set(this.in, kwh(metered));
    set(this.out, kwh(fleet.totalEnergyDeliveredDc));
    set(this.ratio, percent(fleet.efficiencyRatio));
    const lost = Math.max(0, ac - dc);
    set(this.lost, kwh(lost));
    set(this.unassigned, kwh(Math.max(0, fleet.unattributedEnergyAc)));
    // The ratio is computed from these two sums, not from the totals next to them.
    set(this.matchedAc, `${kwh(ac)} matched`);
    set(this.matchedDc, `${kwh(dc)} matched`);
    set(this.of, fleet.efficiencyRatio === null ? '' : `${kwh(dc)} of ${kwh(ac)}`);
    set(this.cost, this.#cost(lost, fleet.lostCost, fleet.currency));
    // What one more percent of efficiency saves, as money if the price of energy is known.
    const one = kwh(fleet.onePercentEnergyAc);
    const worth = this.#cost(fleet.onePercentEnergyAc, fleet.onePercentCost, fleet.currency);
    set(this.worth, worth || one);
    set(this.worthEnergy, worth && one);
    // If the operator has configured a tariff, users cannot enter a price here.
    for (const part of this.price) part.hidden = isNumber(fleet.lostCost);
    this.currency.hidden = isNumber(fleet.lostCost) && fleet.currency !== undefined;
    const parts = [dc, lost, fleet.unattributedEnergyAc];
    [...this.flow.children].forEach((bar, n) => {
      bar.style.flexGrow = String(Math.max(0, parts[n]) || 0);
    });
    const elsewhere = fleet.totalEnergyDeliveredDc - dc;
    const notes = [];
    if (elsewhere > 0.005) notes.push(`${kwh(elsewhere)} was charged at no known meter.`);
    set(this.apart, notes.join(' '));
    const all = STATUSES.map(([key]) => fleet.vehiclesByStatus?.[key] ?? 0);
    const sum = all.reduce((a, b) => a + b, 0);
    set(this.statuses,
      h('div', { class: 'stack', 'aria-hidden': 'true' }, STATUSES.map(([key], n) => {
        const bar = h('i', { class: key });
        bar.style.flexGrow = String(all[n]);
        return all[n] > 0 && bar;
      })),
      h('ul', { class: 'statuses' }, STATUSES.map(([key, label, sign], n) => h('li', {},
        h('span', {}, h('span', { class: `sign ${key}`, 'aria-hidden': 'true' }, sign), label),
        h('b', {}, count(all[n])),
        h('span', { class: 'muted' }, sum > 0 ? percent((100 * all[n]) / sum, 0) : '')))));
  }

  #cost(energy, byTariff, currency) {
    return costOf(energy, byTariff, currency, this.#price);
  }

  #showWorst() {
    const rows = this.#worst.items
      .map((item) => ({ item, lost: item.totalEnergyConsumedAc - item.matchedEnergyDeliveredDc }))
      .filter(({ item, lost }) => item.efficiencyRatio !== null && lost > 0);
    if (rows.length === 0) {
      set(this.table, h('p', { class: 'muted empty' }, 'No charging in this period.'));
      return;
    }
    const most = rows[0].lost;
    set(this.table, h('div', { class: 'scroll' }, h('table', {},
      h('thead', {}, h('tr', {},
        h('th', { scope: 'col' }, 'Vehicle'), h('th', { scope: 'col', class: 'wide' }, 'Status'),
        h('th', { scope: 'col', class: 'n wide' }, 'AC → DC, kWh'),
        h('th', { scope: 'col', class: 'n' }, 'Efficiency'),
        h('th', { scope: 'col', class: 'n' }, 'Losses'))),
      h('tbody', {}, rows.map(({ item, lost }) => {
        const bar = h('i', { class: 'lost' });
        bar.style.width = `${Math.max(2, (100 * lost) / most)}%`;
        return h('tr', {},
          h('th', { scope: 'row' }, h('a', { href: vehicleHref(item.vehicleId) }, name(item.vehicleId))),
          h('td', { class: 'wide' }, status(item.efficiencyStatus)),
          h('td', { class: 'n wide' }, `${fixed(item.totalEnergyConsumedAc, 1)} → ${fixed(item.matchedEnergyDeliveredDc, 1)}`),
          h('td', { class: 'n' }, percent(item.efficiencyRatio)),
          h('td', { class: 'n' }, [kwh(lost), this.#cost(lost, item.lostCost, this.#worst.currency)].filter(Boolean).join(' · '), h('div', { class: 'bar', 'aria-hidden': 'true' }, bar)));
      })))));
  }

  #priceForm() {
    const changed = () => {
      const value = Number.parseFloat(price.value.replace(',', '.'));
      this.#price = {
        price: Number.isFinite(value) && value >= 0 ? value : null, currency: currency.value,
      };
      try {
        localStorage.setItem('wattgate-price', JSON.stringify(this.#price));
      } catch {
        // The value then lasts until the user leaves the page.
      }
      if (this.#fleet) this.#showFleet(this.#fleet);
      if (this.#worst) this.#showWorst();
    };
    const price = h('input', {
      type: 'text', inputmode: 'decimal', size: 5, placeholder: 'price', value: this.#price.price ?? '',
      'aria-label': 'Price of a kilowatt-hour', onchange: changed,
    });
    const currency = h('select', { 'aria-label': 'Currency', onchange: changed },
      CURRENCIES.map((c) => h('option', { selected: c === this.#price.currency }, c)));
    const unit = h('span', { class: 'muted' }, 'per kWh');
    this.price = [price, unit];
    this.currency = currency;
    return h('span', { class: 'price' }, price, currency, unit);
  }
}

function figure(label, value, mark, below) {
  return h('div', {}, h('dt', {}, mark && h('i', { class: `key ${mark}` }), label), h('dd', {}, value), below);
}

/** Why a vehicle has no efficiency status. */
export const REASONS = {
  no_meter: 'no meter is known for this time',
  too_little_energy: 'too little energy to judge',
  low_coverage: 'too many gaps in the readings',
};

/** An efficiency status with its symbol. */
export function status(key) {
  const [, label, sign] = STATUSES.find(([known]) => known === key) ?? [key, key, '○'];
  return h('span', { class: 'status' },
    h('span', { class: `sign ${key}`, 'aria-hidden': 'true' }, sign), label);
}
