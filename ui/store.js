// The known status of all devices, loaded page by page and updated by the stream.

import { now, pages } from './api.js';

/**
 * As in the gateway: a reading is stale if it is older than this many of its device's intervals and than the time
 * below.
 */
export const SILENT_INTERVALS = 3;
const SILENT_SECONDS_MIN = 180;
const PAGE = 1000;
/** At most 100,000 devices. A browser is not the place for more. */
const PAGES_MAX = 100;

const idOf = { meter: 'meterId', vehicle: 'vehicleId' };

/** A device's status, with its time as a number. */
function entry(kind, status) {
  return {
    ...status,
    // Gateways of earlier versions do not send this.
    powerKw: status.powerKw ?? null,
    intervalSeconds: status.intervalSeconds ?? null,
    id: status[idOf[kind]],
    at: Date.parse(status.timestamp),
  };
}

/** Dispatches `change` (detail: the kind and the entries) after a load or live changes. */
export class Store extends EventTarget {
  devices = { meter: new Map(), vehicle: new Map() };
  complete = { meter: false, vehicle: false };
  #wanted = { meter: false, vehicle: false };
  #loading = { meter: null, vehicle: null };
  #generation = 0;

  constructor(stream) {
    super();
    stream.addEventListener('changes', (event) => {
      for (const kind of ['meter', 'vehicle']) this.#take(kind, event.detail[kind]);
    });
    stream.addEventListener('reset', () => {
      this.#generation += 1;
      for (const kind of ['meter', 'vehicle']) if (this.#wanted[kind]) this.load(kind, true);
    });
  }

  /** Loads all devices of a kind, once. */
  load(kind, anew = false) {
    this.#wanted[kind] = true;
    if (anew || !this.#loading[kind]) {
      const loading = this.#pages(kind, this.#generation);
      this.#loading[kind] = loading;
      loading.catch(() => {
        if (this.#loading[kind] === loading) this.#loading[kind] = null;
      });
    }
    return this.#loading[kind];
  }

  async #pages(kind, generation) {
    for await (const page of pages(`/v1/live/${kind}s`, PAGE, PAGES_MAX)) {
      if (generation !== this.#generation) return;
      this.complete[kind] ||= page.next === null;
      this.#take(kind, page.items);
    }
  }

  #take(kind, statuses) {
    const taken = [];
    const known = this.devices[kind];
    for (const status of statuses) {
      const fresh = entry(kind, status);
      const old = known.get(fresh.id);
      // A page may be older than what the stream has delivered in the meantime.
      if (old && old.at > fresh.at) continue;
      // The stream leaves it out while very many devices change.
      if (old) fresh.intervalSeconds ??= old.intervalSeconds;
      // Updated in place, because every view of the device holds this same object.
      if (old) Object.assign(old, fresh);
      else known.set(fresh.id, fresh);
      taken.push(fresh);
    }
    if (taken.length > 0 || this.complete[kind]) {
      this.dispatchEvent(new CustomEvent('change', { detail: { kind, taken } }));
    }
  }
}

/** How old a device's latest reading may be before it is stale, in milliseconds. */
export const freshFor = ({ intervalSeconds }) =>
  1000 * Math.max(SILENT_SECONDS_MIN, SILENT_INTERVALS * (intervalSeconds ?? 0));

export const isStale = (device) => now() - device.at > freshFor(device);

/**
 * Above this power a device counts as charging, in kW. Charging takes 1.4 kW at least; idle devices take some
 * watts.
 */
export const CHARGING_KW = 0.1;

/** The present power of a device, in kW; null if unknown or outdated. */
export const powerOf = (device) => (device && !isStale(device) ? device.powerKw : null);

/** The total power of all devices, in kW; null if none is known. */
export function powerOfAll(devices) {
  let sum = null;
  for (const device of devices.values()) {
    const power = powerOf(device);
    if (power !== null) sum = (sum ?? 0) + power;
  }
  return sum;
}

/** How many devices of a kind report, and how many have gone silent. */
export function tally(devices) {
  let live = 0;
  for (const device of devices.values()) if (!isStale(device)) live += 1;
  return { live, stale: devices.size - live };
}
