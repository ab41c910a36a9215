// Numbers and times for people, in English like the page. Times are local.

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const digits = [0, 1, 2, 3].map((n) =>
  new Intl.NumberFormat('en', { minimumFractionDigits: n, maximumFractionDigits: n }));
const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit' });
const dayClock = new Intl.DateTimeFormat('en-GB',
  { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' });
const dayOnly = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' });
const full = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'long' });

export const none = '–';
export const isNumber = (value) => typeof value === 'number' && Number.isFinite(value);

export const count = (value) => (isNumber(value) ? whole.format(value) : none);
export const fixed = (value, places) => (isNumber(value) ? digits[places].format(value) : none);
export const percent = (value, places = 1) => (isNumber(value) ? `${fixed(value, places)}%` : none);
/** A number with its unit. A percent sign follows directly, every other unit after a space. */
export const withUnit = (text, unit) => (unit === '%' ? `${text}%` : `${text} ${unit}`);
export const celsius = (value) => (isNumber(value) ? `${fixed(value, 1)} °C` : none);

const short = new Intl.NumberFormat('en', { maximumFractionDigits: 3 });
/** A number without rounding, with thousands separators. */
export const plain = (value) => short.format(value);

/** Energy in kWh, or in MWh where it need not be compared with kWh. */
export function kwh(value) {
  if (!isNumber(value)) return none;
  if (Math.abs(value) >= 1000000) return `${fixed(value / 1000, 1)} MWh`;
  return `${fixed(value, Math.abs(value) >= 1000 ? 0 : Math.abs(value) >= 10 ? 1 : Math.abs(value) >= 1 || value === 0 ? 2 : 3)} kWh`;
}

/** Power in kW, or in MW if it is large. */
export function kilowatts(value) {
  if (!isNumber(value)) return none;
  if (Math.abs(value) >= 10000) return `${fixed(value / 1000, 1)} MW`;
  return `${fixed(value, Math.abs(value) >= 100 ? 0 : 1)} kW`;
}

/** A rate per second, rounded to significant digits. */
export function rate(value) {
  if (!isNumber(value)) return none;
  return value < 10 ? fixed(value, 1) : count(value);
}

export function bytes(value) {
  if (!isNumber(value)) return none;
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${fixed(value, value < 10 && unit > 0 ? 1 : 0)} ${units[unit]}`;
}

/** A duration in seconds, as one or two units. */
export function span(seconds) {
  if (!isNumber(seconds)) return none;
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  const hours = Math.floor(s / 3600);
  if (hours < 48) {
    const minutes = Math.floor((s % 3600) / 60);
    return minutes ? `${hours} h ${minutes} min` : `${hours} h`;
  }
  return `${Math.floor(hours / 24)} days`;
}

/** A duration in seconds as a single unit, where space is short. */
export function age(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} days`;
}

export const time = (ms) => clock.format(ms);
export const day = (ms) => dayOnly.format(ms);
export const dateTime = (ms) => dayClock.format(ms);
export const exact = (ms) => full.format(ms);

/** Formats an amount of money. */
export function money(value, currency) {
  return new Intl.NumberFormat('en', { style: 'currency', currency }).format(value);
}

/** The statuses of efficiency, best first: what they are called and their sign, which tells them
 * apart without their colour. */
export const STATUSES = [
  ['excellent', 'Excellent', '●'],
  ['good', 'Good', '●'],
  ['warning', 'Warning', '▲'],
  ['critical', 'Critical', '◆'],
  ['inconsistent', 'Inconsistent', '✕'],
  ['insufficient_data', 'Not enough data', '○'],
];
