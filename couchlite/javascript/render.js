// What show, list, update and rewrite functions answer with, and what they can call for it.
//
// An expression: a function of what harness.js lends, which gives the commands. It is evaluated only around a
// function of one of these kinds, and holds to what harness.js says must stay true.
//
// A list function answers piece by piece: `tell(text, wantsRows)` sends what it has, {"text", "head", "wants"},
// and returns more rows as JSON, none at the end. What it gives to `start` counts until the first text is sent.
(function (lent) {
  "use strict";

  const { global, design, theFunction, tell, log, shownError, throwIfOutOfMemory } = lent;
  const { parse, stringify } = JSON;
  const { apply } = Reflect;
  const { isArray } = Array;
  const { create } = Object;
  const { join } = Array.prototype;
  const { slice, split, trim } = String.prototype;
  const toText = String;
  const toNumber = parseFloat;

  const TEXT_LENGTH_UNSENT_MAX = 64 * 1024;

  let isList = false;
  let head; // of the response, as `start` was given it
  let headIsNew = false;
  let hasStarted = false; // a list function: its head was sent
  let hasBegun = false; // and some text, after which a head is too late
  let text = ""; // what `send` was given
  let hasText = false;
  let rows; // of a list, those that are here
  let nextRow = 0;
  let hasAllRows = false;
  let providers = []; // pairs of a name and a function
  let chosenType;

  function begin(forList) {
    isList = forList;
    head = {};
    headIsNew = hasStarted = hasBegun = hasText = hasAllRows = false;
    text = "";
    rows = [];
    nextRow = 0;
    providers = [];
    chosenType = undefined;
  }

  // What functions can call

  global.start = function (response) {
    head = response || {};
    headIsNew = true;
  };

  global.send = function (chunk) {
    text += toText(chunk);
    hasText = true;
    if (isList && hasStarted && text.length > TEXT_LENGTH_UNSENT_MAX) {
      noteHead();
      sent("nothing", false);
    }
  };

  global.getRow = function () {
    if (!isList) throw ["error", "render_error", "Only list functions have rows."];
    if (!hasStarted) {
      sendHead();
    } else {
      noteHead();
    }
    if (nextRow === rows.length && !hasAllRows) {
      rows = parse(sent("rows", true));
      nextRow = 0;
      hasAllRows = rows.length === 0;
    }
    if (nextRow === rows.length) return null;
    const row = rows[nextRow];
    rows[nextRow++] = undefined;
    return row;
  };

  global.provides = function (name, answer) {
    providers[providers.length] = [name, answer];
  };

  const typesOf = create(null); // by the name of a kind
  const kindOf = create(null); // by the name of a type

  global.registerType = function (kind, ...types) {
    typesOf[kind] = types;
    for (let index = 0; index < types.length; index++) kindOf[types[index]] = kind;
  };

  for (const [kind, ...types] of [
    ["all", "*/*"],
    ["text", "text/plain; charset=utf-8", "txt"],
    ["html", "text/html; charset=utf-8"],
    ["xhtml", "application/xhtml+xml", "xhtml"],
    ["xml", "application/xml", "text/xml", "application/x-xml"],
    ["js", "text/javascript", "application/javascript", "application/x-javascript"],
    ["css", "text/css"],
    ["ics", "text/calendar"],
    ["csv", "text/csv"],
    ["rss", "application/rss+xml"],
    ["atom", "application/atom+xml"],
    ["yaml", "application/x-yaml", "text/yaml"],
    ["multipart_form", "multipart/form-data"],
    ["url_encoded_form", "application/x-www-form-urlencoded"],
    ["json", "application/json", "text/x-json"],
  ]) {
    global.registerType(kind, ...types);
  }

  // What was provided

  function provided(request) {
    const accept = request.headers.Accept;
    let kind;
    let isByAccept = false;
    let names = [];
    for (let index = 0; index < providers.length; index++) names[index] = providers[index][0];
    if (request.query && request.query.format) {
      kind = request.query.format;
      chosenType = typesOf[kind] && typesOf[kind][0];
    } else if (accept) {
      isByAccept = true;
      names = reversed(names); // of types that are as good, what was provided first wins
      chosenType = bestType(allTypes(names), accept);
      kind = kindOf[chosenType];
    } else {
      kind = names[0];
      chosenType = typesOf[kind] && typesOf[kind][0];
    }
    for (let index = 0; index < providers.length; index++) {
      const at = isByAccept ? providers.length - 1 - index : index;
      if (kind && providers[at][0] === kind) return apply(providers[at][1], design, []);
    }
    const known = apply(join, allTypes(names), [", "]);
    throw ["error", "not_acceptable", "Content-Type " + (accept || kind) + " not supported, try one of: " + known];
  }

  function reversed(list) {
    const result = [];
    for (let index = list.length - 1; index >= 0; index--) result[result.length] = list[index];
    return result;
  }

  function allTypes(kinds) {
    const types = [];
    for (let index = 0; index < kinds.length; index++) {
      const some = typesOf[kinds[index]] || [];
      for (let each = 0; each < some.length; each++) types[types.length] = some[each];
    }
    return types;
  }

  // The type that an Accept header fits best; "" when it fits none. CouchDB compares the ranks as texts.
  function bestType(types, accept) {
    const ranges = [];
    const parts = apply(split, accept, [","]);
    for (let index = 0; index < parts.length; index++) ranges[index] = mediaType(parts[index]);
    let best = "";
    let bestRank = "";
    let bestQuality = 0;
    for (let index = 0; index < types.length; index++) {
      const [fitness, quality] = fit(mediaType(types[index]), ranges);
      const rank = fitness + "," + quality + "," + index + "," + types[index];
      if (rank > bestRank) {
        best = types[index];
        bestRank = rank;
        bestQuality = quality;
      }
    }
    return bestQuality ? best : "";
  }

  function mediaType(given) {
    const pieces = apply(split, given, [";"]);
    const parameters = create(null);
    for (let index = 1; index < pieces.length; index++) {
      const pair = apply(split, pieces[index], ["="]);
      if (pair.length === 2) parameters[apply(trim, pair[0], [])] = apply(trim, pair[1], []);
    }
    const name = apply(trim, pieces[0], []);
    const [family, member] = apply(split, name === "*" ? "*/*" : name, ["/"]);
    const quality = toNumber(parameters.q);
    delete parameters.q;
    return { family, member, parameters, quality: quality >= 0 && quality <= 1 ? quality : 1 };
  }

  function fit(type, ranges) {
    let fitness = -1;
    let quality = 0;
    for (let index = 0; index < ranges.length; index++) {
      const range = ranges[index];
      if (!covers(range.family, type.family) || !covers(range.member, type.member)) continue;
      let rank = (range.family === type.family ? 100 : 0) + (range.member === type.member ? 10 : 0);
      for (const name in type.parameters) {
        if (range.parameters[name] && range.parameters[name] === type.parameters[name]) rank++;
      }
      if (rank > fitness) {
        fitness = rank;
        quality = range.quality;
      }
    }
    return [fitness, quality];
  }

  function covers(one, other) {
    return one === other || one === "*" || other === "*";
  }

  // Answers

  function withType(response) {
    response.headers = response.headers || {};
    if (chosenType) response.headers["Content-Type"] = response.headers["Content-Type"] || chosenType;
    return response;
  }

  function wrapped(response) {
    return typeof response === "string" ? { body: response } : response;
  }

  function checked(response, kind) {
    const isResponse = typeof response === "object" && response !== null && !isArray(response);
    if (!isResponse && typeof response !== "string") {
      throw ["error", "render_error", "undefined response from " + kind + " function"];
    }
    return wrapped(response);
  }

  // What a function throws is the answer if it has the form of one, else its text is.
  function rendered(error, name) {
    throwIfOutOfMemory(error);
    const first = isArray(error) ? error[0] : undefined;
    if (first === "error" || first === "fatal" || (error && error.error && error.reason)) return error;
    const shown = "function raised error: " + shownError(error) + " \nstacktrace: " + (error ? error.stack : "");
    log(shown);
    return ["error", name, shown];
  }

  function sendHead() {
    hasStarted = true;
    headIsNew = true;
    withType(head);
    noteHead();
  }

  let toldHead = ""; // what the next message says of the head

  function noteHead() {
    if (headIsNew && !hasBegun) toldHead = ',"head":' + stringify(head);
    headIsNew = false;
    hasBegun = hasBegun || hasText;
  }

  function message() {
    const told = '"text":' + stringify(text) + toldHead;
    text = toldHead = "";
    hasText = false;
    return told;
  }

  function sent(wants, wantsRows) {
    return tell(apply(slice, "{" + message() + ',"wants":"' + wants + '"}', [0]), wantsRows); // see harness.js
  }

  return {
    show({ doc, req }) {
      begin(false);
      const isOfDocument = req.id !== null;
      const run = theFunction();
      try {
        let response = wrapped(apply(run, design, [doc, req]) || {});
        if (hasText) {
          response.headers = response.headers || {};
          const given = head.headers || head;
          for (const name in given) response.headers[name] = given[name];
          response.body = text + (response.body || "");
          text = "";
        }
        if (providers.length) {
          const more = wrapped(provided(req) || {});
          response.body = (response.body || "") + text + (more.body || "");
          response = withType(response);
        }
        return '"response":' + stringify(checked(response, "show"));
      } catch (error) {
        throwIfOutOfMemory(error);
        if (doc === null && isOfDocument) throw ["error", "not_found", "document not found"];
        throw rendered(error, "render_error");
      }
    },

    update({ doc, req }) {
      begin(false);
      const run = theFunction();
      try {
        if (req.method === "GET") {
          throw ["error", "method_not_allowed", "Update functions do not allow GET"];
        }
        const result = apply(run, design, [doc, req]);
        const response = checked(result[1], "update");
        return '"doc":' + (stringify(result[0]) || "null") + ',"response":' + stringify(response);
      } catch (error) {
        throw rendered(error, "render_error");
      }
    },

    rewrite({ req }) {
      begin(false);
      const run = theFunction();
      let result;
      try {
        result = apply(run, design, [req]);
      } catch (error) {
        throw rendered(error, "rewrite_error");
      }
      if (!result) return '"rewrite":null';
      if (typeof result === "string") result = { path: result, method: req.method };
      return '"rewrite":' + stringify(result);
    },

    list({ head: rowsHead, req }) {
      begin(true);
      const run = theFunction();
      try {
        let tail = apply(run, design, [rowsHead, req]);
        if (providers.length) tail = provided(req);
        if (!hasStarted) sendHead();
        else noteHead();
        if (tail !== undefined && tail !== null) text += toText(tail);
        return message();
      } catch (error) {
        throw rendered(error, "render_error");
      }
    },
  };
});
