
'use strict';
// Only text is ever set: what a name holds stays a name.
function cell(row, text, kind) {
  const made = row.insertCell();
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}
function offset(at) {
  return at === null || at === undefined ? '' : '+0x' + at.toString(16);
}
function head(table, titles) {
  const row = table.createTHead().insertRow();
  for (const text of titles) {
    const made = document.createElement('th');
    made.scope = 'col';
    made.textContent = text;
    if (text === 'at') made.className = 'at';
    row.append(made);
  }
}
function fill(body, lines) {
  let at = 0;
  while (at < lines.length) {
    if (lines[at].tag === 'gap') {
      const row = body.insertRow();
      row.className = 'gap';
      cell(row, '\u22ef').colSpan = 4;
      at++;
    } else if (lines[at].tag === 'same') {
      const row = body.insertRow(), line = lines[at++];
      row.className = 'same';
      cell(row, offset(line.base_offset), 'at');
      cell(row, line.base_text || line.text);
      cell(row, offset(line.fixed_offset), 'at');
      cell(row, line.text);
    } else {
      const gone = [], added = [];
      while (at < lines.length && lines[at].tag === 'removed') gone.push(lines[at++]);
      while (at < lines.length && lines[at].tag === 'added') added.push(lines[at++]);
      for (let pair = 0; pair < Math.max(gone.length, added.length); pair++) {
        const row = body.insertRow(), one = gone[pair], other = added[pair];
        cell(row, one ? offset(one.base_offset) : '', 'at');
        cell(row, one ? '- ' + one.text : '', one ? 'gone' : '');
        cell(row, other ? offset(other.fixed_offset) : '', 'at');
        cell(row, other ? '+ ' + other.text : '', other ? 'new' : '');
      }
    }
  }
}
function fillData(body, rows) {
  for (const values of rows) {
    const row = body.insertRow();
    if (values.length < 3) {
      row.className = 'gap';
      cell(row, values[0]).colSpan = 3;
      continue;
    }
    cell(row, values[0], 'place');
    cell(row, '- ' + values[1], 'gone');
    cell(row, '+ ' + values[2], 'new');
  }
}
function box(label, kind, titles, rows, fill) {
  const made = document.createElement('div');
  made.className = kind;
  made.tabIndex = 0;
  made.setAttribute('role', 'region');
  made.setAttribute('aria-label', label);
  const table = document.createElement('table');
  head(table, titles);
  fill(table.createTBody(), rows);
  made.append(table);
  return made;
}
function show(details) {
  const source = details.querySelector('script[type="application/json"]');
  if (!source) return;
  const opened = JSON.parse(source.textContent), made = [];
  if (opened.diff.length) made.push(box('Instruction diff', 'diff', ['at', 'base', 'at', 'fixed'], opened.diff, fill));
  if (opened.data.length) made.push(box('Data', 'diff data', ['data', 'base', 'fixed'], opened.data, fillData));
  source.replaceWith(...made);
}
document.addEventListener('toggle', function (event) {
  if (event.target.open && event.target.classList.contains('function')) show(event.target);
}, true);

const search = document.getElementById('search');
if (search) {
  const functions = [...document.querySelectorAll('.function')];
  // Names and facts, without the diffs.
  const texts = functions.map(function (details) {
    const facts = details.querySelector('dl');
    return (details.firstElementChild.textContent + ' ' + (facts ? facts.textContent : '')).toLowerCase();
  });
  const found = document.getElementById('found');
  const filter = function () {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    functions.forEach(function (details, index) {
      const shown = words.every(function (word) { return texts[index].includes(word); });
      if (details.hidden === shown) details.hidden = !shown;
      if (shown) count++;
    });
    found.textContent = count + ' of ' + functions.length;
  };
  let waiting = 0;
  search.addEventListener('input', function () {
    clearTimeout(waiting);
    waiting = setTimeout(filter, 80);
  });
  search.form.addEventListener('submit', function (event) { event.preventDefault(); filter(); });
  document.addEventListener('keydown', function (event) {
    if (event.key === '/' && document.activeElement !== search) { event.preventDefault(); search.focus(); }
  });
}
