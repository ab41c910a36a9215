// Alerts: the page that lists all of them, and the parts shown on other pages.

import { buttons, deviceOf, marks, muteDevice, muteWords, perform, unmute } from './alert_actions.js';
import { explain, get, now, pages } from './api.js';
import { choice, h, name, panel, set } from './dom.js';
import { celsius, count, dateTime, exact, isNumber, none, percent, span } from './format.js';

/** How often to load the mutes: those of devices without an alert change without an event. */
const REFRESH_MS = 30000;
/** The most alerts in one response. The most severe come first, and a button loads the next page. */
const SHOWN = 1000;
/** How long to wait after a key is pressed in the search field. */
const TYPING_MS = 250;
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
  #open;
  #timer;

  constructor({ alerts }) {
    this.#open = alerts;
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
    alerts.addEventListener('change', this.#changed);
    alerts.addEventListener('failure', this.#failed);
    this.#timer = setInterval(() => document.hidden || this.#loadMutes(), REFRESH_MS);
    this.#loadMutes();
    this.#load();
  }

  #changed = () => this.#load();

  #failed = (event) => this.#explain(event.detail);

  #explain(error) {
    set(this.number, explain(error));
    if (this.#items === null) set(this.body, h('p', { class: 'muted empty' }, 'Not available.'));
  }

  /** After a change that was made here: its event comes too, but this page shows it at once. */
  #again = () => Promise.all([this.#loadMutes(), this.#open.load()]);

  destroy() {
    this.#asked += 1;
    clearTimeout(this.#typing);
    clearInterval(this.#timer);
    this.#open.removeEventListener('change', this.#changed);
    this.#open.removeEventListener('failure', this.#failed);
  }

  #anew() {
    this.#pages = 1;
    this.#items = null;
    this.#load();
  }

  async #load() {
    const asked = (this.#asked += 1);
    const kind = (this.#kind && `&kind=${this.#kind}`) + (this.#prefix && `&prefix=${encodeURIComponent(this.#prefix)}`);
    const shared = this.#state === 'open' && !kind && !this.#open.more ? this.#open.items : null;
    if (shared !== null) {
      const anew = this.#items === null;
      this.#items = shared;
      this.#next = null;
      this.#show(anew);
      return;
    }
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
      if (asked === this.#asked) this.#explain(error);
    }
  }

  /** The mutes in force, also those of devices without an alert. */
  async #loadMutes() {
    const answer = await get(`/v1/alerts/mutes?limit=${SHOWN}`).catch(() => null);
    if (answer === null) return;
    this.mutedPanel.hidden = answer.items.length === 0;
    const again = this.#again;
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
    const again = this.#again;
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

const against = (alert) => `${known(alert)[1](alert.value)}, limit ${known(alert)[1](alert.bound)}`;

/** The most severe open alerts, on the fleet page, those that nobody has seen first. Empty if none is open. */
export class AttentionPanel {
  #open;

  constructor({ alerts }) {
    this.#open = alerts;
    this.number = h('a', { href: '#/alerts' });
    this.list = h('ul', { class: 'wants' });
    this.el = panel('Needs attention', this.number, this.list);
    this.el.classList.add('first');
    this.el.hidden = true;
    alerts.addEventListener('change', this.#show);
    if (alerts.items !== null) this.#show();
  }

  #show = () => {
    const { items, more } = this.#open;
    this.el.hidden = items.length === 0;
    set(this.number, `All ${count(items.length)}${more ? '+' : ''}`);
    const first = inOrder(items).toSorted((a, b) => isHandled(a) - isHandled(b)).slice(0, ON_FLEET);
    refill(this.list, first.map((alert) => h('li', { class: isHandled(alert) && 'handled' },
      sign(alert), device(alert, alert.alertId), h('span', { class: 'n muted' }, against(alert)), marks(alert))));
  };

  destroy() {
    this.#open.removeEventListener('change', this.#show);
  }
}

/** The open alerts of one device and its mute, above its figures. */
export class DeviceAlerts {
  #open;
  #timer;
  #asked = 0;
  #shown = '';

  constructor({ alerts }, stream, id) {
    this.#open = alerts;
    this.of = { stream, id };
    this.query = `${stream}Id=${encodeURIComponent(id)}`;
    this.list = h('ul', { class: 'notice wants', 'aria-label': 'Open alerts', hidden: true });
    this.state = h('p', { class: 'small mute-state' });
    this.el = h('div', { class: 'device-alerts' }, this.list, this.state);
    alerts.addEventListener('change', this.#changed);
    this.#timer = setInterval(() => document.hidden || this.#loadMute(), REFRESH_MS);
    this.#loadMute();
    if (alerts.items !== null) this.#changed();
  }

  #again = () => Promise.all([this.#loadMute(), this.#open.load()]);

  /** The alerts of the device. They are requested only if not all open ones are known. */
  #changed = async () => {
    const asked = (this.#asked += 1);
    const isMine = (alert) => alert[`${this.of.stream}Id`] === this.of.id;
    let mine = this.#open.items.filter(isMine);
    if (this.#open.more) {
      const answer = await get(`/v1/alerts?state=open&${this.query}`).catch(() => null);
      if (answer === null || asked !== this.#asked) return;
      mine = answer.items;
    }
    const shown = JSON.stringify(mine);
    if (shown === this.#shown) return;
    this.#shown = shown;
    this.list.hidden = mine.length === 0;
    this.list.classList.toggle('critical', mine.some((alert) => known(alert)[2] === 'critical' && !isHandled(alert)));
    refill(this.list, inOrder(mine).map((alert) => {
      const opened = Date.parse(alert.openedAt);
      return h('li', { class: isHandled(alert) && 'handled' }, sign(alert),
        h('span', { title: exact(opened) }, `${against(alert)}, since ${dateTime(opened)}`), marks(alert),
        buttons(alert, known(alert)[0], this.#again));
    }));
  };

  /** Says whether the device is muted as a whole, with a button to change that. */
  async #loadMute() {
    const answer = await get(`/v1/alerts/mutes?${this.query}`).catch(() => null);
    if (answer === null) return;
    const mute = answer.items.find((one) => one.kind === null);
    const button = mute
      ? h('button', { type: 'button', class: 'small-button', 'data-key': 'mute', onclick: (event) => perform(event, () => unmute(this.of), this.#again) }, 'Unmute all alerts')
      : h('button', { type: 'button', class: 'small-button', 'data-key': 'mute', onclick: () => muteDevice(this.of, null, this.#again) }, 'Mute all alerts');
    refill(this.state, mute && h('span', { class: 'mark' }, `${muteWords(mute)} `), button);
  }

  destroy() {
    this.#asked += 1;
    clearInterval(this.#timer);
    this.#open.removeEventListener('change', this.#changed);
  }
}
