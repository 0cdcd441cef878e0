// Stacks and their services: what there should be, what there is, and changing that.

import { actAndFollow, get } from "./api.js";
import { Confirm } from "./actions.js";
import { mayWrite } from "./live.js";
import {
  Dialog,
  InstanceLink,
  Trouble,
  clock,
  html,
  shown,
  useAsked,
  useClock,
  useLive,
  useState,
} from "./ui.js";

const TONES = {
  done: "good",
  updating: "busy",
  "rolling back": "warn",
  "going down": "busy",
  paused: "warn",
  "rolled back": "bad",
  failed: "bad",
};

export function Services() {
  const { events } = useLive();
  const turn = Math.floor(useClock(2) / 2);
  const [found, error] = useAsked(
    (signal) => get("/stacks", signal),
    [turn, events.at(-1)?.seq],
  );
  const [work, setWork] = useState(null); // {title, method, path, body}
  const [editing, setEditing] = useState(null); // a stack's name; "" for a new one
  const [leaving, setLeaving] = useState(null);
  const stacks = found?.stacks || [];
  const button = (words, act) => mayWrite() && html`<button onClick=${act}>${words}</button>`;
  return html`
    <div class="bar">
      <h1>Services</h1>
      <div class="actions">${button("Up…", () => setEditing(""))}</div>
    </div>
    <${Trouble} error=${error} />
    ${found && !stacks.length && html`<p class="empty">There is no stack.</p>`}
    <div class="columns" tabindex="0">
      ${stacks.map(
        ({ stack, services }) =>
          html`<section key=${stack}>
            <h2>
              ${shown(stack)}
              <span class="actions">
                ${button("Change…", () => setEditing(stack))}
                ${button("Down…", () => setLeaving({ stack, services }))}
              </span>
            </h2>
            ${services.map((one) => html`<${Service} key=${one.service} one=${one} begin=${setWork} />`)}
          </section>`,
      )}
    </div>
    ${editing !== null &&
    html`<${Up}
      stack=${editing}
      close=${() => setEditing(null)}
      begin=${(next) => (setEditing(null), setWork(next))}
    />`}
    ${leaving &&
    html`<${Confirm}
      title="Down ${leaving.stack}?"
      says=${[
        ...leaving.services.map((one) => `${one.service}: ${one.instances.join(", ") || "none"}`),
        "These instances are ended and removed, with what they have written and their logs.",
        "Volumes and configs stay.",
      ]}
      button="Down"
      danger
      close=${() => setLeaving(null)}
      done=${() => {
        const path = `/stacks/${encodeURIComponent(leaving.stack)}?wait=1`;
        setLeaving(null);
        setWork({ title: `Down ${leaving.stack}`, method: "DELETE", path });
      }}
    />`}
    ${work && html`<${Work} key=${work.title} ...${work} close=${() => setWork(null)} />`}
  `;
}

