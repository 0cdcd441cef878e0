// What is wrong with a document, by the JSON Schema of the manager's OpenAPI document. It knows the
// words that this uses; the manager checks again, and more.

const kindOf = (value) =>
  value === null
    ? "null"
    : Array.isArray(value)
      ? "array"
      : Number.isInteger(value)
        ? "integer"
        : typeof value;

const is = (value, type) =>
  kindOf(value) === type || (type === "number" && kindOf(value) === "integer");

// Sentences, each with the path of what it is about.
export function problems(value, schema, path = "") {
  const here = path || "the config";
  const types = [schema.type ?? []].flat();
  if (types.length && !types.some((type) => is(value, type)))
    return [`${here} must be ${types.join(" or ")}, not ${kindOf(value)}`];
  if (schema.enum && !schema.enum.includes(value))
    return [`${here} must be one of ${schema.enum.join(", ")}`];
  const found = [];
  const below = (name) => (path ? `${path}.${name}` : name);
  if (typeof value === "number") {
    if (value < schema.minimum) found.push(`${here} must be at least ${schema.minimum}`);
    if (value > schema.maximum) found.push(`${here} must be at most ${schema.maximum}`);
  } else if (typeof value === "string") {
    if (schema.pattern && !new RegExp(schema.pattern, "u").test(value))
      found.push(`${here} must be ${schema.description || `like ${schema.pattern}`}`);
  } else if (Array.isArray(value)) {
    if (value.length < schema.minItems) found.push(`${here} needs at least ${schema.minItems}`);
    if (value.length > schema.maxItems) found.push(`${here} may have up to ${schema.maxItems}`);
    value.forEach((item, at) =>
      found.push(...problems(item, schema.items || {}, `${path}[${at}]`)),
    );
  } else if (is(value, "object")) {
    for (const name of schema.required || [])
      if (!(name in value)) found.push(`the key ${below(name)} is missing`);
    for (const [name, item] of Object.entries(value)) {
      const known = schema.properties?.[name] ?? schema.additionalProperties;
      if (known === false) found.push(`${path || "a config"} has no key '${name}'`);
      else if (known) found.push(...problems(item, known, below(name)));
    }
  }
  return found;
}
