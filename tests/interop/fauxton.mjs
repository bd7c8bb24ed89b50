// Looks at every page of Fauxton in headless Chromium, as an administrator does. The arguments: Chromium's program, a
// folder for its profile, the server's address, a name and a password. It ends with 0 when each page shows what it
// should, nothing fails in the console, and the server has refused nothing but what Fauxton probes for.

import assert from 'node:assert/strict';
import {chromium} from 'playwright-core';

import {QUIET} from './chromium.mjs';

const [executablePath, profile, server, username, password] = process.argv.slice(2);
const PATIENCE_MS = 30_000;

const browser = await chromium.launchPersistentContext(profile, {executablePath, headless: true, args: QUIET});
const page = await browser.newPage();
page.setDefaultTimeout(PATIENCE_MS);
const mistakes = [];
const answered = [];
page.on('pageerror', error => mistakes.push(error.stack));
page.on('response', response => {
  const asked = `${response.request().method()} ${new URL(response.url()).pathname}`;
  answered.push(asked);
  if (response.status() >= 400) {
    mistakes.push(`${response.status()} ${asked}`);
  }
});

async function shows(...texts) {
  try {
    await page.waitForFunction(
      wanted => wanted.every(text => document.body.innerText.replace(/\s+/g, ' ').includes(text)), texts);
  } catch {
    const shown = await page.evaluate(() => document.body.innerText.replace(/\s+/g, ' '));
    throw new Error(`${page.url()} does not show ${JSON.stringify(texts)} but: ${shown} ${mistakes.join()}`);
  }
}

async function open(hash, ...texts) {
  await page.goto(`${server}/_utils/#/${hash}`);
  await shows(...texts);
}

await page.goto(`${server}/_utils/`);
await page.fill('#username', username);
await page.fill('#password', password);
await page.keyboard.press('Enter');
await shows('You have been logged in.', 'animals', '_replicator', 'Showing 1–');

// A database, its documents, and what is known about each.
await open('database/animals/_all_docs', 'aardvark', '_design/by', 'Showing document 1 - ');
await open('database/animals/aardvark', '"legs": 4', 'Save Changes', 'Upload Attachment');
await open('database/animals/_design/by/_view/legs', 'zebra', 'aardvark');
await open('database/animals/_design/by/_info', 'Index Information', 'Javascript');
await open('database/animals/_changes', 'zebra', 'deleted True');
await open('database/animals/permissions', 'Admins', '_admin', 'keepers');
await open('database/animals/platypus/conflicts', 'Delete Other Conflicts', 'side"b""a"');

// Mango: indexes, the default query, and how it would be answered.
await open('database/animals/_index', 'special: _id', 'json: legs', '"legs": "asc"');
await open('database/animals/_find', 'Run Query');
await page.click('text=Run Query');
await shows('aardvark', 'Showing');
await page.click('text=Explain');
await shows('"dbname": "animals"', '"index_candidates"');

// Replications: those of documents and others; jobs that run.
await open('replication', 'animals', 'copy', 'Running');
await open('activetasks', 'From: ', 'docs written');

// The server: setup, its configuration.
await open('_config', 'chttpd', 'bind_address', 'authentication_db');
await open('setup', 'configured for production usage as a single node');
await open('addAdmin/nonode@nohost', 'Create Admins');

// A database that is made, filled and deleted.
await open('_all_dbs', 'Create Database');
await page.click('text=Create Database');
await page.fill('#js-new-database-name', 'made-here');
await page.click('#non-partitioned-db');
await page.click('#js-create-database');
await shows('made-here', 'All Documents');
await open('database/made-here/_new', '_id');
await page.click('button:has-text("Create Document")');
await shows('made-here', 'Showing document 1 - 1.');

// Fauxton's own check of an installation.
assert.deepEqual(mistakes, []);
await open('verifyinstall', 'Verify Installation');
await page.click('button:has-text("Verify Installation")');
await shows('Your CouchDB installation is working', 'Replication ✓');
assert.deepEqual(mistakes, ['404 GET /verifytestdb', '404 GET /verifytestdb_replicate'], 'these are looked for');

await page.click('text=Log Out');
await page.waitForSelector('#username');
assert.ok(answered.includes('DELETE /_session'));
await browser.close();
process.exit();