// What is typed here stays while the answers of the manager are drawn: they are a default, no value.
function Service({ one, begin }) {
  const name = one.service;
  const verb = (title, path, body) =>
    begin({
      title,
      method: "POST",
      path: `/services/${encodeURIComponent(name)}/${path}?wait=1`,
      body,
    });
  const scale = (event) => {
    event.preventDefault();
    const replicas = Number(new FormData(event.target).get("replicas"));
    verb(`Scale ${name} to ${replicas}`, "scale", { replicas });
    event.target.reset();
  };
  const update = (event) => {
    event.preventDefault();
    const [major, minor] = new FormData(event.target).get("version").split(/[.-](.*)/);
    verb(`Update ${name} to ${major}.${minor}`, "update", { major, minor });
    event.target.reset();
  };
  return html`<article class="service">
    <p>
      <b>${shown(name)}</b> <span class="state ${TONES[one.state]}">${one.state}</span>
      <small>${shown(one.config)}</small>
      ${one.replicas !== null &&
      html`<span class="faint">${one.serving} of ${one.replicas} serve</span>`}
      ${one.next && html`<span class="faint">next run ${clock(one.next, true)}</span>`}
      <code>${one.ports.map(shown).join(", ")}</code>
    </p>
    ${one.why && html`<p class="bad">${shown(one.why)}</p>`}
    <p class="replicas">
      ${one.instances.map((instance) => html`<${InstanceLink} name=${instance} /> `)}
    </p>
    ${mayWrite() &&
    one.replicas !== null &&
    html`<div class="actions">
      <form onSubmit=${scale}>
        <input
          name="replicas"
          type="number"
          min="0"
          max="1000"
          defaultValue=${one.replicas}
          aria-label="Replicas of ${name}"
        />
        <button>Scale</button>
      </form>
      <form onSubmit=${update}>
        <input
          name="version"
          required
          pattern="[\\w.]+[.\\-][\\w.]+"
          placeholder="MAJOR.MINOR"
          aria-label="Version of ${name}"
        />
        <button>Update</button>
      </form>
      ${one.before &&
      html`<button onClick=${() => verb(`Roll ${name} back`, "rollback")}>
        Roll back to ${shown(one.before)}
      </button>`}
    </div>`}
  </article>`;
}

// What is done, line by line, until it is.
function Work({ title, method, path, body, close }) {
  const [lines, setLines] = useState([]);
  const [, error] = useAsked(
    (signal) =>
      actAndFollow(
        method,
        path,
        body,
        (line) => setLines((old) => [...old, ...sentences(line)]),
        signal,
      ),
    [],
  );
  return html`<${Dialog} title=${shown(title)} close=${close}>
    <ol class="work" role="status">
      ${lines.map(([words, tone]) => html`<li class=${tone}>${shown(words)}</li>`)}
    </ol>
    <${Trouble} error=${error} />
    <div class="buttons"><button onClick=${close}>Close</button></div>
  <//>`;
}

function sentences(line) {
  if (line.changes) return line.changes.map((words) => [words, ""]);
  if (line.outcome === "done") return [["It is done.", "good"]];
  if (line.outcome) return line.wrong.map((words) => [words, "bad"]);
  return [[`${line.instance || line.service || ""} ${line.what}: ${line.reason}`, ""]];
}

const FIRST = { stack: "shop", services: {} };

// A stack's document, what it would change, and then doing that.
function Up({ stack, close, begin }) {
  const [known] = useAsked(
    async (signal) =>
      stack ? get(`/stacks/${encodeURIComponent(stack)}`, signal) : { document: FIRST },
    [stack],
  );
  const [typed, setTyped] = useState(null);
  const [planned, setPlanned] = useState(null);
  const [error, setError] = useState(null);
  const text = typed ?? (known ? JSON.stringify(known.document, null, 4) : "");
  const look = async () => {
    setError(null);
    try {
      await actAndFollow("POST", "/stacks?dry_run=1", JSON.parse(text), setPlanned);
    } catch (refused) {
      setError(refused);
    }
  };
  const steps = planned && [...planned.changes, ...planned.steps.map((step) => step.text)];
  return html`<${Dialog} title=${stack ? `Change ${shown(stack)}` : "Up"} close=${close}>
    <textarea
      rows="14"
      spellcheck="false"
      aria-label="The stack"
      value=${text}
      onInput=${(event) => (setTyped(event.target.value), setPlanned(null))}
    />
    <${Trouble} error=${error} />
    ${steps &&
    html`<ol class="work">
      ${steps.map((words) => html`<li>${shown(words)}</li>`)}
      ${!steps.length && html`<li>Nothing would change.</li>`}
    </ol>`}
    <div class="buttons">
      <button onClick=${close}>Cancel</button>
      <button onClick=${look}>What would change?</button>
      <button
        class="first"
        disabled=${!planned}
        onClick=${() =>
          begin({
            title: `Up ${planned.stack}`,
            method: "POST",
            path: "/stacks?wait=1",
            body: JSON.parse(text),
          })}
      >
        Up
      </button>
    </div>
  <//>`;
}
