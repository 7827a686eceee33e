// Puts the page together.

const redraws = [];
let showButtons = {};
let stageButtons = {};
let histogram = null;

// Changes the state and all that depends on what changed.
function update(changes) {
  Object.assign(state, changes);
  writeAddress();
  press(showButtons, state.show);
  press(stageButtons, state.stage);
  cards.querySelectorAll('em').forEach(markStage);
  byId('sort').value = state.sort;
  byId('reset').hidden = !filtered();
  if (histogram) pressBin(histogram, state.cost);
  if (Object.keys(changes).every((key) => key === 'stage')) repaint();
  else showList();
  countShown();
}

function countShown() {
  const costs = state.cost ? `, of ${state.cost.replace('-', ' to ')} % of the cost` : '';
  const all = `${pictures.length} image${pictures.length === 1 ? '' : 's'}`;
  byId('count').textContent = filtered() ? `${list.length} of ${all}${costs}` : all;
  const others = passing('show');
  for (const [show, button] of Object.entries(showButtons)) {
    const count = show === 'all' ? others.length : others.filter((p) => TESTS.show(p, show)).length;
    button.querySelector('small').textContent = count;
  }
}

function setUpHeader() {
  byId('title').textContent = page.title;
  byId('summary').append(...page.summary.map((text) => make('li', {}, text)));
  byId('tiles').append(...page.tiles.map(({ label, value, note }) =>
    make('li', {}, make('span', {}, label), make('strong', {}, value), make('span', {}, note))));
}

function setUpResults() {
  const figures = page.charts.map((chart) => chartOf(chart, redraws));
  if (bins.length) {
    histogram = histogramOf(redraws, (text) => update({ cost: state.cost === text ? '' : text }));
    figures.push(histogram);
  }
  byId('charts').append(...figures);
  byId('tables').append(...page.tables.map(tableOf));
  redraws.forEach((redraw) => redraw());
  let width = innerWidth;
  addEventListener('resize', () => {
    if (innerWidth !== width) redraws.forEach((redraw) => redraw());
    width = innerWidth;
  });
}

function setUpControls() {
  showButtons = choices(byId('shows'), SHOWS.map(([value, text]) => [value, text]), (show) => update({ show }));
  Object.values(showButtons).forEach((button) => button.append(make('small')));
  byId('sort').append(...Object.entries(SORTS).map(([value, [text]]) => make('option', { value }, text)));
  byId('sort').addEventListener('change', (event) => update({ sort: event.target.value }));
  byId('classes').append(...[...classTexts.keys()].map((value) => make('option', { value })));
  byId('class').addEventListener('input', (event) => chooseClass(event.target));
  byId('query').addEventListener('input', (event) => update({ find: event.target.value.trim() }));
  byId('reset').addEventListener('click', () => {
    update(Object.fromEntries(Object.keys(TESTS).map((key) => [key, DEFAULTS[key]])));
    fillFields();
  });
  const options = [['0', 'image', 'the image as the network sees it'],
    ...stages.map((name, i) => [String(i + 1), String(i + 1), `after stage ${i + 1}, ${name}`])];
  stageButtons = choices(byId('stages'), options, (stage) => update({ stage }));
  byId('stage-field').hidden = !stages.length;
  for (const id of ['legend', 'viewer-legend']) {
    if (stages.length) byId(id).append(make('i', { 'aria-hidden': 'true' }), legendText());
  }
  byId('viewer-legend').hidden = !stages.length;
}

// While a name is being typed, nothing is filtered by it.
function chooseClass(field) {
  const text = field.value.trim();
  const known = text === '' || classTexts.has(text);
  const begun = [...classTexts.keys()].some((name) => name.toLowerCase().includes(text.toLowerCase()));
  field.classList.toggle('unknown', !known && !begun);
  if (state.class !== (known ? text : '')) update({ class: known ? text : '' });
}

function fillFields() {
  byId('class').value = state.class;
  byId('class').classList.remove('unknown');
  byId('query').value = state.find;
}

function setUpViewer() {
  byId('previous').addEventListener('click', () => step(-1));
  byId('next').addEventListener('click', () => step(1));
  byId('close').addEventListener('click', () => viewer.close());
  viewer.addEventListener('click', (event) => event.target === viewer && viewer.close());
  viewer.addEventListener('keydown', ({ key }) => {
    if (key === 'ArrowLeft') step(-1);
    if (key === 'ArrowRight') step(1);
  });
  viewer.addEventListener('close', () => {
    state.open = '';
    writeAddress();
  });
}

function follow() {
  readAddress();
  fillFields();
  const wanted = state.open;
  update({ ...state });
  if (wanted !== '') open(pictures[wanted]);
  else if (viewer.open) viewer.close();
}

setUpHeader();
setUpResults();
if (gallery) {
  byId('gallery').hidden = false;
  setUpControls();
  setUpViewer();
  follow();
  addEventListener('hashchange', () => location.hash !== '#gallery' && follow());
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', repaint);
}
document.querySelector('main').setAttribute('aria-busy', 'false');
