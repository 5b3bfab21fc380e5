/** The programs of an agent through `nat-filtered`: git, ssh, npm, pip and curl in a real guest, against real servers. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Records } from './records.ts';
import { CONTENT, Sources } from './sources.ts';
import { GIT, NPM, OTHER, World } from './world.ts';

let world: World;
let sources: Sources;
let records: Records;
beforeAll(async () => {
  world = await World.create();
  sources = await Sources.create(world);
  await world.agent('setup', 'network');
  await world.agent('create', '--network', 'nat-filtered', '--name', 'one');
  records = new Records(world, 'one');
  await bash('mkdir -p ~/.ssh && ssh-keygen -q -t ed25519 -N "" -f ~/.ssh/id_ed25519');
  await sources.authorize(await bash('cat ~/.ssh/id_ed25519.pub'));
});
afterAll(async () => {
  records[Symbol.dispose]();
  await world.agent('remove', '--force', 'one');
  await world[Symbol.asyncDispose]();
});

const bash = (line: string) => world.bash('one', `cd; ${line}`);
/** Exit code and output of what should fail. */
const failing = (line: string) => bash(`{ ${line}; } 2>&1; echo "exit $?"`);

const SSH = "GIT_SSH_COMMAND='ssh -o StrictHostKeyChecking=accept-new -o ConnectTimeout=20'";
const NPM_INSTALL = (name: string) =>
  `rm -rf app; mkdir app; cd app; npm install --registry http://${name}/ --no-audit --no-fund ` +
  '--no-update-notifier --fetch-retries 0 tiny-app';
const PIP_INSTALL = (name: string) =>
  `rm -rf wheel; pip3 install -q --retries 0 --disable-pip-version-check --no-cache-dir --target wheel ` +
  `--index-url http://${name}/simple/ --trusted-host ${name} tiny-wheel`;

/** Each program, its sources by name: what it prints in the end. */
const PROGRAMS: Record<string, () => string> = {
  curl: () =>
    `curl -sS http://npm.test/tiny-lib | jq -r '.versions[].main | if . == "index.js" then "${CONTENT}" else . end'`,
  'git clone by http': () =>
    'rm -rf http; git clone -q http://git.test/cgi-bin/git/project.git http && cat http/README && git -C http fsck',
  'git clone by ssh': () =>
    `rm -rf ssh; ${SSH} git clone -q ssh://root@git.test${sources.repository} ssh && cat ssh/README && git -C ssh fsck`,
  'npm install': () => `${NPM_INSTALL('npm.test')} >/dev/null && node -p "require('tiny-app')"`,
  'pip install': () =>
    `${PIP_INSTALL('pip.test')} && PYTHONPATH=wheel python3 -c 'import tiny_wheel; print(tiny_wheel.said)'`,
};

describe('where public addresses are open', () => {
  it.each(Object.entries(PROGRAMS))('%s', async (_name, line) => {
    expect(await bash(`${line()} 2>&1 || echo "exit $?"`)).toMatch(
      new RegExp(`^(.*\\n)*${CONTENT}\\n$`),
    );
  });

  it('each is on record with its name', async () => {
    const rule = 'public addresses';
    await records.expect({ kind: 'connection', to: GIT, toPort: 80, name: 'git.test', rule });
    await records.expect({ kind: 'connection', to: GIT, toPort: 22, name: 'git.test', rule });
    await records.expect({ kind: 'connection', to: NPM, toPort: 80, name: 'npm.test', rule });
    await records.expect({ kind: 'connection', toPort: 80, name: 'pip.test', rule });
  });
});

describe('where only names are open', () => {
  beforeAll(async () => {
    // As a host says it whose npm and pip have these settings.
    const settings = [
      'NPM_CONFIG_REGISTRY=http://npm.test/',
      'PIP_INDEX_URL=http://pip.test/simple/',
    ];
    const presets = ['--preset', 'npm', '--preset', 'pip'];
    await world.agentWith(settings, 'net', 'set', 'one', '--allow-domain', 'git.test', ...presets);
    records.clear();
  });

  it.each(Object.entries(PROGRAMS))('%s', async (_name, line) => {
    expect(await bash(`${line()} 2>&1 || echo "exit $?"`)).toMatch(
      new RegExp(`^(.*\\n)*${CONTENT}\\n$`),
    );
  });

  it('each is on record with the name that opened it', async () => {
    for (const [name, toPort] of [
      ['git.test', 80],
      ['git.test', 22],
      ['npm.test', 80],
      ['pip.test', 80],
    ] as const) {
      await records.expect({ kind: 'connection', name, toPort, rule: `--allow-domain ${name}` });
    }
  });

  it('others are refused, names and addresses, and it is said what would allow them', async () => {
    expect(await failing('curl -sS -m 20 http://web.test/')).toMatch(
      /Could not resolve host[^]*exit 6/,
    );
    expect(await failing(`curl -sS -m 20 http://${OTHER}/`)).toMatch(
      /(refused|connect to)[^]*exit 7/,
    );
    expect(await failing('git clone http://other.test/project.git x')).toMatch(
      /Could not resolve host: other\.test[^]*exit 128/,
    );
    expect(await failing(`${SSH} git clone ssh://root@${OTHER}/project.git x`)).toMatch(
      /Connection refused[^]*exit 128/,
    );
    await records.expect({
      kind: 'dns',
      name: 'web.test',
      verdict: 'refused',
      remedy: '--allow-domain web.test',
    });
    for (const toPort of [80, 22]) {
      const remedy = `--allow-cidr ${OTHER}:${toPort}`;
      await records.expect({ kind: 'denied', to: OTHER, toPort, cause: 'policy', remedy });
    }
  });

  it('npm and pip say it too', async () => {
    expect(await failing(NPM_INSTALL(OTHER))).toMatch(/ECONNREFUSED/);
    expect(await failing(PIP_INSTALL('other.test'))).toMatch(/No matching distribution[^]*exit 1/);
  });
});
