/** What a process of a test begins with that has somebody hold a VM's tap, as QEMU does, and send as its guest would. */
import { join } from 'node:path';

const ROOT = join(import.meta.dirname, '../../..');
const GUEST = join(import.meta.dirname, 'tap-frames.py');
/** From a MAC address that is not the VM's to one that is nobody's: no rule lets that through. */
const SPOOFED = `${'02ee00000009'}${'02ee00000008'}0800${Buffer.from('SPOOFED').toString('hex')}`;

/** `hold(tap)` begins; `send(count, size)` has the guest send; `until(holds)` waits; `told` are the captures told of. */
export const guestOnTap = `
  import { execFileSync, spawn } from 'node:child_process';
  import { PassThrough, Writable } from 'node:stream';
  import { once } from 'node:events';
  import { setTimeout as delay } from 'node:timers/promises';
  import { events } from '${ROOT}/src/events.ts';
  let guest;
  const hold = async (tap) => {
    guest = spawn('python3', ['${GUEST}', tap], { stdio: ['pipe', 'pipe', 'inherit'] });
    await once(guest.stdout, 'data');
  };
  const send = async (count, size) => {
    guest.stdin.write(\`\${'${SPOOFED}'.padEnd(2 * size, '78')} \${count}\\n\`);
    await once(guest.stdout, 'data');
  };
  const until = async (holds) => { for (let i = 0; i < 2000 && !holds(); i += 1) await delay(5); };
  const told = [];
  events.subscribe((e) => e.type === 'network.captured' && told.push(e));
`;
