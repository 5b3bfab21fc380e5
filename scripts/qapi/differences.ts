import { parts } from './model.ts';
import type { Marks, Model, TypeNode } from './model.ts';

/**
 * What not every version has: commands and events by their name; members and values of a command's
 * arguments, at any depth, as `command.name`, because QEMU names no more than that when it refuses
 * one. A name that a command also has where no version lacks it is left out, unless it is that of an
 * argument itself: there the refusal has another reason.
 */
export function differences({ commands, events }: Model): Map<string, Marks> {
  const found = new Map<string, Marks>();
  for (const { name, marks } of events) if (differs(marks)) found.set(name, marks);
  for (const { name, args, marks } of commands) {
    if (differs(marks)) {
      found.set(name, marks);
      continue; // what it takes differs with it
    }
    const own = args.kind === 'object' ? args.members : [];
    const nested = namedMarks(args);
    const alike = new Set(nested.filter((part) => !differs(part.marks)).map((part) => part.name));
    for (const part of [...nested.filter((part) => !alike.has(part.name)), ...own]) {
      if (differs(part.marks)) found.set(`${name}.${part.name}`, part.marks);
    }
  }
  return new Map([...found].sort(([a], [b]) => (a < b ? -1 : 1)));
}

function differs({ from, until }: Marks): boolean {
  return from !== undefined || until !== undefined;
}

interface NamedMarks {
  name: string;
  marks: Marks;
}

/** The members and values in a type, however deep. */
function namedMarks(from: TypeNode): NamedMarks[] {
  const found: NamedMarks[] = [];
  const seen = new Set<TypeNode>();
  const todo = [from];
  for (let node = todo.pop(); node; node = todo.pop()) {
    if (seen.has(node)) continue;
    seen.add(node);
    if (node.kind === 'enum') {
      found.push(...node.values.map(({ value, marks }) => ({ name: value, marks })));
    } else if (node.kind === 'object') {
      found.push(...node.members.map(({ name, marks }) => ({ name, marks })));
    }
    todo.push(...parts(node));
  }
  return found;
}
