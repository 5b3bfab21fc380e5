/** Clones made and thrown away, one after the other: none is the twin of another. */
import type { StatePaths } from '../../src/vm/api.ts';
import { Vm } from '../../src/vm/index.ts';

/** What a clone says of itself; of all but the clock no two may say the same. */
interface Drawn {
  readonly unixMs: number;
  readonly [what: string]: string | number;
}

/** A clock may be off by this much, ms: how long the answer took is not counted. */
const CLOCK_MS = 1_000;

/** A fresh process draws from the kernel and from OpenSSL, whose client random stands in its hello. */
const DRAW = `
import json, os, ssl, time, uuid
said = {'unixMs': time.time() * 1000}
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
try:
    ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname='example.org').do_handshake()
except ssl.SSLWantReadError:
    pass
said['TLS client random'] = outgoing.read()[11:43].hex()
said['getrandom'] = os.getrandom(32).hex()
said['urandom'] = open('/dev/urandom', 'rb').read(32).hex()
said['uuid4'] = str(uuid.uuid4())
for name, path in [
    ('kernel uuid', '/proc/sys/kernel/random/uuid'),
    ('boot_id', '/proc/sys/kernel/random/boot_id'),
    ('machine-id', '/etc/machine-id'),
    ('hostname', '/proc/sys/kernel/hostname'),
]:
    said[name] = open(path).read().strip()
for interface in os.listdir('/sys/class/net'):
    if interface != 'lo':
        said['MAC of ' + interface] = open('/sys/class/net/' + interface + '/address').read().strip()
print(json.dumps(said))
`;

/** What a run of clones has shown. */
export interface CloneReport {
  readonly clones: number;
  /** Nothing, where all is well. */
  readonly faults: readonly string[];
}

/** @throws whatever `Vm.fromTemplate` and `vm.commands.run` throw */
export async function soakClones(
  template: string,
  o: { paths: StatePaths; count: number; signal?: AbortSignal; onClone?: (done: number) => void },
): Promise<CloneReport> {
  const seen = new Map<string, number>();
  const faults: string[] = [];
  for (let clone = 1; clone <= o.count; clone += 1) {
    const { paths, signal } = o;
    await using vm = await Vm.fromTemplate(template, { paths, signal });
    const asked = Date.now();
    const { stdout } = await vm.commands.run(['python3', '-c', DRAW], { signal });
    const answered = Date.now();
    const { unixMs, ...names } = JSON.parse(stdout) as Drawn;
    if (unixMs < asked - CLOCK_MS || unixMs > answered + CLOCK_MS)
      faults.push(`clone ${clone}: its clock is off by ${Math.round(unixMs - answered)} ms`);
    for (const [what, value] of Object.entries(names)) {
      const key = `${what} ${value}`;
      const twin = seen.get(key);
      if (twin !== undefined) faults.push(`clones ${twin} and ${clone} have the same ${what}`);
      seen.set(key, clone);
    }
    o.onClone?.(clone);
  }
  return { clones: o.count, faults };
}
