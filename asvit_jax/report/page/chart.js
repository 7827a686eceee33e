// Diagrams: series of points, joined or not, with a legend that takes series in and out.

const MARKS = [ // outlines of about the same area around the origin
  'M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0', 'M-4,-4H4V4H-4Z', 'M0,-5.5L5.2,3.8H-5.2Z',
  'M0,-5.8L5.8,0L0,5.8L-5.8,0Z', 'M0,5.5L5.2,-3.8H-5.2Z',
];
const COLORS = 10;

function chartOf(chart, redraws) {
  const hidden = new Set();
  const holder = make('div');
  const keys = make('div', { class: 'keys' });
  chart.series.forEach((series, index) => {
    const key = make('button', { type: 'button', 'aria-pressed': 'true', onclick: () => {
      if (!hidden.delete(index)) hidden.add(index);
      key.setAttribute('aria-pressed', String(!hidden.has(index)));
      redraw();
    } }, draw('svg', { viewBox: '-7 -7 14 14', 'aria-hidden': 'true' }, markOf(index)), series.name);
    keys.append(key);
  });
  function redraw() {
    const shown = chart.series.map((series, index) => ({ ...series, index }));
    const width = Math.max(280, holder.clientWidth || 560);
    holder.replaceChildren(diagram(chart, shown.filter(({ index }) => !hidden.has(index)), width));
  }
  redraws.push(redraw);
  return make('figure', { class: 'panel chart' }, make('h3', {}, chart.title), holder, keys);
}

function markOf(index) {
  const mark = draw('path', { class: 'mark', d: MARKS[index % MARKS.length] });
  mark.style.fill = `var(--s${index % COLORS})`;
  return mark;
}

function diagram(chart, series, width) {
  const { height, frame } = frameOf(width);
  const bars = series.flatMap((one) => barsOf(one, chart.log_y));
  if (chart.log_y) series = series.map((one) => ({ ...one, points: one.points.filter((p) => p.y > 0) }));
  const points = series.flatMap((one) => one.points);
  const x = axis(points.map((p) => p.x), frame.left, frame.right);
  const levels = chart.level ? [chart.level[1]] : [];
  const heights = [...points.map((p) => p.y), ...bars.flatMap((bar) => [bar.low, bar.high]), ...levels];
  const y = (chart.log_y ? logAxis : axis)(heights, frame.bottom, frame.top);
  const marks = []; // [place, place, text, element]
  const svg = draw('svg', { viewBox: `0 0 ${width} ${height}`, role: 'group',
    'aria-label': `${chart.title}: ${chart.y} against ${chart.x}` });
  svg.append(...gridOf(chart, x, y, frame), ...levelOf(chart, y, frame));
  for (const { index, at, low, high } of bars) {
    const [place, from, to] = [x.place(at), y.place(low), y.place(high)];
    const bar = draw('path', { class: 'bar',
      d: `M${place},${from}V${to}M${place - 3},${from}h6M${place - 3},${to}h6` });
    bar.style.stroke = `var(--s${index % COLORS})`;
    svg.append(bar);
  }
  for (const one of series) {
    const places = [...one.points].sort((a, b) => a.x - b.x).map((p) => [x.place(p.x), y.place(p.y), p]);
    if (one.joined && places.length > 1) {
      const line = draw('path', { class: 'line', d: `M${places.map(([a, b]) => `${a},${b}`).join('L')}` });
      line.style.stroke = `var(--s${one.index % COLORS})`;
      svg.append(line);
    }
    for (const [a, b, point] of places) {
      const text = [one.name, `${chart.y}: ${number(point.y)}`, `${chart.x}: ${number(point.x)}`,
        point.note].filter(Boolean).join('\n');
      const mark = markOf(one.index);
      fill(mark, { transform: `translate(${a},${b})`, tabindex: 0, role: 'img', 'aria-label': text,
        onfocus: () => tip.at(mark, text), onblur: tip.hide }, []);
      marks.push([a, b, text, mark]);
      svg.append(mark);
    }
  }
  pointAt(svg, width, marks);
  return svg;
}

