// Line and bar charts over time, drawn by uPlot in the page's colours.

import { h, svg, text } from './dom.js';
import { dateTime, fixed, isNumber, none, plain, withUnit } from './format.js';
import { SILENT_INTERVALS } from './store.js';

const uPlot = window.uPlot;
/** A shorter drag counts as a click. */
const ZOOM_PIXELS_MIN = 8;
const HEIGHT = 200;

const colour = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** A silence of this many seconds interrupts a line. For devices that report rarely, it must be longer. */
const GAP_SECONDS = 900;

/** The usual interval of a device is derived from this many of its latest readings. */
const LEARNED_FROM = 200;

/**
 * The interval by which a device's line is drawn, in seconds: the median of the times between its latest readings,
 * or its present usual interval if that is longer. Null if neither is known.
 */
export function intervalOf(seconds, now) {
  const from = Math.max(1, seconds.length - LEARNED_FROM);
  const between = [];
  for (let at = from; at < seconds.length; at += 1) between.push(seconds[at] - seconds[at - 1]);
  between.sort((a, b) => a - b);
  return Math.max(between[between.length >> 1] ?? 0, now ?? 0) || null;
}

/** How long a silence must last to interrupt the line of a device with this usual interval, in seconds. */
export const gapOf = (interval) => Math.max(GAP_SECONDS, SILENT_INTERVALS * (interval ?? 0));

/**
 * A chart. `series`: `{label, colour, unit, places, scale, step, bars, dots, range}`; `data`: seconds, then one
 * column per series, with nulls as gaps. `summary(data)` describes the lines in words, for screen readers.
 */
export class Chart {
  #plot = null;
  /** The part of the window that the user has zoomed into. */
  #zoom = null;
  #data;
  #spec;
  #sized;

  constructor(spec) {
    this.#spec = spec;
    this.#data = [[], ...spec.series.map(() => [])];
    this.legend = h('ul', { class: 'legend', 'aria-hidden': 'true' });
    this.values = spec.series.map((s) => {
      const value = h('b', {}, none);
      this.legend.append(h('li', {}, h('i', { class: `key ${s.colour}` }), s.label, ' ', value));
      return value;
    });
    this.at = h('li', { class: 'muted' });
    this.legend.append(this.at);
    this.canvas = h('div', { class: 'chart', role: 'img', 'aria-label': spec.label, hidden: true });
    this.empty = h('p', { class: 'muted empty chart-empty' }, 'Loading');
    this.whole = h('button', {
      type: 'button', class: 'quiet whole', hidden: true,
      onclick: () => {
        this.#zoom = null;
        this.#rescale();
      },
    }, 'Whole period');
    this.el = h('figure', {}, this.legend, this.whole, this.canvas, this.empty);
    this.#sized = new ResizeObserver(() => this.#size());
    this.#sized.observe(this.canvas);
    document.addEventListener('themechange', this.#redraw);
  }

  destroy() {
    this.#sized.disconnect();
    document.removeEventListener('themechange', this.#redraw);
    this.#plot?.destroy();
    this.#plot = null;
  }

  /** Shows data over a window, in seconds. */
  show(data, window) {
    this.#data = data;
    // The zoomed part stays visible while readings arrive, until another period is chosen.
    const [from, to] = this.window ?? [];
    if (Math.abs((to - from) - (window[1] - window[0])) > 1) this.#zoom = null;
    this.window = window;
    const some = data[0].length > 0;
    this.empty.hidden = some;
    text(this.empty, some ? '' : this.#spec.empty ?? 'No readings in this period.');
    this.canvas.hidden = !some;
    this.canvas.setAttribute('aria-label', some ? this.#summary() : this.#spec.label);
    if (!some) return;
    if (this.#plot) this.#plot.setData(data);
    else this.#redraw();
    this.#point(data[0].length - 1, false);
  }

  /** Reports why there is nothing new to show. The earlier content stays. */
  fail(why) {
    if (this.#data[0].length === 0) text(this.empty, why);
  }

  #summary() {
    const parts = this.#spec.series.map((s, at) => {
      const values = this.#data[at + 1].filter((v) => v !== null);
      if (values.length === 0) return `${s.label}: none`;
      // Without spread syntax, because there may be more values than a call can have arguments.
      const least = values.reduce((a, b) => Math.min(a, b));
      const most = values.reduce((a, b) => Math.max(a, b));
      const shown = (v) => withUnit(fixed(v, s.places), s.unit);
      return `${s.label} from ${shown(least)} to ${shown(most)}, last ${shown(values.at(-1))}`;
    });
    return `${this.#spec.label}. ${parts.join('. ')}.`;
  }

  #point(at, pointed) {
    this.#spec.series.forEach((s, n) => {
      const value = this.#data[n + 1][at];
      // The last bar is not the present value, so the legend stays empty until a bar is hovered.
      if (s.bars && !pointed) text(this.values[n], '');
      else text(this.values[n], isNumber(value) ? withUnit(fixed(value, s.places), s.unit) : none);
    });
    const seconds = this.#data[0][at];
    text(this.at, pointed && seconds !== undefined ? dateTime(seconds * 1000) : '');
  }

