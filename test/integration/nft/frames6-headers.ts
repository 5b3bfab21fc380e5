/** Frames of IPv6 by their headers, whole or broken, and what discovers neighbours. */
import * as f from './frames.ts';
import {
  GUEST,
  GATEWAY,
  OTHER_VM,
  ends,
  packet,
  datagram,
  segment,
  syn,
  icmp,
  frame,
  toGroup,
  type FrameCase,
  deny,
  TCP,
  UDP,
  ICMP6,
  HOP_BY_HOP,
  ROUTING,
  FRAGMENT,
  DESTINATION_OPTIONS,
  NOTHING,
} from './frames6.ts';
import { SITE6 } from './network.ts';

export const six = Buffer.alloc(6);
export const padded = Buffer.from([1, 4, 0, 0, 0, 0]); // an option of padding
export const HEADERS: FrameCase[] = [
  [
    'hop-by-hop options',
    frame(packet({ next: HOP_BY_HOP }, Buffer.concat([f.extension(TCP, padded), segment()]))),
    deny('options'),
  ],
  [
    'a jumbogram',
    frame(
      packet(
        { next: HOP_BY_HOP, length: 0 },
        Buffer.concat([f.extension(TCP, Buffer.from([0xc2, 4, 0, 1, 0, 0])), segment()]),
      ),
    ),
    deny('options'),
  ],
  [
    'a routing header',
    frame(packet({ next: ROUTING }, Buffer.concat([f.extension(TCP, six), segment()]))),
    deny('options'),
  ],
  [
    'a routing header of type 0, by way of a private address',
    frame(
      packet(
        { next: ROUTING },
        Buffer.concat([
          f.extension(
            TCP,
            Buffer.concat([Buffer.from([0, 1, 0, 0, 0, 0]), f.address6('fd12:3456::1')]),
          ),
          segment(),
        ]),
      ),
    ),
    deny('options'),
  ],
  [
    'segment routing',
    frame(
      packet(
        { next: ROUTING },
        Buffer.concat([
          f.extension(
            TCP,
            Buffer.concat([Buffer.from([4, 1, 0, 0, 0, 0]), f.address6('fd12:3456::1')]),
          ),
          segment(),
        ]),
      ),
    ),
    deny('options'),
  ],
  [
    'destination options',
    frame(
      packet({ next: DESTINATION_OPTIONS }, Buffer.concat([f.extension(TCP, padded), segment()])),
    ),
    deny('options'),
  ],
  [
    'options before UDP',
    frame(
      packet(
        { next: DESTINATION_OPTIONS },
        Buffer.concat([f.extension(UDP, padded), f.udp(ends({}), 4000, 443, 'TOKEN')]),
      ),
    ),
    deny('options'),
  ],
  [
    'options before an echo request',
    frame(
      packet(
        { next: DESTINATION_OPTIONS },
        Buffer.concat([
          f.extension(ICMP6, padded),
          f.icmp6(ends({}), 128, 0, Buffer.from('0001TOKEN')),
        ]),
      ),
    ),
    deny('options'),
  ],
  [
    'options before a fragment',
    frame(
      packet(
        { next: DESTINATION_OPTIONS },
        Buffer.concat([f.extension(FRAGMENT, padded), f.fragmentHeader(TCP, 1), segment()]),
      ),
    ),
    deny('options'),
  ],
  [
    'three headers of options',
    frame(
      packet(
        { next: HOP_BY_HOP },
        Buffer.concat([
          f.extension(DESTINATION_OPTIONS, padded),
          f.extension(ROUTING, padded),
          f.extension(TCP, six),
          segment(),
        ]),
      ),
    ),
    deny('options'),
  ],
  ...(
    [
      ['a whole packet as a fragment', 0],
      ['a first fragment', 1],
      ['a middle fragment', 0x81],
      ['a last fragment', 0x80],
    ] as const
  ).map(([name, offset]): FrameCase => [
    name,
    frame(packet({ next: FRAGMENT }, Buffer.concat([f.fragmentHeader(TCP, offset), segment()]))),
    deny('fragment'),
  ]),
  [
    'a fragment of UDP',
    frame(
      packet(
        { next: FRAGMENT },
        Buffer.concat([f.fragmentHeader(UDP, 1), f.udp(ends({}), 4000, 443, 'TOKEN')]),
      ),
    ),
    deny('fragment'),
  ],
  [
    'a fragment with options in it',
    frame(
      packet(
        { next: FRAGMENT },
        Buffer.concat([
          f.fragmentHeader(DESTINATION_OPTIONS, 1),
          f.extension(TCP, padded),
          segment(),
        ]),
      ),
    ),
    deny('fragment'),
  ],
  ['hop limit 0', frame(syn({ hopLimit: 0 })), deny('ttl')],
  ['hop limit 1', frame(syn({ hopLimit: 1 })), deny('ttl')],
  ...(
    [
      ['nothing', NOTHING],
      ['ICMP of IPv4', 1],
      ['IPv4', 4],
      ['IPv6', 41],
      ['GRE', 47],
      ['ESP', 50],
      ['AH', 51],
      ['OSPF', 89],
      ['SCTP', 132],
      ['mobility', 135],
      ['UDP-Lite', 136],
      ['HIP', 139],
      ['an unknown protocol', 253],
    ] as const
  ).map(([name, next]): FrameCase => [
    `${name} as the next header`,
    frame(datagram({ next })),
    deny('protocol'),
  ]),
];

