// Values under the pointer, read off the drawn lines; and times in the reader's own zone.
document.querySelectorAll('svg[data-x]').forEach(svg => {
  const [left, width, x0, x1] = svg.dataset.x.split(' ').map(Number);
  const [top, height, y0, y1, log, percent] = svg.dataset.y.split(' ').map(Number);
  const cursor = svg.querySelector('.cursor'), out = svg.parentNode.querySelector('output');
  const lines = [...svg.querySelectorAll('polyline')];
  const value = y => {
    const share = 1 - (y - top) / height;
    const v = log ? y0 * (y1 / y0) ** share : y0 + share * (y1 - y0);
    return percent ? (100 * v).toFixed(1) + '%' : +v.toPrecision(3) + '';
  };
  svg.addEventListener('pointermove', event => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) * svg.viewBox.baseVal.width / box.width;
    const near = line => [...line.points].reduce((a, b) => Math.abs(b.x - x) < Math.abs(a.x - x) ? b : a);
    const read = lines.filter(line => line.points.length).map(line => (line.dataset.name.replace(', smoothed', '') + ' ').trimStart() + value(near(line).y));
    const at = Math.min(left + width, Math.max(left, x));
    cursor.setAttribute('x1', at);
    cursor.setAttribute('x2', at);
    cursor.setAttribute('visibility', 'visible');
    out.textContent = 'step ' + Math.round(x0 + (at - left) / width * (x1 - x0)) + ': ' + read.join(', ');
  });
  svg.addEventListener('pointerleave', () => { cursor.setAttribute('visibility', 'hidden'); out.textContent = ''; });
});
document.querySelectorAll('time').forEach(time => { time.textContent = new Date(time.dateTime).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' }); });
