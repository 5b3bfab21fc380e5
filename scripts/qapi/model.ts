/** What the schemas of several QEMU versions have in common and differ in, with readable names. */

/** In which of the versions something exists; both undefined where in all. */
export interface Marks {
  from?: string;
  until?: string;
  /** Versions that call it deprecated. */
  deprecated?: string[];
  unstable?: boolean;
}

export interface Member {
  name: string;
  optional: boolean;
  type: TypeNode;
  marks: Marks;
}

export interface EnumNode {
  kind: 'enum';
  name: string;
  values: { value: string; marks: Marks }[];
}

export interface ObjectNode {
  kind: 'object';
  name: string;
  members: Member[];
  /** The member that selects the variant. */
  tag?: string;
  variants: { value: string; type: TypeNode; marks: Marks }[];
  /** Takes members that the schema does not list. */
  open: boolean;
}

export interface AlternateNode {
  kind: 'alternate';
  name: string;
  members: TypeNode[];
}

export type NamedNode = EnumNode | ObjectNode | AlternateNode;

export type TypeNode =
  | NamedNode
  | { kind: 'builtin'; text: string }
  | { kind: 'array'; element: TypeNode }
  /** The versions disagree: any of these. */
  | { kind: 'either'; types: TypeNode[] };

export interface CommandNode {
  name: string;
  args: TypeNode;
  result: TypeNode;
  oob: boolean;
  marks: Marks;
}

export interface EventNode {
  name: string;
  data: TypeNode;
  marks: Marks;
}

export interface Model {
  versions: string[];
  commands: CommandNode[];
  events: EventNode[];
}

/** The types a type is made of. */
export function parts(node: TypeNode): TypeNode[] {
  switch (node.kind) {
    case 'builtin':
    case 'enum':
      return [];
    case 'array':
      return [node.element];
    case 'either':
      return node.types;
    case 'alternate':
      return node.members;
    case 'object':
      return [...node.members, ...node.variants].map(({ type }) => type);
  }
}

/** Whether it is an object without any member. */
export function isEmpty(node: TypeNode): boolean {
  return (
    node.kind === 'object' && node.members.length === 0 && node.variants.length === 0 && !node.open
  );
}
