/** What an image is, on disk and in memory. */

/** Version of {@link ImageManifest} that this program writes; it refuses later ones. */
export const IMAGE_SCHEMA = 1;

/** One file of an image. */
export interface ImageFile {
  /** Bytes. */
  readonly sizeBytes: number;
  /** Hex. */
  readonly sha256: string;
}

/** `manifest.json` of an image. */
export interface ImageManifest {
  readonly schema: number;
  readonly name: string;
  /** 12 hex digits of {@link recipeHash}. */
  readonly id: string;
  /** SHA-256 of everything that goes into the build; of the source for an imported image. */
  readonly recipeHash: string;
  /** Where it is from. */
  readonly origin: 'build' | 'import';
  /** ISO 8601. */
  readonly createdAt: string;
  /** Debian suite; undefined for imported images. */
  readonly suite?: string | undefined;
  /** `uname -r` of the kernel. */
  readonly kernelVersion: string;
  /** `arch` of the image. */
  readonly arch: 'amd64';
  /** Virtual size of the disk. */
  readonly virtualBytes: number;
  /** The image's files by name: `rootfs.qcow2`. */
  readonly files: Readonly<Record<string, ImageFile>>;
  /** Installed packages (`name version`); empty where there is no dpkg database. */
  readonly packages: readonly string[];
  /** Environment of every exec, as in the image's recipe or OCI config. */
  readonly environment: Readonly<Record<string, string>>;
  /** User that execs run as where none is named. */
  readonly user: string;
  /** Working directory of execs where none is named; undefined: the user's home. */
  readonly workdir?: string | undefined;
  /** OCI entrypoint and command, for information. */
  readonly entrypoint?: readonly string[] | undefined;
  readonly command?: readonly string[] | undefined;
  /** `image`: the guest's own Node runs the agent; `bundled`: one that we added under /opt/qmp-agent. */
  readonly node: 'image' | 'bundled';
}

/** An image in the store, checked as far as `get` does. */
export interface Image {
  readonly name: string;
  /** 12 hex digits, changes with the contents. */
  readonly id: string;
  readonly dir: string;
  /** Read-only qcow2, the backing file of every VM's disk. */
  readonly rootfsPath: string;
  readonly rootfsVirtualBytes: number;
  /** ELF vmlinux, or bzImage where it could not be extracted. */
  readonly kernelPath: string;
  readonly manifest: ImageManifest;
}

/** What QEMU's `-kernel` and `-initrd` get. */
export interface BootFiles {
  readonly kernelPath: string;
  readonly initramfsPath: string;
}

/** Where a build or an import stands. */
export interface ImageProgress {
  readonly step: string;
  /** From 0. */
  readonly index: number;
  readonly steps: number;
  /** Of this step, 0 to 1, where it is known. */
  readonly fraction?: number | undefined;
}
