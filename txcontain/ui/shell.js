// A shell in an instance: xterm.js over the WebSocket of exec, loaded when it is opened.

import { openShell } from "./api.js";
import { html, shown, useEffect, useRef, useState } from "./ui.js";

const [INPUT, OUTPUT, ERRORS, STATUS, SIZE] = [0, 1, 2, 3, 4]; // channels
const CLOSE_CODES = { 1009: "a message was too long", 1003: "a message was not understood" };

let loading = null;

async function load() {
  for (const name of ["xterm.css"])
    document.head.append(
      Object.assign(document.createElement("link"), {
        rel: "stylesheet",
        href: `/ui/vendor/${name}`,
      }),
    );
  await import("./vendor/xterm.js");
  await import("./vendor/fit.js");
}

// xterm.js makes <style> elements, which the page's policy keeps from having any effect. Sheets that
// a script makes are not markup, and allowed: so each of those becomes one.
function adoptStyles(box) {
  const sheets = new Map();
  const adopt = () => {
    for (const element of box.querySelectorAll("style")) {
      if (!sheets.has(element)) {
        sheets.set(element, new CSSStyleSheet());
        document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheets.get(element)];
      }
      sheets.get(element).replaceSync(element.textContent);
    }
  };
  const observer = new MutationObserver(adopt);
  observer.observe(box, { childList: true, subtree: true, characterData: true });
  adopt();
  return () => {
    observer.disconnect();
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter(
      (sheet) => ![...sheets.values()].includes(sheet),
    );
  };
}

export function Shell({ name }) {
  const box = useRef();
  const [state, setState] = useState("connecting…");
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    let close = () => {};
    let gone = false;
    setState("connecting…");
    loading ||= load();
    loading.then(() => {
      if (!gone) close = open(box.current, name, setState);
    });
    return () => {
      gone = true;
      close();
    };
  }, [name, turn]);
  const over = state !== "open" && state !== "connecting…";
  return html`<section class="fill">
    <div class="bar">
      <p class="totals" role="status">${state === "open" ? `/bin/sh in ${shown(name)}` : state}</p>
      ${over && html`<button onClick=${() => setTurn(turn + 1)}>Open another</button>`}
    </div>
    <div class="terminal" ref=${box} />
  </section>`;
}

function open(box, name, told) {
  const colour = (variable) =>
    getComputedStyle(document.documentElement).getPropertyValue(variable).trim();
  const { Terminal, FitAddon } = globalThis;
  const terminal = new Terminal({
    fontFamily: colour("--mono"),
    fontSize: 13,
    cursorBlink: false,
    scrollback: 5000,
    theme: {
      background: "#17181b",
      foreground: "#e4e4e1",
      cursor: "#9db0ff",
      selectionBackground: "#3a4260",
    },
  });
  const fit = new FitAddon.FitAddon();
  terminal.loadAddon(fit);
  terminal.open(box);
  const dropStyles = adoptStyles(box);
  fit.fit();
  const query = new URLSearchParams({ tty: 1, rows: terminal.rows, columns: terminal.cols });
  const socket = openShell(name, `${query}&env=TERM%3Dxterm-256color`);
  const send = (channel, bytes) => {
    const message = new Uint8Array(bytes.length + 1);
    message[0] = channel;
    message.set(bytes, 1);
    if (socket.readyState === WebSocket.OPEN) socket.send(message);
  };
  const encoder = new TextEncoder();
  terminal.onData((text) => send(INPUT, encoder.encode(text)));
  terminal.onBinary((text) =>
    send(
      INPUT,
      Uint8Array.from(text, (character) => character.charCodeAt(0)),
    ),
  );
  terminal.onResize(({ cols, rows }) =>
    send(SIZE, encoder.encode(JSON.stringify({ Width: cols, Height: rows }))),
  );
  const observer = new ResizeObserver(() => fit.fit());
  observer.observe(box);
  let status = null;
  socket.onopen = () => {
    told("open");
    terminal.focus();
  };
  socket.onmessage = ({ data }) => {
    const bytes = new Uint8Array(data);
    if (bytes[0] === OUTPUT || bytes[0] === ERRORS) terminal.write(bytes.subarray(1));
    if (bytes[0] === STATUS) status = JSON.parse(new TextDecoder().decode(bytes.subarray(1)));
  };
  socket.onclose = ({ code }) =>
    told(
      status
        ? `it has ended: ${status.exit.reason}`
        : CLOSE_CODES[code] || "the shell could not be opened, or the connection was lost",
    );
  return () => {
    observer.disconnect();
    socket.onclose = null;
    socket.close();
    terminal.dispose();
    dropStyles();
  };
}
