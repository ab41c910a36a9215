// Alerts: the page that lists all of them, and the parts shown on other pages.

import { buttons, deviceOf, marks, muteDevice, muteWords, perform, unmute } from './alert_actions.js';
import { explain, get, now, pages } from './api.js';
import { choice, h, name, panel, set } from './dom.js';
import { celsius, count, dateTime, exact, isNumber, none, percent, span } from './format.js';

/** How often to reload. Values change while an alert is open. The stream reports opened and closed alerts at once. */
const REFRESH_MS = 30000;
/** The most alerts in one response. The most severe come first, and a button loads the next page. */
const SHOWN = 1000;
/** How long to wait after a key is pressed in the search field. */
const TYPING_MS = 250;
/** How many alerts other pages show. Nobody reads longer lists there. */
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

function device(item, key) {
  const { stream, id } = deviceOf(item);
  return h('a', { href: `#/${stream}s/${encodeURIComponent(id)}`, 'data-key': key }, name(id));
}

/** An alert that somebody has acknowledged or muted needs attention less than one that nobody has seen. */
const isHandled = (alert) => Boolean(alert.acknowledgement || alert.mute);

/**
 * Replaces the content of an element. An element inside that has the focus keeps it, if it is still there; if not, the
 * heading gets it, so that users of a keyboard do not start again at the top of the page.
 */
