/** Most children of one fork. */
export const MAX_CHILDREN = 64;
