// What a program wrote for a terminal, as pieces of text with colours, and nothing else of it.

import { shown } from "./ui.js";

// Control sequences (ECMA-48): CSI with its final byte, strings up to their end, two characters.
const SEQUENCE =
  /\x1b\[([0-?]*)[ -/]*([@-~])|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|$)|\x1b[ -/]*[0-~]?/g;

export const plain = (text) => lastOf(text.replace(SEQUENCE, ""));

// A carriage return goes back to the beginning of a line: what was there is written over.
const lastOf = (text) => text.slice(text.lastIndexOf("\r", text.length - 2) + 1);

// [{text, style: {color, fontWeight…}}]
export function pieces(text) {
  const found = [];
  let style = {};
  let from = 0;
  const add = (until) =>
    until > from && found.push({ text: shown(text.slice(from, until).replace(/\r$/, "")), style });
  text = lastOf(text);
  for (const match of text.matchAll(SEQUENCE)) {
    add(match.index);
    if (match[2] === "m") style = styled(style, match[1].split(/[;:]/).map(Number));
    from = match.index + match[0].length;
  }
  add(text.length);
  return found;
}

// A style after Select Graphic Rendition (ECMA-48, 8.3.117).
function styled(before, codes) {
  const style = { ...before };
  for (let at = 0; at < codes.length; at++) {
    const code = codes[at];
    if (code === 0) Object.keys(style).forEach((key) => delete style[key]);
    else if (code === 1) style.fontWeight = "700";
    else if (code === 2) style.color = "var(--quiet)";
    else if (code === 3) style.fontStyle = "italic";
    else if (code === 4) style.textDecoration = "underline";
    else if (code === 22) delete style.fontWeight;
    else if (code === 23) delete style.fontStyle;
    else if (code === 24) delete style.textDecoration;
    else if (code === 39) delete style.color;
    else if (code >= 30 && code <= 37) style.color = `var(--ansi-${code - 30})`;
    else if (code >= 90 && code <= 97) style.color = `var(--ansi-${code - 90})`;
    else if (code === 38 || code === 48) {
      const colour = codes[at + 1] === 5 ? indexed(codes[at + 2]) : codes.slice(at + 2, at + 5);
      if (code === 38) style.color = typeof colour === "string" ? colour : mixed(colour);
      at += codes[at + 1] === 5 ? 2 : 4;
    }
  }
  return style;
}

function indexed(number) {
  if (!(number >= 0 && number < 256)) return "inherit";
  if (number < 16) return `var(--ansi-${number % 8})`;
  if (number >= 232) return Array(3).fill(8 + 10 * (number - 232));
  return [36, 6, 1].map(
    (step) => [0, 95, 135, 175, 215, 255][Math.floor((number - 16) / step) % 6],
  );
}

// Any colour, drawn towards that of text, so that it can be read in both themes.
const mixed = (rgb) =>
  `color-mix(in oklab, rgb(${rgb.map((part) => Math.min(255, part || 0)).join(" ")}), var(--text) 55%)`;
