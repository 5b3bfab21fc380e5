/** What runs at the two ends of a path that is measured, as text for `node -e`. Pure. */

const MIB = 2 ** 20;

/** Where the server is, and how much one figure takes. */
export interface PathPlan {
  /** IPv4 address that it listens on. */
  readonly address: string;
  readonly port: number;
  /** Round trips of which `rtt` is the median. */
  readonly roundTrips: number;
  /** MiB of one transfer. */
  readonly transferMib: number;
  readonly connections: number;
}

/**
 * `rtt`: ms of a byte there and back; `tcp`: MiB/s of one connection to the server, and `tcp-back` from it;
 * `connections`: made one after the other in a second.
 */
export type TcpFigure = 'rtt' | 'tcp' | 'tcp-back' | 'connections';

/** By the first byte that comes: `e` it is sent back, `s` told when all of it is there, `r` sent so much. Prints `ready`. */
export function tcpServer({ address, port, transferMib }: PathPlan): string {
  return `
require('node:net').createServer({ noDelay: true, allowHalfOpen: true }, (peer) => {
  peer.on('error', () => peer.destroy()); // connections are ended by resets
  peer.once('data', (first) => {
    const kind = String.fromCharCode(first[0]);
    if (kind === 'e') return void (peer.write(first), peer.pipe(peer));
    if (kind === 's') return void peer.on('data', () => undefined).on('end', () => peer.end('.'));
    const bytes = Buffer.alloc(${MIB});
    let left = ${transferMib};
    const more = () => {
      while (left-- > 0) if (!peer.write(bytes)) return void peer.once('drain', more);
      peer.end();
    };
    more();
  });
}).listen(${port}, '${address}', 1024, () => console.log('ready'));`;
}

/**
 * Functions `rtt`, `tcp`, `tcp-back`, `connections`, for an object's braces. A connection that breaks ends the program,
 * whatever it waits for.
 */
export function tcpFigures(plan: PathPlan): string {
  const { address, port, roundTrips, transferMib, connections } = plan;
  return `
  open: async () => {
    const socket = require('node:net').connect({ host: '${address}', port: ${port}, noDelay: true });
    socket.on('error', (error) => { console.error(error.message); process.exit(1); });
    await require('node:events').once(socket, 'connect');
    return socket;
  },
  echo: (socket) => {
    const back = require('node:events').once(socket, 'data');
    socket.write('e');
    return back;
  },
  async rtt() {
    const socket = await this.open();
    await this.echo(socket);
    const all = [];
    for (let i = 0; i < ${roundTrips}; i++) {
      const sent = performance.now();
      await this.echo(socket);
      all.push(performance.now() - sent);
    }
    socket.destroy();
    return all.sort((a, b) => a - b)[${Math.floor(roundTrips / 2)}];
  },
  async tcp() {
    const socket = await this.open();
    const { once } = require('node:events');
    const all = once(socket, 'data');
    const bytes = Buffer.alloc(${MIB}, 's');
    const began = performance.now();
    for (let i = 0; i < ${transferMib}; i++) if (!socket.write(bytes)) await once(socket, 'drain');
    socket.end();
    await all;
    return ${transferMib} / ((performance.now() - began) / 1000);
  },
  async 'tcp-back'() {
    const socket = await this.open();
    let received = 0;
    socket.on('data', (data) => (received += data.length));
    const began = performance.now();
    socket.write('r');
    await require('node:events').once(socket, 'end');
    const ms = performance.now() - began;
    if (received !== ${transferMib * MIB}) throw new Error('the server sent ' + received + ' bytes');
    return ${transferMib} / (ms / 1000);
  },
  async connections() {
    const began = performance.now();
    for (let i = 0; i < ${connections}; i++) (await this.open()).resetAndDestroy();
    const ms = performance.now() - began;
    const last = await this.open();
    await this.echo(last); // those before it have been taken: their end falls on no other figure
    last.destroy();
    return ${connections} / (ms / 1000);
  },`;
}

/** Prints the figure that its argument names. @param functions of an object's braces */
export function figureProgram(functions: string): string {
  return `const figures = {${functions}
};
figures[process.argv[1]]().then((figure) => console.log(figure));`;
}