  #rescale() {
    this.#plot?.setData(this.#data);
    this.whole.hidden = this.#zoom === null;
  }

  #size() {
    const width = Math.floor(this.canvas.clientWidth);
    if (this.#plot && width > 0 && width !== this.#plot.width) {
      this.#plot.setSize({ width, height: HEIGHT });
    }
  }

  #redraw = () => {
    this.#plot?.destroy();
    this.#plot = null;
    if (this.#data[0].length === 0) return;
    const width = Math.max(200, Math.floor(this.canvas.clientWidth) || 600);
    this.#plot = new uPlot(this.#options(width), this.#data, this.canvas);
  };

  #options(width) {
    const ink = colour('--muted');
    const line = colour('--line');
    const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: '11px system-ui, sans-serif' };
    const scales = { x: { time: true, range: () => this.#zoom ?? this.window } };
    const axes = [{ ...axis, grid: { show: false }, space: 64, size: 26, values: timeAxis() }];
    this.#spec.series.forEach((s, n) => {
      if (scales[s.scale]) return;
      scales[s.scale] = { range: s.range ?? padded };
      axes.push({
        ...axis, scale: s.scale, size: axisSize, side: n === 0 ? 3 : 1,
        grid: n === 0 ? axis.grid : { show: false },
        values: (_, ticks) => labels(ticks, s.unit),
      });
    });
    const series = [{}, ...this.#spec.series.map((s) => ({
      label: s.label, scale: s.scale, stroke: colour(`--${s.colour}`), width: s.bars ? 0 : 1.75,
      fill: s.bars ? colour(`--${s.colour}`) : undefined,
      points: s.dots ? { show: true, size: 7, fill: colour(`--${s.colour}`) } : { show: false, filter: lone, size: 6, fill: colour(`--${s.colour}`) }, spanGaps: false,
      paths: s.bars ? uPlot.paths.bars({ size: [s.bars.size, 40], align: s.bars.align })
        : s.step ? uPlot.paths.stepped({ align: -1 }) : undefined,
    }))];
    return {
      width, height: HEIGHT, scales, axes, series,
      legend: { show: false },
      cursor: { y: false, points: { show: !this.#spec.series.some((s) => s.bars) }, drag: { x: true, y: false, setScale: false } },
      // Space for half of the last time label, which would otherwise be cut off.
      padding: [10, 20, 0, 0],
      hooks: {
        setSelect: [(u) => {
          const { left, width } = u.select;
          if (width < ZOOM_PIXELS_MIN) return;
          this.#zoom = [u.posToVal(left, 'x'), u.posToVal(left + width, 'x')];
          u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
          this.#rescale();
        }],
        setCursor: [(u) => {
          const at = u.cursor.idx;
          const pointed = at !== null && at !== undefined && u.cursor.left >= 0;
          this.#point(pointed ? at : this.#data[0].length - 1, pointed);
        }],
      },
    };
  }
}

/** Points without neighbours, which no line segment touches. Each gets a marker. */
function lone(u, series) {
  if (u.series[series].width === 0) return null;
  const values = u.data[series];
  const known = (at) => values[at] !== null && values[at] !== undefined;
  const found = [];
  for (let at = 0; at < values.length; at += 1) {
    if (known(at) && !known(at - 1) && !known(at + 1)) found.push(at);
  }
  return found.length > 0 ? found : null;
}

/** The width of an axis: that of its longest label, so that none is cut off. */
const axisSize = (u, labels) =>
  Math.max(40, 14 + 6.6 * (labels ?? []).reduce((most, label) => Math.max(most, label.length), 0));

/** The labels of the time axis: times of day, and the date where a new day begins. */
function timeAxis() {
  const date = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' });
  const hour = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit' });
  return (u, ticks) => ticks.map((seconds) => {
    const at = new Date(seconds * 1000);
    const midnight = at.getHours() === 0 && at.getMinutes() === 0;
    return midnight ? date.format(at) : hour.format(at);
  });
}

/** The labels of an axis. The topmost one has the unit. */
function labels(ticks, unit) {
  const last = ticks.findLastIndex((t) => t !== null);
  return ticks.map((t, n) => (t === null ? '' : n === last ? withUnit(plain(t), unit) : plain(t)));
}

/** A scale with some space around the values. */
function padded(u, least, most) {
  if (least === null || most === null) return [0, 1];
  const room = Math.max((most - least) * 0.1, Math.abs(most) * 0.005, 0.1);
  return [least < 0 || least - room >= 0 ? least - room : 0, most + room];
}

export const fromZero = (u, least, most) => [0, Math.max((most ?? 1) * 1.08, 0.001)];
export const hundred = () => [0, 100];

/** Inserts nulls where readings are far apart, to interrupt the line there. */
export function withGaps(data, interval) {
  const gap = gapOf(interval);
  const cut = data.map(() => []);
  data[0].forEach((seconds, at) => {
    const before = data[0][at - 1];
    if (before !== undefined && seconds - before > gap) {
      cut[0].push(before + 1);
      for (let n = 1; n < data.length; n += 1) cut[n].push(null);
    }
    data.forEach((column, n) => cut[n].push(column[at]));
  });
  return cut;
}

/** A small line chart without axes. The text beside it gives its values. */
export class Spark {
  constructor(colours) {
    this.lines = colours.map((name) => svg('polyline', { class: `spark-line ${name}`, fill: 'none' }));
    this.el = svg('svg', {
      class: 'spark', viewBox: '0 0 100 28', preserveAspectRatio: 'none', 'aria-hidden': 'true',
    }, this.lines);
  }

  show(columns, most) {
    const top = Math.max(1e-9, ...columns.flat());
    columns.forEach((column, n) => {
      const from = most - column.length;
      const points = column.map((value, at) =>
        `${(((from + at) / (most - 1)) * 100).toFixed(1)},${(26 - (value / top) * 24).toFixed(1)}`);
      this.lines[n].setAttribute('points', points.join(' '));
    });
  }
}
