/** The Node kit beside an image that has a Node of its own: what makes the agent's snapshots for it. */
import type { BuildLog } from '../../firmware/build-process.ts';
import { KIT_SUITE } from '../../firmware/kit-cache.ts';
import { hasOwnNode, type NodeKit } from '../../firmware/node-kit.ts';
import type { Recipe } from '../../firmware/recipe.ts';
import { nodeVersion } from './agent-snapshot.ts';
import type { ImageManifest } from './types.ts';

/** Puts the kit into the cache; `refresh` asks the archive for a newer one. */
type Ensure = (refresh: boolean, signal: AbortSignal) => Promise<NodeKit>;

/**
 * Fetched while packages are installed, for a guest that boots faster with it and boots without: that it
 * cannot be had is no failure of the build.
 */
export class SnapshotNode implements AsyncDisposable {
  readonly #ensure: Ensure;
  readonly #over = new AbortController();
  #kit: Promise<NodeKit | undefined> | undefined;
  #failure: Error | undefined;

  private constructor(ensure: Ensure) {
    this.#ensure = ensure;
  }

  /** Begins once the other kits are there: the processors have enough to do. */
  static fetch(
    recipe: Pick<Recipe, 'suite' | 'packages'>,
    kits: Promise<unknown>,
    ensure: Ensure,
  ): SnapshotNode {
    const node = new SnapshotNode(ensure);
    // Another suite's Node is of another build than any kit.
    if (hasOwnNode(recipe) && recipe.suite === KIT_SUITE) {
      node.#kit = kits.then(
        () => node.#try(false),
        () => undefined, // ends the build
      );
    }
    return node;
  }

  /** Waits for the kit; gets a newer one where the image has been built with a newer Node. */
  async settle(facts: Pick<ImageManifest, 'node' | 'packages'>, log: BuildLog): Promise<void> {
    const kit = await this.#kit;
    const isOld = kit !== undefined && kit.version !== nodeVersion(facts);
    if (isOld) await (this.#kit = this.#try(true));
    const failure = this.#failure;
    if (failure !== undefined) log.line(`# no Node for the agent's snapshots: ${failure.message}`);
  }

  async #try(refresh: boolean): Promise<NodeKit | undefined> {
    try {
      return await this.#ensure(refresh, this.#over.signal);
    } catch (error) {
      this.#failure = error instanceof Error ? error : new Error(String(error));
      return undefined;
    }
  }

  /** Ends what is under way. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#over.abort();
    await this.#kit;
  }
}
