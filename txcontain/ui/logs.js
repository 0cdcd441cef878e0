// What instances have written, merged by time, live.

import { follow, getBlob, instancePath, lineReader } from "./api.js";
import { pieces, plain } from "./ansi.js";
import {
  Filter,
  Rows,
  Trouble,
  clock,
  html,
  plural,
  shown,
  useEffect,
  useKeys,
  useLive,
  useMemo,
  useRef,
  useState,
} from "./ui.js";

const MOST = 100_000; // lines that are kept
const TAIL = { one: 100_000, several: 5_000 };
const LONGEST = 20_000; // characters of a line
const SHOWN = 1_000; // of those, in the list
const CHUNK = 10_000; // lines that a pattern is tried on at once
const PATIENCE = 2000; // milliseconds that this may take

export function LogsOfAll() {
  const { instances } = useLive();
  const [wanted, setWanted] = useState([]);
  const all = [...new Set([...instances.keys(), ...wanted])].sort();
  const toggle = (event) =>
    setWanted([...event.target.selectedOptions].map((option) => option.value).filter(Boolean));
  const choice = html`<select aria-label="Of which instances" onChange=${toggle}>
    <option value="">all instances</option>
    ${all.map(
      (name) =>
        html`<option key=${name} value=${name} selected=${wanted.includes(name)}>
          ${shown(name)}
        </option>`,
    )}
  </select>`;
  return html`<${Logs} key=${wanted.join()} names=${wanted} title="Logs" choice=${choice} />`;
}

export function Logs({ names, title, choice, resting = false }) {
  const log = useMemo(() => new Log(), [names.join()]);
  const [, draw] = useState(0);
  const [state, setState] = useState("connecting…");
  const [pattern, setPattern] = useState("");
  const [trouble, setTrouble] = useState(null);
  const [follows, setFollows] = useState(true);
  const [selected, select] = useState(); // the number of a line
  const box = useRef();
  const single = names.length === 1;
  useEffect(() => {
    const controller = new AbortController();
    let due = false;
    log.changed = () => {
      if (due) return;
      due = true;
      requestAnimationFrame(() => ((due = false), draw((count) => count + 1)));
    };
    log.failed = (words) => setTrouble(new Error(words));
    follow({
      path: () => pathOf(names, { timestamps: 1, follow: 1, ...log.from(single) }),
      heard: lineReader((text, left) => log.add(text, left, single), LONGEST),
      told: setState,
      signal: controller.signal,
      finite: single,
    }).then(() => controller.signal.aborted || setState("ended"));
    return () => controller.abort();
  }, [log, resting]);
  useEffect(() => {
    setTrouble(null);
    const timer = setTimeout(() => log.filter(pattern), 150);
    return () => clearTimeout(timer);
  }, [log, pattern]);
  useEffect(() => () => log.end(), [log]);
  const lines = log.found;
  const place = (number) =>
    number === undefined ? -1 : lines.findIndex((line) => line.number === number);
  const at = place(selected);
  const move = (by) => {
    setFollows(false);
    select((old) => {
      const from = place(old) < 0 ? lines.length : place(old);
      return lines[Math.max(0, Math.min(from + by, lines.length - 1))]?.number;
    });
  };
  useKeys(
    [
      ["j", "move down", () => move(1)],
      ["k", "move up", () => move(-1)],
      ["G", "follow the end", () => (setFollows(true), select())],
      ["p", "pause", () => setFollows((old) => !old)],
      ["/", "filter", () => box.current.focus()],
    ],
    [lines],
  );
  const pick = (index) => {
    setFollows(false);
    select(lines[index]?.number);
  };
  const jump = (event) => {
    const found = lines.findIndex((line) => clock(line.time) >= event.target.value);
    pick(found < 0 ? lines.length - 1 : found);
  };
  const download = async () => {
    const blob = await getBlob(pathOf(names, { timestamps: 1 }));
    const link = Object.assign(document.createElement("a"), {
      href: URL.createObjectURL(blob),
      download: `${names[0] || "all"}.log`,
    });
    link.click();
    URL.revokeObjectURL(link.href);
  };
  return html`
    <div class="bar">
      ${title && html`<h1>${title}</h1>`} ${choice}
      <p class="totals" role="status">
        ${plural(lines.length, "line")}${state === "live" ? "" : ` · ${shown(state)}`}
      </p>
      <${Filter}
        box=${box}
        label="Filter lines"
        hint="a regular expression"
        value=${pattern}
        set=${setPattern}
      />
      <label class="jump">Jump to <input type="time" step="1" onChange=${jump} /></label>
      <button aria-pressed=${!follows} onClick=${() => setFollows(!follows)}>Pause</button>
      <button onClick=${download}>Download</button>
    </div>
    <${Trouble} error=${trouble} />
    ${
      !lines.length &&
      html`<p class="empty">${pattern ? "No line matches." : "Nothing has been written."}</p>`
    }
    ${
      lines.length > 0 &&
      html`<${Rows}
      label="Log"
      items=${lines}
      height=${20}
      atEnd=${follows}
      onLeaveEnd=${() => setFollows(false)}
      selected=${at}
      keyOf=${(line) => line.number}
      row=${(line, index) => html`<${Line} line=${line} single=${single} open=${() => pick(index)} />`}
    />`
    }
    ${lines[at] && html`<${Whole} line=${lines[at]} />`}
  `;
}

