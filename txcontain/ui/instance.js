// One instance: its state and why, its launch, its log, a shell in it.

import { get, getText, instancePath } from "./api.js";
import { Actions } from "./actions.js";
import { Graph } from "./graph.js";
import { Isolation } from "./isolation.js";
import { Launch } from "./launch.js";
import { readInstance, mayWrite } from "./live.js";
import { Logs } from "./logs.js";
import { Shell } from "./shell.js";
import {
  Copy,
  Health,
  Nav,
  State,
  Trouble,
  addressOf,
  bytes,
  clock,
  duration,
  html,
  milliseconds,
  percent,
  shown,
  useAsked,
  useClock,
  useKeys,
  useLive,
  useMemo,
  useState,
} from "./ui.js";

const TABS = [
  ["", "State", "State"],
  ["launch", "Launch", "how it was launched"],
  ["logs", "Logs", "its logs"],
  ["shell", "Shell", "a shell in it"],
  ["isolation", "Isolation", "how it is held apart"],
  ["config", "Config", "its config"],
  ["explain", "Explain", "how to make it by hand"],
];

export function Instance({ go, rest: [name, tab = ""] }) {
  const { instances, loaded } = useLive();
  const turn = Math.floor(useClock(10) / 10); // its checks are no events
  const record = instances.get(name);
  const [details, error] = useAsked(
    (signal) => (record ? readInstance(name, signal) : Promise.resolve(undefined)),
    [name, record?.state, record?.since, record?.ready, record?.paused, turn],
  );
  const address = (view) => addressOf(name, view && `/${view}`);
  useKeys(
    ["logs", "shell", "explain"].map((view) => {
      const [, , words] = TABS.find(([one]) => one === view);
      return [view[0], words, () => go(address(view))];
    }),
    [name],
  );
  if (!record)
    return html`<p class="empty">
      ${loaded ? `There is no instance ${shown(name)}.` : "…"} <a href="#/">All instances</a>
    </p>`;
  const View = VIEWS[tab] || About;
  return html`
    <div class="bar">
      <h1>${shown(name)}</h1>
      <${State} one=${record} />
      ${record.health && record.health !== "unhealthy" && html`<${Health} one=${record} />`}
      <${Actions} record=${record} details=${details} go=${go} />
    </div>
    <${Nav}
      label="About this instance"
      kind="tabs"
      links=${TABS.map(([view, title]) => [address(view), title])}
      at=${address(tab)}
    />
    <${Trouble} error=${error} />
    <${View} name=${name} record=${record} details=${details} />
  `;
}

const VIEWS = {
  launch: ({ details }) => details && html`<${Launch} details=${details} />`,
  logs: ({ name, record: { state } }) =>
    html`<${Logs} names=${[name]} resting=${["ended", "stopped", "failed"].includes(state)} />`,
  shell: ({ name }) =>
    mayWrite()
      ? html`<${Shell} name=${name} />`
      : html`<p class="empty">A shell takes a token whose role is write.</p>`,
  config: ({ details }) => details && html`<${Config} details=${details} />`,
  isolation: Isolation,
  explain: Explain,
};

// -- state ----------------------------------------------------------------------------------------

// How far back the graphs go: name, seconds between two points, how many.
const SPANS = [
  ["10 min", 1, 600],
  ["1 h", 10, 360],
  ["6 h", 10, 2160],
];

function About({ record, details }) {
  const { events } = useLive();
  const now = useClock(1);
  const turn = Math.floor(now / 2);
  const name = record.instance;
  const [span, setSpan] = useState(0);
  const [, step, last] = SPANS[span];
  const running = record.state === "running";
  const [usage] = useAsked((signal) => get(instancePath(name, "/stats"), signal), [name, turn]);
  const [history] = useAsked(
    (signal) =>
      get(`/stats/history?instance=${encodeURIComponent(name)}&step=${step}&last=${last}`, signal),
    [name, span, step === 1 ? turn : Math.floor(now / 10)],
  );
  const own = events.filter((event) => event.instance === name);
  const marks = own.map((event) => event.time);
  const { cpu = [], memory = [] } = history?.instances[name] || {};
  const times = cpu.map((_, at) => history.until - history.step * (cpu.length - 1 - at));
  return html`<div class="columns about" tabindex="0">
    <section>
      <h2>Why it is so</h2>
      ${
        own.length
          ? html`<${Timeline} events=${own} />`
          : html`<p class="faint">Nothing has happened to it lately.</p>`
      }
      ${details?.checks?.length > 0 && html`<${Checks} checks=${details.checks} />`}
    </section>
    <section>
      ${
        cpu.length > 0 &&
        html`<h2>
          What it uses
          <span class="choice" role="group" aria-label="How far back">
            ${SPANS.map(
              ([words], at) => html`<button
                aria-pressed=${at === span}
                onClick=${() => setSpan(at)}
              >
                ${words}
              </button>`,
            )}
          </span>
        </h2>
        <div class="graphs">
          <${Graph} title="CPU" values=${cpu} times=${times} unit=${percent} marks=${marks} />
          <${Graph}
            title="Memory"
            values=${memory}
            times=${times}
            unit=${bytes}
            marks=${marks}
            of=${running && usage?.limits.memory}
            powers
          />
        </div>`
      }
      <h2>What it is</h2>
      <dl class="facts">
        ${facts(record, details, now, running && usage).map(
          ([title, value]) =>
            html`<dt>${title}</dt>
              <dd>${value}</dd>`,
        )}
      </dl>
    </section>
  </div>`;
}

