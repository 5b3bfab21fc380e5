declare const __QMP_AGENT_VERSION__: string | undefined;

/** The agent's version: set when it is bundled. */
export const AGENT_VERSION =
  typeof __QMP_AGENT_VERSION__ === 'string' ? __QMP_AGENT_VERSION__ : '0.0.0-source';
