// What all views are made of.

import { h, Fragment, render } from "./vendor/preact.js";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "./vendor/hooks.js";
import htm from "./vendor/htm.js";
import { listen, live } from "./live.js";

export const html = htm.bind(h);
export { Fragment, render, useEffect, useLayoutEffect, useMemo, useRef, useState };

// -- hooks ----------------------------------------------------------------------------------------

// Draw again whenever something live has changed.
export function useLive() {
  const [, draw] = useState(0);
  useEffect(() => listen(() => draw((count) => count + 1)), []);
  return live;
}

// The result of an asynchronous function, begun anew whenever `inputs` change: [value, error].
export function useAsked(ask, inputs) {
  const [state, setState] = useState([undefined, undefined]);
  useEffect(() => {
    const controller = new AbortController();
    ask(controller.signal).then(
      (value) => controller.signal.aborted || setState([value, undefined]),
      (error) => controller.signal.aborted || setState(([value]) => [value, error]),
    );
    return () => controller.abort();
  }, inputs);
  return state;
}

// Draw again every so many seconds, while someone may be looking.
export function useClock(seconds) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const tick = () => document.hidden || setNow(Date.now());
    const timer = setInterval(tick, 1000 * seconds);
    document.addEventListener("visibilitychange", tick);
    return () => {
      clearInterval(timer);
      document.removeEventListener("visibilitychange", tick);
    };
  }, [seconds]);
  return now / 1000;
}

// Keys, by name: what each does, and in which words the help says it.
export const keys = new Map();

export function useKeys(bindings, inputs) {
  // Before anyone sees what they are for: else what is pressed at once is lost, or does what it did.
  useLayoutEffect(() => {
    for (const [key, words, act] of bindings) keys.set(key, { words, act });
    return () => bindings.forEach(([key]) => keys.delete(key));
  }, inputs);
}

// The item of a list that is selected, which others may come before: its place, and keys that move.
export function useSelection(items, keyOf) {
  const [key, setKey] = useState();
  const place = (wanted) => items.findIndex((item) => keyOf(item) === wanted);
  const move = (by) => () =>
    setKey((old) => {
      const from = place(old);
      const to = items[from + by] || items[from] || items[0];
      return to && keyOf(to);
    });
  const bindings = [
    ["j", "move down", move(1)],
    ["k", "move up", move(-1)],
  ];
  return [place(key), bindings];
}

export function useMedia(query) {
  const list = useMemo(() => matchMedia(query), [query]);
  const [matches, setMatches] = useState(list.matches);
  useEffect(() => {
    const changed = () => setMatches(list.matches);
    list.addEventListener("change", changed);
    return () => list.removeEventListener("change", changed);
  }, [list]);
  return matches;
}

// -- words ----------------------------------------------------------------------------------------

const UNITS = ["B", "KB", "MB", "GB", "TB", "PB"];

export function bytes(count) {
  if (count === null || count === undefined) return "–";
  const power = Math.min(5, Math.max(0, Math.floor(Math.log2(Math.max(1, count)) / 10)));
  const value = count / 1024 ** power;
  return `${value >= 100 || power === 0 ? Math.round(value) : value.toFixed(1)} ${UNITS[power]}`;
}

export function duration(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.floor(seconds))} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 2 * 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

export function milliseconds(seconds) {
  const ms = 1000 * seconds;
  if (ms >= 1000) return `${seconds.toFixed(2)} s`;
  return `${ms >= 10 ? ms.toFixed(0) : ms >= 0.1 ? ms.toFixed(1) : ms.toFixed(2)} ms`;
}

