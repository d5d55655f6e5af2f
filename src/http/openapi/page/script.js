"use strict";

let spec;

// An element with attributes and children. Text is never read as HTML.
function make(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) element[key] = value;
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// Follows a reference within the document.
function resolve(value) {
  while (value && value.$ref) {
    value = value.$ref.slice(2).split("/").reduce((at, part) => at[part.replace(/~1/g, "/").replace(/~0/g, "~")], spec);
  }
  return value;
}

// A schema as a short text, with the names of others.
function describe(schema, depth = 0) {
  if (!schema) return "any";
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    return depth < 1 ? describe(resolve(schema), depth) : name;
  }
  const alternatives = schema.anyOf || schema.oneOf;
  if (alternatives && !schema.properties) return alternatives.map((one) => describe(one, depth)).join("\n" + "  ".repeat(depth) + "| ");
  if (schema.allOf) return schema.allOf.map((one) => describe(one, depth)).join(" & ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.properties) {
    const inner = "  ".repeat(depth + 1);
    const lines = Object.entries(schema.properties).map(([name, property]) => {
      const optional = (schema.required || []).includes(name) ? "" : "?";
      const comment = property.description ? "  // " + property.description.split("\n")[0] : "";
      return inner + name + optional + ": " + describe(property, depth + 1) + comment;
    });
    return "{\n" + lines.join("\n") + "\n" + "  ".repeat(depth) + "}";
  }
  const types = [].concat(schema.type || "any");
  const limits = ["format", "pattern", "minimum", "exclusiveMinimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"];
  const notes = limits.filter((key) => key in schema).map((key) => key + " " + schema[key]);
  const text = types.map((type) => (type === "array" ? "[" + describe(schema.items, depth + 1) + "]" : type)).join(" | ");
  return text + (notes.length ? " (" + notes.join(", ") + ")" : "");
}

function example(schema) {
  const found = resolve(schema);
  return found && found.examples ? JSON.stringify(found.examples[0], null, 2) : "";
}

function rows(entries) {
  return make("table", {}, ...entries.map((cells) => make("tr", {}, ...cells.map((cell) => make("td", {}, cell)))));
}

function parameterRows(parameters) {
  return rows(
    parameters.map((parameter) => {
      const text = parameter.in + (parameter.required ? ", required" : "");
      const about = [describe(parameter.schema, 1), parameter.description].filter(Boolean).join(": ");
      return [make("code", {}, parameter.name), text, about];
    }),
  );
}

function bodyPart(body) {
  const parts = [make("h3", {}, "Body")];
  for (const [media, content] of Object.entries(body.content)) {
    parts.push(make("div", {}, make("code", {}, media)), make("pre", {}, describe(content.schema)));
    const text = example(content.schema);
    if (text) parts.push(make("div", {}, "Example"), make("pre", {}, text));
  }
  return parts;
}

function answerPart(responses) {
  const entries = Object.entries(responses).map(([status, response]) => {
    response = resolve(response);
    const cell = make("div", {}, response.description || "");
    const headers = Object.keys(response.headers || {});
    if (headers.length) cell.append(make("div", {}, "Headers: " + headers.join(", ")));
    if (status < 400) {
      for (const [media, content] of Object.entries(response.content || {})) {
        cell.append(make("div", {}, make("code", {}, media)), make("pre", {}, describe(content.schema)));
      }
    }
    return [make("b", {}, status), cell];
  });
  return [make("h3", {}, "Answers"), rows(entries)];
}

function tryPart(path, method, operation, parameters) {
  const fields = parameters.map((parameter) => [parameter, make("input", { placeholder: parameter.name, ariaLabel: parameter.name })]);
  const medias = Object.entries((operation.requestBody || { content: {} }).content);
  const media = make("select", { ariaLabel: "media type of the body" }, ...medias.map(([name]) => make("option", {}, name)));
  const text = make("textarea", { ariaLabel: "body", value: medias.length ? example(medias[0][1].schema) : "" });
  const file = make("input", { type: "file", multiple: true, ariaLabel: "files of the body" });
  const output = make("pre", { hidden: true, tabIndex: 0, ariaLive: "polite" });
  const send = make("button", { onclick: () => request(path, method, fields, { media: media.value, text, file }, output) }, "Send");
  return [
    make("h3", {}, "Try it"),
    rows(fields.map(([parameter, input]) => [make("code", {}, parameter.name), input])),
    medias.length ? make("p", {}, media, " ", file) : null,
    medias.length ? text : null,
    make("p", {}, send),
    output,
  ];
}

