// The page's data, and what follows from it for every picture.

const page = JSON.parse(byId('data').textContent);
const gallery = page.gallery;
const pictures = gallery ? gallery.pictures : [];
// Whether the network was also run without pruning.
const compared = pictures.some((picture) => picture.dense);
const stages = gallery ? gallery.stages : [];
if (gallery) document.documentElement.style.setProperty('--aspect', gallery.grid[1] / gallery.grid[0]);

function nameOf(label) {
  return gallery.classes[label] ?? `class ${label}`;
}

// "lost": right without pruning and wrong with it; "won": the other way round.
function outcomeOf({ label, prediction, dense }) {
  if (label < 0) return 'unknown';
  const right = prediction === label;
  const before = dense ? dense[0] === label : right;
  if (right === before) return right ? 'right' : 'wrong';
  return right ? 'won' : 'lost';
}

const OUTCOMES = compared
  ? { lost: 'lost', won: 'won', right: 'both right', wrong: 'both wrong', unknown: 'no label' }
  : { right: 'right', wrong: 'wrong', unknown: 'no label' };

pictures.forEach((picture, index) => {
  picture.index = index;
  picture.share = picture.gmacs / gallery.dense_gmacs;
  picture.outcome = outcomeOf(picture);
  picture.changed = picture.dense !== null && picture.dense[0] !== picture.prediction;
  const names = [picture.label, picture.prediction, picture.dense?.[0] ?? -1];
  const known = names.filter((label) => label >= 0).map(nameOf);
  picture.text = [picture.file, ...known].join('\n').toLowerCase();
});

// For each stage a string of 0 and 1, a patch each; `contents.pack_masks` says how they are packed.
function masksOf(picture) {
  if (picture.masks) return picture.masks;
  let bits = '';
  for (const byte of atob(picture.keep)) bits += byte.charCodeAt(0).toString(2).padStart(8, '0');
  const n = gallery.grid[0] * gallery.grid[1];
  picture.masks = stages.map((_, stage) => bits.slice(stage * n, (stage + 1) * n));
  return picture.masks;
}

function keptOf(picture) {
  picture.kept ??= masksOf(picture).map((mask) => mask.replaceAll('0', '').length);
  return picture.kept;
}

function percent(share, digits = 0) {
  return `${(100 * share).toFixed(digits)} %`;
}

// Three digits that count, as 1.26 and 0.630; more only before the point.
function gmacsText(value) {
  return `${Math.abs(value) < 1000 ? value.toPrecision(3) : value.toFixed(0)} GMACs`;
}

// The same without zeros at the end.
function number(value) {
  return String(Number(value.toPrecision(3)));
}
