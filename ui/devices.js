// All devices of a kind, in a table whose rows exist only while visible.

import { explain, now } from './api.js';
import { choice, h, set, text } from './dom.js';
import { age, celsius, count, exact, fixed, kilowatts, kwh, percent } from './format.js';
import { freshFor, isStale, powerOf } from './store.js';

const ROW = 40;
/** Rows beyond the visible ones, so that scrolling shows no blanks. */
const SPARE = 12;
/** A browser's tallest element is some 30 million pixels: far more than 100,000 rows. */
const SHOW_EVERY_MS = 1000;

const KINDS = {
  vehicle: {
    title: 'Vehicles',
    one: 'vehicle',
    columns: [
      { key: 'id', label: 'Vehicle' },
      { key: 'soc', label: 'Charge', number: true, show: (d) => percent(d.soc, 0), bar: (d) => d.soc },
      { key: 'batteryTemp', label: 'Battery', number: true, show: (d) => celsius(d.batteryTemp) },
      { key: 'kwhDeliveredDc', label: 'Last DC', number: true, wide: true, show: (d) => kwh(d.kwhDeliveredDc) },
      { key: 'at', label: 'Last seen', number: true },
    ],
  },
  meter: {
    title: 'Meters',
    one: 'meter',
    columns: [
      { key: 'id', label: 'Meter' },
      { key: 'powerKw', label: 'Power', number: true, value: powerOf, show: (d) => kilowatts(powerOf(d)) },
      { key: 'voltage', label: 'Voltage', number: true, show: (d) => `${fixed(d.voltage, 1)} V` },
      { key: 'kwhConsumedAc', label: 'Last AC', number: true, wide: true, show: (d) => kwh(d.kwhConsumedAc) },
      { key: 'at', label: 'Last seen', number: true },
    ],
  },
};

export class Devices {
  #store;
  #kind;
  #columns;
  #filter = '';
  #state = 'all';
  #sort = { key: 'id', down: false };
  #shown = [];
  #rows = [];
  #timer;
  #dirty = true;
  #frame = 0;

