// What else nano offers: sessions and users, design documents, Mango, partitions, streams, the reader of changes,
// replications. The one argument is the server's address; it ends with 0 when all was as a user expects.

import assert from 'node:assert/strict';
import {once} from 'node:events';
import {setTimeout as sleep} from 'node:timers/promises';

import Nano from 'nano';

const address = process.argv[2];
const nano = Nano(address);
const failure = (code, reason = /./) => error => error.statusCode === code && reason.test(error.reason);
const text = async stream => String(Buffer.concat(await stream.toArray()));

async function until(condition) {
  for (let attempt = 0; attempt < 300; attempt += 1) {
    const found = await condition();
    if (found) {
      return found;
    }
    await sleep(50);
  }
  throw new Error(`it did not happen in time: ${condition}`);
}

// Users, and who may use a database.
const users = nano.use('_users');
for (const name of ['_users', '_replicator', '_global_changes']) {
  await nano.db.create(name).catch(error => assert.equal(error.statusCode, 412));
}
await users.insert({name: 'ada', password: 'secret', roles: ['buyers'], type: 'user'}, 'org.couchdb.user:ada');
await nano.db.create('shop');
const shop = nano.use('shop');
await nano.request({db: 'shop', path: '_security', method: 'PUT', body: {members: {names: [], roles: ['buyers']}}});
const ada = Nano(address.replace(/\/\/.*@/, '//'));
await assert.rejects(ada.auth('ada', 'wrong'), failure(401, /Name or password is incorrect/));
assert.deepEqual((await ada.auth('ada', 'secret')).roles, ['buyers']);
assert.equal((await ada.session()).userCtx.name, 'ada');
await ada.use('shop').insert({_id: 'by ada', price: 1});
await assert.rejects(ada.db.create('another'), failure(401, /not a server admin/));
await assert.rejects(ada.use('shop').insert({views: {}}, '_design/x'), failure(403, /not a db or server admin/));
await assert.rejects(nano.use('missing').get('a'), failure(404, /^Database does not exist\.$/));
await assert.rejects(nano.db.create('Wrong'), failure(400, /Only lowercase characters/));

// Views, with keys, groups and streams.
await shop.bulk({docs: Array.from({length: 20}, (_, n) => ({_id: `item-${n}`, kind: n % 3 ? 'book' : 'game', price: n}))});
const map = 'function (doc) { if (doc.kind) emit([doc.kind, doc.price], doc.price) }';
await shop.insert({views: {price: {map, reduce: '_stats'}}}, '_design/by');
const games = await shop.view('by', 'price', {reduce: false, startkey: ['game', 9], endkey: ['game', {}], include_docs: true});
assert.deepEqual(games.rows.map(row => row.doc.price), [9, 12, 15, 18]);
const groups = await shop.view('by', 'price', {group_level: 1});
assert.deepEqual(groups.rows.map(row => [row.key, row.value.sum]), [[['book'], 127], [['game'], 63]]);
const keyed = await shop.view('by', 'price', {keys: [['game', 3], ['book', 4]], reduce: false});
assert.deepEqual(keyed.rows.map(row => row.id), ['item-3', 'item-4']);
assert.equal(JSON.parse(await text(shop.viewAsStream('by', 'price', {reduce: false}))).rows.length, 20);
assert.equal(JSON.parse(await text(shop.listAsStream({limit: 3}))).rows.length, 3);
assert.ok(JSON.parse(await text(nano.db.listAsStream())).includes('shop'));
await assert.rejects(shop.view('by', 'nothing'), failure(404, /missing_named_view/));
assert.deepEqual(await nano.db.compact('shop', 'by'), {ok: true});

// Mango.
assert.equal((await shop.createIndex({index: {fields: ['price']}, name: 'price'})).result, 'created');
const cheap = {selector: {price: {$lt: 5}}, sort: ['price'], fields: ['price'], limit: 3};
const first = await shop.find(cheap);
assert.deepEqual(first.docs.map(doc => doc.price), [0, 1, 1]);
const second = JSON.parse(await text(shop.findAsStream({...cheap, bookmark: first.bookmark})));
assert.deepEqual(second.docs.map(doc => doc.price), [2, 3, 4]);
await assert.rejects(shop.find({selector: {}, sort: ['unindexed']}), failure(400, /No index exists for this sort/));

