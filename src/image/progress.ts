/** Turns the steps of a build or import into progress reports and events. */
import { events } from '../events.ts';
import type { ImageProgress } from './types.ts';

/** Reports the steps of one build, each once and in order. */
export class StepReporter {
  readonly #image: string;
  readonly #steps: readonly string[];
  readonly #onProgress: ((progress: ImageProgress) => void) | undefined;
  #index = -1;
  #fraction = 0;
  /** The step that is under way. */
  current = 'start';

  constructor(
    image: string,
    steps: readonly string[],
    onProgress?: (progress: ImageProgress) => void,
  ) {
    this.#image = image;
    this.#steps = steps;
    this.#onProgress = onProgress;
  }

  /** A step begins. Names that are not in the list are shown, but do not count. */
  begin(step: string): void {
    const known = this.#steps.indexOf(step);
    if (known >= 0 && known <= this.#index) return;
    if (known >= 0) this.#index = known;
    this.current = step;
    this.#fraction = 0;
    const index = Math.max(this.#index, 0);
    const steps = this.#steps.length;
    events.emit('image.build.step', { image: this.#image, step, index, steps });
    this.#onProgress?.({ step, index, steps });
  }

  /** The step that is under way has come so far, from 0 to 1. Reported at each percent. */
  advance(fraction: number): void {
    if (fraction < this.#fraction + 0.01) return;
    this.#fraction = fraction;
    const index = Math.max(this.#index, 0);
    this.#onProgress?.({ step: this.current, index, steps: this.#steps.length, fraction });
  }
}
