import { expect, it } from 'vitest';
import { FairQueue, MAX_PENDING } from '../../../../src/network/lent/fair-queue.ts';

it('one piece is done after the other, also after one that fails', async () => {
  const queue = new FairQueue(0);
  let running = 0;
  const piece = (fails: boolean) => async () => {
    expect(++running).toBe(1);
    await new Promise((resolve) => setTimeout(resolve, 2));
    running -= 1;
    if (fails) throw new Error('no');
  };
  const all = [
    ...[true, false].map((fails) => queue.run(piece(fails))),
    ...[true, false, true].map((fails) => queue.runFor(1, piece(fails))),
  ];
  const results = await Promise.allSettled(all);
  expect(results.map(({ status }) => status)).toEqual([
    ...['rejected', 'fulfilled'],
    ...['rejected', 'fulfilled', 'rejected'],
  ]);
});

it('who asks for much is in nobody’s way for more than one piece', async () => {
  const queue = new FairQueue(0);
  const done: string[] = [];
  const piece = (name: string) => async () => {
    await new Promise((resolve) => setTimeout(resolve, 1));
    done.push(name);
  };
  const much = Array.from({ length: 50 }, (_, n) => queue.runFor(1, piece(`much ${n}`)));
  await queue.runFor(2, piece('little'));
  expect(done.length).toBeLessThanOrEqual(3);
  await queue.run(piece('own'));
  expect(done.length).toBeLessThanOrEqual(6);
  await Promise.all(much);
  expect(done.filter((name) => name.startsWith('much'))).toEqual(much.map((_, n) => `much ${n}`));
});

it('who has too much waiting is refused, he alone, and only until some of it is done', async () => {
  const queue = new FairQueue(0);
  const nothing = () => Promise.resolve();
  const much = Array.from({ length: MAX_PENDING }, () => queue.runFor(1, nothing));
  await expect(queue.runFor(1, nothing)).rejects.toThrow('64 requests of user 1 wait already');
  await queue.runFor(2, nothing);
  await Promise.all(much);
  await new Promise((resolve) => setTimeout(resolve, 20));
  await queue.runFor(1, nothing);
});

it('closed, it ends what was begun and begins nothing more', async () => {
  const queue = new FairQueue(0);
  const done: string[] = [];
  const first = queue.run(async () => {
    await new Promise((resolve) => setTimeout(resolve, 5));
    done.push('first');
  });
  await new Promise((resolve) => setImmediate(resolve));
  const second = queue.runFor(1, () => Promise.resolve(done.push('second')));
  second.catch(() => undefined);
  await queue.close();
  await first;
  await expect(second).rejects.toThrow('no more');
  expect(done).toEqual(['first']);
});
