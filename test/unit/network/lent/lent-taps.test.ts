import { expect, it } from 'vitest';
import { lentCommands, lentMac } from '../../../../src/network/lent/lent-taps.ts';
import { parseReply, parseRequest } from '../../../../src/network/lent/loan.ts';
import { placeBehindHost, planNetwork } from '../../../../src/network/mode.ts';
import { makePolicy } from '../../../../src/network/policy.ts';

it('a tap is its user’s to open, says whose it is, and is in the group that the rules drop by; it is down', () => {
  expect(lentCommands('qmpa7', 1000)).toEqual({
    make: ['tuntap add dev qmpa7 mode tap user 1000'],
    name: ['link set dev qmpa7 group 20813 address 02:71:6d:70:61:01 alias qmp-agent:lent:1000'],
  });
});

it('the guest has the MAC address of its tap, whichever VM it is', () => {
  const addresses = [1, 255, 256, 32_767].map(lentMac);
  expect(addresses[0]).toBe('02:71:6d:71:00:01');
  expect(new Set(addresses).size).toBe(addresses.length);
  const network = {
    ...{ tap: 'qmpa1', mac: lentMac(1), guestAddress: '10.210.0.3', gatewayAddress: '10.210.0.2' },
    ...{ generation: 1, policy: makePolicy({}).rules },
  };
  const plan = planNetwork('nat-filtered', '0123456789ab', placeBehindHost(network));
  expect(plan.nic.mac).toBe(lentMac(1));
  expect(plan.guest).toMatchObject({ mac: lentMac(1) });
});

it('what is no request is none, whatever it is', () => {
  const id = '0123456789abcdef0123456789abcdef';
  expect(parseRequest('{"do":"take","more":1}')).toEqual({ do: 'take' });
  expect(parseRequest(JSON.stringify({ do: 'renew', id }))).toEqual({ do: 'renew', id });
  expect(parseRequest(JSON.stringify({ do: 'give', id }))).toEqual({ do: 'give', id });
  expect(parseRequest(JSON.stringify({ do: 'forget', id }))).toEqual({ do: 'forget', id });
  const wrong = [
    '',
    'take',
    'null',
    '[]',
    '{"do":"give"}',
    '{"do":"undo"}',
    '{"do":"give","id":7}',
  ];
  const paths = ['../../etc', `${id}/..`, `${id}\n`, id.slice(1), id.toUpperCase(), ''].map(
    (text) => JSON.stringify({ do: 'give', id: text }),
  );
  for (const line of [...wrong, ...paths]) expect(parseRequest(line)).toBeUndefined();
});

it('a reply that was cut off is none', () => {
  const reply = { refused: 'all are taken', hint: 'End a VM.' };
  const line = `${JSON.stringify(reply)}\n`;
  expect(parseReply(line)).toEqual(reply);
  for (const cut of ['', '\n', line.slice(0, -1), `${line.slice(0, 20)}\n`])
    expect(parseReply(cut)).toBeUndefined();
});
