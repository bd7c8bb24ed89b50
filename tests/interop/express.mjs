// A server made of PouchDB: express-pouchdb on LevelDB, in the folder that the first argument names, on the port of
// the second one (0: any). It tells its port as a line of JSON, and ends with its standard input.

import express from 'express';
import expressPouchDB from 'express-pouchdb';
import PouchDB from 'pouchdb';

const [folder, port] = process.argv.slice(2);
const databases = expressPouchDB(PouchDB.defaults({prefix: `${folder}/`}), {
  mode: 'minimumForPouchDB',
  logPath: `${folder}/log.txt`,
});
const app = express();
app.use(databases);
const server = app.listen(Number(port), '127.0.0.1', () => {
  process.stdout.write(JSON.stringify({ok: server.address().port}) + '\n');
});
process.stdin.resume();
process.stdin.on('end', () => process.exit());
