// The page: which view is shown, and what all views share.

import { now, request } from './api.js';
import { Alerts } from './alerts.js';
import { ChargingSessions } from './charging.js';
import { Devices } from './devices.js';
import { h, set, text } from './dom.js';
import { Fleet } from './fleet.js';
import { count, span, time } from './format.js';
import { Meter } from './meter.js';
import { OpenAlerts } from './open_alerts.js';
import { Store } from './store.js';
import { LiveStream } from './stream.js';
import { Vehicle } from './vehicle.js';

const HEALTH_MS = 5000;
/** If readings wait longer than this, they are no longer part of a running batch. */
const LAG_SECONDS = 15;
/** After this many unanswered requests in a row, it is more than a delay. */
const UNANSWERED_MAX = 3;

const stream = new LiveStream();
const alerts = new OpenAlerts(stream);
const context = { stream, store: new Store(stream), alerts };
const main = document.getElementById('main');
let shown = null;

/** The view for a path, and its part of the navigation. */
function view(hash) {
  const [, kind = '', ...rest] = hash.replace(/^#/, '').split('/');
  let id = '';
  try {
    // An id may contain anything, and a hand-written link may have an unencoded slash.
    id = decodeURIComponent(rest.join('/'));
  } catch {
    id = rest.join('/');
  }
  if (kind === 'vehicles') return ['vehicles', id ? new Vehicle(context, id) : new Devices(context, 'vehicle')];
  if (kind === 'meters') return ['meters', id ? new Meter(context, id) : new Devices(context, 'meter')];
  if (kind === 'sessions') return ['sessions', new ChargingSessions()];
  if (kind === 'alerts') return ['alerts', new Alerts(context)];
  return ['fleet', new Fleet(context)];
}

function route(moved) {
  shown?.destroy();
  const [part, next] = view(location.hash);
  shown = next;
  set(main, next.el);
  document.title = `${next.title} · Wattgate`;
  for (const link of document.querySelectorAll('nav a[data-view]')) {
    if (link.dataset.view === part) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  if (moved) {
    window.scrollTo(0, 0);
    // Tells screen readers which view is shown.
    main.querySelector('h1')?.focus({ preventScroll: true });
  }
}

let heard = null;

/** Shows a banner if the data on the page may be wrong. Otherwise hides it. */
function warn(what, gravity) {
  const banner = document.getElementById('banner');
  text(banner, what ?? '');
  banner.hidden = what === null;
  banner.className = `banner ${gravity ?? ''}`;
}

/** What does not work, in words for the person on call. */
function trouble(report) {
  const { wal = {}, database = {}, questions = {}, migrations = {}, lag = {}, gap = {} } = report;
  const why = (part) => (part.reason ? ` (${part.reason})` : '');
  if (report.status === 'stopping') return 'The gateway is stopping and accepts no more readings.';
  if (wal.status !== 'ok') return `The write-ahead log has failed${why(wal)}. No readings are accepted.`;
  if (gap.readings > 0) return `${count(gap.readings)} readings are missing from both the database and the log. See the runbook.`;
  if (database.status === 'down') {
    return `The database is unavailable${why(database)}. Readings are still accepted: ${count(lag.readings)} waiting in the log. The data shown may be out of date.`;
  }
  if (migrations.status === 'failed') return `The database schema does not fit this gateway${why(migrations)}. Readings wait in the log.`;
  if (questions.status === 'down') {
    return `Queries do not reach the database${why(questions)}. Readings are still accepted and stored. The data shown may be out of date.`;
  }
  if (lag.reason) return lagging(lag);
  return 'The gateway is starting and has not reached its database yet. Readings are already accepted.';
}

/** Describes what is stored late because the database is slow or hangs. Empty if it keeps up. */
function lagging({ readings, oldestSeconds }) {
  if (oldestSeconds < LAG_SECONDS) return null;
  return `The database is falling behind: ${count(readings)} readings wait in the log, the oldest for ${span(oldestSeconds)}. The data shown is equally old.`;
}

/** The number of successive health requests without a timely response. */
let unanswered = 0;

/** How old the data on the page is. */
const since = () => (heard ? `The data shown is from ${time(heard)}.` : 'Check that it is running and that the network is up.');

/** Shows the gateway's state in one word and, if it is not ready, the reason. */
async function health() {
  const pill = document.getElementById('health');
  try {
    const response = await request('/health', { signal: AbortSignal.timeout(HEALTH_MS) });
    const report = await response.json();
    const ready = report.status === 'ready';
    heard = now();
    document.getElementById('demo').hidden = !report.demo;
    text(pill, ready ? 'Ready' : report.status === 'stopping' ? 'Stopping' : 'Not ready');
    pill.className = ready ? 'pill good' : 'pill critical';
    pill.title = ready ? 'Readings are accepted and reach the database.' : '';
    warn(ready ? lagging(report.lag) : trouble(report), report.wal?.status === 'ok' ? 'warning' : 'critical');
    unanswered = 0;
  } catch (error) {
    // A request that is still waiting, here or in the gateway, has not failed.
    if (error.name === 'TimeoutError' || error.name === 'AbortError') {
      unanswered += 1;
      if (unanswered < UNANSWERED_MAX || document.hidden) return;
      text(pill, 'No answer');
      pill.className = 'pill warning';
      warn(`The gateway has not answered for ${span((unanswered * HEALTH_MS) / 1000)}. ${since()}`, 'warning');
      return;
    }
    text(pill, 'Offline');
    pill.className = 'pill critical';
    pill.title = '';
    warn(`The gateway cannot be reached. ${since()}`, 'critical');
  }
}

/** The number of open alerts, in the navigation. */
function showAlerts() {
  const badge = document.getElementById('alerts-open');
  badge.hidden = alerts.items.length === 0;
  set(badge, `${alerts.items.length}${alerts.more ? '+' : ''}`, h('span', { class: 'sr' }, ' open'));
}

function showStream() {
  const pill = document.getElementById('live');
  const [word, mark, meaning] = {
    live: ['Live', 'good', 'Changes appear as they happen.'],
    waiting: ['Reconnecting', 'warning', 'The data shown may be out of date.'],
    paused: ['Paused', 'warning', 'This tab is in the background. It loads again when you return to it.'],
    refused: ['Not live', 'warning', 'This key may not open the live stream.'],
  }[stream.state];
  text(pill, word);
  pill.className = `pill ${mark}`;
  pill.title = meaning;
}

/** The themes that the button cycles through: the system's, light, dark. */
function themes() {
  const root = document.documentElement;
  const button = document.getElementById('theme');
  const order = ['', 'light', 'dark'];
  const show = () => {
    const chosen = root.dataset.theme ?? '';
    const name = { '': 'Auto', light: 'Light', dark: 'Dark' }[chosen];
    set(button, '◐', h('span', { class: 'theme-name' }, ` ${name}`));
    button.setAttribute('aria-label', `Theme: ${name}`);
  };
  const changed = () => document.dispatchEvent(new Event('themechange'));
  button.addEventListener('click', () => {
    const chosen = order[(order.indexOf(root.dataset.theme ?? '') + 1) % order.length];
    if (chosen) root.dataset.theme = chosen;
    else delete root.dataset.theme;
    try {
      localStorage.setItem('wattgate-theme', chosen);
    } catch {
      // The choice then lasts until the user leaves the page.
    }
    show();
    changed();
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', changed);
  show();
}

document.getElementById('skip').addEventListener('click', (event) => {
  // The hash belongs to the router and must not become the link's target.
  event.preventDefault();
  main.focus();
});
window.addEventListener('hashchange', () => route(true));
stream.addEventListener('state', showStream);
alerts.addEventListener('change', showAlerts);
const { timeZone } = Intl.DateTimeFormat().resolvedOptions();
const offset = new Intl.DateTimeFormat('en', { timeZoneName: 'shortOffset' }).formatToParts().find((part) => part.type === 'timeZoneName');
text(document.getElementById('zone'), [timeZone, offset && `(${offset.value})`].filter(Boolean).join(' '));
themes();
showStream();
health();
setInterval(() => document.hidden || health(), HEALTH_MS);
document.addEventListener('visibilitychange', () => document.hidden || health());
alerts.load();
stream.run();
try {
  route(false);
} catch (error) {
  set(main, h('p', { class: 'notice' }, 'This view cannot be shown: ', String(error)));
  throw error;
}
