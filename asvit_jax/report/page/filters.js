// What is shown and in which order: a state, which also stands in the page's address.

const DEFAULTS = { sort: stages.length && compared ? 'changed' : 'order', show: 'all', class: '', find: '',
  stage: String(stages.length), cost: '', open: '' };
const state = { ...DEFAULTS };

const SHOWS = compared
  ? [['all', 'all'], ['lost', 'lost by pruning'], ['won', 'won by pruning'], ['right', 'both right'],
    ['wrong', 'both wrong'], ['changed', 'prediction changed']]
  : [['all', 'all'], ['right', 'right'], ['wrong', 'wrong']];

const FIRST = { lost: 0, won: 1 };
const byKey = (key, sign) => (a, b) => sign * (key(a) - key(b)) || a.index - b.index;
// Lost, won, then other changed predictions, then the rest by how much the probability moved.
const change = ({ outcome, changed }) => FIRST[outcome] ?? (changed ? 2 : 3);
const moved = ({ dense, probability }) => (dense ? Math.abs(dense[1] - probability) : 0);
const names = new Intl.Collator('en', { numeric: true });
const SORTS = {
  changed: ['what pruning changed', (a, b) => change(a) - change(b) || byKey(moved, -1)(a, b)],
  costliest: ['cost, highest first', byKey((p) => p.gmacs, -1)],
  cheapest: ['cost, lowest first', byKey((p) => p.gmacs, 1)],
  surest: ['confidence, highest first', byKey((p) => p.probability, -1)],
  unsurest: ['confidence, lowest first', byKey((p) => p.probability, 1)],
  file: ['file name', (a, b) => names.compare(a.file, b.file) || a.index - b.index],
  order: ['order of the data', (a, b) => a.index - b.index],
};
if (!compared) delete SORTS.changed;
if (!bins.length) ['costliest', 'cheapest'].forEach((sort) => delete SORTS[sort]);

// Classes as the field lists them, {text: label}; names that occur twice get their label.
const classTexts = new Map();
if (gallery) {
  const labels = [...new Set(pictures.map((p) => p.label))].filter((label) => label >= 0);
  const uses = new Map();
  labels.forEach((label) => uses.set(nameOf(label), (uses.get(nameOf(label)) ?? 0) + 1));
  labels.map((label) => [uses.get(nameOf(label)) > 1 ? `${nameOf(label)} (${label})` : nameOf(label), label])
    .sort(([a], [b]) => names.compare(a, b))
    .forEach(([text, label]) => classTexts.set(text, label));
}

const TESTS = {
  show: ({ outcome, changed }, show) => (show === 'changed' ? changed : outcome === show),
  class: ({ label }, text) => label === classTexts.get(text),
  find: ({ text }, find) => find.toLowerCase().split(/\s+/).every((word) => text.includes(word)),
  cost: inBin,
};

// The pictures that pass all filters, or all but one of them.
function passing(except) {
  const active = Object.keys(TESTS).filter((key) => key !== except && state[key] !== DEFAULTS[key]);
  return pictures.filter((picture) => active.every((key) => TESTS[key](picture, state[key])));
}

function inOrder() {
  return passing().sort(SORTS[state.sort][1]);
}

function filtered() {
  return Object.keys(TESTS).some((key) => state[key] !== DEFAULTS[key]);
}

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const key of Object.keys(DEFAULTS)) state[key] = given.get(key) ?? DEFAULTS[key];
  const allowed = { sort: Object.keys(SORTS), show: SHOWS.map(([name]) => name),
    class: ['', ...classTexts.keys()], stage: [...stages.keys(), stages.length].map(String),
    cost: ['', ...bins.map((bin) => bin.text)], open: ['', ...pictures.keys()].map(String) };
  for (const [key, values] of Object.entries(allowed)) {
    if (!values.includes(state[key])) state[key] = DEFAULTS[key];
  }
}

function writeAddress() {
  const changed = Object.entries(state).filter(([key, value]) => value !== DEFAULTS[key]);
  const hash = String(new URLSearchParams(changed));
  history.replaceState(null, '', hash ? `#${hash}` : location.pathname + location.search);
}