const Checks = ({ checks }) => html`<h2>Its last checks</h2>
  <ol class="timeline">
    ${[...checks].reverse().map(
      ({ at, seconds, passed, output }) =>
        html`<li class=${passed ? "good" : passed === null ? "warn" : "bad"}>
          <time>${clock(at)}</time>
          <div>
            <b>${passed ? "passed" : passed === null ? "could not be asked" : "failed"}</b>${" "}
            ${milliseconds(seconds)}${output && html`<small>${shown(output)}</small>`}
          </div>
        </li>`,
    )}
  </ol>`;

const Timeline = ({ events }) => html`<ol class="timeline">
  ${[...events].reverse().map(
    (event) =>
      html`<li class=${toneOf(event)}>
        <time>${clock(event.time)}</time>
        <div>
          <b>${shown(event.what)}</b> <span>${shown(event.reason)}</span>
          ${event.by && html`<small>by ${shown(event.by)}</small>`}
        </div>
      </li>`,
  )}
</ol>`;

export const toneOf = ({ what, reason }) =>
  ({
    running: "good",
    starting: "busy",
    stopping: "busy",
    waiting: "warn",
    unhealthy: "bad",
    healthy: "good",
    unsafe: "bad",
  })[what] || (what === "ended" && !/exit status 0|asked/.test(reason) ? "bad" : "calm");

function facts(record, details, now, usage) {
  const spec = details?.spec;
  const list = (values) => values.map((value) => html`<div>${shown(value)}</div>`);
  return [
    ["Config", `${record.name} ${record.major}.${record.minor}`],
    ["Launched", `${clock(record.launched, true)}, ${duration(now - record.launched)} ago`],
    ["Restarts", `${record.restarts}${spec ? ` (policy: ${spec.restart})` : ""}`],
    record.exit && ["Last end", `${shown(record.exit.reason)}, ${clock(record.exit.at, true)}`],
    record.pid && ["PID 1", `${record.pid} on the host`],
    record.ports.length && ["Ports", list(record.ports)],
    record.address && ["Address", record.address],
    spec && ["Network", spec.network],
    spec && ["Image", shown(spec.base_image)],
    spec && [
      "Program",
      html`<code>${shown(spec.startup_script || spec.command.join(" ") || "none: it idles")}</code>`,
    ],
    spec && ["Runs as", shown(spec.startup_owner)],
    spec?.mounts.length && [
      "Mounts",
      list(
        spec.mounts.map(
          (one) =>
            `${one.tarball} at ${one.target}, ${one.writable ? "copy-on-write" : "read-only"}`,
        ),
      ),
    ],
    details &&
      Object.keys(details.volumes).length && ["Volumes", list(Object.keys(details.volumes))],
    usage && ["Processes", `${usage.pids} of ${usage.limits.pids}`],
    usage?.memory_peak && ["Memory, peak", bytes(usage.memory_peak)],
    usage &&
      Object.keys(usage.pressure).length && [
        "It waited for",
        Object.entries(usage.pressure)
          .map(([what, share]) => `${what} ${share} %`)
          .join(", "),
      ],
    Object.keys(record.labels).length && [
      "Labels",
      list(Object.entries(record.labels).map(([key, value]) => `${key}=${value}`)),
    ],
  ].filter(Boolean);
}

// -- config, explain ------------------------------------------------------------------------------

function Config({ details }) {
  const { name, major, minor, spec } = details;
  const [uploaded, error] = useAsked(
    (signal) => getText(`/configs/${encodeURIComponent(`${name}-${major}-${minor}`)}`, signal),
    [name, major, minor],
  );
  const effective = useMemo(() => JSON.stringify(spec, null, 4), [spec]);
  return html`<div class="columns">
    <section>
      <h2>As it was uploaded</h2>
      ${
        error
          ? html`<p class="faint">It was launched with its config, which is kept only with it.</p>`
          : html`<pre tabindex="0">${shown(uploaded || "")}</pre>`
      }
    </section>
    <section>
      <h2>In effect, with all defaults <${Copy} text=${effective} /></h2>
      <pre tabindex="0">${shown(effective)}</pre>
    </section>
  </div>`;
}

function Explain({ name }) {
  const [script, error] = useAsked(
    (signal) => getText(instancePath(name, "/explain"), signal),
    [name],
  );
  if (!script) return html`<${Trouble} error=${error} />`;
  return html`<section class="fill">
    <h2>The same container, made by hand <${Copy} text=${script} /></h2>
    <pre tabindex="0">${shown(script)}</pre>
  </section>`;
}
