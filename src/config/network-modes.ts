/** Networks of VMs that need no more than a word, for settings and for who makes them. */
export const PLAIN_MODES = ['isolated', 'nat-filtered', 'user'] as const;
