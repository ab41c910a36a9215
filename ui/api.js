// Requests to the gateway. If it requires a key, the user is asked for it once.

const KEY = 'wattgate-key';
/** The time limit of a request, longer than any response takes, so that a hung gateway does not look healthy. */
const PATIENCE_MS = 60000;

/** An unsuccessful response. */
export class ApiError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** How far the gateway's clock is ahead of this one, in milliseconds. */
let ahead = 0;
export const now = () => Date.now() + ahead;

let asking = null;

/** Asks for a key. All requests that need one wait for the same dialog. */
function askKey(refused) {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById('sign-in');
    const input = document.getElementById('sign-in-key');
    document.getElementById('sign-in-why').textContent = refused
      ? 'The gateway rejected that key: it is unknown, revoked or expired.'
      : 'To see the data of this gateway, enter a key with the right to read.';
    input.value = '';
    const close = () => {
      const key = input.value.trim();
      input.value = '';
      // The dialog reopens until there is a key, because nothing can be shown without one.
      if (!key) {
        dialog.showModal();
        return;
      }
      dialog.removeEventListener('close', close);
      sessionStorage.setItem(KEY, key);
      asking = null;
      resolve();
    };
    dialog.addEventListener('close', close);
    dialog.showModal();
  });
  return asking;
}

/** Sends a request with the stored key, if any. If the gateway refuses it, asks for another. */
export async function request(path, options = {}) {
  for (;;) {
    await asking;
    const key = sessionStorage.getItem(KEY);
    const headers = { ...options.headers };
    if (key) headers.Authorization = `Bearer ${key}`;
    const signal = options.signal ?? AbortSignal.timeout(PATIENCE_MS);
    const response = await fetch(path, { ...options, headers, signal, cache: 'no-store' });
    const date = Date.parse(response.headers.get('date') ?? '');
    // The header has whole seconds, so differences below two seconds mean nothing.
    if (Number.isFinite(date)) {
      const difference = date + 500 - Date.now();
      ahead = Math.abs(difference) > 2000 ? difference : 0;
    }
    if (response.status !== 401) return response;
    await response.body?.cancel();
    // Another request may have obtained a key in the meantime.
    if (sessionStorage.getItem(KEY) !== key) continue;
    sessionStorage.removeItem(KEY);
    await askKey(key !== null);
  }
}

/** A token of the state whose changes the live stream reports; null without read replicas. */
let seen = null;

/** What the stream reports changes of. */
const STREAMED = ['/v1/live/', '/v1/alerts'];

/** Sets the token that later requests send, so that no replica shows an older state than the stream's. */
export function readAfter(token) {
  seen = token ?? null;
}

/** Requests JSON. */
export async function get(path, options = {}) {
  const follows = seen !== null && STREAMED.some((start) => path.startsWith(start));
  const headers = follows ? { ...options.headers, 'Wattgate-Read-After': seen } : options.headers;
  const response = await request(path, { ...options, headers });
  if (response.ok) return response.json();
  throw await failure(response);
}

/** Sends a change: an object as JSON, or nothing. */
export async function change(method, path, body) {
  const options = { method };
  if (body !== undefined) {
    options.headers = { 'Content-Type': 'application/json' };
    options.body = JSON.stringify(body);
  }
  const response = await request(path, options);
  if (!response.ok) throw await failure(response);
  // What is loaded next must hold the change.
  seen = response.headers.get('wattgate-written') ?? seen;
  await response.body?.cancel();
}

export async function failure(response) {
  let detail = response.statusText || `status ${response.status}`;
  try {
    detail = (await response.json()).detail ?? detail;
  } catch {
    // It may be a proxy's error page. The status says enough.
  }
  return new ApiError(response.status, detail);
}

/** Yields the items of a list page by page, up to a number of pages. */
export async function* pages(path, limit, most, options) {
  let after = '';
  for (let page = 0; page < most; page += 1) {
    const joint = path.includes('?') ? '&' : '?';
    const answer = await get(`${path}${joint}limit=${limit}${after}`, options);
    yield answer;
    if (answer.next === null) return;
    after = `&after=${encodeURIComponent(answer.next)}`;
  }
}

/** Saves text as a download. */
export function save(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  URL.revokeObjectURL(url);
}

/** Formats an error as a sentence for the user. */
export function explain(error) {
  if (error instanceof ApiError) {
    if (error.status === 403) return `Not allowed: ${error.message}.`;
    if (error.status === 503) return `Temporarily unavailable: ${error.message}.`;
    return `${error.message.charAt(0).toUpperCase()}${error.message.slice(1)}.`;
  }
  if (error.name === 'TimeoutError') return 'The gateway has not answered in time.';
  return 'The gateway cannot be reached.';
}