// What nano has no function for.
const gone = await shop.insert({_id: 'gone'});
const purged = await nano.request({db: 'shop', path: '_purge', method: 'POST', body: {gone: [gone.rev]}});
assert.deepEqual(purged.purged, {gone: [gone.rev]});
await assert.rejects(shop.get('gone'), failure(404, /^missing$/));

// The reader of changes: live, stopped, gone on with from where it was; and one that waits to be asked for more.
const {last_seq: since} = await shop.changes({since: 'now'});
const seen = [];
let place;
const live = shop.changesReader.start({since, timeout: 2000, batchSize: 5});
live.on('change', change => seen.push(change.id));
live.on('seq', seq => { place = seq; });
await shop.insert({_id: 'live-1'});
await until(() => seen.includes('live-1') && place);
live.on('error', error => assert.match(error.message, /aborted/)); // the request that is under way
const stopped = new Promise(resolve => live.on('end', resolve));
shop.changesReader.stop();
await stopped;
await shop.insert({_id: 'live-2'});
const caughtUp = [];
const rest = nano.use('shop').changesReader.get({since: place, selector: {_id: {$gt: 'live'}}, includeDocs: true, timeout: 200});
rest.on('change', change => caughtUp.push(change.doc._id));
await once(rest, 'end');
assert.deepEqual([seen, caughtUp], [['live-1'], ['live-2']]);
const slow = nano.use('shop');
const waiting = slow.changesReader.get({since: 0, wait: true, batchSize: 7, timeout: 200});
const batches = [];
waiting.on('batch', batch => { batches.push(batch.length); setTimeout(() => slow.changesReader.resume(), 10); });
await once(waiting, 'end');
const all = (await shop.changes()).results.length;
assert.deepEqual(batches, [...Array(Math.floor(all / 7)).fill(7), all % 7].filter(Boolean));
const updates = await nano.updates({since: 0, feed: 'normal'});
assert.ok(updates.results.some(({db_name}) => db_name === 'shop'));

// Replications: at once, and as a document of _replicator.
const far = name => `${address}/${name}`;
const run = await nano.db.replicate(far('shop'), far('copy'), {create_target: true, selector: {kind: 'game'}});
assert.equal(run.history[0].docs_written, 7);
const job = await nano.db.replication.enable(far('shop'), far('mirror'), {create_target: true, continuous: true});
assert.ok((await nano.db.replication.query(job.id)).continuous);
await until(async () => (await nano.use('mirror').info().catch(() => ({}))).doc_count === (await shop.info()).doc_count);
await shop.insert({_id: 'later'});
await until(() => nano.use('mirror').head('later').catch(() => false));
const scheduled = await nano.request({path: `_scheduler/docs/_replicator/${job.id}`});
assert.equal(scheduled.state, 'running');
const {_rev} = await nano.db.replication.query(job.id);
assert.ok((await nano.db.replication.disable(job.id, _rev)).ok);
const jobs = async () => (await nano.request({path: '_scheduler/jobs'})).jobs.map(({doc_id}) => doc_id);
await until(async () => !(await jobs()).includes(job.id));

// Partitions.
await nano.db.create('sensors', {partitioned: true});
const sensors = nano.use('sensors');
await sensors.bulk({docs: ['a:1', 'a:2', 'b:1'].map((_id, value) => ({_id, value}))});
await sensors.insert({views: {all: {map: 'function (doc) { emit(doc.value) }'}}, options: {partitioned: true}}, '_design/by');
assert.equal((await sensors.partitionInfo('a')).doc_count, 2);
assert.deepEqual((await sensors.partitionedList('a', {include_docs: true})).rows.map(row => row.doc.value), [0, 1]);
assert.deepEqual((await sensors.partitionedFind('a', {selector: {value: {$gt: 0}}})).docs.map(doc => doc._id), ['a:2']);
assert.deepEqual((await sensors.partitionedView('b', 'by', 'all')).rows.map(row => row.key), [2]);
assert.equal(JSON.parse(await text(sensors.partitionedListAsStream('b'))).rows.length, 1);
assert.equal(JSON.parse(await text(sensors.partitionedFindAsStream('a', {selector: {}}))).docs.length, 2);
assert.equal(JSON.parse(await text(sensors.partitionedViewAsStream('a', 'by', 'all'))).rows.length, 2);
await assert.rejects(sensors.insert({}, 'no-partition'), failure(400, /must be of form partition:id/));
process.exit();
