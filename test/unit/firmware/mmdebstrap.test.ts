import { describe, expect, it } from 'vitest';
import { BuildLog } from '../../../firmware/build-process.ts';
import { mmdebstrapArgv } from '../../../firmware/mmdebstrap.ts';
import { hasOwnNode } from '../../../firmware/node-kit.ts';

describe('mmdebstrapArgv', () => {
  const options = {
    mode: 'root',
    suite: 'trixie',
    variant: 'apt',
    customizeHooks: ['/w/customize'],
    workDir: '/w',
    host: {
      proxyEnv: { http_proxy: 'http://me:pw@p' },
      aptConf: '',
      caBundle: undefined,
      mirror: undefined,
      localCertificates: new Map<string, Buffer>(),
    },
    log: new BuildLog('/dev/null'),
  } as const;

  it('is a line whose every word is known', () => {
    expect(mmdebstrapArgv(options)).toEqual([
      'mmdebstrap',
      '--mode=root',
      '--variant=apt',
      '--architectures=amd64',
      '--format=null',
      '--skip=cleanup',
      '--customize-hook=/w/customize',
      'trixie',
      '/dev/null',
    ]);
  });

  it('has packages, options and hooks in their order, and files instead of secrets', () => {
    const argv = mmdebstrapArgv(
      { ...options, packages: ['a', 'b'], dpkgOptions: ['x=1'], essentialHooks: ['/w/e'] },
      { aptConf: '/w/apt.conf', sources: '/w/s.list' },
    );
    expect(argv.slice(6)).toEqual([
      '--aptopt=/w/apt.conf',
      '--dpkgopt=x=1',
      '--include=a,b',
      '--essential-hook=/w/e',
      '--customize-hook=/w/customize',
      'trixie',
      '/dev/null',
      '/w/s.list',
    ]);
    expect(argv.join(' ')).not.toContain('pw');
  });
});

describe('hasOwnNode', () => {
  it.each<[string, string[], boolean]>([
    ['trixie', ['nodejs', 'npm'], true],
    ['trixie', ['nodejs=20.19.2-1'], true],
    ['sid', ['nodejs/experimental'], true],
    ['trixie', ['npm'], false],
    ['trixie', ['nodejs-doc'], false],
    ['bookworm', ['nodejs'], false],
  ])('%s with %j: %s', (suite, packages, own) => {
    expect(hasOwnNode({ suite, packages })).toBe(own);
  });
});
