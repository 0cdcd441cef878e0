// The one place that talks to the manager.

const KEPT = "txcontain token"; // in sessionStorage: gone with the tab
const FIRST_PAUSE = 250; // milliseconds before a lost stream is taken up again
const LONGEST_PAUSE = 4000;
const PROTOCOL = "v5.channel.k8s.io"; // of a command's WebSocket

let token = sessionStorage.getItem(KEPT) || "";
let askForToken = () => {};

export function onUnknown(callback) {
  askForToken = callback;
}

export function signIn(given, keep) {
  token = given;
  if (keep) sessionStorage.setItem(KEPT, given);
  else sessionStorage.removeItem(KEPT);
}

export const isSignedIn = () => token !== "";

// What the manager has refused, or what kept it from answering.
export class Refused extends Error {
  constructor(status, chain, problem = {}) {
    super(chain.join(": "));
    Object.assign(this, { status, chain, problem });
  }
}

async function send(path, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  let answer;
  try {
    answer = await fetch(path, { cache: "no-store", ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, ["the manager does not answer"]);
  }
  if (answer.ok) return answer;
  if (answer.status === 401) askForToken();
  const reason = decoded(answer.headers.get("Txcontain-Reason") || answer.statusText);
  const problem = await answer.json().catch(() => ({}));
  throw new Refused(
    answer.status,
    problem.detail ? [problem.detail, ...problem.chain] : reason.split(" → "),
    problem,
  );
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

// The document that answers a GET.
export const get = async (path, signal) => (await send(path, { signal })).json();
export const getText = async (path, signal) => (await send(path, { signal })).text();
export const getBlob = async (path) => (await send(path)).blob();

// Have the manager do something: its answer, and its advice in `notes`.
export async function act(method, path, body) {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  const answer = await send(path, { method, body: text });
  const notes = decoded(answer.headers.get("Txcontain-Note") || "");
  return { ...(await answer.json().catch(() => ({}))), notes };
}

// The same of something that takes long: the manager tells it line by line.
export async function actAndFollow(method, path, body, heard, signal) {
  const answer = await send(path, { method, body: JSON.stringify(body), signal });
  const read = lineReader((line) => heard(JSON.parse(line)));
  read(null);
  for await (const bytes of pieces(answer.body, signal)) read(bytes);
  read(new TextEncoder().encode("\n")); // a whole document has no end of line
}

export const instancePath = (name, below = "") => `/instances/${encodeURIComponent(name)}${below}`;

// Follow a stream until `signal` is aborted. A stream that ends is taken up again, but if it ends
// well and is `finite`.
//   path: makes the path anew each time, so that it can say from where to go on
//   heard: gets each piece of bytes, and null where another connection begins
//   told: gets "live", or what is wrong
export async function follow({ path, heard, told, signal, finite = false }) {
  let pause = FIRST_PAUSE;
  while (!signal.aborted) {
    let why = "the connection was lost";
    try {
      const answer = await send(path(), { signal });
      told("live");
      heard(null);
      for await (const bytes of pieces(answer.body, signal)) {
        pause = FIRST_PAUSE;
        heard(bytes);
      }
      if (finite) return;
    } catch (error) {
      if (signal.aborted) return;
      if (error.status >= 400 && error.status < 500) return told(error.message);
      why = error instanceof Refused ? error.message : why;
    }
    told(why);
    await sleep(pause, signal);
    pause = Math.min(2 * pause, LONGEST_PAUSE);
  }
}

async function* pieces(stream, signal) {
  const reader = stream.getReader();
  signal?.addEventListener("abort", () => reader.cancel().catch(() => {}));
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}

export const sleep = (milliseconds, signal) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()));
  });

// Cut a stream of bytes into lines of text. What is longer than `longest` characters is cut off, and
// how much that was is told: a line has no end that anyone could rely on.
export function lineReader(heard, longest = 1 << 20) {
  let decoder, rest, left;
  const put = (text) => {
    const room = longest - rest.length;
    rest += text.slice(0, room);
    left += Math.max(0, text.length - room);
  };
  return (bytes) => {
    if (bytes === null) {
      [decoder, rest, left] = [new TextDecoder(), "", 0];
      return;
    }
    const [first, ...others] = decoder.decode(bytes, { stream: true }).split("\n");
    put(first);
    for (const text of others) {
      if (rest) heard(rest, left);
      [rest, left] = ["", 0];
      put(text);
    }
  };
}

// A command in an instance, over a WebSocket. A browser can't set its headers, so the token goes
// along as a second protocol, as in Kubernetes.
export function openShell(name, query) {
  const bearer = btoa(token).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  const protocols = [
    PROTOCOL,
    ...(token ? [`base64url.bearer.authorization.k8s.io.${bearer}`] : []),
  ];
  const url = new URL(instancePath(name, `/exec?${query}`), location.href);
  url.protocol = url.protocol.replace("http", "ws");
  url.hash = "";
  const socket = new WebSocket(url, protocols);
  socket.binaryType = "arraybuffer";
  return socket;
}