export const solicited = f.address6(GATEWAY);
export const four = Buffer.alloc(4);
export const neighbour = Buffer.concat([four, solicited]);
/** Of a router, for half an hour. */
const ADVERTISED = Buffer.from('40000708' + '00'.repeat(8), 'hex');
export const REPORT = Buffer.concat([
  Buffer.from([0, 0, 0, 1, 4, 0, 0, 0]),
  f.address6('ff02::1:ff00:1'),
]);
export const DISCOVERY: FrameCase[] = [
  [
    'a neighbour solicitation',
    toGroup(icmp({ destination: 'ff02::1:ff00:0', hopLimit: 255 }, 135, neighbour), 'ff:00:00:00'),
    deny('icmpv6'),
  ],
  [
    'one by unicast',
    frame(icmp({ destination: GATEWAY, hopLimit: 255 }, 135, neighbour)),
    deny('icmpv6'),
  ],
  [
    'one from no address (is it mine alone?)',
    toGroup(
      icmp(
        { source: '::', destination: 'ff02::1:ff00:1', hopLimit: 255 },
        135,
        Buffer.concat([four, f.address6(GUEST)]),
      ),
      'ff:00:00:01',
    ),
    deny('icmpv6'),
  ],
  [
    "a neighbour advertisement in the gateway's name",
    frame(
      icmp(
        { destination: GATEWAY, hopLimit: 255 },
        136,
        Buffer.concat([Buffer.from([0xa0, 0, 0, 0]), solicited]),
      ),
    ),
    deny('icmpv6'),
  ],
  [
    "one in another VM's name, for all",
    toGroup(
      icmp(
        { source: OTHER_VM, destination: 'ff02::1', hopLimit: 255 },
        136,
        Buffer.concat([Buffer.from([0x20, 0, 0, 0]), f.address6(OTHER_VM)]),
      ),
    ),
    deny('icmpv6'),
  ],
  [
    'a router solicitation',
    toGroup(icmp({ destination: 'ff02::2', hopLimit: 255 }, 133, four), '00:00:00:02'),
    deny('icmpv6'),
  ],
  [
    'one from a link-local address',
    toGroup(
      icmp({ source: 'fe80::1', destination: 'ff02::2', hopLimit: 255 }, 133, four),
      '00:00:00:02',
    ),
    deny('icmpv6'),
  ],
  [
    'a router advertisement',
    toGroup(icmp({ source: 'fe80::1', destination: 'ff02::1', hopLimit: 255 }, 134, ADVERTISED)),
    deny('icmpv6'),
  ],
  [
    'one at the gateway',
    frame(icmp({ destination: GATEWAY, hopLimit: 255 }, 134, ADVERTISED)),
    deny('icmpv6'),
  ],
  [
    'a redirect',
    frame(
      icmp(
        { destination: GATEWAY, hopLimit: 255 },
        137,
        Buffer.concat([four, f.address6('fd12:3456::1'), f.address6(SITE6)]),
      ),
    ),
    deny('icmpv6'),
  ],
  [
    'a redirect for somebody out there',
    frame(
      icmp(
        { hopLimit: 255 },
        137,
        Buffer.concat([four, f.address6('fd12:3456::1'), f.address6(SITE6)]),
      ),
    ),
    deny('icmpv6'),
  ],
  [
    'a query for listeners',
    toGroup(icmp({ destination: 'ff02::1' }, 130, Buffer.alloc(20))),
    deny('icmpv6'),
  ],
  [
    'a report of a listener',
    toGroup(icmp({ destination: 'ff02::16' }, 131, Buffer.alloc(20)), '00:00:00:16'),
    deny('icmpv6'),
  ],
  [
    'a listener that has done',
    toGroup(icmp({ destination: 'ff02::2' }, 132, Buffer.alloc(20)), '00:00:00:02'),
    deny('icmpv6'),
  ],
  [
    'a report as a kernel sends it: from no address, behind options',
    toGroup(
      packet(
        { source: '::', destination: 'ff02::16', next: HOP_BY_HOP, hopLimit: 1 },
        Buffer.concat([
          f.extension(ICMP6, Buffer.from([5, 2, 0, 0, 1, 0])),
          f.icmp6({ source: '::', destination: 'ff02::16' }, 143, 0, REPORT),
        ]),
      ),
      '00:00:00:16',
    ),
    deny('icmpv6'),
  ],
  [
    'a node information query',
    frame(icmp({ destination: GATEWAY }, 139, Buffer.alloc(20))),
    deny('icmpv6'),
  ],
  [
    'a router renumbering command',
    frame(icmp({ destination: GATEWAY }, 138, Buffer.alloc(20))),
    deny('icmpv6'),
  ],
  ['an error that nobody knows', frame(icmp({}, 5, Buffer.alloc(20))), deny('icmpv6')],
  ['ICMPv6 without a type', frame(packet({ next: ICMP6 }, Buffer.alloc(0))), deny('icmpv6')],
];