const Coloured = ({ text }) =>
  pieces(text).map(({ text, style }) => html`<span style=${style}>${text}</span>`);

const Whole = ({ line }) => html`<pre class="whole" tabindex="0">
  <${Coloured} text=${line.text} />
  ${line.left > 0 && html`<b> … and ${plural(line.left, "character")} more</b>`}
</pre>`;

const Line = ({ line, single, open }) => html`<span role="cell" class="log-line" onClick=${open}>
  <time>${clock(line.time)}</time>
  ${!single && html`<i style=${{ color: `var(--ansi-${line.hue})` }}>${shown(line.name)}</i>`}
  <${Coloured} text=${line.text.slice(0, SHOWN)} />
  ${line.left + line.text.length > SHOWN && html`<b> …</b>`}
</span>`;

function pathOf(names, asked) {
  const query = new URLSearchParams(asked);
  if (names.length === 1) return instancePath(names[0], `/logs?${query}`);
  names.forEach((name) => query.append("instance", name));
  if (!names.length) query.set("all", 1);
  return `/logs?${query}`;
}

// The lines that are kept, and those of them that match the filter.
class Log {
  lines = [];
  found = this.lines;
  changed = () => {};
  failed = () => {};
  #count = 0;
  #last = ""; // the time of the newest line, as it came
  #seen = new Map(); // how many lines of that time, by instance
  #skip = new Map(); // how many of them come again on the next connection
  #pattern = "";
  #sieve = new Sieve();
  #fresh = [];

  // What to ask for next: at first the last lines, then all since the newest.
  from(single) {
    this.#skip = new Map(this.#seen);
    return this.#last ? { since: this.#last } : { tail: single ? TAIL.one : TAIL.several };
  }

  add(text, left, single) {
    const split = single ? -3 : text.indexOf(" | ");
    const [name, rest] = [text.slice(0, Math.max(0, split)), text.slice(split + 3)];
    const end = rest.indexOf(" ");
    const time = rest.slice(0, end < 0 ? undefined : end);
    if (time === this.#last && this.#skip.get(name) > 0)
      return this.#skip.set(name, this.#skip.get(name) - 1);
    if (time > this.#last) [this.#last, this.#seen] = [time, new Map()];
    if (time === this.#last) this.#seen.set(name, (this.#seen.get(name) || 0) + 1);
    const line = {
      number: this.#count++,
      time: Date.parse(time) / 1000,
      name,
      hue: hueOf(name),
      text: end < 0 ? "" : rest.slice(end + 1),
      left,
    };
    this.lines.push(line);
    if (this.lines.length > 1.1 * MOST) this.lines.splice(0, this.lines.length - MOST);
    if (this.#pattern) this.#match(line);
    this.changed();
  }

  filter(pattern) {
    this.#pattern = pattern;
    this.#fresh = [];
    this.found = pattern ? [] : this.lines;
    this.changed();
    if (pattern) this.#run(this.lines.slice());
  }

  #match(line) {
    this.#fresh.push(line);
    if (this.#fresh.length === 1) setTimeout(() => this.#run(this.#fresh.splice(0)), 50);
  }

  async #run(lines) {
    const pattern = this.#pattern;
    try {
      for (let at = 0; at < lines.length; at += CHUNK) {
        const chunk = lines.slice(at, at + CHUNK);
        const texts = chunk.map((line) => plain(line.text));
        const indexes = await this.#sieve.test(pattern, texts);
        if (pattern !== this.#pattern) return;
        indexes.forEach((index) => this.found.push(chunk[index]));
        this.changed();
      }
    } catch (error) {
      if (pattern !== this.#pattern) return;
      this.#pattern = "";
      this.failed(error.message);
      this.changed();
    }
  }

  end() {
    this.#sieve.end();
  }
}

// Tries a pattern on texts, in a thread that is ended if that takes too long.
class Sieve {
  #worker = null; // a promise of it
  #waiting = new Map(); // by number
  #count = 0;

  async test(pattern, texts) {
    new RegExp(pattern); // throws if it is none
    const worker = await (this.#worker ||= this.#begin());
    const id = this.#count++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.end();
        reject(new Error("this pattern takes too long: make it simpler"));
      }, PATIENCE);
      this.#waiting.set(id, (found) => (clearTimeout(timer), resolve(found)));
      worker.postMessage({ id, pattern, texts });
    });
  }

  #begin() {
    const worker = new Worker("/ui/filter.js");
    return new Promise((resolve) => {
      worker.onerror = () => resolve(worker); // which then takes too long
      worker.onmessage = ({ data: { id, found } }) => {
        resolve(worker); // by its first message
        this.#waiting.get(id)?.(found);
        this.#waiting.delete(id);
      };
    });
  }

  end() {
    this.#worker?.then((worker) => worker.terminate());
    this.#worker = null;
  }
}

const hueOf = (name) =>
  1 + ([...name].reduce((sum, letter) => (31 * sum + letter.charCodeAt(0)) % 997, 7) % 6);
