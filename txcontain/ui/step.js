// A launch that stops before each step: what that is for, and what the last one has changed.

import { act, actAndFollow, get } from "./api.js";
import { Trouble, html, shown, useAsked, useEffect, useKeys, useRef, useState } from "./ui.js";

export const addressOfSteps = ({ name, major, minor }) =>
  `#/step/${encodeURIComponent(`${name}-${major}-${minor}`)}`;

export function Steps({ rest: [config = ""], go }) {
  const path = `/steps/${encodeURIComponent(config)}`;
  const [begun, setBegun] = useState({ to: 0 }); // another one begins the launch anew
  const [launch, setLaunch] = useState(null);
  const [said, setSaid] = useState(null);
  const [busy, setBusy] = useState(true);
  const come = (told) => {
    setLaunch((old) => ({ ...old, ...told }));
    setBusy(false);
  };
  useEffect(() => {
    const controller = new AbortController(); // the manager ends it when we hang up
    const { signal } = controller;
    const refuse = (refused) => signal.aborted || setSaid(refused);
    const heard = (told) => {
      if (told.over) return setSaid({ chain: [over(told)] });
      if (told.at === begun.to) return come(told);
      act("POST", `${path}/${told.launch}`, begun).then(
        (stopped) => signal.aborted || come({ ...told, ...stopped }),
        refuse,
      );
    };
    const to = Math.max(begun.to - 1, 0); // the last step is done by itself: its changes count
    actAndFollow("POST", path, { to }, heard, signal).catch(refuse);
    return () => controller.abort();
  }, [path, begun]);
  const last = launch ? launch.steps.length - 1 : 0;
  const at = launch ? launch.at : 0;
  const goTo = async (to) => {
    if (busy || to === at || to < 0 || to > last) return;
    setBusy(true);
    setSaid(null);
    if (to < at) return setBegun({ to });
    try {
      come(await act("POST", `${path}/${launch.launch}`, { to }));
    } catch (refused) {
      setSaid(refused);
    }
  };
  const end = () => go("#/configs");
  const again = () => {
    setBusy(true);
    setSaid(null);
    setBegun({ to: 0 });
  };
  useKeys(
    [
      ["n", "the next step", () => goTo(at + 1)],
      ["b", "back by a step", () => goTo(at - 1)],
      ["c", "continue to the program", () => goTo(last)],
      ["q", "end it", end],
    ],
    [launch, busy],
  );
  return html`
    <div class="bar">
      <h1>${shown(config)} in steps</h1>
      <div class="actions">
        <button disabled=${busy || at === 0} onClick=${() => goTo(at - 1)}>Back</button>
        <button class="first" disabled=${busy || at === last} onClick=${() => goTo(at + 1)}>Next</button>
        <button disabled=${busy || at === last} onClick=${() => goTo(last)}>To the program</button>
        <button disabled=${busy && !said} onClick=${again}>Begin again</button>
        <button onClick=${end}>End</button>
      </div>
    </div>
    <${Trouble} error=${said} />
    <div class="columns" tabindex="0">
      ${launch && html`<${Place} ...${launch} goTo=${goTo} />`}
      <${Walls} config=${config} />
    </div>
  `;
}

const SHELL = "nsenter --target PID --mount --uts --ipc --net --pid --cgroup --root --wd sh";

const over = (told) => `It is over: ${shown(told.over)}. Nothing of it is left but its volumes.`;

function Place({ steps, at, pid, changes, goTo }) {
  const { op, about, why, attack, test } = steps[at];
  return html`
    <section>
      <h2>The plan <small>step ${at + 1} of ${steps.length} comes next; PID 1 is ${pid}</small></h2>
      <ol class="plan">
        ${steps.map((one, number) => html`<${Step} ...${{ one, number, at, goTo }} />`)}
      </ol>
    </section>
    <section>
      <h2>${shown(op)} <small>${shown(about)}</small></h2>
      <p>${shown(why)}</p>
      ${
        attack &&
        html`<p>It prevents: to ${shown(attack)}. <small>The test: ${shown(test)}</small></p>`
      }
      ${at === steps.length - 1 && html`<p class="hint">Only this is left, and it is not done.</p>`}
      <h2>${at ? "What has changed since the last stop" : "What it has not from the manager"}</h2>
      ${changes.map((change) => html`<${Change} ...${change} />`)}
      ${!changes.length && html`<p class="faint">Nothing that the kernel tells of it.</p>`}
      <h2>A shell in it, as it stands</h2>
      <p class="hint">For root, on the manager's host:</p>
      <pre>${SHELL.replace("PID", pid)}</pre>
    </section>`;
}

function Step({ one, number, at, goTo }) {
  const place = useRef(null);
  const isNext = number === at;
  useEffect(() => {
    if (isNext) place.current.scrollIntoView({ block: "nearest" });
  }, [isNext]);
  return html`<li ref=${place} class=${number < at ? "done" : ""}>
    <button class="quiet" aria-current=${isNext ? "step" : null} onClick=${() => goTo(number)}>
      ${shown(one.op)} <small>${shown(one.about)}</small>
    </button>
  </li>`;
}

const Change = ({ of, gone, new: more }) => html`
  <h3>${of}</h3>
  <pre>${gone.map((line) => html`<del>- ${shown(line)}${"\n"}</del>`)}${more.map(
    (line) => html`<ins>+ ${shown(line)}${"\n"}</ins>`,
  )}</pre>
`;

// The same container without one of its walls, and an escape that this wall stops.
function Walls({ config }) {
  const [known, error] = useAsked((signal) => get("/escapes", signal), []);
  const [wall, setWall] = useState("masks");
  const [went, setWent] = useState(null);
  const [busy, setBusy] = useState(false);
  const one = known?.escapes.find((escape) => escape.wall === wall);
  const attempt = async () => {
    setBusy(true);
    setWent(null);
    const path = `/escapes/${encodeURIComponent(config)}`;
    setWent(await act("POST", path, { without: wall }).catch((refused) => ({ refused })));
    setBusy(false);
  };
  const choose = (event) => (setWall(event.target.value), setWent(null));
  return html`<section>
    <h2><label for="wall">Without a wall</label></h2>
    <div class="actions">
      <select id="wall" disabled=${busy} onChange=${choose}>
        ${(known?.escapes || []).map(
          (escape) =>
            html`<option selected=${escape.wall === wall}>${shown(escape.wall)}</option>`,
        )}
      </select>
      <button disabled=${busy || !one} onClick=${attempt}>Try its escape</button>
    </div>
    ${
      one &&
      html`<p class="hint">With it, ${shown(one.purpose)}. Without it, this ${shown(one.does)}:</p>
      <pre>${shown(one.script)}</pre>`
    }
    <div role="status">
      ${busy && html`<p class="faint">It is made without the wall, and then with it …</p>`}
      ${
        went &&
        !went.refused &&
        ["without", "with"].map((which) => html`<${Tried} which=${which} ...${went[which]} />`)
      }
    </div>
    <${Trouble} error=${went?.refused || error} />
  </section>`;
}

const Tried = ({ which, escaped, ended, said }) => html`
  <h3>
    ${which === "with" ? "With" : "Without"} the wall:${" "}
    <span class="state ${escaped ? "bad" : "good"}">${escaped ? "it got out" : "held"}</span>${" "}
    <small>${shown(ended)}</small>
  </h3>
  <pre>${shown(said)}</pre>
`;
