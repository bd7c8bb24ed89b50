// follow, whose programs wait for changes for years: it keeps its place through a restart of the server. The one
// argument is a database's address. It writes a line for each change, with the id and the rights of a filter.

import follow from 'cloudant-follow';

const feed = new follow.Feed({db: process.argv[2], since: 0, include_docs: true, heartbeat: 5000, initial_retry_delay: 100});
feed.on('confirm', () => console.log('confirmed'));
feed.on('change', change => console.log(`${change.id} ${change.doc.text}`));
feed.on('error', error => { console.error(error); process.exit(1); });
feed.follow();
