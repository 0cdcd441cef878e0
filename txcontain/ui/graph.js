// A graph of figures over time: an SVG, so that its colours are those of the style sheet.

import { clock, html, latest, useMemo, useState } from "./ui.js";

const [WIDTH, HEIGHT] = [1000, 100]; // of the drawing, which is stretched to the room there is
const LINES = 4; // across, at most
const MARKS = 125; // side by side, at most: what happens at one moment has one
const TIMES = 5; // labels below, at most
const SPANS = [60, 120, 300, 600, 1200, 1800, 3600, 7200]; // seconds from one label to the next

export function Graph({ title, values, times, unit, marks = [], of, powers }) {
  const [pointed, setPointed] = useState(-1);
  const drawn = useMemo(() => drawing(values, times, powers), [values, times[0], times.length]);
  const [begin, end] = [times[0], times.at(-1)];
  const place = (time) => (time - begin) / (end - begin || 1);
  const point = (event) => {
    const { left, width } = event.currentTarget.getBoundingClientRect();
    setPointed(Math.round(((event.clientX - left) / width) * (values.length - 1)));
  };
  const is = values[pointed] ?? null;
  const told = pointed < 0 ? latest(values) : is;
  const across = drawn.lines.map((value) => `M0 ${drawn.y(value)}H${WIDTH}`).join("");
  const marked = new Set(marks.map((time) => Math.round(place(time) * MARKS) / MARKS));
  const down = [...marked]
    .filter((share) => share > 0 && share < 1)
    .map((share) => `M${share * WIDTH} 0V${HEIGHT}`)
    .join("");
  return html`<figure>
    <figcaption>
      ${title} <b>${told === undefined || told === null ? "" : unit(told)}</b>
      ${pointed < 0 ? of && html` of ${unit(of)}` : html` at ${clock(times[pointed])}`}
    </figcaption>
    <div class="graph" onPointerMove=${point} onPointerLeave=${() => setPointed(-1)}>
      <svg
        viewBox="0 0 ${WIDTH} ${HEIGHT}"
        preserveAspectRatio="none"
        role="img"
        aria-label="${title} over time"
      >
        <path class="across" d=${across} />
        <path class="area" d=${drawn.area} />
        <path class="line" d=${drawn.line} />
        <path class="mark" d=${down} />
        ${is !== null && html`<path class="pointed" d="M${drawn.x(pointed)} 0V${HEIGHT}" />`}
      </svg>
      ${drawn.lines.map(
        (value) => html`<i class="y" style=${{ top: `${drawn.y(value)}%` }}>${unit(value)}</i>`,
      )}
      ${labels(begin, end).map(
        (time) => html`<i class="x" style=${{ left: `${100 * place(time)}%` }}>
          ${clock(time).slice(0, 5)}
        </i>`,
      )}
    </div>
  </figure>`;
}

// The lines across, and the curve; where a value is missing, it has a gap.
function drawing(values, times, powers) {
  const most = Math.max(0.01, ...values.filter((value) => value !== null));
  const step = stepOf(most / (LINES - 1), powers);
  const top = step * Math.ceil((1.05 * most) / step);
  const x = (at) => ((at / (values.length - 1 || 1)) * WIDTH).toFixed(1);
  const y = (value) => (HEIGHT * (1 - value / top)).toFixed(1);
  const lines = Array.from({ length: Math.round(top / step) + 1 }, (_, at) => at * step);
  let [line, area] = ["", ""];
  values.forEach((value, at) => {
    if (value === null) return;
    const [begins, ends] = [-1, 1].map((way) => (values[at + way] ?? null) === null);
    const here = `${x(at)} ${y(value)}`;
    line += begins ? `M${here}h0` : `L${here}`;
    area += `${begins ? `M${x(at)} ${HEIGHT}` : ""}L${here}${ends ? `V${HEIGHT}Z` : ""}`;
  });
  return { lines, line, area, x, y };
}

// The smallest round number that is not less: of bytes a power of two, else 1, 2 or 5 and zeros.
function stepOf(least, powers) {
  if (powers) return 2 ** Math.ceil(Math.log2(least));
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((digit) => digit * power).find((step) => step >= 0.999 * least);
}

// Round times of the day between two times.
function labels(begin, end) {
  const step = SPANS.find((seconds) => (end - begin) / seconds <= TIMES) || SPANS.at(-1);
  const zone = 60 * new Date(1000 * end).getTimezoneOffset();
  const first = Math.ceil((begin - zone) / step) * step + zone;
  const found = [];
  for (let time = first; time < end; time += step) found.push(time);
  return found;
}
