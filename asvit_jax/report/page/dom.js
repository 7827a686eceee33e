// Elements, made without ever reading text as HTML: names are the users' and may hold anything.

const SVG = 'http://www.w3.org/2000/svg';

function byId(id) {
  return document.getElementById(id);
}

// An element with properties ("on…" are listeners, others attributes) and children.
function make(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

function draw(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

// Buttons of which one is pressed; `options` are [value, text, title]. Returns {value: button}.
function choices(parent, options, choose) {
  const buttons = {};
  for (const [value, text, title] of options) {
    buttons[value] = make('button', { type: 'button', title, onclick: () => choose(value) }, text);
  }
  parent.replaceChildren(...Object.values(buttons));
  return buttons;
}

function press(buttons, value) {
  for (const [name, button] of Object.entries(buttons)) {
    button.setAttribute('aria-pressed', String(name === String(value)));
  }
}

// The tooltip: near a point of the window, and inside of it.
const tip = {
  show(text, x, y) {
    const box = byId('tip');
    box.textContent = text;
    box.hidden = false;
    const { width, height } = box.getBoundingClientRect();
    const left = Math.max(6, Math.min(x + 12, innerWidth - width - 6));
    const top = y - height - 12 < 6 ? y + 16 : y - height - 12;
    box.style.transform = `translate(${left}px, ${top}px)`;
  },
  // At an element that has the keyboard's focus.
  at(element, text) {
    const box = element.getBoundingClientRect();
    tip.show(text, box.left + box.width / 2, box.top);
  },
  hide() {
    byId('tip').hidden = true;
  },
};
