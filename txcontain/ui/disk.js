// Images, volumes, and what else takes the disk; and its removal, with the list first.

import { act, get } from "./api.js";
import { Confirm } from "./actions.js";
import { mayWrite } from "./live.js";
import { InstanceLink, Trouble, bytes, html, shown, useAsked, useLive, useState } from "./ui.js";

export function Disk() {
  useLive();
  const [turn, setTurn] = useState(0);
  const [used, error] = useAsked(
    (signal) => Promise.all([get("/df", signal), get("/volumes", signal)]),
    [turn],
  );
  const [asking, setAsking] = useState(null);
  const [said, setSaid] = useState(null);
  const [withVolumes, setWithVolumes] = useState(false);
  const attempt = async (work) => {
    try {
      setSaid(null);
      await work();
    } catch (refused) {
      setSaid(refused);
    }
  };
  const look = () =>
    attempt(async () =>
      setAsking(await act("POST", "/prune", { dry_run: true, volumes: withVolumes })),
    );
  const prune = () =>
    attempt(async () => {
      setAsking(null);
      const { bytes: count } = await act("POST", "/prune", { volumes: withVolumes });
      setSaid({ chain: [`${bytes(count)} are free again.`] });
      setTurn(turn + 1);
    });
  if (!used)
    return html`<${Trouble} error=${error} />${!error && html`<p class="empty">Counting…</p>`}`;
  const [{ images, layers, instances, whole }, { volumes }] = used;
  const all = total([...images, ...layers, ...instances]) + total(volumes, "size");
  return html`
    <div class="bar">
      <h1>Disk</h1>
      <p class="totals">
        <b>${bytes(all)}</b>${whole ? "" : " and more: there are too many files to count them all"}
      </p>
      ${
        mayWrite() &&
        html`<div class="actions">
        <label class="check">
          <input
            type="checkbox"
            checked=${withVolumes}
            onChange=${(event) => setWithVolumes(event.target.checked)}
          />
          also unused volumes
        </label>
        <button onClick=${look}>Prune…</button>
      </div>`
      }
    </div>
    <${Trouble} error=${said} />
    <div class="columns" tabindex="0">
      <${Table}
        title="Instances"
        columns=${["Instance", "State", "Size", "Logs"]}
        rows=${instances.map((one) => [
          html`<${InstanceLink} name=${one.instance} />`,
          one.state,
          bytes(one.bytes),
          bytes(one.logs),
        ])}
      />
      <${Table}
        title="Volumes"
        columns=${["Volume", "Size", "Used by"]}
        rows=${volumes.map((one) => [
          shown(one.volume),
          bytes(one.size),
          shown(one.used_by.join(", ")) || "no one",
        ])}
      />
      <${Table}
        title="Images and mountables"
        columns=${["File", "Size"]}
        rows=${images.map((one) => [shown(one.image), bytes(one.bytes)])}
      />
      <${Table}
        title="Layers"
        columns=${["Unpacked from", "Size", "Used"]}
        rows=${layers.map((one) => [shown(one.tarball), bytes(one.bytes), one.used ? "yes" : "no"])}
      />
    </div>
    ${
      asking &&
      html`<${Confirm}
      title="Remove this for good?"
      says=${listOf(asking)}
      button="Remove"
      danger
      done=${prune}
      close=${() => setAsking(null)}
    />`
    }
  `;
}

const total = (list, key = "bytes") => list.reduce((sum, one) => sum + (one[key] || 0), 0);

function listOf({ instances, layers, volumes, bytes: count }) {
  return [
    ...instances.map(
      (one) => `instance ${one.instance}, with its data and logs: ${bytes(one.bytes)}`,
    ),
    ...volumes.map((one) => `volume ${one.volume}, with all that is in it: ${bytes(one.bytes)}`),
    ...layers.map(
      (one) => `layer of ${one.tarball}, which can be unpacked again: ${bytes(one.bytes)}`,
    ),
    `Together: ${bytes(count)}`,
  ];
}

const Table = ({ title, columns, rows }) => html`<section>
  <h2>${title}</h2>
  ${!rows.length && html`<p class="faint">None.</p>`}
  ${
    rows.length > 0 &&
    html`<table>
    <thead>
      <tr>
        ${columns.map((name) => html`<th scope="col">${name}</th>`)}
      </tr>
    </thead>
    <tbody>
      ${rows.map(
        (cells) =>
          html`<tr>
            ${cells.map((cell) => html`<td>${cell}</td>`)}
          </tr>`,
      )}
    </tbody>
  </table>`
  }
</section>`;
