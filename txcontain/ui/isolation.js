// How an instance is held apart from the host, as the kernel tells it of the live process.

import { get, instancePath } from "./api.js";
import { Trouble, html, plural, shown, useAsked } from "./ui.js";

const NAMES = {
  mnt: "mounts",
  pid: "processes",
  net: "network",
  ipc: "IPC",
  uts: "hostname",
  cgroup: "cgroups",
  user: "users",
};

export function Isolation({ name, record }) {
  const [found, error] = useAsked(
    (signal) => get(instancePath(name, "/isolation"), signal),
    [name, record.since],
  );
  if (!found) return html`<${Trouble} error=${error} />`;
  const { namespaces, capabilities, host_capabilities: all } = found;
  const mark = (own, words) => html`<li class=${own ? "kept" : "shared"}>${words}</li>`;
  return html`<div class="columns" tabindex="0">
    <section>
      <h2>Namespaces of its own</h2>
      <ul class="marks">
        ${Object.entries(namespaces).map(([kind, { own }]) =>
          mark(own, html`${NAMES[kind]}${own ? "" : html` <small>the host's</small>`}`),
        )}
      </ul>
      <h2>What it may do <small>${capabilities.length} of ${all.length} capabilities</small></h2>
      <ul class="marks">
        ${all.map((one) =>
          capabilities.includes(one)
            ? html`<li class="shared">${one}</li>`
            : html`<li class="dropped"><s>${one}</s></li>`,
        )}
      </ul>
      <h2>What else holds it</h2>
      <dl class="facts">
        <dt>System calls</dt>
        <dd>${found.seccomp === "filter" ? plural(found.filters, "filter") : found.seccomp}</dd>
        <dt>New privileges</dt>
        <dd>${found.no_new_privileges ? "never" : "by set-user-ID programs"}</dd>
        <dt>User and group</dt>
        <dd>${found.host_user}, ${found.host_group} on the host</dd>
      </dl>
    </section>
    <section>
      <h2>Mounts <small>${found.mounts.length + found.more}</small></h2>
      <ul class="mounts">
        ${found.mounts.map(
          ({ target, type, source, options }) =>
            html`<li style=${{ paddingLeft: `${14 * depth(target)}px` }}>
              <code>${shown(target)}</code>
              <small>
                ${options.includes("ro") ? "read-only" : html`<b>writable</b>`} ${shown(type)}
                ${source.startsWith("/") ? ` of ${shown(source)}` : ""}
              </small>
            </li>`,
        )}
      </ul>
      ${found.more > 0 && html`<p class="hint">${plural(found.more, "mount")} more</p>`}
    </section>
  </div>`;
}

const depth = (path) => (path === "/" ? 0 : path.split("/").length - 1);
