// A device: one PouchDB that syncs with a server. What a test can ask of it, and nothing else. The same code
// runs in Node and in a page, so every scenario is one test with two clients. Arguments and answers are JSON.

const LEAVES_AT_ONCE = 20;

// PouchDB's own backs off for up to two seconds after the first failure; the tests interrupt often.
const backOff = delayMs => Math.min(400, delayMs === 0 ? 50 : delayMs * 2);

export class Device {
  #PouchDB;
  #platformFetch;
  #local;
  #remote;
  #sync;
  #seen;

  constructor(PouchDB, platformFetch) {
    this.#PouchDB = PouchDB;
    this.#platformFetch = platformFetch;
  }

  // Open the local database `name` and the server's at `remote`; without a user, cookies must do. With
  // `platformFetch` the platform's own fetch is used.
  async open({name, remote, username, password, platformFetch = false}) {
    const auth = username === undefined ? {} : {auth: {username, password}};
    const fetch = platformFetch ? {fetch: this.#platformFetch} : {};
    this.#local = new this.#PouchDB(name);
    this.#remote = new this.#PouchDB(remote, {skip_setup: true, ...auth, ...fetch});
    return (await this.#local.info()).adapter;
  }

  // What the server's database says of itself to this client.
  async remoteInfo() {
    return await this.#remote.info();
  }

  async put({doc}) {
    return (await this.#local.put(doc)).rev;
  }

  // Change fields of the winner, keeping its attachments.
  async edit({id, fields}) {
    const doc = await this.#local.get(id);
    return (await this.#local.put({...doc, ...fields})).rev;
  }

  async remove({id}) {
    return (await this.#local.remove(await this.#local.get(id))).rev;
  }

  async bulk({docs, options}) {
    return await this.#local.bulkDocs(docs, options);
  }

  // Add attachments to the winner, or to a new document.
  async attach({id, attachments}) {
    const doc = await this.#local.get(id).catch(() => ({_id: id}));
    doc._attachments = {...doc._attachments, ...attachments};
    return (await this.#local.put(doc)).rev;
  }

  async get({id}) {
    return await this.#local.get(id);
  }

  // Replicate once, both ways; the counts of documents written.
  async syncOnce() {
    const {push, pull} = await this.#local.sync(this.#remote);
    return {pushed: push.docs_written, pulled: pull.docs_written, failed: push.doc_write_failures};
  }

  // Start live two-way replication that outlives lost connections.
  startSync() {
    this.#seen = {pushed: 0, pulled: 0, lost: 0, denied: [], errors: []};
    const seen = this.#seen;
    this.#sync = this.#local.sync(this.#remote, {
      live: true,
      retry: true,
      batch_size: 25,
      back_off_function: backOff,
    });
    this.#sync
      .on('change', ({direction, change}) => {
        seen[direction === 'push' ? 'pushed' : 'pulled'] += change.docs.length;
      })
      .on('paused', error => { seen.lost += error ? 1 : 0; })
      .on('denied', denial => seen.denied.push(JSON.stringify(denial)))
      .on('error', error => seen.errors.push(describe(error)));
  }

  // What the running replication has done so far.
  seen() {
    return this.#seen;
  }

  async stopSync() {
    const stopped = new Promise(resolve => this.#sync.on('complete', resolve));
    this.#sync.cancel();
    await stopped;
  }

  // {id: leaf revisions} of every document, deleted ones too.
  async revisions() {
    const {results} = await this.#local.changes({since: 0, style: 'all_docs'});
    return Object.fromEntries(results.map(row => [row.id, row.changes.map(change => change.rev).sort()]));
  }

  // {id: {winner, leaves: {rev: {doc, history, attachments}}}} of every document.
  async leaves() {
    const ids = Object.keys(await this.revisions());
    const documents = {};
    while (ids.length) {
      await Promise.all(ids.splice(0, LEAVES_AT_ONCE).map(async id => {
        documents[id] = await this.#document(id);
      }));
    }
    return documents;
  }

  async #document(id) {
    const winner = await this.#local.get(id).then(doc => doc._rev, () => null);
    const leaves = {};
    for (const {ok} of await this.#local.get(id, {open_revs: 'all', revs: true})) {
      const {_id, _rev, _revisions, _attachments, ...doc} = ok;
      const attachments = {};
      for (const [name, {content_type, length}] of Object.entries(_attachments || {})) {
        const bytes = await this.#local.getAttachment(id, name, {rev: _rev});
        attachments[name] = {type: content_type, length, sha256: await sha256(bytes)};
      }
      leaves[_rev] = {doc, history: _revisions.ids, attachments};
    }
    return {winner, leaves};
  }
}

// An error as text. PouchDB's tell in their members what went wrong, and not in their stacks.
export function describe(error) {
  return `${JSON.stringify(error)} ${error.stack || error}`;
}

async function sha256(bytes) {
  const buffer = typeof Blob !== 'undefined' && bytes instanceof Blob ? await bytes.arrayBuffer() : bytes;
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', buffer));
  return Array.from(digest, byte => byte.toString(16).padStart(2, '0')).join('');
}
