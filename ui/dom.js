// Makes elements. Texts always become text nodes, so an id that contains markup is shown as it is.

/** Makes an element. `on…` are listeners; `class` and `data-…` are as in HTML; `false` omits an attribute. */
export function h(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** Makes an SVG element. */
export function svg(tag, props, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', tag), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** Replaces the content of an element. */
export function set(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

/** Sets a text, unless it is unchanged. */
export function text(element, value) {
  const wanted = String(value);
  if (element.textContent !== wanted) element.textContent = wanted;
}

/** An id, isolated so that right-to-left text in it does not reorder its surroundings. */
export function name(id) {
  return h('bdi', { class: 'id', title: id }, id);
}

/** A panel with a heading. `side` goes to the other end of the heading. */
export function panel(title, side, ...children) {
  const id = `panel-${(panel.count = (panel.count ?? 0) + 1)}`;
  return h('section', { class: 'panel', 'aria-labelledby': id },
    h('div', { class: 'panel-head' }, h('h2', { id }, title), side),
    children);
}

/** A row of options, one of which is selected. */
export function choice(label, options, current, onchange) {
  const group = `choice-${(choice.count = (choice.count ?? 0) + 1)}`;
  return h('fieldset', { class: 'choice' }, h('legend', { class: 'sr' }, label),
    options.map(([value, shown]) => h('label', {},
      h('input', {
        type: 'radio', name: group, value, checked: value === current,
        onchange: () => onchange(value),
      }),
      h('span', {}, shown))));
}
