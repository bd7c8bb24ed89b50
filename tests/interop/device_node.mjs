// A device in Node: PouchDB on LevelDB, in the folder that the one argument names.

import PouchDB from 'pouchdb';

import {serve} from './commands.mjs';
import {Device} from './device.mjs';

// PouchDB leaves some rejections of lost connections to nobody; a browser merely logs them.
process.on('unhandledRejection', error => process.stderr.write(`${error.stack}\n`));

// The node-fetch 2.6 that PouchDB 9 brings along waits for ever for the rest of an answer when the connection is
// lost in the middle of it, whatever the server, and PouchDB has no timeouts. Node's own fetch tells.
async function platformFetch(url, {headers, ...options}) {
  const response = await fetch(url, {...options, headers: new Headers([...headers])});
  response.buffer = async () => Buffer.from(await response.arrayBuffer()); // what PouchDB reads attachments by
  return response;
}

const folder = process.argv[2];
const device = new Device(PouchDB.defaults({prefix: `${folder}/`}), platformFetch);
await serve(process.version, (command, args) => device[command](args));
process.exit();
