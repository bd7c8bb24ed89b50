// WebSocket feeds of _changes, and the session that authenticates them, for a test in a page. Arguments and
// answers are JSON.

export class Feeds {
  #feeds = [];

  // Log in; the browser keeps the cookie.
  async logIn({server, username, password}) {
    const response = await fetch(`${server}/_session`, {
      method: 'POST',
      credentials: 'include',
      headers: {'Content-Type': 'application/json'},
      body: JSON.stringify({name: username, password}),
    });
    return await response.json();
  }

  // Open a feed at each address; answers when each of them is either open or refused.
  async openFeeds({addresses}) {
    this.#feeds.push(...addresses.map(address => new Feed(address)));
    await Promise.all(this.#feeds.map(feed => feed.settled));
    return this.feeds();
  }

  // What each feed has received so far.
  feeds() {
    return this.#feeds.map(({state, messages, code}) => ({state, messages, code}));
  }

  closeFeeds() {
    this.#feeds.forEach(feed => feed.socket.close());
  }
}

class Feed {
  state = 'opening';
  messages = [];
  code = null;

  constructor(address) {
    this.socket = new WebSocket(address);
    this.socket.onmessage = ({data}) => this.messages.push(JSON.parse(data));
    this.settled = new Promise(resolve => {
      this.socket.onopen = () => { this.state = 'open'; resolve(); };
      this.socket.onclose = ({code}) => {
        this.state = this.state === 'open' ? 'closed' : 'refused';
        this.code = code;
        resolve();
      };
    });
  }
}
