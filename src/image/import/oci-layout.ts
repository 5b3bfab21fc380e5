/** OCI image layouts (image-spec image-layout.md), as skopeo, buildah, podman and docker since 25 write them. */
import {
  asList,
  asObject,
  hexDigest,
  parseContainerConfig,
  type ContainerConfig,
} from './container-config.ts';
import { readJson, type Bundle } from './bundle.ts';
import { sha256OfRange } from './file-range.ts';
import { DO_NOT_TRUST, importError, MAKE_ANEW } from './import-error.ts';
import { fileLayer, type Layer } from './layer.ts';

/** A container image, ready to be read. */
export interface ContainerImage {
  readonly layers: readonly Layer[];
  readonly config: ContainerConfig;
}

interface Descriptor {
  /** Hex. */
  readonly sha256: string;
  readonly sizeBytes: number;
  readonly mediaType: string;
  /** `os/architecture`, where it says so. */
  readonly platform: string | undefined;
  /** Name in the layout. */
  readonly ref: string | undefined;
}

/** Where an index lists indexes; real ones do so once. */
const MAX_NESTED = 4;
/** Docker allows 127. */
const MAX_LAYERS = 512;
const WANTED = 'linux/amd64';

/** The image for amd64 in a layout. @throws ImageError there is none, or several, or parts are missing */
export async function openOciLayout(bundle: Bundle, signal?: AbortSignal): Promise<ContainerImage> {
  const manifest = await chosenManifest(bundle, await readJson(bundle, 'index.json'), 0);
  const { config, layers } = asObject(await readBlob(bundle, manifest));
  const configJson = await readBlob(bundle, descriptor(config, bundle.label));
  const parsed = parseContainerConfig(configJson, bundle.label);
  const list = asList(layers).map((layer) => descriptor(layer, bundle.label));
  checkLayerCount(bundle.label, list.length, parsed);
  const opened: Layer[] = [];
  for (const [index, layer] of list.entries()) {
    opened.push(await openLayer(bundle, layer, index, list.length, parsed.diffIds[index], signal));
  }
  return { layers: opened, config: parsed };
}

/** @throws ImageError there are too many, or not as many as the configuration names */
export function checkLayerCount(label: string, count: number, config: ContainerConfig): void {
  if (count > MAX_LAYERS) throw importError(`${label} has ${count} layers`, DO_NOT_TRUST);
  if (count !== config.diffIds.length) {
    throw importError(
      `${label} has ${count} layers, but its configuration names ${config.diffIds.length}`,
      MAKE_ANEW,
    );
  }
}

async function chosenManifest(bundle: Bundle, index: unknown, depth: number): Promise<Descriptor> {
  const all = asList(asObject(index)['manifests']).map((entry) => descriptor(entry, bundle.label));
  const fitting = all.filter(({ platform }) => platform === WANTED);
  const candidates =
    fitting.length > 0 ? fitting : all.filter(({ platform }) => platform === undefined);
  const [chosen] = candidates;
  if (chosen === undefined) {
    const platforms = all.map(({ platform }) => platform).join(', ');
    throw importError(
      `${bundle.label} holds no image for ${WANTED}${platforms === '' ? '' : `, only for ${platforms}`}`,
      'Get it for this platform: docker pull --platform linux/amd64 IMAGE.',
    );
  }
  // Tags of one image are entries with one digest.
  if (candidates.some(({ sha256 }) => sha256 !== chosen.sha256))
    throw several(bundle.label, candidates);
  if (!/\.(index|manifest\.list)\./.test(chosen.mediaType)) return chosen;
  if (depth >= MAX_NESTED) {
    throw importError(`${bundle.label}: indexes within indexes, ${MAX_NESTED} deep`, DO_NOT_TRUST);
  }
  return chosenManifest(bundle, await readBlob(bundle, chosen), depth + 1);
}

function several(label: string, candidates: readonly Descriptor[]): Error {
  const names = candidates.map(({ ref, sha256 }) => ref ?? sha256.slice(0, 12)).join(', ');
  return importError(
    `${label} holds several images: ${names}`,
    'Save one image alone: docker save IMAGE, or skopeo copy … oci-archive:FILE.',
  );
}

function descriptor(value: unknown, label: string): Descriptor {
  const { digest, size, mediaType, platform, annotations } = asObject(value);
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) {
    throw importError(`${label}: a descriptor has no size`, MAKE_ANEW);
  }
  const { os, architecture } = asObject(platform);
  const ref = asObject(annotations)['org.opencontainers.image.ref.name'];
  return {
    sha256: hexDigest(digest, label),
    sizeBytes: size,
    mediaType: typeof mediaType === 'string' ? mediaType : '',
    platform:
      typeof os === 'string' && typeof architecture === 'string'
        ? `${os}/${architecture}`
        : undefined,
    ref: typeof ref === 'string' ? ref : undefined,
  };
}

function blobName({ sha256 }: Descriptor): string {
  return `blobs/sha256/${sha256}`;
}

async function readBlob(bundle: Bundle, blob: Descriptor): Promise<unknown> {
  return readJson(bundle, blobName(blob), blob.sha256);
}

async function openLayer(
  bundle: Bundle,
  blob: Descriptor,
  index: number,
  count: number,
  diffId: string | undefined,
  signal: AbortSignal | undefined,
): Promise<Layer> {
  const label = `layer ${index + 1} of ${count} (${blob.sha256.slice(0, 12)})`;
  const range = await bundle.find(blobName(blob));
  if (range === undefined) {
    throw importError(
      `${bundle.label} lacks ${label}`,
      'Save the image again, whole: docker save IMAGE, or skopeo copy … oci-archive:FILE.',
    );
  }
  const digest = range.sizeBytes === blob.sizeBytes ? await sha256OfRange(range, signal) : '';
  if (digest !== blob.sha256) {
    const found =
      digest === '' ? `${range.sizeBytes} bytes instead of ${blob.sizeBytes}` : 'another SHA-256';
    throw importError(
      `${bundle.label}: ${label} is not what the manifest says: it has ${found}`,
      MAKE_ANEW,
    );
  }
  return fileLayer(range, { label, whiteouts: true, sha256: diffId });
}
