/** Small archives, made by a library that knows nothing of our reader and writer. */
import { createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import { extract, pack, type Header } from 'tar-stream';
import type { Layer } from '../../../../src/image/import/layer.ts';

/** An entry, and its contents. */
export type Entry = Partial<Header> & Pick<Header, 'name'> & { readonly content?: string | Buffer };

/** A tar archive of these entries. */
export async function tar(...entries: readonly Entry[]): Promise<Buffer> {
  const packer = pack();
  for (const { content, ...header } of entries) {
    const data = Buffer.from(content ?? '');
    packer.entry({ mtime: new Date(1_700_000_000_000), ...header, size: data.length }, data);
  }
  packer.finalize();
  const parts: Buffer[] = [];
  for await (const part of packer) parts.push(part as Buffer);
  return Buffer.concat(parts);
}

/** What another reader finds in an archive. */
export async function untar(archive: AsyncIterable<Buffer>): Promise<Entry[]> {
  const whole: Buffer[] = [];
  for await (const part of archive) whole.push(part);
  const extractor = extract();
  extractor.end(Buffer.concat(whole));
  const found: Entry[] = [];
  for await (const entry of extractor) {
    const parts: Buffer[] = [];
    for await (const part of entry) parts.push(part as Buffer);
    found.push({ ...entry.header, content: Buffer.concat(parts).toString('latin1') });
  }
  return found;
}

/** A layer in memory, handed over in pieces so small that every boundary is hit. */
export function layerOf(archive: Buffer, o: Partial<Layer> = {}): Layer {
  return {
    label: 'layer under test',
    whiteouts: true,
    sizeBytes: archive.length,
    open: ({ onRead }) => inPieces(archive, onRead),
    ...o,
  };
}

/** A buffer in pieces of odd sizes. */
export async function* inPieces(
  buffer: Buffer,
  onRead?: (bytes: number) => void,
): AsyncGenerator<Buffer> {
  for (let from = 0, size = 1; from < buffer.length; from += size, size = (size * 7) % 1009) {
    const piece = buffer.subarray(from, from + size);
    onRead?.(piece.length);
    yield await Promise.resolve(piece);
  }
}

export const sha256 = (data: Buffer | string): string =>
  createHash('sha256').update(data).digest('hex');

const PLATFORM = { os: 'linux', architecture: 'amd64' };

/** Files of an OCI layout by name, with the given layers (gzipped) and settings. */
export function ociLayout(
  layers: readonly Buffer[],
  o: { config?: object; platform?: { os: string; architecture: string } } = {},
): Map<string, Buffer> {
  const files = new Map<string, Buffer>();
  const blob = (mediaType: string, data: Buffer): Record<string, unknown> => {
    files.set(`blobs/sha256/${sha256(data)}`, data);
    return { mediaType, digest: `sha256:${sha256(data)}`, size: data.length };
  };
  const json = (mediaType: string, value: object): Record<string, unknown> =>
    blob(mediaType, Buffer.from(JSON.stringify(value)));
  const oci = (name: string): string => `application/vnd.oci.image.${name}`;
  const config = json(oci('config.v1+json'), {
    ...(o.platform ?? PLATFORM),
    config: o.config ?? {},
    rootfs: { type: 'layers', diff_ids: layers.map((layer) => `sha256:${sha256(layer)}`) },
  });
  const manifest = json(oci('manifest.v1+json'), {
    schemaVersion: 2,
    config,
    layers: layers.map((layer) => blob(oci('layer.v1.tar+gzip'), gzipSync(layer))),
  });
  files.set('oci-layout', Buffer.from('{"imageLayoutVersion":"1.0.0"}'));
  files.set(
    'index.json',
    Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        manifests: [{ ...manifest, platform: o.platform ?? PLATFORM }],
      }),
    ),
  );
  return files;
}

/** Files of what docker save wrote before version 25. */
export function dockerArchive(layers: readonly Buffer[], config: object = {}): Map<string, Buffer> {
  const json = Buffer.from(
    JSON.stringify({
      ...PLATFORM,
      config,
      rootfs: { type: 'layers', diff_ids: layers.map((layer) => `sha256:${sha256(layer)}`) },
    }),
  );
  const names = layers.map((layer, index) => `${sha256(`${index}${sha256(layer)}`)}/layer.tar`);
  return new Map([
    ...layers.map((layer, index) => [names[index]!, layer] as const),
    [`${sha256(json)}.json`, json],
    [
      'manifest.json',
      Buffer.from(
        JSON.stringify([
          { Config: `${sha256(json)}.json`, RepoTags: ['it:latest'], Layers: names },
        ]),
      ),
    ],
  ]);
}

/** Named contents as a tar archive. */
export function tarOf(files: ReadonlyMap<string, Buffer>): Promise<Buffer> {
  return tar(...[...files].map(([name, content]) => ({ name, content })));
}
