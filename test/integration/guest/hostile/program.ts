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
import { attack, type Victim } from './attacks.ts';

let chosen = '';

const CHOICE = /ATTACK (\w+) ([^\n]+)\n/;
const PREAMBLE = /QMPAGENT 1 ([0-9a-f]{32})\n/;
/** Enough for stale bytes of a session before, and for the line. */
const KEPT_CHARS = 64 * 1024;

function serve(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    socket.on('error', () => undefined);
    socket.once('end', () => socket.destroy());
    socket.once('close', () => resolve());
    let text = '';
    const onData = (chunk: Buffer) => {
      text = (text + chunk.toString('latin1')).slice(-KEPT_CHARS);
      const choice = CHOICE.exec(text);
      if (choice) {
        chosen = choice[2]!;
        text = '';
        socket.write(`CHOSEN ${choice[1]}\n`);
        return;
      }
      const nonce = PREAMBLE.exec(text)?.[1];
      if (nonce === undefined) return;
      socket.off('data', onData);
      attack(chosen, victimOn(socket), nonce);
    };
    socket.on('data', onData);
  });
}

function victimOn(wire: Socket): Victim {
  return {
    wire,
    async flood(piece) {
      let goOn: () => void = () => undefined;
      wire.on('drain', () => goOn());
      wire.on('close', () => goOn());
      while (!wire.destroyed) {
        const isTaken = wire.write(piece);
        await new Promise<void>((resolve) => {
          goOn = resolve;
          if (isTaken) setImmediate(resolve);
        });
      }
    },
    drip(piece, ms) {
      const timer = setInterval(() => wire.write(piece), ms);
      wire.once('close', () => clearInterval(timer));
    },
  };
}

const at = process.argv.indexOf('--listen-unix');
if (at > 0) serveUnix(process.argv[at + 1]!, serve);
for (const port of at > 0 ? [] : virtioPorts()) void serveVirtioPort(port, serve);
if (at < 0 && hasVsock()) void serveVsock(serve);
