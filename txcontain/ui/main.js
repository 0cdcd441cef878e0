// The page: who looks at it, where in it they are, and what keys do.

import { isSignedIn, onUnknown, signIn } from "./api.js";
import { Configs } from "./configs.js";
import { Disk } from "./disk.js";
import { Events } from "./events.js";
import { Instance } from "./instance.js";
import { start, stop } from "./live.js";
import { LogsOfAll } from "./logs.js";
import { Overview } from "./overview.js";
import { Services } from "./services.js";
import { Steps } from "./step.js";
import {
  Dialog,
  Nav,
  html,
  keys,
  render,
  shown,
  useEffect,
  useLayoutEffect,
  useLive,
  useState,
} from "./ui.js";

// Address, title, view; one without a title is not in the menu.
const VIEWS = [
  ["", "Instances", Overview],
  ["logs", "Logs", LogsOfAll],
  ["events", "Events", Events],
  ["disk", "Disk", Disk],
  ["configs", "Configs", Configs],
  ["services", "Services", Services],
  ["instance", "", Instance],
  ["step", "", Steps],
];

const menu = ({ hasServices }) =>
  VIEWS.filter(([address, title]) => title && (hasServices || address !== "services"));

const go = (address) => (location.hash = address);

function place() {
  const [view, ...rest] = location.hash.replace(/^#\/?/, "").split("/").map(decoded);
  return { view, rest };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function Page() {
  const live = useLive();
  const [where, setWhere] = useState(place());
  const [unknown, setUnknown] = useState(false);
  const [help, setHelp] = useState(false);
  // Before anyone sees it: else where they go and what they press at once is lost.
  useLayoutEffect(() => {
    const moved = () => setWhere(place());
    addEventListener("hashchange", moved);
    addEventListener("keydown", pressed);
    keys.set("?", { words: "all keys", act: () => setHelp(true) });
    return () => removeEventListener("hashchange", moved);
  }, []);
  useEffect(() => {
    onUnknown(() => {
      stop();
      setUnknown(true);
    });
    start();
  }, []);
  useLayoutEffect(
    () =>
      menu(live).forEach(([address, title], at) =>
        keys.set(String(at + 1), { words: title, act: () => go(`#/${address}`) }),
      ),
    [live.hasServices],
  );
  if (unknown) return html`<${SignIn} done=${() => (setUnknown(false), start())} />`;
  const [, title, View] = VIEWS.find(([address]) => address === where.view) || VIEWS[0];
  document.title = `${where.rest[0] || title} · txcontain`;
  return html`
    <header>
      <a class="brand" href="#/"><img src="/ui/icon.svg" alt="" width="20" height="20" />txcontain</a>
      <${Nav}
        label="Views"
        links=${menu(live).map(([address, name]) => [`#/${address}`, name])}
        at="#/${where.view}"
      />
      <${Connection} live=${live} />
      <button class="quiet" onClick=${() => setHelp(true)} aria-label="Keys">?</button>
    </header>
    <main key=${where.view + (where.rest[0] || "")}><${View} go=${go} rest=${where.rest} /></main>
    ${help && html`<${Help} close=${() => setHelp(false)} />`}
  `;
}

function Connection({ live }) {
  const good = live.state === "live";
  const words = good
    ? "live"
    : live.state === "connecting"
      ? "connecting…"
      : `${live.state}; trying again…`;
  return html`<p class="connection ${good ? "good" : "bad"}" role="status">
    ${words}${good && live.caller?.role === "read" ? ", read-only" : ""}
    ${good && live.caller && html`<small>${shown(live.caller.name)}</small>`}
  </p>`;
}

function SignIn({ done }) {
  const [wrong, setWrong] = useState(isSignedIn());
  const submit = (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    signIn(
      form
        .get("token")
        .trim()
        .replace(/^TXCONTAIN_TOKEN=/, ""),
      form.has("keep"),
    );
    setWrong(false);
    done();
  };
  return html`<main class="sign-in">
    <form onSubmit=${submit}>
      <h1><img src="/ui/icon.svg" alt="" width="28" height="28" /> txcontain</h1>
      ${wrong && html`<p class="trouble" role="alert">The manager does not know this token.</p>`}
      <label>Token <input name="token" type="password" autocomplete="off" required autofocus /></label>
      <label class="check"><input name="keep" type="checkbox" /> Keep it until this tab is closed</label>
      <button class="first">Sign in</button>
      <p class="hint"><code>txcontain token NAME read</code> makes one. It goes to this manager and nowhere else.</p>
    </form>
  </main>`;
}

const Help = ({ close }) => html`<${Dialog} title="Keys" close=${close}>
  <dl class="keys">
    ${[...keys].map(([key, { words }]) => html`<dt><kbd>${key}</kbd></dt><dd>${words}</dd>`)}
    <dt><kbd>Esc</kbd></dt><dd>back</dd>
  </dl>
  <form method="dialog"><button class="first">Close</button></form>
</${Dialog}>`;

function pressed(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]"))
    return;
  if (event.target.closest("input, textarea, select, .terminal")) return;
  if (event.key === "Enter" && event.target.closest("a, button")) return;
  if (event.key === "Escape" && place().view) return history.back();
  const bound = keys.get(event.key);
  if (!bound) return;
  event.preventDefault();
  bound.act();
}

render(html`<${Page} />`, document.body);
