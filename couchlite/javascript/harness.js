// What runs in a JavaScript context around one function of a design document.
//
// This file is an expression: a function that gives a function of a command and a JSON text, which answers with
// a JSON text. That is called once with "load" and what is to be run, and then with what to do.
//
// What must stay true here:
//
// 1. The function shares this realm and may replace or poison whatever it reaches: globals, prototypes, the
//    values it is given. So what is used after it was compiled is taken hold of here, before, and answers are
//    put together from primitive strings. A function that lies can lie only about its own results.
// 2. Nothing but the names that CouchDB gives to functions is to be seen among the globals.
// 3. Running out of memory is never an answer: it is thrown on, to whoever has to give up this context. It looks
//    like an InternalError or, where there was no memory for even that, like null.
//
// The names, their behaviour and the errors are those of share/server/*.js in CouchDB.
// `batchMs`: a batch of documents is left unfinished after this long, so that a long batch isn't taken for a
// function that runs long on one document.
// `renderSource`: render.js, for the kinds of functions that need it.
(function (batchMs, renderSource) {
  "use strict";

  const { parse, stringify } = JSON;
  const { apply } = Reflect;
  const { isArray } = Array;
  const { now } = Date;
  const { create, freeze, getPrototypeOf } = Object;
  const toText = String;
  const { slice, split, trim } = String.prototype;
  const global = globalThis;
  const evaluate = eval; // by another name it evaluates in the global scope
  const OutOfMemory = InternalError;

  const LOG_LINES_MAX = 100;
  const LOG_LINE_LENGTH_MAX = 1000;
  const REASON_LENGTH_MAX = 64 * 1024;
  const RENDERED = { __proto__: null, shows: true, lists: true, updates: true, rewrites: true };
  const REREDUCE_FRAME_LENGTH = 19; // of what CouchDB sends around the values
  const REDUCTION_LENGTH_UNCHECKED = 4096; // up to here a reduction may be as long as its input

  let design; // the design document
  let path; // of the function in it
  let compiled; // the function, once it was needed
  let at = 0; // the document of the batch that is being worked on
  let emitted = false;
  let emissions; // pairs of a key and a value, while they are wanted
  let logged = ""; // the inside of a JSON array
  let loggedLines = 0;
  const modules = create(null); // what was required, by its path
  const tell = global.tell; // to the parent process; see render.js
  delete global.tell;

  // What functions are given

  global.emit = function (key, value) {
    emitted = true;
    if (emissions !== undefined) emissions[emissions.length] = [key, withoutStack(value)];
  };
  global.sum = function (values) {
    let total = 0;
    for (const index in values) total += values[index];
    return total;
  };
  global.log = log;
  global.toJSON = stringify;
  global.isArray = isArray;
  global.require = (name) => requireFrom(undefined, name);
  delete global.performance; // a clock that CouchDB doesn't have

  function log(message) {
    if (loggedLines++ >= LOG_LINES_MAX) return;
    const line = typeof message === "string" ? message : stringify(withoutStack(message));
    logged += (logged ? "," : "") + quote(line, LOG_LINE_LENGTH_MAX);
  }

  function withoutStack(value) {
    const isError = typeof value === "object" && value !== null && "stack" in value && "message" in value;
    return isError ? { error: value.name, message: value.message } : value;
  }

  // Compiling

  // CouchDB's parser takes a function without a name where a statement is due. This engine's doesn't, so the
  // first such function for which that helps is given a name.
  const NAME = "_function_";
  const NAMELESS = /\bfunction\s*\(/g;
  const ATTEMPTS_MAX = 20;

  function compile(source) {
    if (!source) throw ["error", "not_found", "missing function"];
    let value;
    try {
      value = valueOfProgram(toText(source));
    } catch (error) {
      throw ["error", "compilation_error", textOf(error) + " (" + source + ")"];
    }
    if (typeof value !== "function" || isDeferred(value)) {
      throw ["error", "compilation_error", "Expression does not eval to a function. (" + source + ")"];
    }
    return value;
  }

  function valueOfProgram(source) {
    try {
      return evaluate(source);
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      let telling; // what is wrong but for the missing name
      for (const named of withName(source)) {
        try {
          evaluate(named);
          return global[NAME];
        } catch (other) {
          if (!(other instanceof SyntaxError)) throw other;
          telling ??= other;
        } finally {
          delete global[NAME];
        }
      }
      throw telling ?? error;
    }
  }

  function* withName(source) {
    let attempts = 0;
    for (const match of source.matchAll(NAMELESS)) {
      if (attempts++ === ATTEMPTS_MAX) return;
      const end = match.index + "function".length;
      yield source.slice(0, end) + " " + NAME + source.slice(end);
    }
  }

  const deferred = [async () => {}, function* () {}, async function* () {}].map((each) => getPrototypeOf(each));

  // Whether it answers with a promise or an iterator, for which nobody waits.
  function isDeferred(value) {
    const prototype = getPrototypeOf(value);
    return prototype === deferred[0] || prototype === deferred[1] || prototype === deferred[2];
  }

  function theFunction() {
    if (compiled === undefined) {
      let source = design;
      for (let index = 0; index < path.length; index++) {
        source = source[path[index]];
        if (!source) {
          const missing = "missing " + path[0] + " function " + path[path.length - 1];
          throw ["error", "not_found", missing + " on design doc " + design._id];
        }
      }
      compiled = compile(source);
    }
    return compiled;
  }

  // CommonJS modules. A place is a value in the design document: { id, value, parent }.

  function requireFrom(place, name) {
    const found = find(place, apply(split, toText(name), ["/"]));
    if (typeof found.value !== "string") {
      throw invalidPath("Must require a JavaScript string, not: " + typeof found.value);
    }
    if (!(found.id in modules)) {
      const module = { id: found.id, exports: {}, current: found.value, parent: found.parent };
      modules[found.id] = module; // before it ran, for modules that require each other
      try {
        const run = evaluate("(function (module, exports, require) { " + found.value + "\n });");
        apply(run, global, [module, module.exports, (other) => requireFrom(found.parent, other)]);
      } catch (error) {
        delete modules[found.id];
        throwIfOutOfMemory(error);
        throw ["error", "compilation_error", "Module require('" + name + "') raised error " + textOf(error)];
      }
    }
    return modules[found.id].exports;
  }

  // `place` is that of the object that holds the requiring module, or undefined at the top.
  function find(place, names) {
    let here = place;
    for (let index = 0; index < names.length; index++) {
      const name = names[index];
      if (name === ".." || name === ".") {
        if (!here || !here.parent || (name === ".." && !here.parent.parent)) {
          throw invalidPath("Object has no parent " + stringify(here && here.value));
        }
        if (name === "..") here = here.parent;
        continue;
      }
      if (index === 0) here = { id: "", value: design, parent: undefined };
      const value = here.value[name];
      if (value === undefined) {
        throw invalidPath('Object has no property "' + name + '". ' + stringify(here.value));
      }
      here = { id: here.id ? here.id + "/" + name : name, value, parent: here };
    }
    return here;
  }

  function invalidPath(reason) {
    return ["error", "invalid_require_path", reason];
  }

  // Errors

  function throwIfOutOfMemory(error) {
    if (error === null || (error instanceof OutOfMemory && error.message === "out of memory")) throw error;
  }

  function textOf(error) {
    throwIfOutOfMemory(error);
    try {
      return toText(error);
    } catch {
      return "something that can't be shown";
    }
  }

  // CouchDB's engine shows a value as its source; this is what comes nearest.
  function shownError(thrown) {
    throwIfOutOfMemory(thrown);
    try {
      if (typeof thrown === "object" && !(thrown instanceof Error)) return stringify(thrown);
    } catch (error) {
      throwIfOutOfMemory(error);
    }
    return textOf(thrown);
  }

  // As JSON. What JSON.stringify gives for a string can't be changed by the function.
  function quote(text, lengthMax) {
    const whole = textOf(text);
    return stringify(whole.length > lengthMax ? apply(slice, whole, [0, lengthMax]) + "…" : whole);
  }

  function failureAnswer(thrown) {
    throwIfOutOfMemory(thrown);
    let name = "unnamed_error";
    let reason;
    let where = "";
    try {
      if (isArray(thrown) && (thrown[0] === "error" || thrown[0] === "fatal")) {
        name = thrown[1];
        reason = thrown[2];
      } else if (thrown.error && thrown.reason) {
        name = thrown.error;
        reason = thrown.reason;
      } else if (thrown.name) {
        name = thrown.name;
        reason = "message" in thrown ? thrown.message : stringify(thrown);
        where = apply(trim, apply(split, thrown.stack, ["\n"])[0], []);
      } else {
        reason = stringify(thrown);
      }
    } catch (error) {
      throwIfOutOfMemory(error);
      reason = thrown;
    }
    return (
      '"error":' + quote(name, LOG_LINE_LENGTH_MAX) +
      ',"reason":' + quote(reason, REASON_LENGTH_MAX) +
      ',"where":' + quote(where, LOG_LINE_LENGTH_MAX)
    );
  }

  // What can be done with the function

  // Of each document whether `test` holds, as a string of 1 and 0; of the first few, if they take long.
  function passes(docs, test) {
    const end = now() + batchMs;
    let flags = "";
    for (at = 0; at < docs.length; at++) {
      flags += test(docs[at]) ? "1" : "0";
      if (now() > end) break;
    }
    return '"passes":"' + flags + '"';
  }

  // What a validation function throws says what is wrong with the document, unless it is an Error.
  function judgement(check, values) {
    try {
      apply(check, design, values);
      return "null";
    } catch (thrown) {
      throwIfOutOfMemory(thrown);
      let text;
      try {
        text = thrown.name && thrown.stack ? undefined : stringify(thrown);
      } catch (error) {
        throwIfOutOfMemory(error);
      }
      return "{" + (text === undefined ? failureAnswer(thrown) : '"thrown":' + text) + "}";
    }
  }

  // What a map or reduce function throws is logged, and its result is nothing; unless it wants it otherwise.
  function logViewError(error, where) {
    throwIfOutOfMemory(error);
    if (error === "fatal_error") throw ["error", "map_runtime_error", "function raised 'fatal_error'"];
    if (error instanceof OutOfMemory || (isArray(error) && error[0] === "fatal")) throw error;
    log("function raised exception " + textOf(error) + where);
  }

  // The rows that a document has, as JSON. It can't be changed by the function, as in CouchDB, where other
  // functions may see it, too.
  function rowsOf(map, doc) {
    emissions = [];
    freezeAll(doc);
    try {
      map(doc);
      return stringify(emissions);
    } catch (error) {
      logViewError(error, " with doc._id " + doc._id);
      return "[]";
    }
  }

  function freezeAll(value) {
    const pending = [value];
    for (let count = 1; count > 0; ) {
      const one = pending[--count];
      for (const name in one) {
        const member = one[name];
        if (typeof member === "object" && member !== null) pending[count++] = member;
      }
      freeze(one);
    }
  }

  // The reduction of some values, as JSON. `size` is what CouchDB would have sent to have it computed.
  function reduction(reduce, keys, values, rereduce, size, limit) {
    let value = null;
    try {
      value = reduce(keys, values, rereduce);
    } catch (error) {
      logViewError(error, "");
    }
    const text = stringify([value]);
    if (limit && text.length > REDUCTION_LENGTH_UNCHECKED && text.length * 2 > size) {
      const message =
        "Reduce output must shrink more rapidly: input size: " + size + " output size: " + text.length;
      return stringify({ reduce_overflow_error: message });
    }
    return apply(slice, text, [1, -1]);
  }

  function reductionOfRows(reduce, rows, size, limit) {
    const keys = [];
    const values = [];
    for (let index = 0; index < rows.length; index++) {
      keys[index] = [rows[index].key, rows[index].id];
      values[index] = rows[index].value;
    }
    return reduction(reduce, keys, values, false, size, limit);
  }

  // Of partial reductions, given as JSON. One that is an error is the result.
  function reductionOfTexts(reduce, texts, limit) {
    const values = [];
    let size = REREDUCE_FRAME_LENGTH;
    for (let index = 0; index < texts.length; index++) {
      const value = parse(texts[index]);
      if (typeof value === "object" && value !== null && value.reduce_overflow_error) return texts[index];
      values[index] = value;
      size += texts[index].length + 1;
    }
    return reduction(reduce, null, values, true, size, limit);
  }

  const commands = {
    __proto__: null,

    load(program) {
      design = program.design;
      path = program.path;
      if (RENDERED[path[0]]) {
        const lent = { global, design, theFunction, tell, log, shownError, throwIfOutOfMemory };
        const render = evaluate(renderSource)(lent);
        for (const name in render) commands[name] = render[name];
      }
      return '"loaded":true';
    },

    compile() {
      theFunction();
      return '"compiled":true';
    },

    filter({ docs, req }) {
      const test = theFunction();
      return passes(docs, (doc) => apply(test, design, [doc, req]));
    },

    filter_view({ docs }) {
      const map = theFunction();
      return passes(docs, (doc) => {
        emitted = false;
        map(doc);
        return emitted;
      });
    },

    map({ docs }) {
      const map = theFunction();
      const end = now() + batchMs;
      let rows = "";
      for (at = 0; at < docs.length; at++) {
        rows += (at ? "," : "") + rowsOf(map, docs[at]);
        if (now() > end) break;
      }
      return '"rows":[' + rows + "]";
    },

    // A group is rows, partial reductions (each as JSON) and rows again, in order, and the sizes of both sorts
    // of rows. A result that is finished went through the function once more, as in CouchDB, where shards are
    // put together so.
    reduce({ groups, finish, limit }) {
      const reduce = theFunction();
      const end = now() + batchMs;
      let found = "";
      for (at = 0; at < groups.length; at++) {
        const [left, partials, right, leftSize, rightSize] = groups[at];
        const texts = [];
        if (left.length) texts[0] = reductionOfRows(reduce, left, leftSize, limit);
        for (let index = 0; index < partials.length; index++) texts[texts.length] = partials[index];
        if (right.length) texts[texts.length] = reductionOfRows(reduce, right, rightSize, limit);
        let text = texts.length === 1 ? texts[0] : reductionOfTexts(reduce, texts, limit);
        if (finish) text = reductionOfTexts(reduce, [text], limit);
        found += (at ? "," : "") + text;
        if (now() > end) break;
      }
      return '"reductions":[' + found + "]";
    },

    // Each conflict is a base and its leaves. What a function doesn't say is null.
    resolve({ conflicts }) {
      const merge = theFunction();
      const end = now() + batchMs;
      let resolutions = "";
      for (at = 0; at < conflicts.length; at++) {
        const text = stringify([apply(merge, design, conflicts[at])]);
        resolutions += (at ? "," : "") + apply(slice, text, [1, -1]);
        if (now() > end) break;
      }
      return '"resolutions":[' + resolutions + "]";
    },

    // Each pair of a new document and the old one is judged for the same user, whom no judgement may change.
    validate({ pairs, user, security }) {
      const check = theFunction();
      const end = now() + batchMs;
      let judgements = "";
      for (at = 0; at < pairs.length; at++) {
        const values = [pairs[at][0], pairs[at][1], parse(user), parse(security)];
        judgements += (at ? "," : "") + judgement(check, values);
        if (now() > end) break;
      }
      return '"judgements":[' + judgements + "]";
    },
  };

  return function (command, text) {
    if (command === "at") return toText(at);
    at = 0;
    logged = "";
    loggedLines = 0;
    let answer;
    try {
      answer = commands[command](parse(text));
    } catch (thrown) {
      answer = failureAnswer(thrown);
    }
    // Sliced, so to speak, since the engine keeps a concatenation as a rope, which its Python side can't read.
    return apply(slice, "{" + answer + ',"at":' + at + ',"log":[' + logged + "]}", [0]);
  };
});
