/**
 * The answer of `query-qmp-schema`: every command and event, and the types they use under masked
 * names. Source: QEMU's qapi/introspect.json.
 */
export interface SchemaMember {
  name: string;
  type: string;
  /** Present (as null) where the member is optional. */
  default?: unknown;
  features?: string[];
}

interface Common {
  name: string;
  features?: string[];
}

export type SchemaEntity =
  | (Common & { 'meta-type': 'builtin'; 'json-type': string })
  | (Common & {
      'meta-type': 'enum';
      values: string[];
      members?: { name: string; features?: string[] }[];
    })
  | (Common & { 'meta-type': 'array'; 'element-type': string })
  | (Common & {
      'meta-type': 'object';
      members: SchemaMember[];
      tag?: string;
      variants?: { case: string; type: string }[];
    })
  | (Common & { 'meta-type': 'alternate'; members: { type: string }[] })
  | (Common & {
      'meta-type': 'command';
      'arg-type': string;
      'ret-type': string;
      'allow-oob'?: boolean;
    })
  | (Common & { 'meta-type': 'event'; 'arg-type': string });

export type EntityOf<M extends SchemaEntity['meta-type']> = Extract<
  SchemaEntity,
  { 'meta-type': M }
>;

/** The schema of one QEMU version. */
export class Schema {
  /** `major.minor`. */
  readonly version: string;
  readonly entities: ReadonlyMap<string, SchemaEntity>;

  constructor(version: string, entities: readonly SchemaEntity[]) {
    this.version = version;
    this.entities = new Map(entities.map((entity) => [entity.name, entity]));
  }

  /** @throws Error where the schema lacks it or has something else under this name. */
  get(name: string): SchemaEntity {
    const entity = this.entities.get(name);
    if (!entity) throw new Error(`schema of QEMU ${this.version} has no ${name}`);
    return entity;
  }

  names(metaType: 'command' | 'event'): string[] {
    return [...this.entities.values()]
      .filter((entity) => entity['meta-type'] === metaType)
      .map(({ name }) => name);
  }
}
