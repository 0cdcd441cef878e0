// Configs: those that are kept, and a new one, checked while it is typed.

import { act, get, getText } from "./api.js";
import { Confirm } from "./actions.js";
import { live, mayWrite } from "./live.js";
import { problems } from "./schema.js";
import { addressOfSteps } from "./step.js";
import {
  Trouble,
  addressOf,
  bytes,
  html,
  plural,
  shown,
  useAsked,
  useClock,
  useLive,
  useMemo,
  useState,
} from "./ui.js";

const FIRST = `{
  "name": "web",
  "major": "1",
  "minor": "0",
  "base_image": "basefs.tar.gz",
  "command": ["sleep", "1000"]
}
`;

export function Configs({ go }) {
  useLive();
  const [turn, setTurn] = useState(0);
  const [found, error] = useAsked((signal) => get("/configs", signal), [turn]);
  const [text, setText] = useState(FIRST);
  const [said, setSaid] = useState(null);
  const [busy, setBusy] = useState(false);
  const [removing, setRemoving] = useState(null);
  const attempt = async (work) => {
    setSaid(null);
    setBusy(true);
    try {
      await work();
    } catch (refused) {
      setSaid(refused);
    }
    setBusy(false);
    setTurn((old) => old + 1);
  };
  const launch = (asked) =>
    attempt(async () => {
      const began = performance.now();
      const { instance } = await act("POST", "/instances", asked);
      live.waited.set(instance, (performance.now() - began) / 1000);
      go(addressOf(instance));
    });
  const upload = () =>
    attempt(async () =>
      setSaid({ chain: [(await act("POST", "/config", text)).notes || "It is kept."] }),
    );
  const show = (config) => attempt(async () => setText(await getText(pathOf(config))));
  const remove = (config) =>
    attempt(async () => (setRemoving(null), act("DELETE", pathOf(config))));
  const key = ({ name, major, minor }) => ({ config: name, major, minor });
  return html`
    <div class="bar">
      <h1>Configs</h1>
      ${busy && html`<${Unpacking} />`}
    </div>
    <${Trouble} error=${said || error} />
    <div class="columns" tabindex="0">
      <section>
        <h2>Kept</h2>
        <ul class="configs">
          ${(found?.configs || []).map(
            (config) =>
              html`<li>
                <span>
                  <b>${shown(config.name)}</b> ${shown(config.major)}.${shown(config.minor)}${" "}
                  <small>${plural(config.instances.length, "instance")}</small>
                </span>
                <span class="actions">
                  <button onClick=${() => show(config)}>Show</button>
                  ${
                    mayWrite() &&
                    html`<button class="danger" onClick=${() => setRemoving(config)}>Remove</button>
                    <button onClick=${() => go(addressOfSteps(config))}>Step</button>
                    <button disabled=${busy} onClick=${() => launch(key(config))}>Launch</button>`
                  }
                </span>
              </li>`,
          )}
        </ul>
        ${found && !found.configs.length && html`<p class="faint">None yet.</p>`}
      </section>
      <${Editor}
        text=${text}
        setText=${setText}
        busy=${busy}
        upload=${upload}
        launch=${() => launch({ config: JSON.parse(text) })}
      />
    </div>
    ${
      removing &&
      html`<${Confirm}
      title="Remove ${removing.name}-${removing.major}-${removing.minor}?"
      says=${["The config is removed. It can't be while instances use it."]}
      button="Remove"
      danger
      done=${() => remove(removing)}
      close=${() => setRemoving(null)}
    />`
    }
  `;
}

const pathOf = ({ name, major, minor }) =>
  `/configs/${encodeURIComponent(`${name}-${major}-${minor}`)}`;

function Editor({ text, setText, busy, upload, launch }) {
  const [document_] = useAsked((signal) => get("/openapi.json", signal), []);
  const wrong = useMemo(() => check(text, document_?.components.schemas.Config), [text, document_]);
  const sentences = wrong.slice(0, 8).map((words) => html`<p class="bad">${shown(words)}</p>`);
  return html`<section>
    <h2><label for="config">A config</label></h2>
    <textarea
      id="config"
      spellcheck="false"
      rows="20"
      value=${text}
      onInput=${(event) => setText(event.target.value)}
      aria-describedby="problems"
    />
    <div id="problems" class="problems" role="status">
      ${sentences.length ? sentences : html`<p class="good">It fits the schema of configs.</p>`}
    </div>
    ${
      mayWrite() &&
      html`<div class="actions">
      <button disabled=${busy || wrong.length} onClick=${upload}>Upload</button>
      <button class="first" disabled=${busy || wrong.length} onClick=${launch}>Launch</button>
      <small>Upload keeps it. Launch keeps it only with its instance.</small>
    </div>`
    }
  </section>`;
}

function check(text, schema) {
  try {
    return schema ? problems(JSON.parse(text), schema) : [];
  } catch (error) {
    return [`it is not JSON: ${error.message}`];
  }
}

// What a launch waits for, if that is a tarball.
function Unpacking() {
  const second = Math.floor(useClock(1));
  const [found] = useAsked((signal) => get("/unpacking", signal), [second]);
  const told = (found?.unpacking || []).map(
    (one) => `${shown(one.tarball)} is being unpacked: ${bytes(one.bytes)}`,
  );
  return html`<p class="totals" role="status">working… ${told.join(", ")}</p>`;
}
