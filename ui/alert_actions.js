// What operators do about alerts: acknowledge one, or mute a device until some time.

import { change, explain, now } from './api.js';
import { h, name, set } from './dom.js';
import { dateTime, exact } from './format.js';

const HOUR_MS = 3600000;
const LENGTHS = [['1', '1 hour'], ['8', '8 hours'], ['24', '1 day'], ['168', '7 days'], ['720', '30 days']];
const LENGTH = '8';
const NOTE_MAX = 500;

/** The path of a device's mute, of one kind of alert or of all. */
const mutePath = ({ stream, id, kind }) =>
  `/v1/${stream}s/${encodeURIComponent(id)}/mute${kind ? `?kind=${encodeURIComponent(kind)}` : ''}`;

/** The kind and the id of the device of an alert or a mute. */
export function deviceOf(item) {
  const stream = item.meterId === undefined ? 'vehicle' : 'meter';
  return { stream, id: item.meterId ?? item.vehicleId ?? '' };
}

/** Who did something, when, and their note. */
function by(action) {
  const who = action.keyName ? ` by ${action.keyName}` : '';
  const note = action.note ? `: ${action.note}` : '';
  return `${who}${note}`;
}

/** The words about a mute. */
export const muteWords = (mute) => `Muted until ${dateTime(Date.parse(mute.until))}${by(mute)}`;

/** What operators have done about an alert. Empty if nobody has done anything. */
export function marks(alert) {
  const found = [];
  const { acknowledgement, mute } = alert;
  if (acknowledgement) {
    const at = Date.parse(acknowledgement.at);
    found.push(h('span', { class: 'mark', title: exact(at) }, `Acknowledged ${dateTime(at)}${by(acknowledgement)}`));
  }
  if (mute) found.push(h('span', { class: 'mark', title: exact(Date.parse(mute.until)) }, muteWords(mute)));
  return found;
}

/** The buttons of an open alert. `done` is called after a change. `label` is the name of its kind. */
export function buttons(alert, label, done) {
  const device = deviceOf(alert);
  const button = (key, words, onclick) => h('button', {
    type: 'button', class: 'small-button', 'data-key': `${alert.alertId} ${key}`,
    'aria-label': `${words}: ${label}, ${device.id}`, onclick,
  }, words);
  const path = `/v1/alerts/${encodeURIComponent(alert.alertId)}/acknowledgement`;
  const acknowledge = () => ask('Acknowledge the alert', [label, ', ', name(device.id)], [note()], 'Acknowledge',
    ({ note: text }) => change('POST', path, text.trim() ? { note: text.trim() } : {}), done);
  return h('div', { class: 'actions' },
    alert.acknowledgement
      ? button('acknowledge', 'Withdraw', (event) => perform(event, () => change('DELETE', path), done))
      : button('acknowledge', 'Acknowledge', acknowledge),
    alert.mute
      ? button('mute', 'Unmute', (event) => perform(event, () => unmute({ ...device, kind: alert.mute.kind }), done))
      : button('mute', 'Mute', () => muteDevice(device, [alert.kind, label], done)));
}

export const unmute = (mute) => change('DELETE', mutePath(mute));

/** Asks how long to mute a device, and mutes it. `kind` is a kind of alert and its name: then it may be muted alone. */
export function muteDevice(device, kind, done) {
  const length = select('length', 'For', LENGTHS, LENGTH);
  const which = kind ? [select('kind', 'Alerts', [[kind[0], kind[1]], ['', 'All alerts of the device']], kind[0])] : [];
  ask(kind ? 'Mute the alert' : 'Mute all alerts of the device', [name(device.id)], [length, ...which, note()], 'Mute',
    ({ length: hours, kind: only, note: text }) => change('PUT', mutePath({ ...device, kind: only }), {
      until: new Date(now() + Number(hours) * HOUR_MS).toISOString(), ...(text.trim() && { note: text.trim() }),
    }), done);
}

/** Makes a change at once. A failure is shown beside the button, which keeps the focus: it is never disabled. */
export async function perform(event, send, done) {
  const button = event.currentTarget;
  if (button.dataset.busy) return;
  button.dataset.busy = 'true';
  try {
    await send();
    await done();
  } catch (error) {
    const failure = h('p', { class: 'small critical-text', role: 'alert' }, explain(error));
    button.parentElement.querySelector('[role=alert]')?.remove();
    button.parentElement.append(failure);
  } finally {
    // The button stays if nothing about it has changed.
    delete button.dataset.busy;
  }
}

const note = () => [h('label', { for: 'action-note' }, 'Note (optional)'),
  h('input', { id: 'action-note', name: 'note', maxlength: NOTE_MAX, autocomplete: 'off' })];

const select = (key, label, options, current) => [h('label', { for: `action-${key}` }, label),
  h('select', { id: `action-${key}`, name: key },
    options.map(([value, shown]) => h('option', { value, selected: value === current }, shown)))];

/** The browser gives the focus back to the button that opened a dialog. If the button was replaced, its successor gets it. */
function focusAgain(opener) {
  if (opener.isConnected || document.activeElement !== document.body) return;
  [...document.querySelectorAll('[data-key]')].find((one) => one.dataset.key === opener.dataset.key)?.focus();
}

/** Shows a dialog with fields. It stays open with an error, until the change succeeds or the user gives up. */
function ask(title, about, fields, label, send, done) {
  const opener = document.activeElement;
  const failure = h('p', { class: 'notice critical', role: 'alert', hidden: true });
  const submit = h('button', { class: 'primary', type: 'submit' }, label);
  const dialog = h('dialog', { 'aria-labelledby': 'action-title', onclose: () => {
    dialog.remove();
    focusAgain(opener);
  } },
    h('form', {
      onsubmit: async (event) => {
        event.preventDefault();
        submit.disabled = true;
        try {
          await send(Object.fromEntries(new FormData(event.target)));
        } catch (error) {
          submit.disabled = false;
          failure.hidden = false;
          set(failure, explain(error));
          return;
        }
        dialog.close();
        await done();
      },
    }, h('h2', { id: 'action-title' }, title), h('p', { class: 'muted' }, about), fields, failure,
    h('div', { class: 'actions' }, submit,
      h('button', { type: 'button', class: 'quiet', onclick: () => dialog.close() }, 'Cancel'))));
  document.body.append(dialog);
  dialog.showModal();
}
