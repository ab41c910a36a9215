// The API reference, rendered from the gateway's own OpenAPI document.

import { h, set } from './dom.js';

const METHODS = ['get', 'post', 'put', 'delete'];
/** The depth limit, because a schema that refers to itself would be rendered forever. No schema is this deep. */
const DEPTH_MAX = 6;

let document_ = null;

/** Follows a reference. Returns the schema and its name. */
function resolve(value) {
  let name = null;
  while (value?.$ref) {
    const parts = value.$ref.slice(2).split('/').map((p) => p.replaceAll('~1', '/').replaceAll('~0', '~'));
    name = parts.at(-1);
    value = parts.reduce((at, part) => at?.[part], document_);
  }
  return { value: value ?? {}, name };
}

/** Renders text as paragraphs, with its `code`. */
function prose(text) {
  if (!text) return null;
  return text.trim().split(/\n\n+/).map((paragraph) => h('p', {}, inline(paragraph)));
}

function inline(text) {
  return text.split('`').map((part, n) => (n % 2 ? h('code', {}, part) : part));
}

/** Describes a schema's type in a few words. */
function typeOf(given) {
  const { value: schema } = resolve(given);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((v) => JSON.stringify(v)).join(' | ');
  if (schema.oneOf) return schema.oneOf.map(typeOf).join(' or ');
  if (schema.allOf) return 'object';
  const types = [schema.type ?? 'any'].flat();
  return types.map((type) => (type === 'array' ? `array of ${typeOf(schema.items ?? {})}` : type)).join(' or ');
}

function bounds(given) {
  const { value: schema } = resolve(given);
  const words = [];
  if (schema.minimum !== undefined && schema.maximum !== undefined) words.push(`${schema.minimum} to ${schema.maximum}`);
  else if (schema.minimum !== undefined) words.push(`at least ${schema.minimum}`);
  else if (schema.maximum !== undefined) words.push(`at most ${schema.maximum}`);
  if (schema.minLength !== undefined && schema.maxLength !== undefined) words.push(`${schema.minLength} to ${schema.maxLength} characters`);
  if (schema.maxItems !== undefined) words.push(`at most ${schema.maxItems}`);
  if (schema.format) words.push(schema.format);
  if (schema.default !== undefined) words.push(`default ${JSON.stringify(schema.default)}`);
  return words.join(', ');
}

/** All fields of an object schema, including those of its parts. */
function fieldsOf(given) {
  const { value: schema } = resolve(given);
  const parts = schema.allOf ?? (schema.oneOf ? [schema.oneOf[0]] : []);
  const all = { properties: { ...schema.properties }, required: [...(schema.required ?? [])] };
  for (const part of parts) {
    const { properties, required } = fieldsOf(part);
    Object.assign(all.properties, properties);
    all.required.push(...required);
  }
  if (schema.type === 'array' && schema.items) return fieldsOf(schema.items);
  return all;
}

function schemaTable(given, prefix = '', depth = 0) {
  const rows = [];
  const { properties, required } = fieldsOf(given);
  const must = (field) => (required.includes(field) ? 0 : 1);
  for (const [field, schema] of Object.entries(properties).sort(([a], [b]) => must(a) - must(b))) {
    const { value } = resolve(schema);
    rows.push(h('tr', {},
      h('th', { scope: 'row' }, h('code', {}, prefix + field), required.includes(field) && h('span', { class: 'must', title: 'required' }, ' *')),
      h('td', {}, typeOf(schema), h('div', { class: 'muted small' }, bounds(schema))),
      h('td', {}, inline(schema.description ?? value.description ?? ''))));
    const inner = value.type === 'array' ? value.items : value;
    const nested = inner && (resolve(inner).value.properties || resolve(inner).value.allOf);
    if (nested && depth < DEPTH_MAX) {
      rows.push(...schemaTable(inner, `${prefix}${field}${value.type === 'array' ? '[]' : ''}.`, depth + 1));
    }
  }
  return rows;
}

function table(heads, rows) {
  return rows.length > 0 && h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': heads.join(', ') },
    h('table', {}, h('thead', {}, h('tr', {}, heads.map((head) => h('th', { scope: 'col' }, head)))), h('tbody', {}, rows)));
}

function content(media) {
  return Object.entries(media ?? {}).map(([type, body]) => {
    const example = body.example ?? resolve(body.schema ?? {}).value.example;
    return [
      h('p', { class: 'muted small' }, type),
      body.schema && table(['Field', 'Type', 'Meaning'], schemaTable(body.schema)),
      example !== undefined && h('pre', { tabindex: 0, role: 'region', 'aria-label': 'Example' },
        typeof example === 'string' ? example.trim() : JSON.stringify(example, null, 2)),
    ];
  });
}

