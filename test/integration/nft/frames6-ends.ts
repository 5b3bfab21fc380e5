/** Frames of IPv6 by whom they are from and for. */
import * as f from './frames.ts';
import {
  GATEWAY,
  OTHER_VM,
  OTHER_GATEWAY,
  HONEST,
  IP6,
  datagram,
  segment,
  syn,
  frame,
  toGroup,
  type FrameCase,
  deny,
  allow,
  TCP,
} from './frames6.ts';
import { HOST6, OTHER_SITE6, SITE6 } from './network.ts';

export const PASSED: FrameCase[] = [
  ['an honest SYN', frame(syn()), allow],
  ['with the least hop limit', frame(syn({ hopLimit: 2, destination: OTHER_SITE6 })), allow],
  [
    'with a traffic class and a flow label',
    frame(syn({ first: 0x6ab12345 }, f.SYN, 40_001)),
    allow,
  ],
];

export const TAGGED: FrameCase[] = [
  ['a VLAN tag with VID 0', frame(syn(), [[0x8100, 0]]), deny('ethertype')],
  ['a VLAN tag with VID 5', frame(syn(), [[0x8100, 5]]), deny('ethertype')],
  [
    'two tags of VID 0',
    frame(syn(), [
      [0x8100, 0],
      [0x8100, 0],
    ]),
    deny('ethertype'),
  ],
  [
    'a service tag',
    frame(syn(), [
      [0x88a8, 0],
      [0x8100, 0],
    ]),
    deny('ethertype'),
  ],
];

export const FORGED: FrameCase[] = [
  ...(
    [
      ["another VM's address", OTHER_VM],
      ["the gateway's address", GATEWAY],
      ["the host's address", HOST6],
      ['a public address', '3ffe:ffff::99'],
      ['the destination', SITE6],
      ['a link-local address', 'fe80::bb:ff:fe00:1'],
      ['an address of the same prefix', 'fd00:210::8000:1'],
      ['loopback', '::1'],
      ['no address', '::'],
      ['a multicast address', 'ff02::1'],
      ["the VM's own IPv4 address, mapped", '::ffff:10.210.0.2'],
      ["the VM's own IPv4 address, compatible", '::10.210.0.2'],
    ] as const
  ).map(([name, source]): FrameCase => [
    `${name} as sender`,
    frame(syn({ source })),
    deny('spoof'),
  ]),
  ...(
    [
      ["another VM's", '02:bb:00:00:00:02'],
      ["the gateway's", HONEST.to],
      ['a broadcast', 'ff:ff:ff:ff:ff:ff'],
    ] as const
  ).map(([name, from]): FrameCase => [
    `${name} MAC as sender`,
    f.ethernet({ ...HONEST, from }, IP6, syn()),
    deny('spoof'),
  ]),
  [
    'IPv4 in a frame of IPv6',
    frame(f.ipv4({ source: '10.210.0.2', destination: '203.0.113.10', protocol: TCP }, segment())),
    deny('spoof'),
  ],
  ['IPv6 in a frame of IPv4', f.ethernet(HONEST, 0x0800, syn()), deny('spoof')],
];

export const MISDIRECTED: FrameCase[] = [
  ...(
    [
      ['the broadcast MAC', 'ff:ff:ff:ff:ff:ff'],
      ['a multicast MAC', '33:33:00:00:00:01'],
      ["another VM's MAC", '02:bb:00:00:00:02'],
      ["another gateway's MAC", '02:aa:00:00:00:02'],
    ] as const
  ).map(([name, to]): FrameCase => [
    `to ${name}`,
    f.ethernet({ ...HONEST, to }, IP6, syn()),
    deny('broadcast'),
  ]),
  ['to all nodes', toGroup(datagram({ destination: 'ff02::1' })), deny('broadcast')],
  [
    'multicast DNS',
    toGroup(datagram({ destination: 'ff02::fb' }), '00:00:00:fb'),
    deny('broadcast'),
  ],
  ['DHCPv6', toGroup(datagram({ destination: 'ff02::1:2' }), '00:01:00:02'), deny('broadcast')],
  ...(
    [
      ["all nodes, at the gateway's MAC", 'ff02::1'],
      ['a global group', 'ff0e::1'],
      ['a link-local address', 'fe80::1'],
      ['the end of link-local addresses', 'febf:ffff::1'],
      ['loopback', '::1'],
      ['nobody', '::'],
      ['an IPv4 address, mapped', '::ffff:203.0.113.10'],
      ['a private IPv4 address, mapped', '::ffff:169.254.169.254'],
      ['an IPv4 address, compatible', '::203.0.113.10'],
    ] as const
  ).map(([name, destination]): FrameCase => [
    `to ${name}`,
    frame(syn({ destination })),
    deny('address'),
  ]),
];

export const ELSEWHERE: FrameCase[] = [
  ...(
    [
      ['a unique local address', 'fd12:3456::1', 'reserved'],
      ['the metadata service', 'fd00:ec2::254', 'reserved'],
      ["an address of the pool that is nobody's", 'fd00:210::8000:1', 'reserved'],
      ['a site-local address', 'fec0::1', 'reserved'],
      ['an IPv4 address by NAT64', '64:ff9b::a9fe:a9fe', 'reserved'],
      ['one by local NAT64', '64:ff9b:1::1', 'reserved'],
      ['one by 6to4', '2002:a01:203::1', 'reserved'],
      ['Teredo', '2001::1', 'reserved'],
      ['a documentation address', '2001:db8::1', 'reserved'],
      ['another documentation address', '3fff::1', 'reserved'],
      ['a discard-only address', '100::1', 'reserved'],
      ['a segment identifier', '5f00::1', 'reserved'],
      ['an address that was not given out', '4000::1', 'reserved'],
      ['the gateway', GATEWAY, 'host'],
      ['another address of the host', HOST6, 'host'],
      ["another VM's gateway", OTHER_GATEWAY, 'host'],
      ['another VM', OTHER_VM, 'vm'],
    ] as const
  ).map(([name, destination, cause]): FrameCase => [
    `to ${name}`,
    frame(syn({ destination })),
    deny(cause),
  ]),
];
