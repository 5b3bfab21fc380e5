/** What people see while something takes its time. On stderr, and only on a terminal. */
import type { CliContext } from './context.ts';

/** Something that can be ended; idempotent. */
export interface Spinner {
  stop(): void;
}

/** Below this nobody needs to be told that something is going on. */
const SPINNER_AFTER_MS = 400;

/** Shows a spinner where stderr is a terminal. Loads its package only then, and only if it takes long. */
export function startSpinner(context: CliContext, text: string): Spinner {
  if (!context.stderr.isTTY || context.json) return { stop: () => undefined };
  let stopped = false;
  let spinner: { stop(): unknown } | undefined;
  const timer = setTimeout(() => {
    void import('ora').then(({ default: ora }) => {
      if (stopped) return;
      // The terminal's stdin is the guest command's.
      spinner = ora({
        text,
        stream: context.stderr,
        discardStdin: false,
        hideCursor: false,
      }).start();
    });
  }, SPINNER_AFTER_MS);
  return {
    stop() {
      stopped = true;
      clearTimeout(timer);
      spinner?.stop();
    },
  };
}

/** A long job with steps. */
export interface StepProgress {
  /** Step `index` of `steps` (from 0) is at `fraction` (0 to 1). */
  update(o: { step: string; index: number; steps: number; fraction?: number | undefined }): void;
  stop(): void;
}

/** A bar on a terminal; else a quiet line a step; with `--json` a JSON line a step on stdout. */
export async function startSteps(context: CliContext, title: string): Promise<StepProgress> {
  if (context.json) {
    return eachStep((o) => context.print(JSON.stringify({ progress: o })));
  }
  if (!context.stderr.isTTY) {
    return eachStep((o) => context.note(`${title}: ${o.step} (${o.index + 1}/${o.steps})`));
  }
  const { default: progress } = await import('cli-progress');
  const bar = new progress.SingleBar({
    format: `${title} {bar} {percentage}% | {step} | {duration_formatted}`,
    barCompleteChar: '█',
    barIncompleteChar: '░',
    barsize: 24,
    stream: context.stderr,
    hideCursor: null,
    clearOnComplete: true,
  });
  bar.start(1000, 0, { step: '' });
  // The elapsed time goes on even where a step has no fraction.
  const timer = setInterval(() => bar.updateETA(), 1000);
  return {
    update({ step, index, steps, fraction }) {
      bar.update(Math.round(((index + (fraction ?? 0)) / Math.max(1, steps)) * 1000), { step });
    },
    stop() {
      clearInterval(timer);
      bar.stop();
    },
  };
}

type Step = Parameters<StepProgress['update']>[0];

function eachStep(tell: (step: Step) => void): StepProgress {
  let last = -1;
  return {
    update(step) {
      if (step.index === last) return;
      last = step.index;
      tell(step);
    },
    stop: () => undefined,
  };
}
