// Alerts: the page that lists all of them, and the parts shown on other pages.

import { explain, get, now, pages } from './api.js';
import { choice, h, name, panel, set } from './dom.js';
import { celsius, count, dateTime, exact, isNumber, none, percent, span } from './format.js';

/** How often to reload. Values change while an alert is open. The stream reports opened and closed alerts at once. */
const REFRESH_MS = 30000;
/** The most alerts in one response. The most severe come first, and a button loads the next page. */
const SHOWN = 1000;
/** How many alerts other pages show. Longer lists would not be read there. */
const ON_FLEET = 5;

const number = (value) => (isNumber(value) ? count(Math.round(value)) : none);

/** Each kind's name, value format and severity, the most severe kind first. */
const KINDS = {
  battery_temperature: ['Hot battery', celsius, 'critical'],
  implausible_reading: ['Implausible readings', number, 'warning'],
  efficiency_anomaly: ['Efficiency below its usual level', percent, 'warning'],
  efficiency_low: ['Low efficiency', percent, 'warning'],
  silent: ['Silent device', span, 'warning'],
};
const ORDER = Object.keys(KINDS);
const SIGNS = { critical: '◆', warning: '▲' };

const known = (alert) => KINDS[alert.kind] ?? [alert.kind, number, 'warning'];
const rank = (alert) => (ORDER.includes(alert.kind) ? ORDER.indexOf(alert.kind) : ORDER.length);

/** Sorts by severity, then newest first. The gateway has already chosen which alerts to return. */
function inOrder(alerts) {
  return alerts.toSorted((a, b) => rank(a) - rank(b) || Date.parse(b.openedAt) - Date.parse(a.openedAt));
}

/** Open alerts are requested by severity, closed ones by time. */
const orderOf = (state) => (state === 'open' ? '&order=-severity' : '');

function sign(alert) {
  const [words, , gravity] = known(alert);
  return h('span', { class: 'status' },
    h('span', { class: `sign ${gravity}`, 'aria-hidden': 'true' }, SIGNS[gravity]), words);
}

function device(alert) {
  const kind = alert.meterId === undefined ? 'vehicle' : 'meter';
  const id = alert.meterId ?? alert.vehicleId ?? '';
  return h('a', { href: `#/${kind}s/${encodeURIComponent(id)}` }, name(id));
}

/** Reloads every half minute, and whenever the stream reports an alert. */
class Watch {
  #timer;
  #stream;
  #load;

  constructor(stream, load) {
    this.#stream = stream;
    this.#load = load;
    stream.addEventListener('alert', load);
    stream.addEventListener('reset', load);
    this.#timer = setInterval(() => document.hidden || load(), REFRESH_MS);
    load();
  }

  destroy() {
    clearInterval(this.#timer);
    this.#stream.removeEventListener('alert', this.#load);
    this.#stream.removeEventListener('reset', this.#load);
  }
}

export class Alerts {
  title = 'Alerts';
  #state = 'open';
  #kind = '';
  #asked = 0;
  #items = null;
  #next = null;
  /** The number of pages shown. A refresh loads as many. */
  #pages = 1;

  constructor({ stream }) {
    this.number = h('p', { class: 'muted', role: 'status' }, 'Loading');
    this.body = h('div', {}, h('p', { class: 'muted empty' }, 'Loading'));
    this.kinds = h('select', {
      'aria-label': 'Kind of alert',
      onchange: () => {
        this.#kind = this.kinds.value;
        this.#anew();
      },
    }, h('option', { value: '' }, 'All kinds'), ORDER.map((kind) => h('option', { value: kind }, KINDS[kind][0])));
    this.moreButton = h('button', {
      type: 'button', class: 'more', hidden: true,
      onclick: () => {
        this.#pages += 1;
        this.#load();
      },
    }, 'Load more');
    this.el = h('div', { class: 'view' },
      h('div', { class: 'list-head' }, h('h1', { tabindex: -1 }, 'Alerts'), this.number, this.kinds,
        choice('State', [['open', 'Open'], ['closed', 'Closed']], 'open', (state) => {
          this.#state = state;
          this.#anew();
        })),
      h('section', { class: 'panel', 'aria-label': 'Alerts' }, this.body, this.moreButton));
    this.watch = new Watch(stream, () => this.#load());
  }

  destroy() {
    this.#asked += 1;
    this.watch.destroy();
  }

  #anew() {
    this.#pages = 1;
    this.#items = null;
    this.#load();
  }

