// A launch that stops before each step: what that is for, and what the last one has changed.

import { act, actAndFollow } from "./api.js";
import { Trouble, html, shown, useEffect, useKeys, useRef, useState } from "./ui.js";

export const addressOfSteps = ({ name, major, minor }) =>
  `#/step/${encodeURIComponent(`${name}-${major}-${minor}`)}`;

export function Steps({ rest: [config = ""] }) {
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
    const heard = (told) => (told.over ? setSaid({ chain: [over(told)] }) : come(told));
    actAndFollow("POST", path, begun, heard, signal).catch(
      (refused) => signal.aborted || setSaid(refused),
    );
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
  const again = () => {
    setBusy(true);
    setSaid(null);
    setBegun({ to: 0 });
  };
  useKeys(
    [
      ["n", "the next step", () => goTo(at + 1)],
      ["b", "back by a step", () => goTo(at - 1)],
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
      </div>
    </div>
    <${Trouble} error=${said} />
    ${launch && html`<${Place} ...${launch} goTo=${goTo} />`}
  `;
}

const over = (told) => `It is over: ${shown(told.over)}. Nothing of it is left but its volumes.`;

function Place({ steps, at, pid, changes, goTo }) {
  const { op, about, why, attack, test } = steps[at];
  return html`<div class="columns" tabindex="0">
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
      <h2>What has changed since the last stop</h2>
      ${changes.map((change) => html`<${Change} ...${change} />`)}
      ${!changes.length && html`<p class="faint">Nothing that the kernel tells of it.</p>`}
    </section>
  </div>`;
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
