// What can be done to an instance, with its consequence said before.

import { act, instancePath } from "./api.js";
import { mayWrite } from "./live.js";
import { Dialog, Trouble, html, shown, useState } from "./ui.js";

const ACTIONS = {
  stop: {
    title: "Stop",
    when: ({ state, paused }) => ["running", "waiting"].includes(state) || paused,
    says: ({ details }) => [
      `Its processes are asked to end, and killed after ${details.spec.stop_timeout} s.`,
      details.spec.limits.disk === null
        ? "What it has written stays. It can be started again."
        : "It keeps what it writes in memory (limits.disk): that is lost.",
    ],
  },
  start: {
    title: "Start",
    when: ({ state }) => ["stopped", "ended", "failed", "waiting"].includes(state),
  },
  restart: {
    title: "Restart",
    when: ({ state }) => state === "running",
    says: () => [
      "It is stopped and started: its processes begin anew, and its ports do not answer meanwhile.",
      "What it has written stays.",
    ],
  },
  pause: { title: "Pause", when: ({ state, paused }) => state === "running" && !paused },
  resume: { title: "Resume", when: ({ paused }) => paused },
  destroy: {
    title: "Destroy",
    danger: true,
    when: () => true,
    says: lostWith,
  },
};

// What is gone with an instance, and what stays.
function lostWith({ record, details: { spec, volumes } }) {
  const copies = spec.mounts.filter((mount) => mount.writable).map((mount) => mount.target);
  const written = [...copies, ...(spec.writable_root ? ["/"] : [])];
  const kept = Object.keys(volumes);
  return [
    record.state === "running" && "Its processes are ended.",
    written.length
      ? `Removed for good: what it has written to ${written.join(", ")}; and its logs.`
      : "Removed for good: its logs. It has no data of its own.",
    kept.length && `Stays: the ${kept.length === 1 ? "volume" : "volumes"} ${kept.join(", ")}.`,
    "Its config and its images stay.",
  ].filter(Boolean);
}

export function Actions({ record, details, go }) {
  const [asking, setAsking] = useState(null);
  const [busy, setBusy] = useState(null);
  const [said, setSaid] = useState(null);
  const run = async (name) => {
    setAsking(null);
    setSaid(null);
    setBusy(name);
    try {
      const destroys = name === "destroy";
      const path = destroys
        ? `/destroy/${encodeURIComponent(record.instance)}`
        : instancePath(record.instance, `/${name}`);
      const { notes } = await act(destroys ? "DELETE" : "POST", path);
      if (destroys) go("#/");
      setSaid(notes && { chain: [notes] });
    } catch (error) {
      setSaid(error);
    }
    setBusy(null);
  };
  if (!mayWrite()) return html`<p class="faint actions">Your token may only read.</p>`;
  const possible = Object.entries(ACTIONS).filter(([, one]) => one.when(record));
  return html`
    <div class="actions">
      ${possible.map(
        ([name, one]) =>
          html`<button
            class=${one.danger ? "danger" : ""}
            disabled=${busy || (one.says && !details)}
            onClick=${() => (one.says ? setAsking(name) : run(name))}
          >
            ${busy === name ? "…" : one.title}
          </button>`,
      )}
    </div>
    ${said && html`<${Trouble} error=${said} />`}
    ${
      asking &&
      html`<${Confirm}
      title="${ACTIONS[asking].title} ${record.instance}?"
      says=${ACTIONS[asking].says({ record, details })}
      button=${ACTIONS[asking].title}
      danger=${ACTIONS[asking].danger}
      done=${() => run(asking)}
      close=${() => setAsking(null)}
    />`
    }
  `;
}

export const Confirm = ({ title, says, button, danger, done, close }) =>
  html`<${Dialog} title=${shown(title)} close=${close}>
    <ul>
      ${says.map((sentence) => html`<li>${shown(sentence)}</li>`)}
    </ul>
    <div class="buttons">
      <button onClick=${close} autofocus>Cancel</button>
      <button class="first ${danger ? "danger" : ""}" onClick=${done}>${button}</button>
    </div>
  <//>`;
