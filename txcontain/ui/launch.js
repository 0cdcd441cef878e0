// The launch of an instance, drawn to scale: where its time went, and what had been done before.

import { live } from "./live.js";
import { html, milliseconds, plural, shown } from "./ui.js";

const sum = (steps) => steps.reduce((total, step) => total + (step.seconds || 0), 0);

export function Launch({ details }) {
  const { plan, in_advance: count } = details;
  const before = plan.slice(0, count);
  const phases = phasesOf(details, sum(before));
  const first = Math.min(...phases.map((phase) => phase.begin));
  const last = Math.max(...phases.map((phase) => phase.end));
  const all = sum(plan);
  const until = plan.map((_, at) => sum(plan.slice(0, at + 1)) / all); // a share of the whole
  const phase = ({ title, words, begin, end, kind }) => html`<div class="phase">
    <span title=${words}><b>${title}</b> ${words}</span>
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

// What each part of a start is called, and how it is drawn.
const PARTS = {
  http: ["Request read", "http"],
  manager: ["Manager", "manager", "finds the image, a name, an init"],
  steps: ["Steps", "step", "of the plan, by the init"],
  exec: ["exec", "exec", "the init becomes the program"],
  record: ["Written down", "manager", "for the next manager"],
};

// One after the other, from the request on; the journal says when the program listened.
function phasesOf({ instance, phases }, advance) {
  const found = [];
  let end = -advance;
  const add = (seconds, title, kind, words) => {
    if (seconds > 0) found.push({ title, words, begin: end, end: end + seconds, kind });
    end += Math.max(0, seconds);
  };
  add(advance, "In advance", "advance", "by an init that waited");
  Object.entries(phases).forEach(([part, seconds]) => add(seconds, ...PARTS[part]));
  const events = live.events.filter((event) => event.instance === instance);
  const since = events.slice(Math.max(0, events.findLastIndex(({ what }) => what === "starting")));
  const [ran, listens] = [/^its script runs/, /^it listens/].map((words) =>
    since.find(({ reason }) => words.test(reason)),
  );
  if (ran && listens) add(listens.time - ran.time, "Program", "program", "until it listens");
  const waited = live.waited.get(instance) || 0;
  add(waited - end, "Client", "http", "this browser, and the way there and back");
  return found;
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
