// All instances at a glance.

import { Health, Rows, Sparkline, State, bytes, duration, html, percent, plural, shown, standing, useClock, useKeys, useLive, useMedia, useMemo, useRef, useState } from "./ui.js";

const ORDER = { bad: 0, busy: 1, warn: 2, good: 3, calm: 4 };

export function Overview({ go }) {
    const { instances, lastEvent, figures, loaded } = useLive();
    const now = useClock(5);
    const [filter, setFilter] = useState("");
    const [at, setAt] = useState(-1);
    const box = useRef();
    const narrow = useMedia("(max-width: 760px)");
    const all = useMemo(() => [...instances.values()].sort(inOrder), [instances, instances.size, lastEvent.size, now]);
    const found = all.map((one) => instances.get(one.instance)).filter((one) => one && matches(one, filter));
    const selected = Math.min(at, found.length - 1);
    const here = found[selected];
    const open = (view) => () => here && go(`#/instance/${encodeURIComponent(here.instance)}${view}`);
    useKeys(
        [
            ["j", "move down", () => setAt((old) => Math.min(old + 1, found.length - 1))],
            ["k", "move up", () => setAt((old) => Math.max(Math.min(old, found.length - 1) - 1, 0))],
            ["Enter", "open", open("")],
            ["l", "its logs", open("/logs")],
            ["s", "a shell in it", open("/shell")],
            ["e", "how to make it by hand", open("/explain")],
            ["/", "filter", () => box.current.focus()],
        ],
        [selected, here?.instance, found.length],
    );
    return html`
        <div class="bar">
            <h1>Instances</h1>
            <${Totals} all=${all} figures=${figures} />
            <input
                ref=${box}
                type="search"
                placeholder="Filter: name, config, state…"
                aria-label="Filter instances"
                value=${filter}
                onInput=${(event) => setFilter(event.target.value)}
                onKeyDown=${(event) => event.key === "Escape" && box.current.blur()}
            />
            <a class="button" href="#/configs">Launch…</a>
        </div>
        ${found.length || !loaded
            ? html`<${Rows}
                  label="Instances"
                  items=${found}
                  height=${narrow ? 68 : 38}
                  selected=${selected}
                  keyOf=${(one) => one.instance}
                  head=${!narrow && html`<${Head} />`}
                  row=${(one) => html`<${Line} one=${one} event=${lastEvent.get(one.instance)} figures=${figures.get(one.instance)} now=${now} />`}
              />`
            : html`<p class="empty">${all.length ? "No instance matches the filter." : html`Nothing runs yet. <a href="#/configs">Launch something.</a>`}</p>`}
    `;
}

const COLUMNS = ["name", "state-cell", "health", "ports", "restarts", "cpu", "memory", "event", "age"];
const TITLES = ["Instance", "State", "Health", "Ports", "Restarts", "CPU", "Memory", "Last event", "Since"];

const Head = () => html`<div class="head" role="rowgroup">
    <div class="row" role="row">${TITLES.map((title, at) => html`<span role="columnheader" class=${COLUMNS[at]}>${title}</span>`)}</div>
</div>`;

function Line({ one, event, figures, now }) {
    const { cpu = [], memory = [], usage } = one.state === "running" ? figures || {} : {};
    const limit = usage?.limits.memory;
    return html`
        <span role="cell" class="name">
            <a href="#/instance/${encodeURIComponent(one.instance)}">${shown(one.instance)}</a>
            <small>${shown(one.name)} ${shown(one.major)}.${shown(one.minor)}</small>
        </span>
        <span role="cell" class="state-cell"><${State} one=${one} /></span>
        <span role="cell" class="health"><${Health} one=${one} /></span>
        <span role="cell" class="ports">${ports(one)}</span>
        <span role="cell" class="restarts ${one.restarts ? "" : "faint"}">${one.restarts}</span>
        <span role="cell" class="cpu">
            <${Sparkline} values=${cpu} most=${0.1} label="CPU of the last minutes" />
            <b>${cpu.length ? percent(cpu.at(-1)) : ""}</b>
        </span>
        <span role="cell" class="memory">
            <${Sparkline} values=${memory} most=${limit || 0} label="memory of the last minutes" />
            <b>${memory.length ? bytes(memory.at(-1)) : ""}</b>
        </span>
        <span role="cell" class="event" title=${event ? shown(event.reason) : ""}>${event ? shown(event.reason) : one.exit ? shown(one.exit.reason) : ""}</span>
        <span role="cell" class="age">${duration(now - one.since)}</span>
    `;
}

function ports(one) {
    if (one.ports.length) return one.ports.map((port) => shown(port.replace(/^127\.0\.0\.1:(\d+)->\1\/tcp$/, "$1").replace(/->/, " → "))).join(", ");
    return one.port ? String(one.port) : html`<span class="faint">–</span>`;
}

function inOrder(one, other) {
    const [a, b] = [one, other].map((record) => ORDER[standing(record)[1]]);
    return a - b || one.instance.localeCompare(other.instance, "en", { numeric: true });
}

function matches(one, filter) {
    const text = `${one.instance} ${one.name}-${one.major}-${one.minor} ${standing(one)[0]} ${one.ports.join(" ")} ${Object.entries(one.labels).flat().join(" ")}`.toLowerCase();
    return filter.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

function Totals({ all, figures }) {
    const running = all.filter((one) => one.state === "running");
    const known = running.map((one) => figures.get(one.instance)).filter(Boolean);
    const cpu = known.reduce((sum, one) => sum + (one.cpu.at(-1) || 0), 0);
    const memory = known.reduce((sum, one) => sum + (one.memory.at(-1) || 0), 0);
    const failed = all.filter((one) => standing(one)[1] === "bad").length;
    return html`<p class="totals">
        <b>${running.length}</b> of ${plural(all.length, "instance")} running${failed ? html`, <b class="bad">${failed} failed</b>` : ""}
        ${known.length > 0 && html` · <b>${percent(cpu)}</b> CPU · <b>${bytes(memory)}</b>`}
    </p>`;
}