export function clock(unix, withDate = false) {
  const date = new Date(1000 * unix);
  const two = (number) => String(number).padStart(2, "0");
  const time = [date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(":");
  return withDate
    ? `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${time}`
    : time;
}

export const percent = (share) =>
  `${share >= 0.1 || share === 0 ? Math.round(100 * share) : (100 * share).toFixed(1)} %`;

export const plural = (count, word) =>
  `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

// A text that nobody can trust, fit to be shown: what would be invisible, or would turn the text
// around it, is shown as what it is.
export const shown = (text) =>
  String(text).replace(
    /[\0-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g,
    (character) => {
      const code = character.charCodeAt(0);
      return code < 0x20
        ? String.fromCharCode(0x2400 + code)
        : `⟨${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
    },
  );

// -- parts ----------------------------------------------------------------------------------------

const TONES = {
  running: "good",
  starting: "busy",
  stopping: "busy",
  waiting: "warn",
  stopped: "calm",
  ended: "calm",
  healthy: "good",
  unhealthy: "bad",
  failed: "bad",
};

// An instance's state as a person would put it, and its tone.
export function standing(one) {
  if (one.paused) return ["paused", "warn"];
  if (one.state === "running" && one.health === "unhealthy") return ["unhealthy", "bad"];
  if (one.state === "ended" && one.exit && one.exit.status !== 0) return ["failed", "bad"];
  if (one.state === "running" && one.port && !one.ready) return ["not ready", "busy"];
  return [one.state, TONES[one.state] || "calm"];
}

export const State = ({ one }) => {
  const [word, tone] = standing(one);
  return html`<span class="state ${tone}">${word}</span>`;
};

export const Health = ({ one: { health } }) =>
  health
    ? html`<span class="state ${TONES[health]}">${health}</span>`
    : html`<span class="faint">–</span>`;

// What was refused, and why; or what a person should know of a success.
export const Trouble = ({ error }) =>
  error &&
  html`<div
    class=${error instanceof Error ? "trouble" : "trouble note"}
    role=${error instanceof Error ? "alert" : "status"}
  >
    ${(error.chain || [error.message]).map((sentence) => html`<p>${shown(sentence)}</p>`)}
  </div>`;

export const latest = (values) => values.findLast((value) => value !== null);

export function Sparkline({ values, most, label }) {
  const known = values.filter((value) => value !== null);
  if (known.length < 2) return html`<span class="spark" />`;
  const top = Math.max(most, ...known) || 1;
  const x = (at) => (((60 - values.length + at) * 64) / 59).toFixed(1);
  const points = values.flatMap((value, at) =>
    value === null ? [] : `${x(at)},${(17 - (16 * value) / top).toFixed(1)}`,
  );
  const first = points[0].split(",")[0];
  const box = { viewBox: "0 0 64 18", preserveAspectRatio: "none" };
  return html`<svg class="spark" ...${box} role="img" aria-label=${label}>
  <polygon points="${first},18 ${points.join(" ")} 64,18" />
  <polyline points=${points.join(" ")} />
 </svg>`;
}

const MOST_DRAWN = 1000; // rows that are kept