function curl(method, path, operation) {
  const media = resolve(operation.requestBody ?? {}).value.content;
  const body = media?.['application/json']?.example;
  const url = `${location.origin}${path.replace(/\{(\w+)\}/g, (_, id) => `$${id.toUpperCase()}`)}`;
  const parts = [method === 'get' ? 'curl' : `curl -X ${method.toUpperCase()}`, `"${url}"`];
  if (path.startsWith('/v1')) parts.push(`\\\n  -H "Authorization: Bearer $KEY"`);
  if (operation.operationId === 'streamLive') parts.splice(1, 0, '-N');
  if (body) parts.push(`\\\n  -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify(body)}'`);
  return h('pre', { tabindex: 0, role: 'region', 'aria-label': 'With curl' }, parts.join(' '));
}

function operation(path, method, op) {
  const parameters = (op.parameters ?? []).map((p) => resolve(p).value);
  const body = op.requestBody && resolve(op.requestBody).value;
  const groups = new Map();
  for (const [status, response] of Object.entries(op.responses ?? {})) groups.set(status, resolve(response).value);
  const good = [...groups].filter(([status]) => status < 300);
  const bad = [...groups].filter(([status]) => status >= 300);
  return h('section', { class: 'panel operation', id: op.operationId, 'aria-labelledby': `${op.operationId}-title` },
    h('h3', { id: `${op.operationId}-title` }, h('span', { class: `method ${method}` }, method.toUpperCase()), ' ', h('code', {}, path)),
    h('p', {}, h('b', {}, op.summary)), prose(op.description), curl(method, path, op),
    parameters.length > 0 && [h('h4', {}, 'Parameters'), table(['Name', 'Type', 'Meaning'], parameters.map((p) => h('tr', {},
      h('th', { scope: 'row' }, h('code', {}, p.name), p.required && h('span', { class: 'must', title: 'required' }, ' *'), h('div', { class: 'muted small' }, p.in)),
      h('td', {}, typeOf(p.schema), h('div', { class: 'muted small' }, bounds(p.schema))),
      h('td', {}, inline(p.description ?? resolve(p.schema).value.description ?? '')))))],
    body && [h('h4', {}, 'Body'), prose(body.description), content(body.content)],
    good.map(([status, response]) => [h('h4', {}, `${status} `, h('span', { class: 'muted' }, inline(response.description))), content(response.content)]),
    bad.length > 0 && h('details', {}, h('summary', {}, `Errors: ${bad.map(([status]) => status).join(', ')}`),
      h('dl', { class: 'errors' }, bad.map(([status, response]) => [h('dt', {}, status), h('dd', {}, inline(response.description))]))));
}

function draw() {
  const { info, tags, paths } = document_;
  const byTag = new Map(tags.map((tag) => [tag.name, { tag, operations: [] }]));
  for (const [path, methods] of Object.entries(paths)) {
    for (const method of METHODS) {
      if (methods[method]) byTag.get(methods[method].tags[0])?.operations.push([path, method, methods[method]]);
    }
  }
  const groups = [...byTag.values()].filter((group) => group.operations.length > 0);
  set(document.getElementById('contents'), groups.map(({ tag, operations }) => h('div', {},
    h('h2', {}, tag.name),
    h('ul', {}, operations.map(([path, method, op]) => h('li', {}, h('a', { href: `#${op.operationId}` },
      h('span', { class: `method ${method}` }, method.toUpperCase()), ' ', path.replace(/^\/v1/, ''))))))));
  set(document.getElementById('main'),
    h('h1', {}, `${info.title} ${info.version}`), prose(info.description),
    h('p', { class: 'muted' }, 'Machine-readable: ', h('a', { href: '/openapi.json' }, '/openapi.json'), ', ', h('a', { href: '/openapi.yaml' }, '/openapi.yaml'), '.'),
    groups.map(({ tag, operations }) => [
      h('h2', { class: 'tag' }, tag.name, h('span', { class: 'muted' }, ` ${tag.description}`)),
      operations.map(([path, method, op]) => operation(path, method, op))]));
  // The element in the URL's hash did not exist yet when the page loaded.
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

try {
  const response = await fetch('/openapi.json');
  if (!response.ok) throw new Error(`status ${response.status}`);
  document_ = await response.json();
  draw();
} catch (error) {
  set(document.getElementById('main'), h('p', { class: 'notice' }, 'The document cannot be loaded: ', error.message));
}