async function request(path, method, fields, body, output) {
  const headers = {};
  const query = new URLSearchParams();
  for (const [parameter, input] of fields) {
    if (input.value === "") continue;
    if (parameter.in === "path") path = path.replace("{" + parameter.name + "}", encodeURIComponent(input.value));
    if (parameter.in === "query") query.append(parameter.name, input.value);
    if (parameter.in === "header") headers[parameter.name] = input.value;
  }
  const key = document.getElementById("key").value.trim();
  if (key) headers.authorization = "Bearer " + key;
  const options = { method: method.toUpperCase(), headers };
  if (body.media === "multipart/form-data") {
    options.body = new FormData();
    const names = path === "/v1/pairs" ? ["anchor", "positive"] : [];
    [...body.file.files].forEach((file, at) => options.body.append(names[at] || "file" + at, file));
  } else if (body.file.files.length) {
    options.body = body.file.files[0];
    headers["content-type"] = body.media === "image/*" ? options.body.type : body.media;
  } else if (body.media && body.text.value) {
    options.body = body.text.value;
    headers["content-type"] = body.media;
  }
  output.hidden = false;
  output.textContent = "…";
  try {
    const target = path.slice(1) + (query.size ? "?" + query : "");
    const answer = await fetch(target, options);
    const type = answer.headers.get("content-type") || "";
    const text = /json|text/.test(type) ? await answer.text() : (await answer.blob()).size + " bytes of " + (type || "nothing");
    const shown = [...answer.headers].map(([name, value]) => name + ": " + value).join("\n");
    output.textContent = answer.status + " " + answer.statusText + "\n" + shown + "\n\n" + pretty(text);
  } catch (error) {
    output.textContent = String(error);
  }
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function operationPart(path, method, operation) {
  const parameters = (operation.parameters || []).map(resolve);
  const scope = ((operation.security || [])[0] || {}).bearer;
  const head = make(
    "summary",
    {},
    make("span", { className: "method" }, method),
    make("code", {}, path),
    " " + (operation.summary || ""),
    scope ? make("span", { className: "scope" }, "scope " + scope) : null,
  );
  const part = make("details", { className: "operation", id: operation.operationId }, head);
  // Most operations are never opened.
  const fill = () => {
    if (operation.description) part.append(make("p", {}, operation.description));
    if (parameters.length) part.append(make("h3", {}, "Parameters"), parameterRows(parameters));
    if (operation.requestBody) part.append(...bodyPart(operation.requestBody));
    part.append(...answerPart(operation.responses));
    part.append(...tryPart(path, method, operation, parameters).filter(Boolean));
    // Who has no mouse scrolls what has the focus.
    for (const text of part.querySelectorAll("pre")) if (text.scrollHeight > text.clientHeight) text.tabIndex = 0;
  };
  part.addEventListener("toggle", fill, { once: true });
  return part;
}

async function show() {
  const main = document.getElementById("main");
  spec = await (await fetch("openapi.json")).json();
  main.replaceChildren(make("p", {}, spec.info.description));
  for (const tag of spec.tags) {
    const parts = [];
    for (const [path, item] of Object.entries(spec.paths)) {
      for (const [method, operation] of Object.entries(item)) {
        if (operation.tags && operation.tags[0] === tag.name) parts.push(operationPart(path, method, operation));
      }
    }
    if (parts.length) main.append(make("h2", {}, tag.name), make("p", {}, tag.description || ""), ...parts);
  }
}

show().catch((error) => {
  document.getElementById("main").textContent = "The document could not be read: " + error;
});