  constructor({ store }, kind) {
    this.#store = store;
    this.#kind = kind;
    const { title, columns, one } = KINDS[kind];
    this.title = title;
    this.#columns = columns;
    this.number = h('p', { class: 'muted', role: 'status' }, 'Loading');
    const find = h('input', {
      type: 'search', placeholder: `Find a ${one}`, 'aria-label': `Find a ${one} by id`,
      spellcheck: 'false', autocomplete: 'off',
      oninput: () => {
        this.#filter = find.value.trim().toLowerCase();
        this.#arrange(true);
      },
    });
    this.heads = columns.map((column) => h('button', {
      type: 'button', class: 'quiet', onclick: () => this.#sortBy(column),
    }, column.label));
    this.space = h('div', { class: 'rows-space', role: 'rowgroup' });
    this.body = h('div', {
      class: `devices ${kind}`, role: 'table', 'aria-label': title, tabindex: 0, onscroll: () => this.#draw(),
    }, h('div', { role: 'rowgroup', class: 'heads' }, h('div', { class: 'row head', role: 'row', 'aria-rowindex': 1 },
      columns.map((column, n) => h('div', {
        role: 'columnheader', class: cellClass(column),
      }, this.heads[n])))), this.space);
    this.el = h('div', { class: 'view list' },
      h('div', { class: 'list-head' }, h('h1', { tabindex: -1 }, title), this.number,
        choice('State', [['all', 'All'], ['live', 'Live'], ['stale', 'Silent']], 'all', (value) => {
          this.#state = value;
          this.#arrange(true);
        }), find), this.body);
    store.addEventListener('change', this.#changed);
    this.#timer = setInterval(() => this.#tick(), SHOW_EVERY_MS);
    window.addEventListener('resize', this.#draw);
    // Show what is loaded at once. The frame is needed to know the height.
    requestAnimationFrame(() => this.#arrange(false));
    store.load(kind).catch((error) => set(this.number, explain(error)));
  }

  destroy() {
    clearInterval(this.#timer);
    cancelAnimationFrame(this.#frame);
    this.#store.removeEventListener('change', this.#changed);
    window.removeEventListener('resize', this.#draw);
  }

  #changed = (event) => {
    if (event.detail.kind !== this.#kind) return;
    // The first page is shown immediately. After that, changes are sorted in together, but visible rows are
    // updated at once.
    if (this.#shown.length === 0) this.#arrange(false);
    else {
      this.#dirty = true;
      this.#draw();
    }
  };

  #tick() {
    if (document.hidden) return;
    if (this.#dirty || this.#state !== 'all') this.#arrange(false);
    // Ages grow even without changes.
    else this.#draw();
  }

  #sortBy(column) {
    const same = this.#sort.key === column.key;
    // Numbers are sorted in descending order at first, ids in ascending order.
    this.#sort = { key: column.key, down: same ? !this.#sort.down : column.number === true };
    this.#arrange(true);
  }

  #arrange(toTop) {
    this.#dirty = false;
    const all = this.#store.devices[this.#kind];
    const shown = [];
    for (const device of all.values()) {
      if (this.#state !== 'all' && isStale(device) !== (this.#state === 'stale')) continue;
      if (this.#filter && !device.id.toLowerCase().includes(this.#filter)) continue;
      shown.push(device);
    }
    const { key, down } = this.#sort;
    const sign = down ? -1 : 1;
    const byId = (a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0);
    if (key === 'id') shown.sort((a, b) => sign * byId(a, b));
    else {
      const column = this.#columns.find((one) => one.key === key);
      const value = column.value ?? ((d) => d[key]);
      const values = new Map(shown.map((d) => [d, value(d)]));
      // Unknown values come last, whatever the direction.
      const last = (v) => (v === null ? 1 : 0);
      shown.sort((a, b) => {
        const [x, y] = [values.get(a), values.get(b)];
        if (x === null || y === null) return last(x) - last(y) || byId(a, b);
        return x < y ? -sign : x > y ? sign : byId(a, b);
      });
    }
    this.#shown = shown;
    const complete = this.#store.complete[this.#kind];
    text(this.number, all.size === 0 && complete ? 'No device has reported yet.'
      : shown.length === all.size ? `${count(all.size)}${complete ? '' : ', loading'}`
        : `${count(shown.length)} of ${count(all.size)}`);
    this.heads.forEach((head, n) => {
      const mine = this.#columns[n].key === key;
      head.className = mine ? `quiet sorted ${down ? 'down' : 'up'}` : 'quiet';
      head.parentElement.setAttribute('aria-sort', mine ? (down ? 'descending' : 'ascending') : 'none');
    });
    this.body.setAttribute('aria-rowcount', String(shown.length + 1));
    this.space.style.height = `${shown.length * ROW}px`;
    if (toTop) this.body.scrollTop = 0;
    this.#draw();
  }

  #draw = () => {
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => this.#drawNow());
  };

  #drawNow() {
    const first = Math.max(0, Math.floor(this.body.scrollTop / ROW) - SPARE);
    const wanted = Math.ceil(this.body.clientHeight / ROW) + 2 * SPARE;
    const last = Math.min(this.#shown.length, first + wanted);
    while (this.#rows.length < last - first) {
      const row = this.#row();
      this.#rows.push(row);
      this.space.append(row.el);
    }
    // Rows are recycled and a device keeps its row, so that scrolling changes few texts.
    this.#rows.forEach((row, n) => {
      const size = this.#rows.length;
      const at = first + ((n - (first % size)) + size) % size;
      if (at < last) this.#fill(row, at);
      else row.el.hidden = true;
    });
  }

  #row() {
    const link = h('a', {}, h('bdi', { class: 'id' }));
    const cells = this.#columns.map((column, n) => {
      const words = h('span', {});
      const silent = column.key === 'at' ? h('span', { class: 'word' }) : null;
      const bar = column.bar ? h('i', { class: 'dc' }) : null;
      const el = h('div', { role: n === 0 ? 'rowheader' : 'cell', class: cellClass(column) },
        silent, n === 0 ? link : words, bar && h('div', { class: 'bar', 'aria-hidden': 'true' }, bar));
      return { el, words, silent, bar };
    });
    return { el: h('div', { class: 'row', role: 'row' }, cells.map((c) => c.el)), cells, link };
  }

  #fill(row, at) {
    const device = this.#shown[at];
    const old = now() - device.at;
    const silent = old > freshFor(device);
    row.el.hidden = false;
    row.el.style.transform = `translateY(${at * ROW}px)`;
    row.el.setAttribute('aria-rowindex', String(at + 2));
    row.el.classList.toggle('stale', silent);
    const href = `#/${this.#kind}s/${encodeURIComponent(device.id)}`;
    if (row.link.getAttribute('href') !== href) {
      row.link.setAttribute('href', href);
      row.link.title = device.id;
      text(row.link.firstChild, device.id);
    }
    this.#columns.forEach((column, n) => {
      const cell = row.cells[n];
      if (column.show) text(cell.words, column.show(device));
      if (cell.bar) cell.bar.style.width = `${column.bar(device)}%`;
    });
    const heard = row.cells.at(-1);
    text(heard.silent, silent ? 'silent ' : '');
    text(heard.words, old < 1500 ? 'now' : age(old / 1000));
    heard.el.title = exact(device.at);
  }
}

function cellClass(column) {
  return `cell ${column.number ? 'n' : ''} ${column.wide ? 'wide' : ''}`;
}
