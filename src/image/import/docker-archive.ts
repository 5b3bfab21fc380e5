/** What `docker save` wrote before version 25, and `podman save` still does: manifest.json and layer archives. */
import { asList, asObject, parseContainerConfig } from './container-config.ts';
import { readJson, type Bundle } from './bundle.ts';
import { importError, MAKE_ANEW } from './import-error.ts';
import { fileLayer, type Layer } from './layer.ts';
import { checkLayerCount, type ContainerImage } from './oci-layout.ts';

/** The one image of an archive. @throws ImageError there are several, or parts are missing */
export async function openDockerArchive(bundle: Bundle): Promise<ContainerImage> {
  const images = asList(await readJson(bundle, 'manifest.json')).map(asObject);
  const [image] = images;
  if (image === undefined) {
    throw importError(
      `${bundle.label}: manifest.json lists no image`,
      'Give what docker save writes, an OCI layout, or a root filesystem.',
    );
  }
  if (images.length > 1) {
    const names = images.flatMap(({ RepoTags }) => asList(RepoTags).slice(0, 1)).join(', ');
    throw importError(
      `${bundle.label} holds ${images.length} images: ${names}`,
      'Save one image alone: docker save IMAGE.',
    );
  }
  const configName = partName(image['Config'], bundle.label);
  // Named by its own digest, which the image's id is.
  const id = /(?:^|\/)([0-9a-f]{64})(?:\.json)?$/.exec(configName)?.[1];
  const config = parseContainerConfig(await readJson(bundle, configName, id), bundle.label);
  const names = asList(image['Layers']).map((name) => partName(name, bundle.label));
  checkLayerCount(bundle.label, names.length, config);
  const layers: Layer[] = [];
  for (const [index, name] of names.entries()) {
    const label = `layer ${index + 1} of ${names.length} (${name.slice(0, 80)})`;
    const range = await bundle.find(name);
    if (range === undefined) {
      throw importError(
        `${bundle.label} lacks ${label}`,
        'Save the image again: docker save IMAGE.',
      );
    }
    layers.push(fileLayer(range, { label, whiteouts: true, sha256: config.diffIds[index] }));
  }
  return { layers, config };
}

/** A name inside the archive. In an unpacked one it must not lead elsewhere. */
function partName(value: unknown, label: string): string {
  if (
    typeof value === 'string' &&
    /^[\w.-]+(\/[\w.-]+)*$/.test(value) &&
    !/(^|\/)\.\.(\/|$)/.test(value)
  ) {
    return value;
  }
  throw importError(`${label}: manifest.json names no part of the archive`, MAKE_ANEW);
}
