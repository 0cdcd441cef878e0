// A worker: a pattern can take for ever, and then only this thread waits, until it is ended. Its
// first message says that it runs.

postMessage({});
onmessage = ({ data: { id, pattern, texts } }) => {
  const wanted = new RegExp(pattern, "i");
  const found = [];
  texts.forEach((text, at) => wanted.test(text) && found.push(at));
  postMessage({ id, found });
};
