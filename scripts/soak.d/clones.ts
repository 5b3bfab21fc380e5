/** Clones made and thrown away, some at once: none is the twin of another. */
import type { StatePaths } from '../../src/vm/api.ts';
import { Vm } from '../../src/vm/index.ts';
import { manyTimes, type SoakOptions } from './at-once.ts';

/** What a clone says of itself; no two may say the same. */
type Drawn = Readonly<Record<string, string>>;

/** A clock may be off by this much, ms: how long the answer took is not counted. */
const CLOCK_MS = 1_000;

/** What each clone has to tell. */
const TOLD: readonly string[] = [
  ...['getrandom', 'urandom', 'uuid4', 'kernel uuid', 'TLS client random'],
  ...['boot_id', 'machine-id', 'hostname', 'MAC'],
];

/** A fresh process draws from the kernel and from OpenSSL, whose client random stands in its hello. */
const DRAW = `
import json, os, ssl, uuid
said = {}
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
    place = '/sys/class/net/' + interface
    if interface != 'lo' and int(open(place + '/flags').read(), 16) & 1:
        said['MAC'] = open(place + '/address').read().strip()
print(json.dumps(said))
`;

/** What a run of clones has shown. */
export interface CloneReport {
  readonly clones: number;
  /** Names of what was compared. */
  readonly compared: readonly string[];
  /** Nothing, where all is well. */
  readonly faults: readonly string[];
}

/** @throws whatever `Vm.fromTemplate` and `vm.commands.run` throw */
export async function soakClones(
  template: string,
  o: SoakOptions & { paths: StatePaths },
): Promise<CloneReport> {
  const seen = new Map<string, number>();
  const compared = new Set(['clock']);
  const faults: string[] = [];
  const clones = await manyTimes(o, async (clone) => {
    const { paths, signal } = o;
    // An interface that is down keeps the template's MAC, which nobody sees.
    await using vm = await Vm.fromTemplate(template, { paths, signal, network: 'user' });
    const offMs = await clockOffMs(vm, signal);
    if (offMs > CLOCK_MS)
      faults.push(`clone ${clone}: its clock is off by ${Math.round(offMs)} ms`);
    const { stdout } = await vm.commands.run(['python3', '-c', DRAW], { signal });
    const drawn = JSON.parse(stdout) as Drawn;
    for (const what of TOLD) {
      if ((drawn[what] ?? '') === '') faults.push(`clone ${clone} says nothing of its ${what}`);
    }
    for (const [what, value] of Object.entries(drawn)) {
      const key = `${what} ${value}`;
      const twin = seen.get(key);
      if (twin !== undefined) faults.push(`clones ${twin} and ${clone} have the same ${what}`);
      seen.set(key, clone);
      compared.add(what);
    }
  });
  return { clones, compared: [...compared], faults };
}

/** How far the wall clock is off for certain; how long the answer was on its way is not counted. */
async function clockOffMs(vm: Vm, signal: AbortSignal | undefined): Promise<number> {
  const asked = Date.now();
  const { stdout } = await vm.commands.run(['date', '+%s%3N'], { signal });
  const answered = Date.now();
  const said = Number(stdout);
  return Number.isNaN(said) ? Infinity : Math.max(asked - said, said - answered, 0);
}
