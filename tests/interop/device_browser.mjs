// A device in headless Chromium: PouchDB on IndexedDB, in a page whose origin is not the database's. The
// arguments: Chromium's program, and a folder for its profile. It tells the page's origin when it is ready.

import {readFile} from 'node:fs/promises';
import {createServer} from 'node:http';
import {chromium} from 'playwright-core';

import {QUIET} from './chromium.mjs';
import {serve} from './commands.mjs';

const [executablePath, profile] = process.argv.slice(2);

const PAGE = `<!doctype html>
<title>device</title>
<script src="pouchdb.min.js"></script>
<script type="module">
  import {Device, describe} from './device.mjs';
  import {Feeds} from './feeds.mjs';
  const device = new Device(PouchDB, window.fetch.bind(window));
  const feeds = new Feeds();
  window.perform = async (command, args) => {
    try {
      return await (command in device ? device : feeds)[command](args);
    } catch (error) {
      throw new Error(describe(error));
    }
  };
</script>`;

const FILES = {
  '/': ['text/html', async () => PAGE],
  '/pouchdb.min.js': ['text/javascript', file('node_modules/pouchdb/dist/pouchdb.min.js')],
  '/device.mjs': ['text/javascript', file('device.mjs')],
  '/feeds.mjs': ['text/javascript', file('feeds.mjs')],
};

function file(name) {
  return () => readFile(new URL(name, import.meta.url));
}

async function servePage(request, response) {
  const [type, read] = FILES[request.url] || ['text/plain', null];
  response.writeHead(read ? 200 : 404, {'Content-Type': type});
  response.end(read ? await read() : '');
}

const pages = createServer(servePage);
await new Promise(resolve => pages.listen(0, '127.0.0.1', resolve));
const origin = `http://127.0.0.1:${pages.address().port}`;

const browser = await chromium.launchPersistentContext(profile, {executablePath, headless: true, args: QUIET});
const page = await browser.newPage();
page.on('pageerror', error => process.stderr.write(`${error.stack}\n`));
page.on('console', message => process.stderr.write(`${message.text()}\n`));
await page.goto(origin);
await page.waitForFunction(() => window.perform);
await serve(origin, (command, args) => page.evaluate(([name, given]) => window.perform(name, given), [command, args]));
await browser.close();
process.exit();