export const BROKEN: FrameCase[] = [
  ['another version', frame(syn({ first: 0x40000000 })), deny('protocol')],
  ['a frame of nothing', frame(Buffer.alloc(0)), deny('protocol')],
  ['half of a header', frame(syn().subarray(0, 20)), deny('protocol')],
  ['a header without its destination', frame(syn().subarray(0, 30)), deny('protocol')],
  ['more bytes promised than there are', frame(syn().subarray(0, 50)), deny('protocol')],
  ['a header and nothing behind', frame(packet({ next: TCP }, Buffer.alloc(0))), deny('state')],
  [
    'a TCP segment without its end',
    frame(packet({ next: TCP }, segment().subarray(0, 12))),
    deny('state'),
  ],
  [
    'a UDP datagram without its end',
    frame(packet({}, f.udp(ends({}), 4000, 443, 'TOKEN').subarray(0, 6))),
    deny('state'),
  ],
  [
    'a UDP datagram without its checksum, which its receiver will drop',
    frame(packet({}, withoutChecksum(f.udp(ends({}), 4000, 443, 'TOKEN')))),
    deny('policy'),
  ],
  ['a length of nothing, and bytes behind it', frame(syn({ length: 0 })), deny('state')],
  ['an ACK out of nothing', frame(syn({}, f.ACK, 41_000)), deny('state')],
  ['a RST out of nothing', frame(syn({}, f.RST, 41_001)), deny('state')],
  ['a SYN and ACK out of nothing', frame(syn({}, f.SYN | f.ACK, 41_002)), deny('state')],
  ['a SYN and FIN', frame(syn({}, f.SYN | 1, 41_003)), deny('state')],
  ['a segment without flags', frame(syn({}, 0, 41_004)), deny('state')],
  ['an echo reply out of nothing', frame(icmp({}, 129, Buffer.from('0001TOKEN'))), deny('state')],
  ['an echo request', frame(icmp({}, 128, Buffer.from('0001TOKEN'))), deny('policy')],
  ...[1, 2, 3, 4].map((type): FrameCase => [
    `an error of type ${type} out of nothing`,
    frame(icmp({}, type, Buffer.concat([four, syn({ source: SITE6, destination: GUEST })]))),
    deny('state'),
  ]),
  ['UDP to port 0', frame(packet({}, f.udp(ends({}), 1, 0, 'TOKEN'))), deny('policy')],
];

/** What is in UDP's place 6 and 7. */
function withoutChecksum(whole: Buffer): Buffer {
  whole.writeUInt16BE(0, 6);
  return whole;
}
