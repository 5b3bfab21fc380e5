/** VMs on the host's network. */
export { attachVm, type AttachOptions, detachVm, stateKey, sweepTaps } from './attach.ts';
export { DEFAULT_POOL, GATEWAY_MAC, parsePool, TAP_PREFIX } from './endpoint.ts';
export { isForwarding, setUpNetwork, type SetupStep, undoNetworkSetup } from './setup.ts';
