/** The name server that guests must use. */
export { Resolver } from './resolver.ts';
export type * from './types.ts';
