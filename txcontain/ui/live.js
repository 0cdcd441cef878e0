// What is known of all instances, kept up to date by the manager's events.

import { follow, get, instancePath, lineReader, sleep } from "./api.js";

const KEPT_EVENTS = 2000;
const FIRST_EVENTS = 500;
const POINTS = 60; // of a sparkline
const PAUSE = 2000; // milliseconds between two looks at figures, at least
const SHARE = 20; // a look may take a twentieth of the time: so little of the manager
const FEW = 8; // instances that are asked for one by one

export const live = {
  state: "connecting", // or "live", or what is wrong
  instances: new Map(), // by name; another Map whenever there are other names
  events: [], // the newest last
  lastEvent: new Map(), // by instance
  figures: new Map(), // by instance: {cpu: [], memory: []}, a point a second
  waited: new Map(), // by instance that this page has launched: seconds until it was told
  caller: null,
  hasServices: false, // whether this manager has stacks
  loaded: false,
};

const listeners = new Set();
let running = null; // an AbortController
let painting = false;

export function listen(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

// Tell all listeners, once for all that has changed before the next picture is drawn.
function changed() {
  if (painting) return;
  painting = true;
  queueMicrotask(() => {
    painting = false;
    listeners.forEach((listener) => listener());
  });
}

export const mayWrite = () => live.caller?.role === "write";

export function stop() {
  running?.abort();
  running = null;
}

export function start() {
  stop();
  running = new AbortController();
  const { signal } = running;
  follow({
    path: () => {
      const last = live.events.at(-1)?.seq;
      return last ? `/events?follow=1&since=${last}` : `/events?follow=1&tail=${FIRST_EVENTS}`;
    },
    heard: lineReader(heard),
    told: (state) => {
      live.state = state;
      if (state === "live") refreshAll(signal);
      changed();
    },
    signal,
  });
  look(signal);
}

function heard(line) {
  const event = JSON.parse(line);
  live.events.push(event);
  if (live.events.length > 1.1 * KEPT_EVENTS)
    live.events.splice(0, live.events.length - KEPT_EVENTS);
  if (event.instance) live.lastEvent.set(event.instance, event);
  stale.add(event.instance);
  changed();
  refresh(running.signal);
}

// -- instances ------------------------------------------------------------------------------------

const stale = new Set(); // names of instances that may have changed
let refreshing = false;

async function refresh(signal) {
  if (refreshing || !live.loaded) return;
  refreshing = true;
  try {
    while (stale.size && !signal.aborted) {
      await sleep(0); // more events of the same moment
      const names = [...stale].filter(Boolean);
      stale.clear();
      if (names.length > FEW) await readAll(signal);
      else await Promise.all(names.map((name) => readOne(name, signal)));
      changed();
    }
  } catch {
    // The stream of events tells that the manager is gone; with the next, all is read anew.
  } finally {
    refreshing = false;
  }
}

async function refreshAll(signal) {
  try {
    stale.clear();
    const last = live.events.at(-1)?.seq ?? 0;
    const [caller, hasServices] = await Promise.all([
      get("/whoami", signal),
      get("/stacks", signal).then(
        () => true,
        () => false,
      ),
      readAll(signal),
    ]);
    Object.assign(live, { caller, hasServices, loaded: true });
    // What has happened meanwhile may be missing in this answer, and have been read before it came.
    live.events.forEach(({ seq, instance }) => seq > last && stale.add(instance));
    changed();
    refresh(signal);
  } catch {
    // The same.
  }
}

async function readAll(signal) {
  const { instances } = await get("/instances", signal);
  const before = live.instances;
  live.instances = new Map(instances.map((one) => [one.instance, one]));
  for (const name of before.keys()) if (!live.instances.has(name)) forget(name);
}

function know(name, record) {
  if (!live.instances.has(name)) live.instances = new Map(live.instances);
  live.instances.set(name, record);
}

function forget(name) {
  live.instances = new Map(live.instances);
  for (const known of [live.instances, live.lastEvent, live.waited]) known.delete(name);
}

async function readOne(name, signal) {
  try {
    const { instances } = await get(`/instances?match=${encodeURIComponent(name)}`, signal);
    const found = instances.find((one) => one.instance === name);
    if (found) know(name, found);
    else forget(name);
  } catch (error) {
    if (error.status !== 404 && error.status !== 409) throw error;
    forget(name);
  }
}

export const readInstance = (name, signal) => get(instancePath(name), signal);

// -- figures --------------------------------------------------------------------------------------

async function look(signal) {
  let until = 0; // the time of the last point that is known
  let before = 0;
  while (!signal.aborted) {
    const began = performance.now();
    if (!document.hidden && live.state === "live") {
      const last = until ? Math.min(POINTS, Math.ceil((began - before) / 1000) + 2) : POINTS;
      try {
        const answer = await get(`/stats/history?last=${last}`, signal);
        const fresh = Math.min(last, Math.round(answer.until - until));
        live.figures = new Map(
          Object.entries(answer.instances).map(([name, told]) => [name, longer(name, told, fresh)]),
        );
        [until, before] = [answer.until, began];
        changed();
      } catch {
        // The stream of events tells that the manager is gone.
      }
    }
    await sleep(Math.max(PAUSE, SHARE * (performance.now() - began)), signal);
  }
}

function longer(name, { cpu, memory }, fresh) {
  const known = live.figures.get(name) || { cpu: [], memory: [] };
  const join = (old, told) => [...old, ...told.slice(told.length - fresh)].slice(-POINTS);
  return { cpu: join(known.cpu, cpu), memory: join(known.memory, memory) };
}