function refill(element, ...children) {
  const focused = element.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  const inside = focused !== undefined || element.contains(document.activeElement);
  set(element, ...children);
  if (!inside) return;
  const again = [...element.querySelectorAll('[data-key]')].find((one) => one.dataset.key === focused);
  (again ?? document.querySelector('main h1'))?.focus({ preventScroll: true });
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
  #prefix = '';
  #asked = 0;
  /** What is shown, as text: a focused element is only replaced if something has changed. */
  #shown = '';
  #items = null;
  #next = null;
  /** The number of pages shown. A refresh loads as many. */
  #pages = 1;
  #typing;

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
    this.muted = h('div', {});
    this.mutedPanel = panel('Muted devices', null, this.muted);
    this.mutedPanel.hidden = true;
    const find = h('input', {
      type: 'search', placeholder: 'Device id begins with', 'aria-label': 'Find alerts of devices whose id begins with',
      maxlength: 64, autocomplete: 'off', spellcheck: 'false',
      oninput: () => {
        clearTimeout(this.#typing);
        this.#typing = setTimeout(() => {
          this.#prefix = find.value;
          this.#anew();
        }, TYPING_MS);
      },
    });
    this.el = h('div', { class: 'view' },
      h('div', { class: 'list-head' }, h('h1', { tabindex: -1 }, 'Alerts'), this.number, find, this.kinds,
        choice('State', [['open', 'Open'], ['closed', 'Closed']], 'open', (state) => {
          this.#state = state;
          this.#anew();
        })),
      h('section', { class: 'panel', 'aria-label': 'Alerts' }, this.body, this.moreButton), this.mutedPanel);
    this.watch = new Watch(stream, () => this.#load());
  }

  destroy() {
    this.#asked += 1;
    clearTimeout(this.#typing);
    this.watch.destroy();
  }

  #anew() {
    this.#pages = 1;
    this.#items = null;
    this.#load();
  }

  async #load() {
    const asked = (this.#asked += 1);
    const kind = (this.#kind && `&kind=${this.#kind}`) + (this.#prefix && `&prefix=${encodeURIComponent(this.#prefix)}`);
    this.#loadMutes(asked);
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

  /** The mutes in force, also those of devices without an alert. */
  async #loadMutes(asked) {
    const answer = await get(`/v1/alerts/mutes?limit=${SHOWN}`).catch(() => null);
    if (answer === null || asked !== this.#asked) return;
    this.mutedPanel.hidden = answer.items.length === 0;
    const again = () => this.#load();
    refill(this.muted, h('ul', { class: 'wants' }, answer.items.map((mute) => {
      const { stream, id } = deviceOf(mute);
      const key = `${stream} ${id} ${mute.kind ?? ''}`;
      return h('li', {}, device(mute, key), h('span', {}, mute.kind ? (KINDS[mute.kind]?.[0] ?? mute.kind) : 'All alerts'),
        h('span', { class: 'muted' }, muteWords(mute)),
        h('span', { class: 'n' }, h('button', {
          type: 'button', class: 'small-button', 'aria-label': `Unmute: ${id}`, 'data-key': `${key} unmute`,
          onclick: (event) => perform(event, () => unmute({ stream, id, kind: mute.kind }), again),
        }, 'Unmute')));
    })), answer.next !== null && h('p', { class: 'muted small' }, `The newest ${count(SHOWN)} mutes.`));
  }

  #show(anew) {
    const items = inOrder(this.#items);
    set(this.number, `${count(items.length)}${this.#next === null ? '' : '+'} ${this.#state}`);
    this.moreButton.hidden = this.#next === null;
    const shown = JSON.stringify(items);
    if (!anew && shown === this.#shown && this.body.contains(document.activeElement)) return;
    this.#shown = shown;
    if (items.length === 0) {
      const filtered = this.#kind || this.#prefix;
      refill(this.body, h('p', { class: 'muted empty' }, filtered ? 'No alert matches the filter.'
        : this.#state === 'open' ? 'Nothing needs attention.' : 'No alert has closed yet.'));
      return;
    }
    const again = () => this.#load();
    refill(this.body, h('div', { class: 'scroll' }, h('table', {},
      h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Alert'), h('th', { scope: 'col' }, 'Device'),
        h('th', { scope: 'col', class: 'wide' }, 'Since'), h('th', { scope: 'col', class: 'n wide' }, 'Duration'),
        h('th', { scope: 'col', class: 'n' }, 'Value'),
        h('th', { scope: 'col', class: 'n wide' }, 'Limit'),
        this.#state === 'open' && h('th', { scope: 'col' }, h('span', { class: 'sr' }, 'Actions')))),
      h('tbody', {}, items.map((alert) => row(alert, again))))));
  }
}

function row(alert, again) {
  const opened = Date.parse(alert.openedAt);
  const closed = alert.closedAt ? Date.parse(alert.closedAt) : null;
  const [label, shown] = known(alert);
  return h('tr', { class: isHandled(alert) && 'handled' },
    h('th', { scope: 'row', class: 'what' }, sign(alert), marks(alert)),
    h('td', {}, device(alert, `${alert.alertId} device`)),
    h('td', { class: 'at wide', title: exact(opened) }, dateTime(opened)),
    h('td', { class: 'n wide' }, span(((closed ?? now()) - opened) / 1000)),
    h('td', { class: 'n' }, shown(alert.value)),
    h('td', { class: 'n wide' }, shown(alert.bound)),
    closed === null && h('td', {}, buttons(alert, label, again)));
}

/** Alerts on another page. If loading fails, only the page of alerts reports the error. */
class Aside {
  #asked = 0;
  #watch;
  #query;
  #show;

  constructor(stream, query, show) {
    this.#query = query;
    this.#show = show;
    this.#watch = new Watch(stream, this.load);
  }

  load = async () => {
    const asked = (this.#asked += 1);
    const answer = await get(`/v1/alerts?state=open&order=-severity&${this.#query}`).catch(() => null);
    if (answer !== null && asked === this.#asked) this.#show(inOrder(answer.items), answer.next !== null);
  };

  destroy() {
    this.#asked += 1;
    this.#watch.destroy();
  }
}

const against = (alert) => `${known(alert)[1](alert.value)}, limit ${known(alert)[1](alert.bound)}`;

/** The most severe open alerts, on the fleet page, those that nobody has seen first. Empty if none is open. */
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
      const first = alerts.toSorted((a, b) => isHandled(a) - isHandled(b)).slice(0, ON_FLEET);
      refill(list, first.map((alert) => h('li', { class: isHandled(alert) && 'handled' },
        sign(alert), device(alert, alert.alertId), h('span', { class: 'n muted' }, against(alert)), marks(alert))));
    });
  }

  destroy() {
    this.aside.destroy();
  }
}

/** The open alerts of one device and its mute, above its figures. */
export class DeviceAlerts {
  #asked = 0;
  #gone = false;

  constructor({ stream }, kind, id) {
    this.of = { stream: kind, id };
    this.list = h('ul', { class: 'notice wants', 'aria-label': 'Open alerts', hidden: true });
    this.state = h('p', { class: 'small mute-state' });
    this.el = h('div', { class: 'device-alerts' }, this.list, this.state);
    this.aside = new Aside(stream, `${kind}Id=${encodeURIComponent(id)}`, (alerts) => {
      this.list.hidden = alerts.length === 0;
      this.list.classList.toggle('critical', alerts.some((alert) => known(alert)[2] === 'critical' && !isHandled(alert)));
      refill(this.list, alerts.map((alert) => {
        const opened = Date.parse(alert.openedAt);
        return h('li', { class: isHandled(alert) && 'handled' }, sign(alert),
          h('span', { title: exact(opened) }, `${against(alert)}, since ${dateTime(opened)}`), marks(alert),
          buttons(alert, known(alert)[0], this.aside.load));
      }));
      this.#mutes();
    });
  }

  /** Says whether the device is muted as a whole, with a button to change that. */
  async #mutes() {
    const asked = (this.#asked += 1);
    const { stream, id } = this.of;
    const answer = await get(`/v1/alerts/mutes?${stream}Id=${encodeURIComponent(id)}`).catch(() => null);
    if (answer === null || asked !== this.#asked || this.#gone) return;
    const mute = answer.items.find((one) => one.kind === null);
    const button = mute
      ? h('button', { type: 'button', class: 'small-button', 'data-key': 'mute', onclick: (event) => perform(event, () => unmute(this.of), this.aside.load) }, 'Unmute all alerts')
      : h('button', { type: 'button', class: 'small-button', 'data-key': 'mute', onclick: () => muteDevice(this.of, null, this.aside.load) }, 'Mute all alerts');
    refill(this.state, mute && h('span', { class: 'mark' }, `${muteWords(mute)} `), button);
  }

  destroy() {
    this.#gone = true;
    this.aside.destroy();
  }
}
