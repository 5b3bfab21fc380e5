/** Whether a tree can be booted at all, and what our init needs of it. */
import { importError, showName } from './import-error.ts';
import type { ImageTree, TreeItem } from './image-tree.ts';
import type { ImportFormat } from './open-source.ts';

/** `e_machine` of what an x86-64 kernel runs (elf.h). */
const EM_386 = 3;
const EM_X86_64 = 62;
const MACHINES: Readonly<Record<number, string>> = {
  8: 'MIPS',
  21: 'PowerPC',
  22: 's390x',
  40: '32-bit ARM',
  183: '64-bit ARM',
  243: 'RISC-V',
  258: 'LoongArch',
};

/**
 * Checks that a tree is a root filesystem, and one for this processor. Container images may be
 * nearly empty (FROM scratch); a tarball without any program is a mistake.
 * @throws ImageError it is not
 */
export function checkTree(tree: ImageTree, format: ImportFormat): void {
  if (tree.root.children.size === 0) {
    throw importError('the source holds no files', 'Give a root filesystem with files in it.');
  }
  const plain = format === 'tarball' || format === 'directory';
  if (plain && !['bin', 'usr/bin', 'sbin'].some((dir) => tree.find(dir)?.kind === 'directory')) {
    const [only, ...others] = tree.root.children.keys();
    throw importError(
      'the source is no root filesystem: it has neither /bin nor /usr/bin',
      others.length === 0 && only !== undefined
        ? `All of it is below ${showName(only)}: archive what is in there (tar --create -C DIR .).`
        : 'Archive the root of a system: tar --create -C ROOTFS .',
    );
  }
  const machine = machineOf(tree.find('bin/sh'));
  if (machine !== undefined && machine !== EM_X86_64 && machine !== EM_386) {
    const name = MACHINES[machine] ?? `machine ${machine}`;
    throw importError(
      `the source is for another processor (${name}), not for amd64`,
      'Get it for linux/amd64.',
    );
  }
}

function machineOf(item: TreeItem | undefined): number | undefined {
  return item?.kind === 'file' ? item.machine : undefined;
}

/** Makes what the init mounts over real directories, and an image's working directory. */
export function prepareTree(tree: ImageTree, workdir: string | undefined): void {
  for (const name of ['proc', 'sys']) tree.ownDirectory(name).children.clear(); // of another kernel
  for (const name of ['dev', 'run', 'tmp']) tree.ownDirectory(name);
  tree.root.children.delete('.qmp-agent'); // where hooks/import puts its own things
  if (workdir !== undefined) tree.makeDirectory(Buffer.from(workdir).toString('latin1'));
}

/** Bytes of the contents, in blocks of ext4, and files that a tree holds. */
export function treeSize(tree: ImageTree): { readonly bytes: number; readonly inodes: number } {
  const BLOCK_BYTES = 4096;
  const seen = new Set<TreeItem>();
  let bytes = 0;
  for (const { item } of tree.items()) {
    if (seen.has(item)) continue;
    seen.add(item);
    const size = item.kind === 'directory' ? BLOCK_BYTES : item.header.sizeBytes;
    bytes += Math.ceil(size / BLOCK_BYTES) * BLOCK_BYTES;
  }
  return { bytes, inodes: seen.size };
}
