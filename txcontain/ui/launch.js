// The launch of an instance, drawn to scale: where its time went, and what had been done before.

import { live } from "./live.js";
import { html, milliseconds, plural, shown } from "./ui.js";

const sum = (steps) => steps.reduce((total, step) => total + (step.seconds || 0), 0);

export function Launch({ details }) {
  const { plan, in_advance: count } = details;
  const [before, after] = [plan.slice(0, count), plan.slice(count)];
  const phases = phasesOf(details, sum(before), sum(after));
  const first = Math.min(...phases.map((phase) => phase.begin));
  const last = Math.max(...phases.map((phase) => phase.end));
  const all = sum(plan);
  const until = plan.map((_, at) => sum(plan.slice(0, at + 1)) / all); // a share of the whole
  const phase = ({ title, begin, end, kind }) => html`<div class="phase">
    <span>${title}</span>
    <${Bar} kind=${kind} from=${(begin - first) / (last - first)} to=${(end - first) / (last - first)} />
    <b>${milliseconds(end - begin)}</b>
  </div>`;
  const step = (one, at) => html`<div class="phase">
    <span><b>${shown(one.op)}</b> <code>${shown(about(one))}</code></span>
    <${Bar} kind=${at < count ? "advance" : "step"} from=${until[at - 1] || 0} to=${until[at]} />
    <b>${one.seconds === null ? "–" : milliseconds(one.seconds)}</b>
  </div>`;
  return html`<div class="launch" tabindex="0">
    <section>
      <h2>From the request on</h2>
      <div class="waterfall">${phases.map(phase)}</div>
      <p class="hint">${count ? EARLIER(count) : "No init was warm: this launch did all the steps."}</p>
    </section>
    <section>
      <h2>Each step</h2>
      <div class="waterfall steps">${plan.map(step)}</div>
    </section>
  </div>`;
}

const EARLIER = (count) =>
  `An init that waited had done ${plural(count, "step")} before anyone asked (hatched): this launch did not wait for them.`;

const Bar = ({ kind, from, to }) => {
  const style = { marginLeft: `${100 * from}%`, width: `max(2px, ${100 * (to - from)}%)` };
  return html`<span class="track"><i class=${kind} style=${style} /></span>`;
};

// The journal says when it began, when its script ran, and when it listened. The steps come last
// before the exec, so what is before them is the manager's.
function phasesOf(details, advance, steps) {
  const events = live.events.filter((event) => event.instance === details.instance);
  const at = events.map((event) => event.what).lastIndexOf("starting");
  const began = at < 0 ? details.launched : events[at].time;
  const running = events
    .slice(Math.max(0, at))
    .filter((event) => event.what === "running" && !/found again/.test(event.reason));
  const ran = running[0] ? running[0].time - began : steps;
  const listens = running.find((event) => /listens/.test(event.reason));
  const manager = Math.max(0, ran - steps);
  return [
    advance > 0 && { title: "In advance", begin: -advance, end: 0, kind: "advance" },
    manager > 0 && { title: "The manager, and the exec", begin: 0, end: manager, kind: "manager" },
    { title: "Steps of the plan", begin: manager, end: manager + steps, kind: "step" },
    listens && {
      title: "The program, until it listens",
      begin: ran,
      end: listens.time - began,
      kind: "program",
    },
  ].filter(Boolean);
}

const about = (step) =>
  step.target ||
  step.path ||
  step.mountpoint ||
  step.name ||
  step.owner ||
  step.program ||
  (step.namespaces || []).join(" ") ||
  step.mode ||
  "";