// A list of any length, of which only the rows in sight are drawn.
export function Rows({
  items,
  height,
  row,
  selected = -1,
  label,
  atEnd = false,
  head,
  onLeaveEnd,
  keyOf,
}) {
  const box = useRef();
  const [place, setPlace] = useState({ top: 0, room: 800 });
  const sticks = useRef(atEnd);
  const look = () => {
    if (!box.current) return; // the last call of an observer may come after the end
    const { scrollTop, clientHeight } = box.current;
    setPlace((old) =>
      old.top === scrollTop && old.room === clientHeight
        ? old
        : { top: scrollTop, room: clientHeight },
    );
  };
  useEffect(() => {
    const observer = new ResizeObserver(look);
    observer.observe(box.current);
    return () => observer.disconnect();
  }, []);
  useLayoutEffect(() => {
    sticks.current = atEnd;
    if (atEnd) box.current.scrollTop = items.length * height;
  }, [items, items.length, atEnd, height]);
  const chosen = items[selected] && keyOf ? keyOf(items[selected]) : selected;
  useLayoutEffect(() => {
    if (selected < 0) return;
    const { scrollTop, clientHeight } = box.current;
    const room = clientHeight - (box.current.querySelector(".head")?.offsetHeight || 0);
    if (selected * height < scrollTop) box.current.scrollTop = selected * height;
    else if ((selected + 1) * height > scrollTop + room)
      box.current.scrollTop = (selected + 1) * height - room;
  }, [chosen]);
  const scrolled = () => {
    if (!box.current) return; // the same of a list's last scroll
    look();
    const { scrollTop, clientHeight, scrollHeight } = box.current;
    if (sticks.current && scrollTop + clientHeight < scrollHeight - 3 * height) onLeaveEnd?.();
  };
  const first = Math.max(0, Math.min(Math.floor(place.top / height) - 8, items.length - 1));
  const seen = items.slice(first, Math.ceil((place.top + place.room) / height) + 8);
  const drawn = useMemo(() => new Map(), [items, row, selected, height]);
  if (drawn.size > MOST_DRAWN) drawn.clear();
  const draw = (item, at) => html`<div
    key=${keyOf ? keyOf(item) : at}
    class="row ${at === selected ? "selected" : ""}"
    role="row"
    aria-rowindex=${at + 1}
    aria-current=${at === selected ? "true" : null}
    style=${{ top: `${at * height}px`, height: `${height}px` }}
  >
    ${row(item, at)}
  </div>`;
  // What was drawn and is the same is not compared again: so scrolling costs only what is new.
  const line = (item, at) => drawn.get(at) || drawn.set(at, draw(item, at)).get(at);
  return html`<div
    class="rows"
    ref=${box}
    onScroll=${scrolled}
    tabindex="0"
    role="table"
    aria-label=${label}
    aria-rowcount=${items.length}
  >
    ${head}
    <div class="tall" role="rowgroup" style=${{ height: `${items.length * height}px` }}>
      ${seen.map((item, at) => line(item, first + at))}
    </div>
  </div>`;
}

// Where one types what a list is to be filtered by.
export const Filter = ({ box, label, hint, value, set }) => html`<input
  ref=${box}
  type="search"
  placeholder="Filter: ${hint}"
  aria-label=${label}
  value=${value}
  onInput=${(event) => set(event.target.value)}
  onKeyDown=${(event) => event.key === "Escape" && box.current.blur()}
/>`;

export const addressOf = (name, view = "") => `#/instance/${encodeURIComponent(name)}${view}`;
export const InstanceLink = ({ name }) => html`<a href=${addressOf(name)}>${shown(name)}</a>`;

// Links of which one leads to what is seen now. It is moved into sight where not all have room.
export function Nav({ label, kind = "", links, at }) {
  const box = useRef();
  useEffect(() => {
    const reveal = () => {
      const current = box.current?.querySelector("[aria-current]");
      if (!current) return; // none leads here, or this is an observer's last call
      const { offsetLeft, offsetWidth } = current;
      box.current.scrollLeft = offsetLeft - (box.current.clientWidth - offsetWidth) / 2;
    };
    const observer = new ResizeObserver(reveal); // also begins with a call
    observer.observe(box.current);
    return () => observer.disconnect();
  }, [at]);
  return html`<nav ref=${box} class=${kind} aria-label=${label}>
    ${links.map(
      ([address, title]) =>
        html`<a href=${address} aria-current=${address === at ? "page" : null}>${title}</a>`,
    )}
  </nav>`;
}

// A dialog that keeps the rest of the page away until it is closed.
export function Dialog({ title, close, children }) {
  const box = useRef();
  useEffect(() => box.current.showModal(), []);
  return html`<dialog ref=${box} onClose=${close} aria-labelledby="dialog-title">
    <h2 id="dialog-title">${title}</h2>
    ${children}
  </dialog>`;
}

export const Copy = ({ text }) => {
  const [done, setDone] = useState(false);
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    setDone(true);
    setTimeout(() => setDone(false), 1500);
  };
  return html`<button onClick=${copy}>${done ? "Copied" : "Copy"}</button>`;
};
