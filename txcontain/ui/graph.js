// A graph of figures over time, by uPlot, which is loaded when the first one is drawn.

import { html, latest, useEffect, useRef } from "./ui.js";

const HEIGHT = 120;

let loading = null;

function load() {
  const link = Object.assign(document.createElement("link"), {
    rel: "stylesheet",
    href: "/ui/vendor/uplot.css",
  });
  document.head.append(link);
  return import("./vendor/uplot.js").then((module) => module.default);
}

export function Graph({ title, values, times, unit, marks = [], of, powers }) {
  const box = useRef();
  const plot = useRef();
  const data = [times, values];
  const fresh = useRef();
  fresh.current = { data, marks };
  useEffect(() => {
    let gone = false;
    const observer = new ResizeObserver(() => {
      if (box.current) plot.current?.setSize({ width: box.current.clientWidth, height: HEIGHT });
    });
    loading ||= load();
    loading.then((UPlot) => {
      if (gone || !box.current) return;
      plot.current = new UPlot(
        options(box.current, unit, powers, fresh),
        fresh.current.data,
        box.current,
      );
      observer.observe(box.current);
    });
    return () => {
      gone = true;
      observer.disconnect();
      plot.current?.destroy();
    };
  }, []);
  useEffect(() => plot.current?.setData(data), [values]);
  const last = latest(values);
  return html`<figure>
    <figcaption>${title} <b>${last === undefined ? "" : unit(last)}</b>${of ? ` of ${unit(of)}` : ""}</figcaption>
    <div ref=${box} class="graph" role="img" aria-label="${title} over time" />
  </figure>`;
}

function options(box, unit, powers, fresh) {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const axis = {
    stroke: () => colour("--quiet"),
    grid: { stroke: () => colour("--line"), width: 1 },
    ticks: { show: false },
    font: "11px Inter, system-ui, sans-serif",
  };
  return {
    width: box.clientWidth,
    height: HEIGHT,
    padding: [8, 4, 0, 0],
    legend: { show: false },
    cursor: { y: false, points: { size: 6 } },
    scales: {
      y: { range: (_, __, top) => [0, Math.max(top * 1.15, 0.01)] },
    },
    axes: [
      { ...axis, values: "{HH}:{mm}", space: 60, size: 24 },
      {
        ...axis,
        size: 62,
        space: 28,
        values: (_, ticks) => ticks.map(unit),
        ...(powers && { incrs: Array.from({ length: 50 }, (_, power) => 2 ** power) }),
      },
    ],
    series: [
      {},
      {
        stroke: () => colour("--accent"),
        width: 1.5,
        fill: () => `${colour("--accent")}1f`,
        points: { show: false },
      },
    ],
    hooks: {
      draw: [
        (plot) => {
          const { ctx, bbox } = plot;
          ctx.save();
          ctx.lineWidth = 1;
          ctx.strokeStyle = colour("--warn");
          ctx.setLineDash([3, 3]);
          for (const mark of fresh.current.marks.filter(
            (time) => time > plot.scales.x.min && time < plot.scales.x.max,
          )) {
            const x = plot.valToPos(mark, "x", true);
            ctx.beginPath();
            ctx.moveTo(x, bbox.top);
            ctx.lineTo(x, bbox.top + bbox.height);
            ctx.stroke();
          }
          ctx.restore();
        },
      ],
    },
  };
}
