// The journal: what has happened, and why.

import { toneOf } from "./instance.js";
import {
  Filter,
  InstanceLink,
  Rows,
  addressOf,
  clock,
  html,
  plural,
  shown,
  useKeys,
  useLive,
  useMedia,
  useRef,
  useSelection,
  useState,
} from "./ui.js";

export function Events({ go }) {
  const { events } = useLive();
  const [filter, setFilter] = useState("");
  const box = useRef();
  const narrow = useMedia("(max-width: 760px)");
  const words = filter.toLowerCase().split(/\s+/);
  const found = events
    .filter((event) => words.every((word) => textOf(event).includes(word)))
    .reverse();
  const [selected, moves] = useSelection(found, (event) => event.seq);
  const here = found[selected];
  useKeys(
    [
      ...moves,
      ["Enter", "open its instance", () => here?.instance && go(addressOf(here.instance))],
      ["/", "filter", () => box.current.focus()],
    ],
    [selected, found],
  );
  return html`
    <div class="bar">
      <h1>Events</h1>
      <p class="totals">the last ${plural(found.length, "event")}, the newest first</p>
      <${Filter}
        box=${box}
        label="Filter events"
        hint="instance, what, why, who"
        value=${filter}
        set=${setFilter}
      />
    </div>
    ${!found.length && html`<p class="empty">No event matches.</p>`}
    ${
      found.length > 0 &&
      html`<${Rows}
      label="Events"
      items=${found}
      height=${narrow ? 56 : 32}
      selected=${selected}
      keyOf=${(event) => event.seq}
      row=${(event) => html`<${Line} event=${event} withDate=${!narrow} />`}
    />`
    }
  `;
}

const textOf = (event) =>
  `${event.instance || ""} ${event.what} ${event.reason} ${event.by || ""}`.toLowerCase();

const Line = ({ event, withDate }) => html`
  <time role="cell" class="when">${clock(event.time, withDate)}</time>
  <span role="cell" class="what"><span class="state ${toneOf(event)}">${shown(event.what)}</span></span>
  <span role="cell" class="who">
    ${event.instance && html`<${InstanceLink} name=${event.instance} />`}
  </span>
  <span role="cell" class="why" title=${shown(event.reason)}>${shown(event.reason)}</span>
  <span role="cell" class="by">${shown(event.by || "")}</span>
`;
