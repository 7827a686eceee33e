// One picture, large: what each stage kept side by side, and all that is known of it.

const viewer = byId('viewer');

function showInViewer(picture, list) {
  byId('viewer-title').textContent = picture.label < 0 ? picture.file : nameOf(picture.label);
  const place = list.indexOf(picture);
  byId('viewer-place').textContent = place < 0 ? '' : `${place + 1} of ${list.length}`;
  byId('previous').disabled = place <= 0;
  byId('next').disabled = place < 0 || place === list.length - 1;
  const canvases = [...Array(stages.length + 1).keys()].map(() => make('canvas'));
  byId('viewer-views').replaceChildren(...canvases.map((canvas, stage) =>
    make('figure', {}, canvas, make('figcaption', {}, ...captionOf(picture, stage)))),
  make('dl', { class: 'facts' }, ...factsOf(picture).map(([name, value]) =>
    make('div', {}, make('dt', {}, name), make('dd', {}, value)))));
  decoded(picture).then((image) => canvases.forEach((canvas, stage) => paint(canvas, image, picture, stage)));
  if (!viewer.open) viewer.showModal();
}

function captionOf(picture, stage) {
  if (!stage) return [make('b', {}, 'as the network sees it')];
  const of = gallery.grid[0] * gallery.grid[1];
  const kept = keptOf(picture)[stage - 1];
  return [make('b', {}, `${kept} of ${of} patches`), ` ${stages[stage - 1]}`];
}

function factsOf(picture) {
  const says = ([label, probability]) => `${nameOf(label)}, ${percent(probability, 1)}`;
  const facts = [];
  if (picture.label >= 0) facts.push(['Label', nameOf(picture.label)]);
  facts.push([picture.dense ? 'With pruning' : 'Prediction', says([picture.prediction, picture.probability])]);
  if (picture.dense) facts.push(['Without pruning', says(picture.dense)]);
  if (picture.label >= 0) facts.push(['Outcome', OUTCOMES[picture.outcome]]);
  facts.push(['Cost', `${gmacsText(picture.gmacs)}, ${percent(picture.share, 1)} of dense`]);
  facts.push(['File', picture.file]);
  return facts;
}