// The ends of the bars of a series; on a logarithmic axis none reaches below a tenth of its value.
function barsOf({ points, errors, index }, log) {
  return points.flatMap(({ x, y }, i) => (errors[i] > 0 && (y > 0 || !log)
    ? [{ index, at: x, low: log ? Math.max(y - errors[i], y / 10) : y - errors[i], high: y + errors[i] }]
    : []));
}

// The tooltip of the mark nearest to the pointer.
function pointAt(svg, width, marks) {
  const forget = () => {
    marks.forEach(([, , , mark]) => mark.classList.remove('near'));
    tip.hide();
  };
  svg.addEventListener('pointermove', (event) => {
    forget();
    const box = svg.getBoundingClientRect();
    const scale = width / box.width;
    const [px, py] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    const distance = ([a, b]) => Math.hypot(a - px, b - py);
    const nearest = marks.reduce((best, mark) => (!best || distance(mark) < distance(best) ? mark : best), null);
    if (!nearest || distance(nearest) > 30) return;
    nearest[3].classList.add('near');
    tip.show(nearest[2], event.clientX, event.clientY);
  });
  svg.addEventListener('pointerleave', forget);
}

function gridOf(chart, x, y, { left, right, top, bottom }) {
  const lines = y.ticks.flatMap((tick) => [
    draw('line', { class: 'grid', x1: left, x2: right, y1: y.place(tick), y2: y.place(tick) }),
    draw('text', { x: left - 8, y: y.place(tick) + 4, 'text-anchor': 'end' }, String(tick)),
  ]);
  lines.push(draw('line', { class: 'axis', x1: left, x2: right, y1: bottom, y2: bottom }));
  const numbers = x.ticks.map((tick) =>
    draw('text', { x: x.place(tick), y: bottom + 17, 'text-anchor': 'middle' }, String(tick)));
  return [...lines, ...numbers,
    draw('text', { x: right, y: bottom + 36, 'text-anchor': 'end' }, chart.x),
    draw('text', { x: 0, y: 12 }, chart.y)];
}

function levelOf(chart, y, { left, right }) {
  if (!chart.level) return [];
  const [name, value] = chart.level;
  const place = y.place(value);
  return [draw('line', { class: 'level', x1: left, x2: right, y1: place, y2: place }),
    draw('text', { x: left + 6, y: place - 5 }, `${name} ${number(value)}`)];
}

// Round ticks among the values, and where a value lies between `from` and `to`.
function axis(values, from, to) {
  let [low, high] = values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
  const least = Math.max(1e-9, Math.abs(high) * 0.02);
  if (high - low < least) [low, high] = [low - least, high + least];
  const step = roundStep((high - low) / 4.5);
  const margin = 0.08 * (high - low);
  return { ticks: ticksBetween(low - margin, high + margin, step),
    place: (value) => from + (value - low + margin) / (high - low + 2 * margin) * (to - from) };
}

// The same of logarithms; the ticks are 1, 2 and 5 times powers of ten, or powers alone where there are many.
function logAxis(values, from, to) {
  const { place } = axis(values.map(Math.log10), from, to);
  const [first, last] = [Math.min(...values), Math.max(...values)].map(Math.log10);
  const factors = last - first > 2 ? [1] : last - first > 0.5 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9];
  const ticks = [];
  for (let power = Math.floor(first) - 1; power <= Math.ceil(last); power += 1) {
    ticks.push(...factors.map((factor) => Number((factor * 10 ** power).toPrecision(12))));
  }
  const inside = (tick) => (place(Math.log10(tick)) - from) * (place(Math.log10(tick)) - to) <= 0;
  return { ticks: values.length ? ticks.filter(inside) : [], place: (value) => place(Math.log10(value)) };
}

function ticksBetween(low, high, step) {
  const ticks = [];
  for (let i = Math.ceil(low / step); i * step <= high; i += 1) ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

// The size of a diagram so wide, and where in it the values go.
function frameOf(width) {
  const height = Math.round(Math.min(320, Math.max(240, 0.55 * width)));
  return { height, frame: { left: 46, right: width - 14, top: 28, bottom: height - 42 } };
}

function roundStep(step) {
  const power = 10 ** Math.floor(Math.log10(step));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= step * 0.999);
}
