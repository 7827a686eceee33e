// The cards: those near the window are painted, others hold no pixels, however many there are.

const AT_ONCE = 48;
const cards = byId('cards');
const painted = new Map(); // card: its decoded image
let list = [];
let shown = 0;

const nearby = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) paintCard(target);
    else forgetCard(target);
  }
}, { rootMargin: '700px' });

const end = new IntersectionObserver((entries) => {
  if (entries.some((entry) => entry.isIntersecting)) addCards();
}, { rootMargin: '1200px' });

async function paintCard(card) {
  const picture = pictures[card.dataset.index];
  painted.set(card, null);
  const image = await decoded(picture);
  if (!painted.has(card)) return; // out of sight before it was decoded
  painted.set(card, image);
  paint(card.querySelector('canvas'), image, picture, Number(state.stage));
}

function forgetCard(card) {
  painted.delete(card);
  const canvas = card.querySelector('canvas');
  Object.assign(canvas, { width: 0, height: 0 });
  delete canvas.dataset.stage;
}

function repaint() {
  for (const [card, image] of painted) {
    if (image) paint(card.querySelector('canvas'), image, pictures[card.dataset.index], Number(state.stage));
  }
}

function addCards() {
  const next = list.slice(shown, shown + AT_ONCE).map((picture) => cardOf(picture, open));
  shown += next.length;
  cards.append(...next);
  next.forEach((card) => nearby.observe(card));
  // An observer speaks up when something changes; what is still in sight is asked about anew.
  end.unobserve(byId('more'));
  if (shown < list.length) end.observe(byId('more'));
}

function showList() {
  list = inOrder();
  nearby.disconnect();
  painted.clear();
  cards.replaceChildren();
  shown = 0;
  addCards();
  byId('empty').hidden = list.length > 0;
  byId('legend').hidden = !list.length || !stages.length;
}

function open(picture) {
  state.open = String(picture.index);
  writeAddress();
  showInViewer(picture, list);
}

function step(by) {
  const next = list[list.indexOf(pictures[state.open]) + by];
  if (next) open(next);
}
