// Tables that sort by the column whose heading is pressed; empty cells stay last.

function tableOf({ title, columns, rows }) {
  const body = make('tbody');
  const headings = columns.map((column, index) => make('th',
    { scope: 'col', class: column.digits === null ? 'text' : null },
    make('button', { type: 'button', class: column.name.length > 12 ? 'long' : null, onclick: () => sortBy(index) }, column.name)));
  let sorted = { index: -1, down: false };

  function fillBody(order) {
    body.replaceChildren(...order.map((row) => make('tr', {}, ...row.map((value, index) => {
      const { digits } = columns[index];
      return make('td', { class: digits === null ? 'text' : null }, cellText(value, digits));
    }))));
  }

  function sortBy(index) {
    const numbers = columns[index].digits !== null;
    // First the best: the largest number, or the first name.
    const down = sorted.index === index ? !sorted.down : numbers;
    sorted = { index, down };
    const order = [...rows].sort((a, b) => compareCells(a[index], b[index], down));
    headings.forEach((heading, i) => {
      if (i === index) heading.setAttribute('aria-sort', down ? 'descending' : 'ascending');
      else heading.removeAttribute('aria-sort');
    });
    fillBody(order);
  }

  fillBody(rows);
  return make('div', { class: 'panel table' }, make('h3', {}, title),
    make('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': title },
      make('table', {}, make('thead', {}, make('tr', {}, ...headings)), body)));
}

function cellText(value, digits) {
  if (value === null) return '–';
  return digits === null || typeof value !== 'number' ? String(value) : value.toFixed(digits);
}

function compareCells(a, b, down) {
  if (a === null || b === null) return (a === null) - (b === null);
  const order = typeof a === 'number' && typeof b === 'number' ? a - b
    : String(a).localeCompare(String(b), 'en', { numeric: true });
  return down ? -order : order;
}
