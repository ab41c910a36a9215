// All charging sessions with their energy, newest first, as a table and as CSV.

import { explain, get, now, pages, save } from './api.js';
import { choice, h, name, set } from './dom.js';
import { money, count, dateTime, exact, fixed, isNumber, none, percent, span } from './format.js';
import { energyOf, timed } from './sessions.js';

const REFRESH_MS = 30000;
const PAGE = 50;
/** The page size. The gateway ends a response with energy after three seconds, however many sessions were requested. */
const CSV_PAGE = 200;
/** Enough for 20,000 sessions at least. Larger exports are a job for a program. */
const CSV_PAGES_MAX = 500;
const WINDOWS = [['1', '24 h'], ['7', '7 days'], ['30', '30 days'], ['', 'All']];
const STATES = [['', 'All'], ['true', 'Open'], ['false', 'Ended']];

const COLUMNS = ['sessionId', 'vehicleId', 'meterId', 'startedAt', 'endedAt', 'totalEnergyConsumedAc',
  'totalEnergyDeliveredDc', 'matchedEnergyDeliveredDc', 'efficiencyRatio', 'efficiencyStatus', 'averagePowerKw',
  'peakPowerKw', 'cost', 'lostCost', 'currency'];

export class ChargingSessions {
  title = 'Sessions';
  #days = '7';
  #active = '';
  #asked = 0;
  #items = null;
  #next = null;
  #timer;

  constructor() {
    this.number = h('p', { class: 'muted', role: 'status' }, 'Loading');
    this.body = h('div', {}, h('p', { class: 'muted empty' }, 'Loading'));
    this.moreButton = h('button', { type: 'button', class: 'more', hidden: true, onclick: () => this.#load(true) }, 'Load more');
    this.download = h('button', { type: 'button', onclick: () => this.#save() }, 'Download CSV');
    this.el = h('div', { class: 'view' },
      h('div', { class: 'list-head' }, h('h1', { tabindex: -1 }, 'Sessions'), this.number, this.download,
        choice('State', STATES, this.#active, (value) => {
          this.#active = value;
          this.#anew();
        }),
        choice('Window', WINDOWS, this.#days, (value) => {
          this.#days = value;
          this.#anew();
        })),
      h('section', { class: 'panel', 'aria-label': 'Charging sessions' }, this.body, this.moreButton));
    // Refresh only while the first page alone is shown, so that users who loaded more keep their place.
    this.#timer = setInterval(() => document.hidden || (this.#items ?? []).length > PAGE || this.#load(false), REFRESH_MS);
    this.#load(false);
  }

  destroy() {
    this.#asked += 1;
    clearInterval(this.#timer);
  }

  #anew() {
    this.#items = null;
    this.#load(false);
  }

  #path() {
    const from = this.#days && `&from=${encodeURIComponent(new Date(now() - Number(this.#days) * 86400000).toISOString())}`;
    const active = this.#active && `&active=${this.#active}`;
    return `/v1/sessions?order=-startedAt&energy=true${from}${active}`;
  }

  async #load(more) {
    const asked = (this.#asked += 1);
    const after = more && this.#next ? `&after=${encodeURIComponent(this.#next)}` : '';
    this.moreButton.disabled = true;
    try {
      const page = await get(`${this.#path()}&limit=${PAGE}${after}`);
      if (asked !== this.#asked) return;
      const items = page.items.map(timed);
      this.#items = more ? [...this.#items, ...items] : items;
      this.#next = page.next;
      this.#show();
    } catch (error) {
      if (asked !== this.#asked) return;
      set(this.number, explain(error));
      if (this.#items === null) set(this.body, h('p', { class: 'muted empty' }, 'Not available.'));
    } finally {
      this.moreButton.disabled = false;
    }
  }

  #show() {
    const items = this.#items;
    this.moreButton.hidden = this.#next === null;
    this.download.disabled = items.length === 0;
    set(this.number, `${count(items.length)}${this.#next === null ? '' : ' newest'}`);
    if (items.length === 0) {
      set(this.body, h('p', { class: 'muted empty' }, 'No sessions in this period.'));
      return;
    }
    const priced = items.some((item) => isNumber(item.cost));
    const head = (label, wide, number = true) =>
      h('th', { scope: 'col', class: [number && 'n', wide && 'wide'].filter(Boolean).join(' ') }, label);
    set(this.body, h('div', { class: 'scroll' }, h('table', { class: 'sessions' },
      h('thead', {}, h('tr', {}, head('Started', false, false), head('Vehicle', false, false), head('Meter', true, false),
        head('Duration', true), head('AC → DC, kWh'), head('Efficiency', true), head('Average, kW', true), head('Peak, kW', true),
        priced && head('Cost', true))),
      h('tbody', {}, items.map((item) => row(item, priced))))));
  }

  async #save() {
    const label = this.download.textContent;
    this.download.disabled = true;
    const lines = [COLUMNS.join(',')];
    let next = null;
    try {
      for await (const page of pages(this.#path(), CSV_PAGE, CSV_PAGES_MAX)) {
        for (const item of page.items) lines.push(COLUMNS.map((column) => field(item[column])).join(','));
        next = page.next;
        set(this.download, `${count(lines.length - 1)} sessions`);
      }
      const window = this.#days ? `last-${this.#days}-days` : 'all';
      save(`sessions-${window}-to-${new Date(now()).toISOString().slice(0, 16).replace(':', '')}Z.csv`, `${lines.join('\r\n')}\r\n`, 'text/csv');
      if (next !== null) set(this.number, `The file holds the newest ${count(lines.length - 1)} sessions. Choose a shorter window for the rest.`);
    } catch (error) {
      set(this.number, explain(error));
    } finally {
      set(this.download, label);
      this.download.disabled = false;
    }
  }
}

/**
 * A CSV field, quoted if necessary. A text that a spreadsheet would run as a formula is prefixed with an
 * apostrophe, by the same rule as in the gateway's exports: after any number of apostrophes.
 */
function field(value) {
  const isFormula = typeof value === 'string' && /^'*[=+\-@\t\r＝＋－＠]/.test(value);
  const text = value === null || value === undefined ? '' : (isFormula ? `'${value}` : String(value));
  return /[",\r\n]/.test(text) || text !== text.trim() ? `"${text.replaceAll('"', '""')}"` : text;
}

function row(item, priced) {
  const link = (kind, id) => h('a', { href: `#/${kind}s/${encodeURIComponent(id)}` }, name(id));
  const open = item.end === null && h('span', { class: 'status' }, h('span', { class: 'sign good', 'aria-hidden': 'true' }, '●'), 'open');
  return h('tr', {},
    h('th', { scope: 'row', class: 'at', title: exact(item.start) }, dateTime(item.start)),
    h('td', {}, link('vehicle', item.vehicleId)),
    h('td', { class: 'wide' }, link('meter', item.meterId)),
    h('td', { class: 'n wide' }, span(((item.end ?? now()) - item.start) / 1000), open && ' ', open),
    h('td', { class: 'n' }, energyOf(item)),
    h('td', { class: 'n wide' }, percent(item.efficiencyRatio)),
    h('td', { class: 'n wide' }, fixed(item.averagePowerKw, 1)),
    h('td', { class: 'n wide' }, fixed(item.peakPowerKw, 1)),
    priced && h('td', { class: 'n wide' }, isNumber(item.cost) ? (item.currency ? money(item.cost, item.currency) : fixed(item.cost, 2)) : none));
}