  async #load() {
    const asked = (this.#asked += 1);
    const kind = this.#kind ? `&kind=${this.#kind}` : '';
    const items = [];
    let next = null;
    try {
      for await (const page of pages(`/v1/alerts?state=${this.#state}${kind}${orderOf(this.#state)}`, SHOWN, this.#pages)) {
        if (asked !== this.#asked) return;
        items.push(...page.items);
        next = page.next;
      }
      const anew = this.#items === null;
      this.#items = items;
      this.#next = next;
      this.#show(anew);
    } catch (error) {
      if (asked !== this.#asked) return;
      set(this.number, explain(error));
      if (this.#items === null) set(this.body, h('p', { class: 'muted empty' }, 'Not available.'));
    }
  }

  #show(anew) {
    const items = inOrder(this.#items);
    set(this.number, `${count(items.length)}${this.#next === null ? '' : '+'} ${this.#state}`);
    this.moreButton.hidden = this.#next === null;
    if (items.length === 0) {
      set(this.body, h('p', { class: 'muted empty' },
        this.#state === 'open' ? 'Nothing needs attention.' : 'No alert has closed yet.'));
      return;
    }
    // Do not replace a link that has the focus.
    if (!anew && this.body.contains(document.activeElement)) return;
    set(this.body, h('div', { class: 'scroll' }, h('table', {},
      h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Alert'), h('th', { scope: 'col' }, 'Device'),
        h('th', { scope: 'col', class: 'wide' }, 'Since'), h('th', { scope: 'col', class: 'n wide' }, 'Duration'),
        h('th', { scope: 'col', class: 'n' }, 'Value'),
        h('th', { scope: 'col', class: 'n wide' }, 'Limit'))),
      h('tbody', {}, items.map((alert) => row(alert))))));
  }
}

function row(alert) {
  const opened = Date.parse(alert.openedAt);
  const closed = alert.closedAt ? Date.parse(alert.closedAt) : null;
  const [, shown] = known(alert);
  return h('tr', {},
    h('th', { scope: 'row', class: 'what' }, sign(alert)),
    h('td', {}, device(alert)),
    h('td', { class: 'at wide', title: exact(opened) }, dateTime(opened)),
    h('td', { class: 'n wide' }, span(((closed ?? now()) - opened) / 1000)),
    h('td', { class: 'n' }, shown(alert.value)),
    h('td', { class: 'n wide' }, shown(alert.bound)));
}

/** Alerts on another page. If loading fails, only the page of alerts reports the error. */
class Aside {
  #asked = 0;
  #watch;

  constructor(stream, query, show) {
    this.#watch = new Watch(stream, async () => {
      const asked = (this.#asked += 1);
      const answer = await get(`/v1/alerts?state=open&order=-severity&${query}`).catch(() => null);
      if (answer !== null && asked === this.#asked) show(inOrder(answer.items), answer.next !== null);
    });
  }

  destroy() {
    this.#asked += 1;
    this.#watch.destroy();
  }
}

const against = (alert) => `${known(alert)[1](alert.value)}, limit ${known(alert)[1](alert.bound)}`;

/** The most severe open alerts, on the fleet page. Empty if there are none. */
export class OpenAlerts {
  constructor({ stream }) {
    const number = h('a', { href: '#/alerts' });
    const list = h('ul', { class: 'wants' });
    this.el = panel('Needs attention', number, list);
    this.el.classList.add('first');
    this.el.hidden = true;
    this.aside = new Aside(stream, `limit=${SHOWN}`, (alerts, more) => {
      this.el.hidden = alerts.length === 0;
      set(number, `All ${count(alerts.length)}${more ? '+' : ''}`);
      // Do not replace a link that has the focus.
      if (list.contains(document.activeElement)) return;
      set(list, alerts.slice(0, ON_FLEET).map((alert) => h('li', {},
        sign(alert), device(alert), h('span', { class: 'n muted' }, against(alert)))));
    });
  }

  destroy() {
    this.aside.destroy();
  }
}

/** The open alerts of one device, above its figures. */
export class DeviceAlerts {
  constructor({ stream }, kind, id) {
    this.el = h('ul', { class: 'notice wants', 'aria-label': 'Open alerts', hidden: true });
    this.aside = new Aside(stream, `${kind}Id=${encodeURIComponent(id)}`, (alerts) => {
      this.el.hidden = alerts.length === 0;
      this.el.classList.toggle('critical', alerts.some((alert) => known(alert)[2] === 'critical'));
      set(this.el, alerts.map((alert) => {
        const opened = Date.parse(alert.openedAt);
        return h('li', {}, sign(alert),
          h('span', { title: exact(opened) }, `${against(alert)}, since ${dateTime(opened)}`));
      }));
    });
  }

  destroy() {
    this.aside.destroy();
  }
}
