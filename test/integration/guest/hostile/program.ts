/**
 * The hostile agent. The init starts it in the agent's place, or a test on the host with
 * `--listen-unix PATH`. A connection whose line is `ATTACK <token> <name>` chooses what the next one,
 * which speaks the agent's protocol, will meet.
 */
import type { Socket } from 'node:net';
import {
  hasVsock,
  serveUnix,
  serveVirtioPort,
  serveVsock,
  virtioPorts,
} from '../../../../guest-agent/channels.ts';
import { PROTOCOL_VERSION } from '../../../../guest-agent/protocol.ts';
import { attack, type Victim } from './attacks.ts';

let chosen = '';

const CHOICE = /ATTACK (\w+) ([^\n]+)\n/;
const PREAMBLE = new RegExp(`QMPAGENT ${PROTOCOL_VERSION} ([0-9a-f]{32})\n`);
/** Enough for stale bytes of a session before, and for the line. */
const KEPT_CHARS = 64 * 1024;

/**
 * A virtio-serial port may lose its host and get another one between two reads: so a choice counts in
 * the midst of an attack too, and ends it.
 */
function serve(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    socket.on('error', () => undefined);
    socket.once('end', () => socket.destroy());
    socket.once('close', () => resolve());
    let text = '';
    let attacked: AbortController | undefined;
    socket.on('data', (chunk: Buffer) => {
      text = (text + chunk.toString('latin1')).slice(-KEPT_CHARS);
      const choice = CHOICE.exec(text);
      const nonce = PREAMBLE.exec(text)?.[1];
      if (choice) {
        chosen = choice[2]!;
        text = '';
        attacked?.abort();
        attacked = undefined;
        socket.write(`CHOSEN ${choice[1]}\n`);
      } else if (nonce !== undefined && !attacked) {
        attacked = new AbortController();
        attack(chosen, victimOn(socket, attacked.signal), nonce);
      }
    });
  });
}

function victimOn(wire: Socket, over: AbortSignal): Victim {
  return {
    wire,
    over,
    async flood(piece) {
      let goOn: () => void = () => undefined;
      for (const event of ['drain', 'close']) wire.on(event, () => goOn());
      over.addEventListener('abort', () => goOn());
      while (!wire.destroyed && !over.aborted) {
        const isTaken = wire.write(piece);
        await new Promise<void>((resolve) => {
          goOn = resolve;
          if (isTaken) setImmediate(resolve);
        });
      }
    },
    drip(piece, ms) {
      const timer = setInterval(() => wire.write(piece), ms);
      for (const event of ['close', 'end']) wire.once(event, () => clearInterval(timer));
      over.addEventListener('abort', () => clearInterval(timer));
    },
  };
}

const at = process.argv.indexOf('--listen-unix');
if (at > 0) serveUnix(process.argv[at + 1]!, serve);
for (const port of at > 0 ? [] : virtioPorts()) void serveVirtioPort(port, serve);
if (at < 0 && hasVsock()) void serveVsock(serve);
