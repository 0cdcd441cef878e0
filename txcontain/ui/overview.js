// All instances at a glance, and the machine that they share.

import { get } from "./api.js";
import { live } from "./live.js";
import {
  Filter,
  Health,
  InstanceLink,
  Rows,
  Sparkline,
  State,
  addressOf,
  bytes,
  duration,
  html,
  latest,
  percent,
  plural,
  shown,
  standing,
  useClock,
  useKeys,
  useLive,
  useMedia,
  useAsked,
  useMemo,
  useRef,
  useSelection,
  useState,
} from "./ui.js";

const ORDER = ["bad", "busy", "warn", "good", "calm"];
const NAMES = new Intl.Collator("en", { numeric: true });

export function Overview({ go }) {
  const { instances, figures, loaded } = useLive();
  const now = useClock(5);
  const [filter, setFilter] = useState("");
  const box = useRef();
  const narrow = useMedia("(max-width: 760px)");
  const names = useMemo(() => [...instances.keys()].sort(NAMES.compare), [instances]);
  const all = inOrder(names.map((name) => instances.get(name)));
  const found = all.filter(matcher(filter));
  const [selected, moves] = useSelection(found, (one) => one.instance);
  const here = found[selected];
  const open = (view) => () => here && go(addressOf(here.instance, view));
  useKeys(
    [
      ...moves,
      ["Enter", "open", open("")],
      ["l", "its logs", open("/logs")],
      ["s", "a shell in it", open("/shell")],
      ["e", "how to make it by hand", open("/explain")],
      ["/", "filter", () => box.current.focus()],
    ],
    [selected, found],
  );
  return html`
    <div class="bar">
      <h1>Instances</h1>
      <${Totals} all=${all} figures=${figures} />
      <${Filter}
        box=${box}
        label="Filter instances"
        hint="name, config, state…"
        value=${filter}
        set=${setFilter}
      />
      <a class="button" href="#/configs">Launch…</a>
    </div>
    <${Host} />
    ${
      found.length || !loaded
        ? html`<${Rows}
          label="Instances"
          items=${found}
          height=${narrow ? 68 : 38}
          selected=${selected}
          keyOf=${(one) => one.instance}
          head=${!narrow && html`<${Head} />`}
          row=${(one) => html`<${Line} one=${one} now=${now} />`}
        />`
        : html`<p class="empty">
          ${all.length ? "No instance matches the filter." : "Nothing runs yet."}${" "}
          ${!all.length && html`<a href="#/configs">Launch something.</a>`}
        </p>`
    }
  `;
}

// The class of a cell, and the title of its column.
const COLUMNS = {
  name: "Instance",
  "state-cell": "State",
  health: "Health",
  ports: "Ports",
  restarts: "Restarts",
  cpu: "CPU",
  memory: "Memory",
  event: "Last event",
  age: "Since",
};

const Head = () => html`<div class="head" role="rowgroup">
  <div class="row" role="row">
    ${Object.entries(COLUMNS).map(
      ([name, title]) => html`<span role="columnheader" class=${name}>${title}</span>`,
    )}
  </div>
</div>`;

function Line({ one, now }) {
  const running = one.state === "running";
  const { cpu = [], memory = [] } = (running && live.figures.get(one.instance)) || {};
  const [share, size] = [latest(cpu), latest(memory)];
  const reason = shown(live.lastEvent.get(one.instance)?.reason || one.exit?.reason || "");
  return html`
    <span role="cell" class="name">
      <${InstanceLink} name=${one.instance} />
      <small>${shown(one.name)} ${shown(one.major)}.${shown(one.minor)}</small>
    </span>
    <span role="cell" class="state-cell"><${State} one=${one} /></span>
    <span role="cell" class="health"><${Health} one=${one} /></span>
    <span role="cell" class="ports">${ports(one)}</span>
    <span role="cell" class="restarts ${one.restarts ? "" : "faint"}">${one.restarts}</span>
    <span role="cell" class="cpu">
      <${Sparkline} values=${cpu} most=${0.1} label="CPU of the last minute" />
      <b>${share === undefined ? "" : percent(share)}</b>
    </span>
    <span role="cell" class="memory">
      <${Sparkline} values=${memory} most=${0} label="memory of the last minute" />
      <b>${size === undefined ? "" : bytes(size)}</b>
    </span>
    <span role="cell" class="event ${running ? "" : "rest"}" title=${reason}>${reason}</span>
    <span role="cell" class="age">${duration(now - one.since)}</span>
  `;
}

// An address only if it is not loopback, and both ports only if they differ.
const SAME = /^127\.0\.0\.1:(\d+)->\1\/tcp$/;

function ports(one) {
  const told = one.ports.map((port) => shown(port.replace(SAME, "$1").replace("->", " → ")));
  return told.join(", ") || one.port || html`<span class="faint">–</span>`;
}

// First what needs someone; what stands alike stays in its order.
function inOrder(records) {
  const groups = new Map(ORDER.map((tone) => [tone, []]));
  for (const one of records) groups.get(standing(one)[1]).push(one);
  return [...groups.values()].flat();
}

// Whether an instance has all words of a filter.
function matcher(filter) {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  return (one) => words.every((word) => textOf(one).includes(word));
}

const texts = new WeakMap(); // by record

function textOf(one) {
  if (!texts.has(one)) {
    const { instance, name, major, minor, ports, labels } = one;
    const told = [instance, `${name}-${major}-${minor}`, standing(one)[0], ports, labels];
    texts.set(one, JSON.stringify(told).toLowerCase());
  }
  return texts.get(one);
}

function Totals({ all, figures }) {
  const running = all.filter((one) => one.state === "running");
  const sum = (key) =>
    running.reduce(
      (total, one) => total + (latest(figures.get(one.instance)?.[key] || []) || 0),
      0,
    );
  const [cpu, memory] = useMemo(() => [sum("cpu"), sum("memory")], [figures, running.length]);
  const failed = all.filter((one) => standing(one)[1] === "bad").length;
  return html`<p class="totals">
    <b>${running.length}</b> of ${plural(all.length, "instance")} running${
      failed > 0 && html`, <b class="bad">${failed} failed</b>`
    }
    ${running.length > 0 && html` · <b>${percent(cpu)}</b> CPU · <b>${bytes(memory)}</b>`}
  </p>`;
}

const WAITED = { cpu: "CPU", memory: "memory", io: "disk" };
const MUCH = 20; // per cent of the last 10 s
const LITTLE = 0.1; // of the disk or memory

// Whether the machine is short of anything.
function Host() {
  const now = useClock(5);
  const [host] = useAsked((signal) => get("/host", signal), [now]);
  if (!host) return html`<p class="totals">…</p>`;
  const { memory, disk, pressure, pool } = host;
  const scarce = ({ available, total }) => (available < LITTLE * total ? "bad" : "");
  const waits = Object.entries(pressure).map(
    ([what, share], at) =>
      html`${at > 0 && ", "}${WAITED[what]} <b class=${share > MUCH ? "bad" : ""}>${percent(share / 100)}</b>`,
  );
  return html`<ul class="totals host" aria-label="The host">
    ${waits.length > 0 && html`<li>Waiting for ${waits}</li>`}
    <li><b class=${scarce(memory)}>${bytes(memory.available)}</b> of ${bytes(memory.total)} memory free</li>
    <li><b class=${scarce(disk)}>${bytes(disk.available)}</b> of ${bytes(disk.total)} disk free</li>
    ${pool.wanted > 0 && html`<li><b>${pool.warm}</b> of ${plural(pool.wanted, "init")} warm</li>`}
  </ul>`;
}
