// How many images cost how much; a bin is a filter.

const BINS = 24; // about

function costBins() {
  const shares = pictures.map((picture) => 100 * picture.share);
  const [low, high] = [Math.min(...shares), Math.max(...shares)];
  if (!(high - low > 0.05)) return [];
  const step = roundStep((high - low) / BINS);
  const first = Math.floor(low / step);
  const bins = [];
  for (let i = first; i * step <= high; i += 1) bins.push({ from: i * step, to: (i + 1) * step, in: [] });
  pictures.forEach((picture, i) => bins[Math.floor(shares[i] / step) - first].in.push(picture));
  return bins.map((bin) => ({ ...bin, text: `${number(bin.from)}-${number(bin.to)}` }));
}

const bins = costBins();

function inBin(picture, text) {
  return bins.some((bin) => bin.text === text && bin.in.includes(picture));
}

function histogramOf(redraws, choose) {
  const holder = make('div');
  const labelled = pictures.some((picture) => picture.label >= 0);
  const keys = labelled ? [['right', 'right'], ['wrong', 'wrong']] : [['known', 'images']];
  const figure = make('figure', { class: 'panel chart' }, make('h3', {}, 'Cost of the images'), holder,
    make('div', { class: 'keys' }, ...keys.map(([style, text]) => make('span', {},
      draw('svg', { viewBox: '0 0 14 14', 'aria-hidden': 'true' },
        draw('rect', { class: style, width: 14, height: 14, rx: 3 })), text)),
      make('span', { class: 'hint' }, 'press a bar to see its images')));
  redraws.push(() => {
    holder.replaceChildren(drawBins(Math.max(280, holder.clientWidth || 560), choose));
    pressBin(figure, state.cost);
  });
  return figure;
}

function pressBin(figure, text) {
  figure.classList.toggle('chosen', Boolean(text));
  for (const bin of figure.querySelectorAll('.bin')) {
    bin.setAttribute('aria-pressed', String(bin.dataset.bin === text));
  }
}

function drawBins(width, choose) {
  const { height, frame } = frameOf(width);
  const most = Math.max(...bins.map((bin) => bin.in.length));
  const unit = (frame.bottom - frame.top) / (1.05 * most);
  const y = { ticks: ticksBetween(0, most, Math.max(1, roundStep(most / 4.5))),
    place: (value) => frame.bottom - unit * value };
  const [low, high] = [bins[0].from, bins.at(-1).to];
  const place = (share) => frame.left + (share - low) / (high - low) * (frame.right - frame.left);
  const ticks = ticksBetween(low, high, roundStep((high - low) / 7));
  const svg = draw('svg', { viewBox: `0 0 ${width} ${height}`, role: 'group', 'aria-label': 'Cost of the images' });
  svg.append(...gridOf({ x: 'share of the dense GMACs, %', y: 'images' }, { ticks, place }, y, frame));
  for (const bin of bins) {
    const box = { x: place(bin.from), width: place(bin.to) - place(bin.from) };
    svg.append(drawBin(bin, box, unit, frame, choose));
  }
  return svg;
}

function drawBin(bin, { x, width }, unit, { top, bottom }, choose) {
  const parts = [['right', bin.in.filter((p) => p.label >= 0 && p.prediction === p.label).length],
    ['wrong', bin.in.filter((p) => p.label >= 0 && p.prediction !== p.label).length],
    ['known', bin.in.filter((p) => p.label < 0).length]].filter(([, count]) => count);
  const text = `${number(bin.from)} to ${number(bin.to)} % of dense\n${bin.in.length} images`
    + (parts.length && parts[0][0] !== 'known' ? `\n${parts.map(([what, count]) => `${count} ${what}`).join(', ')}` : '');
  const take = () => bin.in.length && choose(bin.text);
  const group = draw('g', { class: 'bin', role: 'button', 'aria-label': text, 'data-bin': bin.text,
    tabindex: bin.in.length ? 0 : null, onclick: take,
    onkeydown: (event) => {
      if (event.key !== 'Enter' && event.key !== ' ') return;
      event.preventDefault();
      take();
    },
    onpointermove: (event) => tip.show(text, event.clientX, event.clientY), onpointerleave: tip.hide,
    onfocus: () => tip.at(group, text), onblur: tip.hide },
  draw('rect', { class: 'hit', x, width, y: top, height: bottom - top }));
  let y = bottom;
  for (const [style, count] of parts) {
    y -= unit * count;
    group.append(draw('path', { class: style, d: `M${x + 1},${y}h${width - 2}v${unit * count}h${2 - width}Z` }));
  }
  return group;
}
