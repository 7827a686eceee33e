// Pictures on canvases, and the cards that show one each.

function decoded(picture) {
  const image = new Image();
  image.src = `data:image/jpeg;base64,${picture.jpeg}`;
  return image.decode().then(() => image);
}

// The image, its patches that a stage did not keep faded; stage 0 is the image as it came.
function paint(canvas, image, picture, stage) {
  const { naturalWidth: width, naturalHeight: height } = image;
  Object.assign(canvas, { width, height });
  canvas.classList.toggle('small', width < 100);
  const context = canvas.getContext('2d');
  context.drawImage(image, 0, 0);
  if (stage > 0) {
    context.globalAlpha = 0.86;
    context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue('--fade');
    fade(context, masksOf(picture)[stage - 1], width / gallery.grid[1]);
  }
  canvas.dataset.stage = stage;
}

// Neighbours in a row are filled at once, so that no seams show where patches are no whole pixels.
function fade(context, mask, size) {
  const [rows, columns] = gallery.grid;
  for (let row = 0; row < rows; row += 1) {
    const line = mask.slice(row * columns, (row + 1) * columns);
    for (const run of line.matchAll(/0+/g)) {
      context.fillRect(run.index * size, row * size, run[0].length * size, size);
    }
  }
}

function answerOf(who, label, [said, probability]) {
  const mark = label < 0 ? '' : said === label ? '✓' : '✗';
  return make('span', { class: 'answer' }, make('span', { class: 'who' }, who),
    make('span', { class: 'said', title: nameOf(said) },
      make('span', { class: mark === '✓' ? 'yes' : 'no' }, mark), mark && ' ', nameOf(said)),
    make('span', {}, percent(probability)));
}

function keptLine(picture) {
  const line = make('span', { class: 'kept', title: 'patches kept by each stage' });
  keptOf(picture).forEach((count, stage) => {
    const em = make('em', { 'data-stage': stage + 1 }, String(count));
    markStage(em);
    line.append(stage ? ' → ' : '', em);
  });
  return line;
}

// Makes the count stand out that belongs to the patches shown.
function markStage(em) {
  em.classList.toggle('now', em.dataset.stage === state.stage);
}

function cardOf(picture, open) {
  const canvas = make('canvas', { 'aria-hidden': 'true' });
  const bar = make('i');
  bar.style.width = percent(Math.min(1, picture.share), 1).replace(' ', '');
  const answers = picture.dense
    ? [answerOf('pruned', picture.label, [picture.prediction, picture.probability]),
      answerOf('dense', picture.label, picture.dense)]
    : [answerOf('says', picture.label, [picture.prediction, picture.probability])];
  const title = picture.label < 0 ? picture.file : nameOf(picture.label);
  return make('li', { 'data-index': picture.index }, make('button',
    { type: 'button', class: 'card', title: picture.file, onclick: () => open(picture) }, canvas,
    make('span', { class: 'head' }, make('b', { title }, title),
      make('span', { class: `badge ${picture.outcome}` }, OUTCOMES[picture.outcome])),
    ...answers,
    make('span', { class: 'cost' }, make('span', { class: 'bar', 'aria-hidden': 'true' }, bar),
      `${gmacsText(picture.gmacs)}, ${percent(picture.share)}`,
      make('span', { class: 'of' }, ' of dense')),
    stages.length ? keptLine(picture) : make('span', { class: 'kept' })));
}

function legendText() {
  if (!stages.length) return null;
  return gallery.merges
    ? 'Faded patches are no longer tokens of their own: each was merged into the kept patch most like it, which counts for more from then on. Nothing was thrown away.'
    : 'Faded patches were dropped: the blocks after that stage do not see them.';
}
