// A day's work with nano, the CouchDB client for Node, on the server whose address is the one argument. It
// ends with 0 when all was as a user expects.

import assert from 'node:assert/strict';
import {once} from 'node:events';

import Nano from 'nano';

const address = process.argv[2];
const nano = Nano(address);
const failure = code => error => error.statusCode === code;

// The server, and a database of one's own.
assert.equal((await nano.info()).couchdb, 'Welcome');
assert.equal((await nano.uuids(3)).uuids.length, 3);
assert.deepEqual(await nano.db.create('shop/orders+1'), {ok: true});
await assert.rejects(nano.db.create('shop/orders+1'), failure(412));
assert.ok((await nano.db.list()).includes('shop/orders+1'));
const orders = nano.use('shop/orders+1');
assert.equal((await orders.info()).doc_count, 0);

// Documents, one at a time.
const created = await orders.insert({customer: 'Ada', total: 12.5}, 'order 1');
assert.match(created.rev, /^1-[0-9a-f]{32}$/);
const order = await orders.get('order 1');
assert.deepEqual(order, {_id: 'order 1', _rev: created.rev, customer: 'Ada', total: 12.5});
await assert.rejects(orders.insert({customer: 'Eve'}, 'order 1'), failure(409));
const paid = await orders.insert({...order, paid: true});
assert.match(paid.rev, /^2-/);
assert.equal((await orders.get('order 1', {rev: created.rev})).paid, undefined);
const {_revisions} = await orders.get('order 1', {revs: true});
assert.deepEqual(_revisions.ids, [paid.rev.slice(2), created.rev.slice(2)]);
assert.equal((await orders.head('order 1')).etag, `"${paid.rev}"`);
const anonymous = await orders.insert({customer: 'Grace'});
assert.match(anonymous.id, /^[0-9a-f]{32}$/);
assert.deepEqual(await orders.destroy(anonymous.id, anonymous.rev), {
  ok: true,
  id: anonymous.id,
  rev: (await orders.get(anonymous.id, {rev: anonymous.rev, open_revs: 'all'}))[0].ok._rev,
});
await assert.rejects(orders.get(anonymous.id), failure(404));

// Many at once.
const docs = Array.from({length: 300}, (_, number) => ({_id: `bulk-${String(number).padStart(3, '0')}`, number}));
const stored = await orders.bulk({docs});
assert.equal(stored.filter(row => row.ok).length, 300);
const again = await orders.bulk({docs: docs.slice(0, 2)});
assert.deepEqual(again.map(row => row.error), ['conflict', 'conflict']);
const page = await orders.list({startkey: 'bulk-100', limit: 3, include_docs: true});
assert.deepEqual(page.rows.map(row => row.doc.number), [100, 101, 102]);
assert.equal(page.total_rows, 301);
const fetched = await orders.fetch({keys: ['bulk-007', 'nobody', anonymous.id]});
assert.deepEqual(fetched.rows.map(row => row.doc?.number ?? row.error ?? row.value.deleted), [7, 'not_found', true]);
const revisions = await orders.fetchRevs({keys: ['bulk-007']});
assert.equal(revisions.rows[0].value.rev, stored[7].rev);

// Functions of a design document: update, show and list.
await orders.insert({
  views: {by_number: {map: 'function (doc) { if (doc.number < 3) emit(doc.number, doc._id) }'}},
  updates: {set: 'function (doc, req) { var set = JSON.parse(req.body); doc[set.name] = set.value; return [doc, {json: set}] }'},
  shows: {title: 'function (doc, req) { return req.query.greeting + " " + doc.customer }'},
  lists: {csv: 'function () { start({headers: {"Content-Type": "text/csv"}}); var row; while (row = getRow()) send(row.key + "," + row.value + "\\n") }'},
}, '_design/tools');
assert.deepEqual(await orders.atomic('tools', 'set', 'bulk-001', {name: 'sent', value: true}), {name: 'sent', value: true});
assert.equal((await orders.get('bulk-001')).sent, true);
assert.equal(await orders.show('tools', 'title', 'order 1', {greeting: 'Hello'}), 'Hello Ada');
assert.equal(await orders.viewWithList('tools', 'by_number', 'csv', {descending: true, limit: 2}), '2,bulk-002\n1,bulk-001\n');

// Attachments, of text and of bytes, as buffers and as streams.
const picture = Buffer.from(Array.from({length: 70_000}, (_, at) => (at * 7919) % 251));
const attached = await orders.attachment.insert('order 1', 'label.png', picture, 'image/png', {rev: paid.rev});
assert.deepEqual(await orders.attachment.get('order 1', 'label.png'), picture);
const chunks = [];
for await (const chunk of orders.attachment.getAsStream('order 1', 'label.png')) {
  chunks.push(chunk);
}
assert.deepEqual(Buffer.concat(chunks), picture);
const invoice = {name: 'invoice ü.txt', data: 'Total: 12.50 €', content_type: 'text/plain'};
await orders.multipart.insert({customer: 'Ada'}, [invoice], 'order 2');
assert.equal(String(await orders.attachment.get('order 2', invoice.name)), invoice.data);
assert.ok(String(await orders.multipart.get('order 2')).includes('"customer":"Ada"'));
const without = await orders.attachment.destroy('order 1', 'label.png', {rev: attached.rev});
assert.equal((await orders.get('order 1'))._attachments, undefined);

// What happened so far.
const changes = await orders.changes({since: 0, limit: 10});
assert.equal(changes.results.length, 10);
assert.equal(changes.pending, (await orders.changes({since: changes.last_seq})).results.length);

// A feed, live and in batches; and the whole of it, spooled.
const {last_seq: since} = await orders.changes({since: 'now'});
const feed = orders.changesReader.start({since, timeout: 1000});
feed.on('change', () => orders.changesReader.stop());
setTimeout(() => orders.insert({live: true}, 'seen live'), 100);
const [change] = await once(feed, 'change');
assert.equal(change.id, 'seen live');
const spool = orders.changesReader.spool({since: 0});
let spooled = 0;
spool.on('batch', batch => { spooled += batch.length; });
await once(spool, 'end');
assert.equal(spooled, (await orders.changes()).results.length);

// Housekeeping.
assert.deepEqual(await orders.compact(), {ok: true});
assert.equal((await orders.get('order 1'))._rev, without.rev);

// Another user, with a cookie.
const visitor = Nano({url: address.replace(/\/\/.*@/, '//')});
await assert.rejects(visitor.use('shop/orders+1').info(), failure(401));
assert.equal((await visitor.auth('adm', 'pass')).ok, true);
assert.equal((await visitor.session()).userCtx.name, 'adm');
assert.equal((await visitor.use('shop/orders+1').info()).db_name, 'shop/orders+1');

assert.deepEqual(await nano.db.destroy('shop/orders+1'), {ok: true});
await assert.rejects(orders.info(), failure(404));
process.exit();
